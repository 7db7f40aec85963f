"""From a picture of an object to a depth map of its front: by its outline, or a model's disparity.

A single picture tells no distance. The rule that places every relative depth here: the object
stands at the world's origin, and its front is as deep as a sphere's with an outline of its area.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unflat.geometry.camera import Camera

SOLID = 0.5
"""Matte from which on a pixel belongs to the object."""
HALF_BOX = 0.5
"""World units: half the longest side of an object's box."""
_QUANTILES = (0.05, 0.5, 0.95)  # of disparity over the mask: strays do not set the scale
_LEAST_DEPTH = 0.05  # share of the distance to the origin that placed depths keep


class Placement(NamedTuple):
    """Where a relative disparity stands: d' = scale / depth + shift; see `place`."""

    scale: float
    """Positive."""
    shift: float
    """In units of the disparity."""


def origin_depth(camera: Camera) -> float:
    """Depth of the world's origin in a single camera, world units."""
    return float(camera.to_camera(torch.zeros(1, 3).to(camera.intrinsics))[0, 2])


def place(
    disparity: Float[Tensor, "height width"],
    mask: Float[Tensor, "height width"],
    camera: Camera,
) -> Placement:
    """Where a relative disparity stands so that the object is as deep as it is wide.

    A sphere about the origin with an outline of the mask's area has radius r = sqrt(area / pi) and,
    over its outline, the depths D - r sqrt(q) at the shares q of it, D the origin's depth. Over the
    mask the median of the disparity, and its range from the 5th to the 95th percentile, become
    those of this sphere.

    Args:
        disparity: near is large; any scale and shift.
        mask: matte of the object.
        camera: of the picture, a single one in the object world.
    """
    values = disparity[solid(mask)].double()
    if not len(values):
        values = disparity.flatten().double()
    distance = origin_depth(camera)
    pixel = distance / (float(camera.intrinsics[0]) * mask.shape[1])
    radius = min(math.sqrt(len(values) / math.pi) * pixel, HALF_BOX)
    low, middle, high = values.quantile(values.new_tensor(_QUANTILES)).tolist()
    far, half, near = (1 / (distance - radius * math.sqrt(share)) for share in _QUANTILES)
    scale = max(high - low, 1e-6 * max(1.0, abs(high))) / (near - far)
    return Placement(scale, middle - scale * half)


def placed_depth(
    disparity: Float[Tensor, "height width"],
    mask: Float[Tensor, "height width"],
    camera: Camera,
) -> Float[Tensor, "height width"]:
    """Depth along the optical axis, world units, of a relative disparity after `place`.

    What would come nearer or farther than the box is cut at its ends.
    """
    found = place(disparity, mask, camera)
    distance = origin_depth(camera)
    inverse = (disparity - found.shift) / found.scale
    near, far = max(distance - HALF_BOX, _LEAST_DEPTH * distance), distance + HALF_BOX
    return 1 / inverse.clamp(1 / far, 1 / near)


def outline_depth(
    mask: Float[Tensor, "height width"], camera: Camera
) -> Float[Tensor, "height width"]:
    """Depth of a rounded front that the outline alone suggests, world units.

    With e the distance to the outline, R its largest value and D the depth of the origin, all in
    world units at depth D: depth = D - sqrt(e (2 R - e)). A disc becomes the half of a sphere
    about the origin that is turned to the camera. A mask of the whole frame has no outline: it
    becomes a plane at depth D.

    Args:
        mask: matte of the object; outside of it the depth is D.
        camera: of the picture, a single one in the object world.
    """
    from scipy.ndimage import distance_transform_edt

    distance = origin_depth(camera)
    if is_whole(mask):
        return torch.full_like(mask, distance)
    inside = np.pad(solid(mask).numpy(), 1)  # the frame's border is an outline
    pixels = torch.from_numpy(np.asarray(distance_transform_edt(inside))[1:-1, 1:-1]).to(mask)
    pixels = (pixels - 0.5).clamp_min(0)  # the outline runs between two pixels
    edge = pixels * distance / (float(camera.intrinsics[0]) * mask.shape[1])
    height = (edge * (2 * edge.max() - edge)).clamp_min(0).sqrt()
    return (distance - height).clamp_min(_LEAST_DEPTH * distance)


def solid(mask: Float[Tensor, "height width"]) -> Bool[Tensor, "height width"]:
    """Pixels of the object."""
    return mask >= SOLID


def is_whole(mask: Float[Tensor, "height width"]) -> bool:
    """Whether the mask covers the whole frame, as where a set has no masks."""
    return bool(solid(mask).all())
