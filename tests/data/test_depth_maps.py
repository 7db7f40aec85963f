import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_pictures import png

from unflat.data.depth_maps import as_disparity, encode_disparity, normalized_disparity, read_map
from unflat.data.disparity import read_disparity
from unflat.errors import UserError

VALUES = np.random.default_rng(0).uniform(1.0, 9.0, (6, 10)).astype(np.float32)


def pfm(values, scale):
    order = "<f4" if scale < 0 else ">f4"
    kind = "PF" if values.ndim == 3 else "Pf"
    header = f"{kind}\n{values.shape[1]} {values.shape[0]}\n{scale}\n".encode()
    return header + values[::-1].astype(order).tobytes()


def npy(values):
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("a.npy", npy(VALUES)),
        ("a.npy", npy(VALUES[None, ..., None])),
        ("a.npz", npz(pred=VALUES)),
        ("a.npz", npz(depth=VALUES[::-1], disparity=VALUES)),
        ("a.npz", npz(inverse_depth=VALUES, other=VALUES[::-1])),
        ("a.pfm", pfm(VALUES, -1.0)),
        ("a.PFM", pfm(VALUES, 1.0)),
        ("a.pfm", pfm(np.stack([VALUES, 0 * VALUES, 0 * VALUES], -1), -1.0)),
    ],
)
def test_every_kind_of_file_gives_its_values(tmp_path, file, content):
    (tmp_path / file).write_bytes(content)
    np.testing.assert_array_equal(read_map(tmp_path / file, "disparity"), VALUES)


def test_png_of_both_depths_and_of_color(tmp_path):
    wide = (VALUES * 7000).astype(np.uint16)
    narrow = (VALUES * 25).astype(np.uint8)
    for values in (wide, narrow, np.repeat(narrow[..., None], 3, axis=2)):
        (tmp_path / "a.png").write_bytes(png(values))
        expected = values if values.ndim == 2 else values[..., 0]
        np.testing.assert_array_equal(read_map(tmp_path / "a.png", "disparity"), expected)


def test_depth_is_turned_round_and_the_sky_is_farthest(tmp_path):
    depth = np.array([[1.0, 4.0, 2.0], [0.0, np.inf, -1.0]])
    expected = np.array([[1.0, 0.25, 0.5], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(as_disparity(depth, "depth", "a"), expected)
    (tmp_path / "a.npz").write_bytes(npz(depth=depth, confidence=depth))
    np.testing.assert_allclose(read_map(tmp_path / "a.npz", "depth"), expected)
    found = normalized_disparity(expected, tail=0.0)
    assert found[0, 0] == 1, "the nearest is 1"


@given(st.floats(0.01, 100), st.floats(0, 50), st.integers(0, 2**31))
def test_normalized_does_not_depend_on_scale_and_shift(scale, shift, seed):
    values = np.random.default_rng(seed).random((9, 11))
    once = normalized_disparity(values)
    assert once.min() == 0
    assert once.max() == 1
    np.testing.assert_allclose(normalized_disparity(scale * values + shift), once, atol=1e-6)
    order = np.argsort(values, axis=None)
    assert (np.diff(once.ravel()[order]) >= 0).all(), "near stays near"


def test_the_ends_are_quantiles_and_outliers_are_clipped():
    values = np.arange(1000.0).reshape(20, 50)
    values[0, 0] = -1e6
    values[-1, -1] = 1e6
    found = normalized_disparity(values)
    assert (found == 0).mean() == pytest.approx(0.02, abs=2e-3)
    assert (found == 1).mean() == pytest.approx(0.02, abs=2e-3)
    inner = found[10, :]
    np.testing.assert_allclose(np.diff(inner), 1 / 959, rtol=0.01)
    small = np.zeros((40, 40))
    small[3, 3:5] = (1.0, 2.0)  # less than 2 % of the pixels are not ground
    np.testing.assert_allclose(normalized_disparity(small)[3, 3:5], (0.5, 1.0))


def test_a_written_map_is_read_as_the_data_sets_read_it():
    disparity = normalized_disparity(VALUES.astype(np.float64))
    back = read_disparity(encode_disparity(disparity), "a") / 65535
    np.testing.assert_allclose(back, disparity, atol=0.51 / 65535)


@pytest.mark.parametrize(
    ("file", "content", "meaning", "words"),
    [
        ("a.exr", b"v/1", "depth", r"is no depth map unflat can read; give \.png, \.npy"),
        ("a.npy", npy(np.full((3, 3), np.nan)), "depth", "holds NaN; fill its holes"),
        ("a.npy", npy(np.array([[1.0, np.inf]] * 2)), "disparity", "infinity; if it is depth"),
        ("a.npy", npy(np.full((3, 3), 2.0)), "disparity", "the same everywhere"),
        ("a.npy", npy(np.zeros((3, 3))), "depth", "the same everywhere"),
        ("a.npy", npy(np.ones((3, 3, 2))), "depth", r"shape \(3, 3, 2\), not a map"),
        ("a.npy", npy(np.array([["a", "b"]] * 2)), "depth", "not a map of height x width"),
        ("a.npy", npy(VALUES)[:-40], "depth", "the map is damaged"),
        ("a.npy", b"text", "depth", "the map is damaged"),
        ("a.npz", npz(disparity=VALUES), "depth", "holds disparity, but was said to hold depth"),
        ("a.npz", npz(a=VALUES, b=VALUES), "depth", "holds a, b; name one array depth"),
        ("a.npz", b"PK\3\4", "depth", "the map is damaged"),
        ("a.pfm", b"P5\n3 3\n", "depth", r"damaged \(no PFM header\)"),
        ("a.pfm", pfm(VALUES, -1.0)[:-8], "depth", "the map is damaged"),
        ("a.png", png(VALUES.astype(np.uint8))[:50], "depth", "damaged"),
    ],
)
def test_what_is_no_map_is_one_sentence(tmp_path, file, content, meaning, words):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        read_map(tmp_path / file, meaning, name="tom")
    assert str(caught.value).startswith("tom: ")
    assert str(caught.value).endswith(".")
    with pytest.raises(UserError, match="there is no such file"):
        read_map(tmp_path / "lost.npy", "depth")
