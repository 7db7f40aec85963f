import io

import numpy as np
import pytest
from made_pictures import disparity_of, png

from unflat.data.disparity import read_disparity, square_disparity
from unflat.errors import UserError


def npz(**arrays):
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def test_eight_and_sixteen_bit_png():
    values = disparity_of(0)
    np.testing.assert_array_equal(read_disparity(png(values), "a"), values)
    wide = values.astype(np.uint16) * 257
    np.testing.assert_array_equal(read_disparity(png(wide), "a"), wide)
    rgb = np.repeat(values[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_disparity(png(rgb), "a"), values)


def test_npz_by_name():
    depth = np.array([[1.0, 2.0], [0.0, np.inf], [np.nan, -1.0]])
    expected = np.array([[1.0, 0.5], [0.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(read_disparity(npz(depth=depth), "a"), expected)
    np.testing.assert_allclose(read_disparity(npz(disparity=expected), "a"), expected)
    np.testing.assert_allclose(read_disparity(npz(inverse_depth=expected[None]), "a"), expected)
    with pytest.raises(UserError, match="none of disparity, inverse_depth, depth"):
        read_disparity(npz(other=depth), "a")
    with pytest.raises(UserError, match="not height x width"):
        read_disparity(npz(depth=np.ones(4)), "a")


def test_pickled_arrays_are_refused():
    with pytest.raises(UserError, match="damaged"):
        read_disparity(npz(disparity=np.array([{"a": 1}], dtype=object)), "a")


def test_damaged_files_are_one_sentence():
    whole = npz(disparity=np.random.default_rng(0).random((20, 20)))
    for content in (whole[: len(whole) // 2], png(disparity_of(0))[:60], b"", b"PK\3\4"):
        with pytest.raises(UserError, match=r"^a: its disparity .*\.$"):
            read_disparity(content, "a")


def test_area_average_of_the_same_square_as_the_picture():
    values = np.random.default_rng(0).random((32, 48))
    got = square_disparity(values, 8, (480, 320), "a")
    blocks = values[:, 8:40].reshape(8, 4, 8, 4).mean(axis=(1, 3))
    expected = (blocks - blocks.min()) / (blocks.max() - blocks.min())
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert got.min() == 0
    assert got.max() == 1


def test_enlarging_does_not_make_steps():
    ramp = np.tile(np.arange(8.0), (8, 1))
    got = square_disparity(ramp, 32, (32, 32), "a")
    assert np.abs(np.diff(got, axis=1)).max() < 1.3 / 28  # bilinear; nearest would give 1/7
    assert np.all(np.diff(got, axis=1) >= 0)


@pytest.mark.parametrize("size", [(320, 480), (480, 480), (480, 300)])
def test_another_aspect_ratio_is_refused(size):
    with pytest.raises(UserError, match="must have the same aspect ratio"):
        square_disparity(np.random.default_rng(0).random((32, 48)), 8, size, "a")


def test_rounded_aspect_ratio_is_accepted():
    square_disparity(np.random.default_rng(0).random((21, 31)), 8, (500, 333), "a")


def test_constant_map_is_refused():
    with pytest.raises(UserError, match="the same everywhere"):
        square_disparity(np.full((8, 8), 3.0), 8, (8, 8), "a")
