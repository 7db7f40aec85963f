"""Soft pictures."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def gaussian_blur(
    images: Float[Tensor, "batch channels height width"], sigma: float
) -> Float[Tensor, "batch channels height width"]:
    """Pictures convolved with a normal distribution, cut at three standard deviations.

    Pixels beyond the border are those on it. Below a tenth of a pixel nothing is changed.

    Args:
        images: any features.
        sigma: standard deviation in pixels.
    """
    if sigma < 0.1:
        return images
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    row = torch.exp(-0.5 * (offsets / sigma).square())
    row = (row / row.sum()).expand(images.shape[1], 1, 1, -1)
    padded = functional.pad(images, (radius,) * 4, mode="replicate")
    across = functional.conv2d(padded, row, groups=images.shape[1])
    return functional.conv2d(across, row.mT, groups=images.shape[1])
