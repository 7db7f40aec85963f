"""Camera paths for showing a scene: closed loops around a pivot that begin at the canonical camera.

All of them live in the scene world (the canonical camera's own OpenCV frame), keep looking at the
pivot (0, 0, pivot_depth), and are smooth also where the loop closes.

    poses = orbit(36, max_angle=math.radians(12), pivot_depth=2.0)   # 36 4 4, the first is identity
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.camera import rigid
from unflat.geometry.pose import rotation_from_vector

_RAMP = 0.2
"""Share of an orbit in which the cone opens, and again in which it closes."""


def turn_about_pivot(
    right: Float[Tensor, "*batch"],
    up: Float[Tensor, "*batch"],
    pivot_depth: float,
    closeness: Float[Tensor, "*batch"] | None = None,
) -> Float[Tensor, "*batch 4 4"]:
    """Camera-to-world of the canonical camera turned rigidly about the pivot on its optical axis.

    The rotation's axis lies in the canonical picture plane, so the picture does not roll; the angle
    between the new and the canonical optical axis is hypot(right, up).

    Args:
        right: radians by which the camera moves to its right.
        up: radians by which it moves up.
        pivot_depth: world units, positive.
        closeness: share of the distance to the pivot by which the camera comes nearer; none if not
            given.
    """
    rotation = rotation_from_vector(torch.stack([-up, -right, torch.zeros_like(up)], dim=-1))
    distance = torch.full_like(right, pivot_depth)
    if closeness is not None:
        distance = distance * (1.0 - closeness)
    pivot = right.new_tensor([0.0, 0.0, pivot_depth])
    return rigid(rotation, pivot - distance[..., None] * rotation[..., 2])


def orbit(
    count: int, max_angle: float, pivot_depth: float, turns: int = 1
) -> Float[Tensor, "count 4 4"]:
    """Cameras that circle on a cone of half-angle `max_angle` about the canonical optical axis.

    The cone opens to the right during the first fifth of the loop, and closes from the right
    during the last; in between the camera goes up, left, down and back.

    Args:
        count: number of cameras; the loop closes from the last to the first.
        max_angle: radians.
        pivot_depth: world units, positive.
        turns: full circles in a loop.
    """
    share = _loop(count, pivot_depth)
    angle = max_angle * _smooth(torch.minimum(share, 1.0 - share) / _RAMP)
    # Slow at both ends, where the cone opens: the right side is seen as far out as the others.
    phase = 2.0 * math.pi * turns * share**2 * (3.0 - 2.0 * share)
    poses = turn_about_pivot(angle * torch.cos(phase), angle * torch.sin(phase), pivot_depth)
    return poses.float()


def spiral(
    count: int, max_angle: float, pivot_depth: float, turns: int = 2, closeness: float = 0.15
) -> Float[Tensor, "count 4 4"]:
    """Cameras that spiral outwards and towards the pivot, and back.

    Args:
        count: number of cameras; the loop closes from the last to the first.
        max_angle: radians, reached half-way.
        pivot_depth: world units, positive.
        turns: full circles in a loop.
        closeness: share of the distance to the pivot by which the nearest camera is nearer.
    """
    share = _loop(count, pivot_depth)
    amount = torch.sin(math.pi * share) ** 2
    phase = 2.0 * math.pi * turns * share
    right, up = max_angle * amount * torch.cos(phase), max_angle * amount * torch.sin(phase)
    return turn_about_pivot(right, up, pivot_depth, closeness * amount).float()


def wiggle(count: int, max_angle: float, pivot_depth: float) -> Float[Tensor, "count 4 4"]:
    """Cameras that swing to the right, through the canonical view, to the left, and back.

    Args:
        count: number of cameras; the loop closes from the last to the first.
        max_angle: radians to either side.
        pivot_depth: world units, positive.
    """
    share = _loop(count, pivot_depth)
    right = max_angle * torch.sin(2.0 * math.pi * share)
    return turn_about_pivot(right, torch.zeros_like(right), pivot_depth).float()


def _loop(count: int, pivot_depth: float) -> Tensor:
    if count < 1:
        raise ValueError(f"count is {count}; a path needs at least one camera")
    if pivot_depth <= 0.0:
        raise ValueError(f"pivot_depth is {pivot_depth}; the pivot must lie in front of the camera")
    return torch.arange(count, dtype=torch.float64) / count


def _smooth(share: Tensor) -> Tensor:
    """0 to 1 with first and second derivatives 0 at both ends; constant outside."""
    share = share.clamp(0.0, 1.0)
    return share**3 * (10.0 + share * (6.0 * share - 15.0))
