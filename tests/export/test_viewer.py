"""The page: what stands in it, without a browser."""

import base64
import hashlib
import io
import json
import math
import re
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from unflat.errors import UserError
from unflat.export import Layer, write_viewer
from unflat.export.viewer_page import pack_words
from unflat.geometry.camera import Camera


def write(folder, layers, camera, **changes) -> str:
    options = {"title": "cat.jpg", "info": {}, "max_angle_deg": 12.0, "pivot_depth": 3.0}
    return write_viewer(layers, camera, folder / "viewer.html", **(options | changes)).read_text()


def data_of(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


def pictures_of(page: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]*)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in found]


def unpack(packed: str, width: int, height: int) -> np.ndarray:
    data = np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8).astype(np.int64)
    zigzag = (data[: width * height] * 256 + data[width * height :]).reshape(height, width)
    residual = np.where(zigzag % 2 == 1, -(zigzag + 1) // 2, zigzag // 2)
    return residual.cumsum(0).cumsum(1) % 65536


def test_words_come_back_from_their_packing():
    random = np.random.default_rng(0)
    for words in (
        random.integers(0, 65536, (7, 5)),
        np.full((3, 4), 65535),
        np.tile(np.arange(9) * 8000, (2, 1)),
    ):
        packed = base64.b64encode(zlib.compress(pack_words(words.astype(np.uint16)))).decode()
        np.testing.assert_array_equal(unpack(packed, words.shape[1], words.shape[0]), words)


def test_page_holds_the_layers(tmp_path, marked_layers, camera):
    page = write(tmp_path, marked_layers, camera)
    data = data_of(page)
    for layer, grid, picture in zip(marked_layers, data["layers"], pictures_of(page), strict=True):
        rgb = np.asarray(picture)
        np.testing.assert_array_equal(rgb, (layer.rgb.numpy() * 255).round().astype(np.uint8))
        words = unpack(grid["words"], grid["width"], grid["height"])
        disparity = grid["low"] + words / 65535 * (grid["high"] - grid["low"])
        np.testing.assert_allclose(disparity, 1 / layer.depth.numpy(), atol=1e-5)
    flags = np.frombuffer(zlib.decompress(base64.b64decode(data["layers"][0]["flags"])), np.uint8)
    # The blue square is 16 pixels wide: 16 cuts to the right on each of two sides.
    assert ((flags & 2) > 0).sum() == ((flags & 4) > 0).sum() == 32
    assert data["intrinsics"] == pytest.approx(camera.intrinsics.reshape(4).tolist())


def test_only_its_own_scripts_and_styles_are_allowed(tmp_path, marked_layers, camera):
    page = write(tmp_path, marked_layers, camera)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    styles = re.findall(r"<style>(.*?)</style>", page, re.S)
    assert len(scripts) == 1
    assert styles
    for text in scripts + styles:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not re.search(r"(src|href)=\"(?!data:)", page), "a file from elsewhere"
    assert not re.search(r"\son\w+=|\sstyle=", page), "the policy would refuse it"


def test_words_of_others_stay_words(tmp_path, marked_layers, camera):
    evil = '</script><script>alert("x")</script>@DATA@'
    page = write(tmp_path, marked_layers, camera, title=evil, info={"licence": evil}, describe=evil)
    assert page.count("<script") == 2
    assert data_of(page)["info"]["licence"] == evil
    assert "<title>&lt;/script&gt;" in page


def test_holes_take_the_colour_around_them(tmp_path, camera):
    rgb = torch.zeros(9, 13, 3)
    rgb[..., 0] = 1.0
    mask = torch.ones(9, 13, dtype=torch.bool)
    mask[2:7, 3:9] = False
    rgb[~mask] = torch.tensor([0.0, 1.0, 0.0])
    page = write(tmp_path, [Layer(rgb, torch.full((9, 13), 2.0), mask)], camera)
    assert (np.asarray(pictures_of(page)[0]) == (255, 0, 0)).all()
    assert data_of(page)["aspect"] == pytest.approx(13 / 9)


def test_empty_layers_behind_are_taken_and_an_empty_scene_is_refused(
    tmp_path, marked_layers, camera
):
    empty = Layer(torch.zeros(4, 4, 3), torch.zeros(4, 4), torch.zeros(4, 4, dtype=torch.bool))
    assert len(data_of(write(tmp_path, [marked_layers[0], empty], camera))["layers"]) == 2
    with pytest.raises(UserError, match="no surface to show"):
        write(tmp_path, [empty], camera)


def test_a_scene_of_512_pixels_stays_below_4_megabytes(tmp_path):
    """Fine texture and noisy depth in three layers, the third with holes."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 96, 96, generator=generator)
    rgb = torch.nn.functional.interpolate(coarse, (512, 512), mode="bicubic")[0].permute(1, 2, 0)
    rgb = (rgb + 0.03 * torch.randn(512, 512, 3, generator=generator)).clamp(0, 1)
    shape = torch.nn.functional.interpolate(
        1 + torch.rand(1, 1, 12, 12, generator=generator), (512, 512), mode="bicubic"
    )[0, 0]
    depth = shape * (1 + 0.002 * torch.randn(512, 512, generator=generator))
    everywhere = torch.ones(512, 512, dtype=torch.bool)
    layers = [Layer(rgb, depth, everywhere), Layer(rgb, depth + 1, everywhere)]
    layers += [Layer(rgb, depth + 2, depth > 1.5)]
    page = write(tmp_path, layers, Camera.from_fov(math.radians(50)))
    assert len(page) < 4e6


def test_hidden_layers_stay_behind_the_picture(tmp_path, marked_layers, camera):
    forward = Layer(
        marked_layers[1].rgb, torch.full_like(marked_layers[1].depth, 3.0), marked_layers[1].mask
    )
    data = data_of(write(tmp_path, [marked_layers[0], forward], camera))
    first, second = (
        grid["low"] + unpack(grid["words"], 48, 48) / 65535 * (grid["high"] - grid["low"])
        for grid in data["layers"]
    )
    assert (second <= first + 1e-5).all()
    assert second.max() == pytest.approx(1 / 3), "behind the square it stays where it was"


def test_large_pictures_are_made_smaller_and_keep_their_places(tmp_path, camera):
    size = 1100
    rgb = torch.linspace(0, 1, size)[None, :, None].expand(size, size, 3)
    everywhere = torch.ones(size, size, dtype=torch.bool)
    page = write(tmp_path, [Layer(rgb, 1 + rgb[..., 0], everywhere)], camera)
    (grid,) = data_of(page)["layers"]
    assert max(grid["width"], grid["height"]) <= 512
    words = unpack(grid["words"], grid["width"], grid["height"])
    u = grid["u0"] + np.arange(grid["width"]) * grid["du"]
    disparity = grid["low"] + words[5] / 65535 * (grid["high"] - grid["low"])
    np.testing.assert_allclose(disparity, 1 / (1 + u), atol=2e-3)
    assert max(pictures_of(page)[0].size) == 1024


def test_unwritable_place_is_a_sentence(tmp_path, marked_layers, camera):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, not a folder"):
        write(tmp_path / "file", marked_layers, camera)
