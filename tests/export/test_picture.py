import numpy as np
import pytest
import torch
from PIL import Image

from unflat.errors import UserError
from unflat.export import (
    colorize_disparity,
    contact_sheet,
    preview_strip,
    to_uint8,
    write_depth,
    write_png,
)


def flat(color: tuple[int, int, int], height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), color, dtype=np.uint8)


def test_png_holds_the_picture_upright(tmp_path):
    image = torch.zeros(3, 4, 6)
    image[0, 0] = 1.0
    image[2, :, 0] = 0.5
    path = write_png(image, tmp_path / "a.png")
    back = np.asarray(Image.open(path))
    assert back.shape == (4, 6, 3)
    assert back[0, 3].tolist() == [255, 0, 0]
    assert back[3, 0].tolist() == [0, 0, 128]
    np.testing.assert_array_equal(to_uint8(image), back)
    np.testing.assert_array_equal(to_uint8(torch.full((3, 1, 1), 7.0)), flat((255,) * 3, 1, 1))


def test_depth_comes_back_from_levels_and_exactly(tmp_path):
    depth = torch.linspace(0.5, 9, 24).reshape(4, 6)
    depth[0, 0] = torch.inf
    scale = write_depth(depth, tmp_path / "depth.png")
    levels = np.asarray(Image.open(tmp_path / "depth.png"))
    assert levels.dtype == np.uint16
    assert levels[0, 0] == 0
    np.testing.assert_allclose(levels.ravel()[1:] * scale, depth.ravel()[1:], atol=scale / 2 + 1e-6)
    assert levels.max() == 65535
    np.testing.assert_array_equal(np.load(tmp_path / "depth.npy"), depth.numpy())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth.npy", "depth.png"]


def test_disparity_colours_rise_evenly_in_lightness():
    ramp = colorize_disparity(torch.linspace(2, 5, 256)[None])[0].astype(float) / 255
    linear = np.where(ramp <= 0.04045, ramp / 12.92, ((ramp + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = np.cbrt(luminance)
    assert (np.diff(lightness) > -0.003).all()
    assert lightness[0] < 0.2
    assert lightness[-1] > 0.88
    fit = np.polyfit(np.arange(256), lightness, 1)
    assert np.abs(np.polyval(fit, np.arange(256)) - lightness).max() < 0.06


def test_disparity_limits_and_holes():
    disparity = torch.tensor([[0.0, 1.0, 2.0, torch.nan]])
    own, given = colorize_disparity(disparity), colorize_disparity(disparity, low=0, high=4)
    assert own[0, 3].tolist() == [128, 128, 128]
    assert own[0, 2].tolist() != given[0, 2].tolist()
    assert own[0, 1].tolist() == given[0, 2].tolist()
    assert colorize_disparity(torch.full((2, 2), torch.nan)).shape == (2, 2, 3)
    assert np.ptp(colorize_disparity(torch.ones(2, 2))) >= 0


def test_contact_sheet_places_pictures_in_rows():
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    sheet = contact_sheet([flat(color, 4, 6) for color in colors], columns=2, gap=2)
    assert sheet.shape == (10, 14, 3)
    assert sheet[0, 0].tolist() == [255, 0, 0]
    assert sheet[3, 8].tolist() == [0, 255, 0]
    assert sheet[6, 0].tolist() == [0, 0, 255]
    assert sheet[8, 10].tolist() == sheet[4, 0].tolist(), "empty cells are paper"
    assert contact_sheet([flat((9, 9, 9), 2, 2), flat((9, 9, 9), 4, 4)]).shape == (4, 12, 3)


def test_preview_strip_is_as_wide_as_asked_and_labels_differ():
    pictures = [("input", flat((255, 0, 0), 30, 30)), ("depth", flat((0, 0, 255), 60, 120))]
    strip = preview_strip(pictures, width=1024)
    assert strip.shape[1] == 1024
    height = strip.shape[0] - 24
    assert height == round(1020 / 3)
    assert strip[height // 2, 100].tolist() == [255, 0, 0]
    assert strip[height // 2, 900].tolist() == [0, 0, 255]
    assert strip[height:].min() < 100, "no label drawn"
    other = preview_strip([("other", pictures[0][1]), pictures[1]], width=1024)
    assert (other[height:] != strip[height:]).any()
    assert (other[:height] == strip[:height]).all()
    assert preview_strip([("a label much longer than its picture " * 3, pictures[0][1])] * 9).any()


def test_nothing_to_show_is_refused():
    with pytest.raises(ValueError, match="no pictures"):
        contact_sheet([])
    with pytest.raises(ValueError, match="no pictures"):
        preview_strip([])


def test_unwritable_place_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, not a folder"):
        write_png(flat((0, 0, 0), 2, 2), tmp_path / "file" / "a.png")
