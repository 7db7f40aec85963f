"""Halton's sequence over a square grid: an order in which every beginning is spread evenly.

>>> halton_order(2).tolist()
[1, 2, 0, 3]
"""

import torch
from jaxtyping import Int
from torch import Tensor


def halton_order(side: int) -> Int[Tensor, " cells"]:
    """Cells (row * side + column) of a side x side grid, in the order Halton's points reach them.

    Point number i lies at the reversed digits of i in base 2 (column) and in base 3 (row); a cell
    counts when a point first falls into it. The points are dense, so every cell's turn comes.

    Raises:
        ValueError: the grid has no cell.
    """
    if side < 1:
        raise ValueError(f"side is {side}; a grid needs at least one cell")
    order: dict[int, None] = {}
    point = 1
    while len(order) < side * side:
        column, row = _reversed(point, 2), _reversed(point, 3)
        order[int(row * side) * side + int(column * side)] = None
        point += 1
    return torch.tensor(list(order))


def _reversed(number: int, base: int) -> float:
    """The radical inverse: digits mirrored behind the point, in [0, 1)."""
    value, share = 0.0, 1.0
    while number:
        number, digit = divmod(number, base)
        share /= base
        value += digit * share
    return value
