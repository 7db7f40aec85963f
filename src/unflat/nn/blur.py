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


def start_blur(
    images: Float[Tensor, "batch channels height width"], sigma: float, *, outside: float = 0.0
) -> Float[Tensor, "batch channels height width"]:
    """Pictures convolved with 2^-(x / sigma)^2, as GANs show their critics at the start.

    EG3D (arXiv 2112.07945) and nerf-from-image (arXiv 2211.11674) let sigma fall from 10 pixels to
    0. The base is 2, not e: the standard deviation is sigma / sqrt(2 log 2), about 0.85 sigma. Cut
    at the whole pixels within 3 sigma; below a third of a pixel nothing is changed.

    Args:
        images: any features.
        sigma: in pixels, where the weight is half of the middle's.
        outside: what lies beyond the border: 1 for white pictures of [0, 1]. Zero in the published
            codes, where white pictures are shifted before.
    """
    radius = math.floor(3 * sigma)
    if radius < 1:
        return images
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    row = torch.exp2(-(offsets / sigma).square())
    row = (row / row.sum()).expand(images.shape[1], 1, 1, -1)
    shifted = images - outside
    across = functional.conv2d(shifted, row, padding=(0, radius), groups=images.shape[1])
    down = functional.conv2d(across, row.mT, padding=(radius, 0), groups=images.shape[1])
    return down + outside
