import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_balls import run_lengths

from unflat.data.run_length import run_length_mask
from unflat.errors import UserError


def test_runs_go_down_the_columns_and_begin_with_nothing():
    # 1 0 0
    # 1 1 0   column by column: 1 1, 0 1, 0 0
    wanted = [[True, False, False], [True, True, False]]
    assert run_length_mask({"size": [2, 3], "counts": [0, 2, 1, 1, 2]}).tolist() == wanted
    # The same as text: 0, 2, 1, then 1 - 2 = -1 (bits 11111: 'O'), then 2 - 1 = 1.
    for text in (b"021O1", "021O1"):
        assert run_length_mask({"size": [2, 3], "counts": text}).tolist() == wanted


def test_numbers_of_several_characters():
    # 1000 = 31 * 32 + 8: low bits 8 with "more follow" (48 + 40 = "X"), then 31, whose bit 16 would
    # be a sign, so it has "more follow" too (48 + 63 = "o"), then 0.
    mask = run_length_mask({"size": [1000, 1], "counts": "Xo0"})
    assert mask.shape == (1000, 1)
    assert not mask.any()


@given(st.integers(1, 90), st.integers(1, 60), st.integers(0, 2**32 - 1), st.booleans())
def test_there_and_back(height, width, seed, is_text):
    generator = np.random.default_rng(seed)
    smooth = generator.normal(size=(height, width)).cumsum(0).cumsum(1)  # runs long and short
    mask = smooth > np.median(smooth)
    assert (run_length_mask(run_lengths(mask, is_text)) == mask).all()


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (None, "is no run lengths"),
        ({"size": [2, 2]}, "is no run lengths"),
        ({"size": [2, 2], "counts": [3]}, "do not fill 2x2"),
        ({"size": [2, 2], "counts": [5, -1]}, "do not fill"),
        ({"size": [2, 2], "counts": "o"}, "cut short"),
        ({"size": [2, 2], "counts": "ooooooooo0"}, "no place"),
        ({"size": [2, 2], "counts": b"\xff"}, "no place"),
        ({"size": [2, 2], "counts": "\u00e9"}, "cannot be read"),
        ({"size": [2], "counts": [4]}, "cannot be read"),
        ({"size": [10**9, 10**9], "counts": [10**18]}, "size is"),
        ({"size": [0, 2], "counts": [0]}, "size is"),
    ],
)
def test_damaged_runs_are_refused(stored, reason):
    with pytest.raises(UserError, match=reason):
        run_length_mask(stored)
