"""A picture framed for a model, and the folder of its views: whole files, cameras that are read."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from unflat.data import open_views
from unflat.errors import UserError
from unflat.systems.zero123.model import Views
from unflat.systems.zero123.prepare import Prepared, prepare, published_frame
from unflat.systems.zero123.view_folder import Asked, ViewFolder, picture_hash

SIDE = 16


def disk(height=40, width=60, radius=10, middle=(20, 25)):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    away = ((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2).sqrt()
    opacity = (away <= radius).float()
    color = torch.tensor([0.8, 0.2, 0.1])[:, None, None].expand(3, height, width)
    return color.clone(), opacity


@pytest.mark.parametrize("foreground", [0.5, 0.8])
def test_centered_puts_the_box_in_the_middle_at_its_share(foreground):
    image, opacity = disk()
    found = prepare(image, opacity, 64, foreground=foreground)
    there = found.opacity > 0.5
    rows, columns = there.any(1).nonzero(), there.any(0).nonzero()
    for span in (rows, columns):
        assert float(span.max() - span.min() + 1) == pytest.approx(64 * foreground, abs=1.5)
        assert float(span.max() + span.min() + 1) / 2 == pytest.approx(32, abs=1)
    # the color of the object, and white; nothing bleeds in between
    inside = found.image[:, 32, 32]
    torch.testing.assert_close(inside, torch.tensor([0.8, 0.2, 0.1]), atol=0.01, rtol=0)
    mixed = found.opacity * inside[:, None, None] + 1 - found.opacity
    torch.testing.assert_close(found.image, mixed, atol=0.02, rtol=0)


def test_an_object_at_the_border_is_not_cut_by_framing():
    image, opacity = disk(middle=(5, 5))
    found = prepare(image, opacity, 64, foreground=0.5)
    assert float(found.opacity[:, :8].max()) < 0.01  # room on the side where the picture ended
    assert float(found.opacity.mean()) > 0.1


def test_published_shrinks_but_never_enlarges():
    image, opacity = disk(radius=10)
    found = prepare(image, opacity, 256, framing="published")
    assert int((found.opacity > 0.5).any(1).sum()) == 21
    large = prepare(*disk(600, 600, 280, (300, 300)), 256, framing="published")
    assert int((large.opacity > 0.5).any(1).sum()) == pytest.approx(200, abs=1)


def test_published_frame_is_the_authors_one(pytestconfig):
    stored = np.load(pytestconfig.rootpath / "tests" / "fixtures" / "zero123" / "image.npz")
    off = np.abs(published_frame(stored["rgba"]).astype(int) - stored["auto"])
    assert off.max() <= 1
    assert (off > 0).mean() < 0.01


def test_as_is_resizes_the_whole_picture_like_the_authors(pytestconfig):
    stored = np.load(pytestconfig.rootpath / "tests" / "fixtures" / "zero123" / "image.npz")
    rgba = torch.from_numpy(stored["rgba"]).permute(2, 0, 1).float() / 255
    found = prepare(rgba[:3], rgba[3], 256, framing="as-is").image.permute(1, 2, 0)[::4, ::4]
    assert float((found - torch.from_numpy(stored["plain_stride4"])).abs().max()) < 1 / 255


def test_an_empty_picture_is_refused():
    with pytest.raises(UserError, match="shows no object"):
        prepare(torch.zeros(3, 8, 8), torch.zeros(8, 8), 16)


def asked(*azimuths, elevation=20.0, sample=0):
    return [
        Asked(azimuth_deg=float(a), elevation_deg=elevation, distance=0.0, sample=sample)
        for a in azimuths
    ]


def views(count):
    generator = torch.Generator().manual_seed(0)
    opacity = torch.zeros(count, SIDE, SIDE)
    opacity[:, 4:12, 3:13] = 1
    image = torch.rand(count, 3, SIDE, SIDE, generator=generator)
    return Views(opacity[:, None] * image + 1 - opacity[:, None], opacity)


def fill(folder, made, places):
    for place in places:
        folder.write(place, made, place)


def shown():
    one = views(1)
    return Prepared(one.image[0], one.opacity[0])


def test_names_tell_the_pose():
    names = [
        Asked(azimuth_deg=30.0, elevation_deg=-5.0, distance=0.0, sample=0).name,
        Asked(azimuth_deg=7.5, elevation_deg=0.0, distance=0.25, sample=2).name,
    ]
    assert names == ["az030_el-05.png", "az007.5_el00_d+0.25_3.png"]


def test_what_is_written_is_read_again_with_its_cameras(tmp_path):
    made = views(4)
    folder = ViewFolder(tmp_path / "mug", asked(0, 90, 180, 270), {"seed": 0})
    assert folder.open(force=False, resume=False) == [0, 1, 2, 3]
    fill(folder, made, range(4))
    names = folder.finish(shown(), 5.0)
    assert {"sheet.png", "input.png", "transforms.json"} < set(names)
    assert any(name.startswith("orbit.") for name in names)
    torch.testing.assert_close(folder.read(), made.image, atol=0.51 / 255 + 1e-3, rtol=0)
    found = open_views(tmp_path / "mug", SIDE)
    assert len(found.images) == 4
    assert found.camera is not None
    told = folder.cameras(5.0)
    order = [
        int((found.camera.position - told.position[i]).norm(dim=-1).argmin()) for i in range(4)
    ]
    assert sorted(order) == [0, 1, 2, 3]
    torch.testing.assert_close(
        found.camera.camera_to_world[order], told.camera_to_world, atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(found.camera.intrinsics[order], told.intrinsics)
    assert found.masks is not None
    assert float(found.masks[0].float().mean()) == pytest.approx(255 * 80 / 256, abs=1)


def test_the_first_camera_is_the_pictures_own(tmp_path):
    folder = ViewFolder(tmp_path, asked(0, elevation=5.0), {})
    position = folder.cameras(5.0).position[0]
    assert float(position[0]) == pytest.approx(0, abs=1e-6)
    assert math.degrees(math.asin(float(position[1] / position.norm()))) == pytest.approx(5)


def test_an_interrupted_run_goes_on_with_what_is_missing(tmp_path):
    made, place = views(3), tmp_path / "mug"
    first = ViewFolder(place, asked(0, 90, 180), {"seed": 0})
    first.open(force=False, resume=False)
    fill(first, made, [1])
    again = ViewFolder(place, asked(0, 90, 180), {"seed": 0})
    with pytest.raises(UserError, match="interrupted run; add --resume"):
        again.open(force=False, resume=False)
    assert again.open(force=False, resume=True) == [0, 2]
    other = ViewFolder(place, asked(0, 90, 180), {"seed": 1})
    with pytest.raises(UserError, match="begun with other options"):
        other.open(force=False, resume=True)
    assert (place / "az090_el20.png").exists()
    assert other.open(force=True, resume=False) == [0, 1, 2]


def test_results_and_other_files_are_not_lost(tmp_path):
    place = tmp_path / "mug"
    folder = ViewFolder(place, asked(0), {})
    folder.open(force=False, resume=False)
    fill(folder, views(1), [0])
    (place / "report.json").write_text("{}")
    with pytest.raises(UserError, match="already holds a result; add --force"):
        folder.open(force=False, resume=True)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    for force in (False, True):
        with pytest.raises(UserError, match="holds other files"):
            ViewFolder(mine, asked(0), {}).open(force=force, resume=False)
    (place / "notes.txt").write_text("mine")
    folder.open(force=True, resume=False)
    assert (place / "notes.txt").exists()
    assert json.loads((place / "views.json").read_text())["views"] == ["az000_el20.png"]


def test_a_picture_is_known_again():
    first = shown()
    assert picture_hash(first) == picture_hash(shown())
    changed = Prepared(first.image.clone(), first.opacity)
    changed.image[0, 5, 5] += 0.1
    assert picture_hash(changed) != picture_hash(first)


def test_views_without_opacity_are_written_as_they_are(tmp_path):
    made = Views(views(1).image, None)
    folder = ViewFolder(tmp_path / "mug", asked(0), {})
    folder.open(force=False, resume=False)
    fill(folder, made, [0])
    with Image.open(tmp_path / "mug" / "az000_el20.png") as written:
        assert written.mode == "RGB"
    torch.testing.assert_close(folder.read(), made.image, atol=0.51 / 255, rtol=0)
