"""Where rays enter and leave an axis-aligned box."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unflat.geometry.rays import Rays


class BoxHits(NamedTuple):
    """The part of each ray that lies inside a box; empty (near = far = 0) where it misses."""

    near: Float[Tensor, "*rays"]
    """Distance of entry, 0 if the ray begins inside."""
    far: Float[Tensor, "*rays"]
    """Distance of exit."""
    hit: Bool[Tensor, "*rays"]
    """Whether the ray meets the box in front of its origin."""


def intersect_box(rays: Rays, bounds: Float[Tensor, "2 3"]) -> BoxHits:
    """Distances at which rays enter and leave a box (slab method).

    A ray parallel to a pair of faces would divide by zero; whether it lies between them is asked
    instead, so that a ray in a face counts as inside and values and gradients have no NaN.

    Args:
        rays: in the world of the box.
        bounds: the smallest and the largest corner.
    """
    parallel = rays.directions == 0.0
    between = (rays.origins >= bounds[0]) & (rays.origins <= bounds[1])
    divisor = torch.where(parallel, torch.ones_like(rays.directions), rays.directions)
    first = (bounds[0] - rays.origins) / divisor
    second = (bounds[1] - rays.origins) / divisor
    entry = torch.minimum(first, second).masked_fill(parallel, -torch.inf)
    leave = torch.maximum(first, second).masked_fill(parallel, torch.inf)
    near = entry.amax(dim=-1).clamp_min(0.0)
    far = leave.amin(dim=-1)
    hit = (far >= near) & (~parallel | between).all(dim=-1)
    zero = torch.zeros_like(near)
    return BoxHits(torch.where(hit, near, zero), torch.where(hit, far, zero), hit)
