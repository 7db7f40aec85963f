"""Where a picture was taken from, and where views of its object are made from."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.camera import Camera
from unflat.geometry.pose import orbit_pose
from unflat.geometry.relative_pose import RelativePose

FOV_DEG = 49.13
"""Of the cameras that Zero-1-to-3's training pictures were rendered with."""

_RADIUS = (1.5, 2.2)  # world units, of the training pictures
_RADIUS_OF_EXTENT = (1.52, 0.20)  # least squares over rendered objects: r = 1.52 + 0.20 / extent
_ELEVATIONS_DEG = (-30.0, 70.0)  # of made views
_GOLDEN = 0.5 * (math.sqrt(5) - 1)  # its multiples, modulo 1, are spread evenly at any count


def input_camera(opacity: Float[Tensor, "side side"], elevation: float) -> Camera:
    """A camera at azimuth 0 that could have taken a picture, with the training pictures' angle.

    Objects have a longest side of 1, which says how far away a camera is whose picture they fill
    so much of: on average, for some are seen from their narrow side.

    Args:
        opacity: of the picture.
        elevation: radians.
    """
    there = opacity > 0.5
    spans = [there.any(axis).nonzero() for axis in (0, 1)]
    extent = max(int(s.max() - s.min()) + 1 if len(s) else 1 for s in spans) / len(opacity)
    constant, factor = _RADIUS_OF_EXTENT
    low, high = _RADIUS
    radius = min(max(constant + factor / extent, low), high)
    pose = orbit_pose(torch.tensor(elevation), torch.tensor(0.0), torch.tensor(radius))
    return Camera.from_fov(math.radians(FOV_DEG), pose)


def view_plan(count: int, elevation: float) -> RelativePose:
    """Where views are made from: in even turns all around, high and low, and as far away.

    Heights are spread evenly in their sine, neighbours being far apart in height.

    Args:
        count: of views.
        elevation: radians; of the picture.
    """
    low, high = (math.sin(math.radians(value)) for value in _ELEVATIONS_DEG)
    number = torch.arange(count)
    height = low + (high - low) * ((number + 0.5) * _GOLDEN % 1.0)
    azimuth = (number + 1) * 2 * math.pi / count
    return RelativePose(
        polar=elevation - height.asin(),
        azimuth=torch.atan2(azimuth.sin(), azimuth.cos()),
        radius=torch.zeros(count),
    )
