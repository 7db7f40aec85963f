"""Which way is out of a field: the direction of its normals."""

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.fields.field import Bounded, Distanced, Field

_STEPS = 256
"""Differences are taken over two such parts of the box's longest side."""


def outward(
    field: Field, points: Float[Tensor, "batch *points 3"], step: float | None = None
) -> Float[Tensor, "batch *points 3"]:
    """The slope out of a field, in world axes; its direction is the normal's.

    It is the gradient of the signed distance where the field has one, else that of the density
    turned around, by central differences: these see steps as well, and the kinks of interpolation
    do not show. Its length is not 1, so that the steep surface outvotes the even inside when slopes
    are summed along a ray.

    Args:
        field: one in a box.
        points: world units.
        step: half the way over which differences are taken, world units; 1/256 of the box's longest
            side if not given.

    Raises:
        ValueError: the field has no bounds.
    """
    if not isinstance(field, Bounded):
        raise ValueError(f"{type(field).__name__} has no bounds: nothing says where it ends")
    if step is None:
        step = float((field.bounds[1] - field.bounds[0]).max()) / _STEPS
    aside = step * torch.eye(3, dtype=points.dtype, device=points.device)
    around = points[..., None, :] + torch.cat([aside, -aside])  # batch *points 6 3
    heights = field.distance(around) if isinstance(field, Distanced) else -field(around).density
    return (heights[..., :3] - heights[..., 3:]) / (2 * step)
