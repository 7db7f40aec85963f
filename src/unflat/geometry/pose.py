"""Camera poses from what people say: look from here to there, turn by so much, orbit.

Object world: right-handed, y up, front +z. Azimuth 0 is the camera at +z, and azimuth grows
counter-clockwise seen from above; elevation is positive above the ground.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.camera import length, rigid

_PARALLEL = 1e-6
"""Sine below which the viewing direction and `up` count as parallel."""


def look_at(
    position: Float[Tensor, "*batch 3"],
    target: Float[Tensor, "*#batch 3"] | None = None,
    up: tuple[float, float, float] = (0.0, 1.0, 0.0),
) -> Float[Tensor, "*batch 4 4"]:
    """Camera-to-world of a camera at `position` whose optical axis meets `target`.

    `up` points up in the picture. Where it runs along the optical axis the picture's right is the
    world's +x instead (+y if that, too, runs along it), as for `orbit_pose` at azimuth 0.

    Args:
        position: world units.
        target: the origin if not given; must differ from `position`.
        up: any length but 0.
    """
    if target is None:
        target = torch.zeros_like(position)
    forward = torch.nn.functional.normalize(target - position, dim=-1)
    upward = torch.nn.functional.normalize(position.new_tensor(up), dim=0).expand_as(forward)
    right = torch.cross(forward, upward, dim=-1)
    sine = length(right)[..., None]
    x_axis = position.new_tensor([1.0, 0.0, 0.0]).expand_as(forward)
    y_axis = position.new_tensor([0.0, 1.0, 0.0]).expand_as(forward)
    spare = torch.where(forward[..., :1].abs() < 0.9, x_axis, y_axis)
    spare = spare - (spare * forward).sum(dim=-1, keepdim=True) * forward
    right = torch.nn.functional.normalize(torch.where(sine < _PARALLEL, spare, right), dim=-1)
    down = torch.cross(forward, right, dim=-1)
    return rigid(torch.stack([right, down, forward], dim=-1), position)


def rotation_from_vector(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation about a vector by its length in radians, counter-clockwise seen from its tip.

    Rodrigues' formula written with sinc, so that values and gradients are right at angle 0.
    """
    angle = length(vector)[..., None, None]
    x, y, z = vector.unbind(dim=-1)
    zero = torch.zeros_like(x)
    skew = torch.stack(
        [
            torch.stack([zero, -z, y], dim=-1),
            torch.stack([z, zero, -x], dim=-1),
            torch.stack([-y, x, zero], dim=-1),
        ],
        dim=-2,
    )
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    first = torch.sinc(angle / torch.pi)  # sin(a) / a
    second = 0.5 * torch.sinc(angle / (2.0 * torch.pi)) ** 2  # (1 - cos(a)) / a^2
    return identity + first * skew + second * (skew @ skew)


def rotation_about(
    axis: Float[Tensor, "*#batch 3"], angle: Float[Tensor, "*#batch"] | float
) -> Float[Tensor, "*batch 3 3"]:
    """The rotation about an axis by an angle in radians, counter-clockwise seen from its tip.

    Args:
        axis: any length but 0.
        angle: radians.
    """
    unit = torch.nn.functional.normalize(axis, dim=-1)
    if isinstance(angle, Tensor):
        return rotation_from_vector(unit * angle[..., None])
    return rotation_from_vector(unit * angle)


def orbit_pose(
    elevation: Float[Tensor, "*#batch"] | float,
    azimuth: Float[Tensor, "*#batch"] | float,
    radius: Float[Tensor, "*#batch"] | float,
    target: Float[Tensor, "*#batch 3"] | None = None,
) -> Float[Tensor, "*batch 4 4"]:
    """Camera-to-world of a camera on a sphere of the object world, looking at its middle.

    The position is target + radius (cos el sin az, sin el, cos el cos az). Right is the direction
    in which the azimuth grows, also at the poles, so that nothing jumps there.

    Args:
        elevation: radians, positive above.
        azimuth: radians, 0 in front (+z), growing counter-clockwise seen from above.
        radius: world units, positive.
        target: the origin if not given.
    """
    elevation, azimuth, radius = _broadcast(elevation, azimuth, radius)
    outward = torch.stack(
        [
            torch.cos(elevation) * torch.sin(azimuth),
            torch.sin(elevation),
            torch.cos(elevation) * torch.cos(azimuth),
        ],
        dim=-1,
    )
    right = torch.stack(
        [torch.cos(azimuth), torch.zeros_like(azimuth), -torch.sin(azimuth)], dim=-1
    )
    down = torch.cross(-outward, right, dim=-1)
    position = radius[..., None] * outward
    if target is not None:
        position = position + target
    columns = torch.stack([right, down, -outward], dim=-1)
    return rigid(columns.expand(*position.shape[:-1], 3, 3), position)


def orbit_coordinates(
    position: Float[Tensor, "*batch 3"],
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Elevation, azimuth in (-pi, pi] (both radians) and radius of positions."""
    x, y, z = position.unbind(dim=-1)
    elevation = torch.atan2(y, torch.hypot(x, z))
    return elevation, torch.atan2(x, z), length(position)


def _broadcast(
    first: Tensor | float, second: Tensor | float, third: Tensor | float
) -> tuple[Tensor, Tensor, Tensor]:
    values = (first, second, third)
    like = next((value for value in values if isinstance(value, Tensor)), torch.zeros(()))
    a, b, c = (torch.as_tensor(value).to(like) for value in values)
    shaped = a + b + c
    return a.expand_as(shaped), b.expand_as(shaped), c.expand_as(shaped)
