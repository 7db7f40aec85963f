import numpy as np
import pytest
import torch

from unflat.nn.halton import halton_order


@pytest.mark.parametrize("side", [1, 2, 3, 8, 16])
def test_every_cell_has_one_turn(side: int) -> None:
    assert sorted(halton_order(side).tolist()) == list(range(side * side))


def test_the_first_points_are_haltons() -> None:
    # Bases 2 and 3, points 1 to 4: (1/2, 1/3), (1/4, 2/3), (3/4, 1/9), (1/8, 4/9).
    expected = [(2, 4), (5, 2), (0, 6), (3, 1)]
    order = halton_order(8)[:4]
    assert list(zip((order // 8).tolist(), (order % 8).tolist(), strict=True)) == expected


def test_every_beginning_is_spread_evenly_over_the_quarters() -> None:
    """A shuffled order is not, nor is one row by row."""

    def most_uneven(order: torch.Tensor) -> int:
        quarter = order // 8 // 4 * 2 + order % 8 // 4
        counts = torch.nn.functional.one_hot(quarter, 4).cumsum(0)
        return int((counts.amax(1) - counts.amin(1)).max())

    shuffled = [
        most_uneven(torch.randperm(64, generator=torch.Generator().manual_seed(seed)))
        for seed in range(20)
    ]
    assert most_uneven(halton_order(8)) <= 3
    assert np.median(shuffled) > 4
    assert most_uneven(torch.arange(64)) == 16


def test_a_grid_without_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="side is 0; a grid needs"):
        halton_order(0)
