"""mip-NeRF 360's contraction: all of space in a ball of radius 2 (arXiv 2111.12077, eq. 10)."""

import torch
from jaxtyping import Float
from torch import Tensor


def contract(points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """The points inside the unit ball, unchanged; others at (2 - 1/|x|) x/|x|, inside radius 2."""
    norm = points.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return torch.where(norm <= 1, points, (2 - 1 / norm.clamp_min(1)) * points / norm)


def uncontract(points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Inverse of :func:`contract`; points at radius 2 and beyond would lie at infinity.

    Raises:
        ValueError: a point lies outside the open ball of radius 2.
    """
    norm = points.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    if (norm >= 2).any():
        raise ValueError(f"contracted points have norm below 2, found {norm.max().item():g}")
    return torch.where(norm <= 1, points, points / (norm * (2 - norm)))
