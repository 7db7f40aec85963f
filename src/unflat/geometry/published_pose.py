"""Poses as google-research/nerf-from-image has them: what it fits, and what its critic is given.

Pavllo et al., arXiv 2211.11674, and its code. Four things tell a camera: how the object is turned,
how large it is on the picture, where it is on the picture, and how strong the perspective is. None
of them changes much with another, which is what makes them good to fit.

    camera = camera_from_pose(ObjectPose(quaternion, shift, scale, zoom))
    label = critic_condition(camera)                                     # 13 numbers
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.camera import Camera
from unflat.geometry.frames import flip_camera_axes
from unflat.geometry.published_frames import (
    NerfFromImageCamera,
    from_nerf_from_image,
    full_box,
)
from unflat.geometry.quaternion import quaternion_from_rotation, rotation_from_quaternion

_FAR = 10.0
"""Half widths of the view between an orthographic camera and the origin."""


class ObjectPose(NamedTuple):
    """A camera that looks towards an object at the origin, in numbers to fit."""

    quaternion: Float[Tensor, "*batch 4"]
    """(w, x, y, z); its rotation takes directions of the world to the camera's (y up, z back)."""
    shift: Float[Tensor, "*batch 2"]
    """From the origin's place on the picture to its middle: right and up, in half sides."""
    scale: Float[Tensor, "*batch"]
    """Half sides of the picture that a unit of the world at the origin spans."""
    zoom: Float[Tensor, "*batch"] | None
    """log(2 f - 1), f the focal length in picture widths; None if orthographic."""


def camera_from_pose(pose: ObjectPose, *, is_flipped: bool = False) -> Camera:
    """The camera of such numbers, its principal point in the middle.

    Args:
        pose: any batch.
        is_flipped: whether the data set's numbers are for a camera whose y axis, z axis and
            position are negated (their P3D, ImageNet and CUB).
    """
    rotation = rotation_from_quaternion(pose.quaternion).mT
    scale = pose.scale[..., None]
    if pose.zoom is None:
        kept, focal = pose.shift, None
        away = torch.full_like(scale, _FAR)
    else:
        focal = (1 + pose.zoom.exp()) / 2
        kept, away = pose.shift / scale, 2 * focal[..., None] / scale
    position = rotation @ torch.cat([kept, away], dim=-1)[..., None]
    top = torch.cat([rotation, position], dim=-1)
    bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
    matrix = torch.cat([top, bottom], dim=-2)
    if focal is None:
        matrix = matrix / scale[..., None]
    matrix = _flipped(matrix) if is_flipped else matrix
    box = full_box(matrix).expand(*matrix.shape[:-2], 2, 2)
    return from_nerf_from_image(NerfFromImageCamera(matrix, focal, box))


def pose_from_camera(camera: Camera, *, is_flipped: bool = False) -> ObjectPose:
    """The numbers of a camera; `camera_from_pose` gives it back if it is centred.

    An orthographic camera comes back at the distance their code puts it, which shows the same.

    Args:
        camera: looks towards the origin; perspective with a focal length above half a width.
        is_flipped: see `camera_from_pose`.
    """
    rotation, shift, scale = _on_picture(camera, is_flipped)
    is_orthographic = camera.kind == "orthographic"
    zoom = None if is_orthographic else torch.log(2 * camera.intrinsics[..., 0] - 1)
    return ObjectPose(quaternion_from_rotation(rotation), shift, scale, zoom)


def critic_condition(camera: Camera, *, is_flipped: bool = False) -> Float[Tensor, "*batch 13"]:
    """What their critic is given: log f or 0, shift (2), scale, and 9 of the rotation.

    The rotation is the world's in the camera's axes (y up, z back), row by row. Their critic takes
    log f here, while `ObjectPose` holds log(2 f - 1).

    Args:
        camera: looks towards the origin.
        is_flipped: see `camera_from_pose`; the numbers are of the camera before it.
    """
    rotation, shift, scale = _on_picture(camera, is_flipped)
    focal = camera.intrinsics[..., 0]
    zoom = focal.log() if camera.kind == "perspective" else torch.zeros_like(focal)
    numbers = [zoom[..., None], shift, scale[..., None], rotation.flatten(-2)]
    return torch.cat(numbers, dim=-1)


def _on_picture(camera: Camera, is_flipped: bool) -> tuple[Tensor, Tensor, Tensor]:
    """World to camera (y up, z back) as a rotation, and shift and scale of `ObjectPose`."""
    matrix = flip_camera_axes(camera.camera_to_world)
    matrix = _flipped(matrix) if is_flipped else matrix
    rotation = matrix[..., :3, :3].mT
    right, up, away = (rotation @ matrix[..., :3, 3:])[..., 0].unbind(dim=-1)
    scale = 2 * camera.intrinsics[..., 0]
    if camera.kind == "perspective":
        scale = scale / away
    return rotation, torch.stack([right, up], dim=-1) * scale[..., None], scale


def _flipped(matrix: Tensor) -> Tensor:
    """Camera-to-world with its y axis, z axis and position negated; the last row is kept."""
    sign = matrix.new_tensor([1.0, -1.0, -1.0, -1.0])
    return torch.cat([matrix[..., :3, :] * sign, matrix[..., 3:, :]], dim=-2)
