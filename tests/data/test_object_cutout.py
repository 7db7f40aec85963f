"""Objects out of pictures: by alpha, by a mask, from a plain backdrop; and what is refused."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from unflat.data import cutout
from unflat.data.cutout import cut_out
from unflat.errors import UserError


def drawn(path: Path, mode: str = "RGB", backdrop=(240, 240, 240), box=(30, 20, 80, 60)) -> Path:
    """A red block with a hole of the backdrop's color, on 120 x 80 pixels."""
    picture = Image.new(mode, (120, 80), (*backdrop, 0) if mode == "RGBA" else backdrop)
    solid = (200, 30, 30, 255) if mode == "RGBA" else (200, 30, 30)
    picture.paste(solid, box)
    if mode == "RGB":
        picture.paste(backdrop, (50, 35, 56, 41))
    picture.save(path)
    return path


def expected(box=(30, 20, 80, 60)) -> np.ndarray:
    """Where the block is once the picture is squared: 20 empty rows above and below."""
    there = np.zeros((120, 120), dtype=bool)
    there[box[1] + 20 : box[3] + 20, box[0] : box[2]] = True
    return there


def test_transparency_tells_the_object(tmp_path: Path) -> None:
    found = cut_out(drawn(tmp_path / "a.png", "RGBA"))
    assert found.source == "alpha"
    assert found.image.shape == (3, 120, 120)
    there = found.opacity.numpy() > 0.5
    assert np.array_equal(there, expected())
    color = found.image.numpy()[:, there].mean(axis=1) * 255
    np.testing.assert_allclose(color, (200, 30, 30), atol=1)
    assert found.warnings == ()


def test_a_plain_backdrop_tells_it_and_holes_of_its_color_stay(tmp_path: Path) -> None:
    found = cut_out(drawn(tmp_path / "a.png"))
    assert found.source == "backdrop"
    assert np.array_equal(found.opacity.numpy() > 0.5, expected())


def test_a_mask_wins(tmp_path: Path) -> None:
    path = drawn(tmp_path / "a.png", "RGBA")
    mask = Image.new("L", (240, 160))
    mask.paste(255, (20, 20, 60, 60))  # of twice the size
    mask.save(tmp_path / "mask.png")
    found = cut_out(path, tmp_path / "mask.png")
    assert found.source == "mask"
    assert np.array_equal(found.opacity.numpy() > 0.5, expected(box=(10, 10, 30, 30)))
    Image.new("L", (240, 240)).save(tmp_path / "square.png")
    with pytest.raises(UserError, match="240x240, other proportions"):
        cut_out(path, tmp_path / "square.png")


def test_a_busy_picture_needs_something_that_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    monkeypatch.setattr(cutout.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"nothing tells the object.*segment"):
        cut_out(tmp_path / "noise.png")


def test_a_segmenter_is_asked_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for rembg, which answers as it does: a grey picture of the same size."""
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    mask = Image.new("L", (90, 60))
    mask.paste(255, (30, 20, 60, 50))

    def remove(picture: Image.Image, only_mask: bool) -> Image.Image:
        assert picture.mode == "RGB"
        assert only_mask
        return mask

    rembg = ModuleType("rembg")
    monkeypatch.setattr(rembg, "remove", remove, raising=False)
    monkeypatch.setitem(sys.modules, "rembg", rembg)
    monkeypatch.setattr(cutout.importlib.util, "find_spec", lambda name: name)
    found = cut_out(tmp_path / "noise.png")
    assert found.source == "segmenter"
    assert float(found.opacity.sum()) == pytest.approx(900)

    def fails(picture: Image.Image, only_mask: bool) -> Image.Image:
        raise ConnectionError("no route")

    monkeypatch.setattr(rembg, "remove", fails)
    with pytest.raises(UserError, match="could not get its network"):
        cut_out(tmp_path / "noise.png")


def test_an_empty_picture_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (80, 80), (255, 255, 255)).save(tmp_path / "white.png")
    with pytest.raises(UserError, match="found no object"):
        cut_out(tmp_path / "white.png")
    with pytest.raises(UserError, match="no such file"):
        cut_out(tmp_path / "nothing.png")


def test_what_is_cut_off_and_what_is_two_is_told(tmp_path: Path) -> None:
    left = drawn(tmp_path / "left.png", "RGBA", box=(0, 20, 40, 60))
    assert any("cut by the left edge" in one for one in cut_out(left).warnings)
    two = Image.open(drawn(tmp_path / "two.png", "RGBA"))
    two.paste((0, 0, 200, 255), (90, 20, 110, 60))
    two.save(tmp_path / "two.png")
    (warning,) = cut_out(tmp_path / "two.png").warnings
    assert "2 separate parts" in warning
    small = Image.open(drawn(tmp_path / "small.png", "RGBA"))
    small.paste((0, 0, 200, 255), (90, 20, 94, 24))  # a crumb is none
    small.save(tmp_path / "small.png")
    assert cut_out(tmp_path / "small.png").warnings == ()


def test_large_pictures_are_reduced(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (900, 600))
    picture.paste((10, 200, 10, 255), (300, 150, 600, 450))
    picture.save(tmp_path / "large.png")
    found = cut_out(tmp_path / "large.png", side=300)
    assert found.image.shape == (3, 300, 300)
    assert float(found.opacity.mean()) == pytest.approx(100 * 100 / 300**2, abs=0.002)
