"""The visible surface at the photo's own resolution, for the detail mode.

The refiner sees the picture at the model's resolution; its answer is carried to the photo's by a
joint bilateral filter (Kopf et al. 2007): near pixels of similar colour decide. Where they disagree
by more than a jump the weighted median is taken instead of the mean, so that no pixel lies between
two surfaces.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unflat.systems.vq3d.refiner import Refined

JUMP = 0.05  # of normalised disparity; more is another surface
COLOR_SIGMA = 0.08  # of sRGB distance
SPACE_SIGMA = 0.9  # in pixels of the coarse picture
RADIUS = 1  # pixels of the coarse picture looked at on each side


@torch.no_grad()
def upsample_surface(
    refined: Refined,
    image: Float[Tensor, "batch 3 side side"],
    photo: Float[Tensor, "batch 3 height width"],
) -> Refined:
    """Disparity and spread at the photo's resolution.

    Args:
        refined: at the picture's resolution.
        image: the picture that the refiner saw, in [0, 1].
        photo: the same picture, larger (at its own size it is returned as it is).
    """
    if photo.shape[-2:] == image.shape[-2:]:
        return refined
    height, width = photo.shape[-2:]
    stack = torch.cat([refined.disparity, refined.spread, image], dim=1)
    windows, offsets = _windows(stack, height, width)  # batch k 5 height width, k height width
    distance = (windows[:, :, 2:] - photo[:, None]).square().sum(2)
    votes = torch.exp(
        -distance / (2 * COLOR_SIGMA**2) - offsets / (2 * SPACE_SIGMA**2)
    ) + 1e-6 * torch.exp(-offsets)
    votes = votes / votes.sum(1, keepdim=True)
    disparity, spread = windows[:, :, 0], windows[:, :, 1]
    mean = (votes * disparity).sum(1, keepdim=True)
    chosen = _weighted_median(disparity, votes)
    torn = disparity.amax(1, keepdim=True) - disparity.amin(1, keepdim=True) > JUMP
    return Refined(
        torch.where(torn, chosen, mean),
        (votes * spread).sum(1, keepdim=True),
    )


def _windows(stack: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The coarse neighbours of every fine pixel, and their squared distances in coarse pixels."""
    side_y, side_x = stack.shape[-2:]
    y = (torch.arange(height, device=stack.device) + 0.5) * side_y / height - 0.5
    x = (torch.arange(width, device=stack.device) + 0.5) * side_x / width - 0.5
    row, column = y.round().long(), x.round().long()
    found, squares = [], []
    for dy in range(-RADIUS, RADIUS + 1):
        for dx in range(-RADIUS, RADIUS + 1):
            rows = (row + dy).clamp(0, side_y - 1)
            columns = (column + dx).clamp(0, side_x - 1)
            found.append(stack[:, :, rows][..., columns])
            squares.append((row + dy - y).square()[:, None] + (column + dx - x).square())
    return torch.stack(found, dim=1), torch.stack(squares)


def _weighted_median(
    values: Float[Tensor, "batch k height width"], votes: Float[Tensor, "batch k height width"]
) -> Float[Tensor, "batch 1 height width"]:
    """The value at which half of the votes is reached; votes sum to 1."""
    ordered, order = values.sort(dim=1)
    reached = votes.gather(1, order).cumsum(1)
    place = (reached < 0.5 - 1e-6).sum(1, keepdim=True).clamp_max(values.shape[1] - 1)
    return ordered.gather(1, place)


def sharpen_edges(
    disparity: Float[Tensor, "batch 1 height width"], jump: float = JUMP, radius: int = 1
) -> Float[Tensor, "batch 1 height width"]:
    """Disparity whose ramps at jumps are snapped to the nearer of their two sides.

    A pixel whose window spans more than the jump takes the window's lowest or highest value,
    whichever is closer to its own.
    """
    size = 2 * radius + 1
    high = functional.max_pool2d(disparity, size, 1, radius)
    low = -functional.max_pool2d(-disparity, size, 1, radius)
    snapped = torch.where(high - disparity < disparity - low, high, low)
    # Only where the window is a step, not a slope: the snapped sides must be far apart.
    return torch.where(high - low > 2 * jump, snapped, disparity)


def true_focal(fov_deg: float) -> float:
    """Focal length in half-widths of a field of view across the width."""
    return 1 / math.tan(math.radians(fov_deg) / 2)
