"""Means over squares of any size, at one cost.

>>> import torch
>>> box_mean(torch.eye(3)[None, None], 1)[0, 0, 1]
tensor([0.3333, 0.3333, 0.3333])
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def box_mean(
    pictures: Float[Tensor, "batch channels height width"], radius: int
) -> Float[Tensor, "batch channels height width"]:
    """The mean of the square around every pixel; beyond the border the last pixel goes on.

    Differences of running sums, along rows and then along columns, so that the square's size costs
    nothing (Crow 1984). float32 keeps some five digits over a row of thousands of pixels.

    Args:
        pictures: any range.
        radius: pixels; the square's side is 2 radius + 1.
    """
    size = 2 * radius + 1
    padded = functional.pad(pictures, (radius,) * 4, mode="replicate")
    along = _differences(padded.cumsum(-1), size, -1)
    return _differences(along.cumsum(-2), size, -2) / size**2


def _differences(sums: Tensor, size: int, dim: int) -> Tensor:
    """Sums of ``size`` neighbours along an axis, from the running sum."""
    count = sums.shape[dim] - size
    first, rest = sums.narrow(dim, size - 1, 1), sums.narrow(dim, size, count)
    return torch.cat([first, rest - sums.narrow(dim, 0, count)], dim)
