"""Camera paths all around an object: closed loops that begin at a given camera.

They live in the object world (y up). The camera is carried rigidly about a pivot, so that it keeps
its radius, its elevation and, if it has one, its roll.

    poses = turntable(camera.camera_to_world[0], torch.zeros(3), 36)   # 36 4 4, the first as given
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.camera import rigid
from unflat.geometry.pose import rotation_about


def turn_around(
    camera_to_world: Float[Tensor, "4 4"],
    pivot: Float[Tensor, "3"],
    azimuth: Float[Tensor, "*batch"],
    elevation: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch 4 4"]:
    """A camera carried about a pivot: up first, then around.

    For a camera without roll that looks at the pivot these are the angles of `orbit_pose`, added to
    its own.

    Args:
        camera_to_world: where it begins.
        pivot: world units.
        azimuth: radians about the upright axis, counter-clockwise seen from above.
        elevation: radians about the camera's own right, positive is up.
    """
    right, upright = camera_to_world[:3, 0], camera_to_world.new_tensor([0.0, 1.0, 0.0])
    shape = (*azimuth.shape, 3)
    turn = rotation_about(upright.expand(shape), azimuth)
    turn = turn @ rotation_about(right.expand(shape), -elevation)
    arm = (turn @ (camera_to_world[:3, 3] - pivot)[:, None])[..., 0]
    return rigid(turn @ camera_to_world[:3, :3], pivot + arm)


def turntable(
    camera_to_world: Float[Tensor, "4 4"], pivot: Float[Tensor, "3"], count: int, rise: float = 0.0
) -> Float[Tensor, "count 4 4"]:
    """Cameras once around, by even steps of azimuth.

    Args:
        camera_to_world: the first one.
        pivot: world units.
        count: number of cameras; the loop closes from the last to the first.
        rise: radians by which the camera goes up and then down on its way, once each.
    """
    phase = _phase(count).to(camera_to_world)
    return turn_around(camera_to_world, pivot, phase, rise * torch.sin(phase))


def swing(
    camera_to_world: Float[Tensor, "4 4"], pivot: Float[Tensor, "3"], count: int, angle: float
) -> Float[Tensor, "count 4 4"]:
    """Cameras that swing to the right, back through the first one to the left, and back.

    Args:
        camera_to_world: the first one.
        pivot: world units.
        count: number of cameras; the loop closes from the last to the first.
        angle: radians to either side.
    """
    azimuth = angle * torch.sin(_phase(count).to(camera_to_world))
    return turn_around(camera_to_world, pivot, azimuth, torch.zeros_like(azimuth))


def _phase(count: int) -> Float[Tensor, " count"]:
    if count < 1:
        raise ValueError(f"count is {count}; a path needs at least one camera")
    return 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
