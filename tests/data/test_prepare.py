import io
import math

import numpy as np
import pytest
import torch
from made_pictures import picture_of, png
from PIL import Image

from unflat.data.prepare import fov_from_exif, prepare_picture
from unflat.errors import UserError

FOCAL, FOCAL_FILM, WIDTH, HEIGHT = 0x920A, 0xA405, 0xA002, 0xA003


def jpeg(picture, tags=None, orientation=None):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    exif.get_ifd(0x8769).update(tags or {})
    stream = io.BytesIO()
    picture.save(stream, "JPEG", exif=exif, quality=95)
    return stream.getvalue()


def test_the_centred_square_at_two_sizes():
    values = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    prepared = prepare_picture(png(values), 24)
    square = values[:, 32:128]
    assert prepared.source_size == (160, 96)
    assert prepared.crop == (32, 0, 128, 96)
    np.testing.assert_allclose(prepared.image.permute(1, 2, 0) * 255, square, atol=1e-4)
    blocks = square.reshape(24, 4, 24, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(prepared.model_image.permute(1, 2, 0) * 255, blocks, atol=0.51)
    assert prepared.alpha == "none"
    assert prepared.fov is None
    assert prepared.notes == ("the centre 96x96 of 160x96 is used",)


def test_square_pictures_need_no_note():
    assert prepare_picture(png(picture_of(0, 64)), 32).notes == ()


@pytest.mark.parametrize("ground", ["white", "grey"])
def test_transparency_is_composited_and_said(ground):
    values = np.zeros((64, 64, 4), np.uint8)
    values[:, 32:] = (10, 20, 30, 255)
    prepared = prepare_picture(png(values), 16, ground=ground)
    level = 1.0 if ground == "white" else 128 / 255
    torch.testing.assert_close(prepared.model_image[:, :, 0], torch.full((3, 16), level))
    assert prepared.alpha == f"over {ground}"
    assert prepared.notes == (f"transparent parts are put over {ground}",)
    values[..., 3] = 255
    assert prepare_picture(png(values), 16).alpha == "opaque"


def test_large_photographs_are_limited_and_say_so():
    picture = Image.new("RGB", (700, 500), (10, 200, 30))
    prepared = prepare_picture(jpeg(picture), 32, detail_side=128)
    assert prepared.image.shape == (3, 128, 128)
    assert prepared.crop == (100, 0, 600, 500)  # in the file's own pixels
    assert "detail is limited to 128x128" in prepared.notes


def test_small_pictures():
    with pytest.raises(UserError) as caught:
        prepare_picture(png(picture_of(0, 32)), 64, name="icon.png")
    assert str(caught.value) == (
        "icon.png: 32x32 is below the 64 pixels this model needs; give a larger picture."
    )
    prepared = prepare_picture(png(picture_of(0, 80)), 128)
    assert prepared.model_image.shape == (3, 128, 128)
    assert prepared.image.shape == (3, 80, 80)
    assert any("smaller than the model's 128 pixels" in note for note in prepared.notes)


def test_open_pictures_and_paths_give_the_same(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(picture_of(0, 64)))
    from_path = prepare_picture(path, 16)
    with Image.open(path) as picture:
        from_picture = prepare_picture(picture, 16)
    assert torch.equal(from_path.model_image, from_picture.model_image)
    with pytest.raises(UserError, match="there is no such file"):
        prepare_picture(tmp_path / "b.png", 16)


def test_fov_from_the_film_equivalent():
    # A 3:2 picture at 50 mm equivalent: 24 mm of film across the square.
    expected = 2 * math.atan(12 / 50)
    assert fov_from_exif({FOCAL_FILM: 50}, (3000, 2000)) == (pytest.approx(expected), None)
    # turned upright, the same lens
    assert fov_from_exif({FOCAL_FILM: 50}, (2000, 3000))[0] == pytest.approx(expected)
    # 4:3 has the same diagonal but other sides: 43.27 * 3/5 across its shorter one
    shorter = math.hypot(36, 24) * 3 / 5
    wide = fov_from_exif({FOCAL_FILM: 50}, (4000, 3000))[0]
    assert wide == pytest.approx(2 * math.atan(shorter / 2 / 50))


def test_fov_from_focal_length_and_sensor():
    # 6000 pixels over 36 mm, 50 mm lens, picture reduced to half its size since.
    tags = {FOCAL: 50.0, WIDTH: 6000, HEIGHT: 4000, 0xA20E: 6000 / 36, 0xA210: 4}
    expected = 2 * math.atan(12 / 50)
    assert fov_from_exif(tags, (6000, 4000))[0] == pytest.approx(expected)
    assert fov_from_exif(tags, (3000, 2000))[0] == pytest.approx(expected)
    inches = {**tags, 0xA20E: 6000 / 36 * 25.4, 0xA210: 2}
    assert fov_from_exif(inches, (6000, 4000))[0] == pytest.approx(expected)
    assert fov_from_exif({FOCAL: 50.0}, (6000, 4000)) == (None, None)


def test_fov_is_not_believed_blindly():
    cut = {FOCAL_FILM: 50, WIDTH: 3000, HEIGHT: 2000}
    assert fov_from_exif(cut, (2000, 2000)) == (
        None,
        "it was cut after it was taken, so its EXIF focal length is not used",
    )
    assert fov_from_exif({FOCAL_FILM: 50_000}, (300, 200))[0] is None
    assert "implausible" in fov_from_exif({FOCAL_FILM: 50_000}, (300, 200))[1]
    for broken in (0, -5, "wide", b"\0", None, float("nan"), (1, 2)):
        assert fov_from_exif({FOCAL_FILM: broken}, (300, 200)) == (None, None)


@pytest.mark.parametrize("orientation", [1, 6])
def test_fov_and_rotation_come_from_the_file(orientation):
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    )
    prepared = prepare_picture(jpeg(picture, {FOCAL_FILM: 50}, orientation), 32)
    assert prepared.fov == pytest.approx(2 * math.atan(12 / 50))
    assert prepared.source_size == ((150, 100) if orientation == 1 else (100, 150))
    assert prepared.crop == ((25, 0, 125, 100) if orientation == 1 else (0, 25, 100, 125))
