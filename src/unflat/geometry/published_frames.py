"""The same camera in the words of published image-to-3D code: EG3D, zero123, nerf-from-image.

As in `unflat.geometry.frames`, `to_x` gives what the files of x hold and `from_x` the camera.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.camera import Camera, invert_rigid, rigid
from unflat.geometry.frames import (
    camera_object_to_z_up,
    camera_z_up_to_object,
    flip_camera_axes,
)

ZERO123_FOV = 2.0 * math.atan(16.0 / 35.0)
"""Field of view of the Objaverse renders in radians, 49.13 degrees: a 35 mm lens, 32 mm sensor."""


def to_eg3d(camera: Camera) -> Float[Tensor, "*batch 25"]:
    """EG3D's camera label: 16 numbers of camera-to-world and 9 of the intrinsics, both row-major.

    Axes are OpenCV's, intrinsics are divided by the picture's size, the world is not turned (EG3D's
    heads look along +z with y up, as in the object world). arXiv 2112.07945 and its code.

    Raises:
        ValueError: the camera is orthographic.
    """
    if camera.kind != "perspective":
        raise ValueError("camera is orthographic; EG3D's are perspective")
    fx, fy, cx, cy = camera.intrinsics.unbind(dim=-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    calibration = torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one], dim=-1)
    return torch.cat([camera.camera_to_world.flatten(start_dim=-2), calibration], dim=-1)


def from_eg3d(label: Float[Tensor, "*batch 25"]) -> Camera:
    """The camera of EG3D's 25 numbers.

    Raises:
        ValueError: the intrinsics have a skew, which `Camera` has not.
    """
    if bool((label[..., 17] != 0.0).any()):
        raise ValueError("label: number 17 is a skew other than 0, which a Camera does not have")
    return Camera(
        camera_to_world=label[..., :16].reshape(*label.shape[:-1], 4, 4),
        intrinsics=torch.stack([label[..., i] for i in (16, 20, 18, 21)], dim=-1),
    )


def to_zero123(camera: Camera) -> Float[Tensor, "*batch 3 4"]:
    """World-to-camera 3x4 as in the .npy files of the Objaverse renders of Zero-1-to-3.

    The world is z up (front -y), the camera's own axes are Blender's: x right, y up, looking along
    -z. The file holds no intrinsics; the renders have `ZERO123_FOV`.
    """
    turned = camera_object_to_z_up(camera).camera_to_world
    return invert_rigid(flip_camera_axes(turned))[..., :3, :]


def from_zero123(matrix: Float[Tensor, "*batch 3 4"], fov: float = ZERO123_FOV) -> Camera:
    """The camera of such a file, in the object world.

    Args:
        matrix: world to camera.
        fov: radians across the square picture; the files do not tell it.
    """
    motion = rigid(matrix[..., :3], matrix[..., 3])
    return camera_z_up_to_object(Camera.from_fov(fov, flip_camera_axes(invert_rigid(motion))))


class NerfFromImageCamera(NamedTuple):
    """A camera of google-research/nerf-from-image (arXiv 2211.11674).

    Perspective: a ray leaves `camera_to_world` towards (a/focal, b/focal, -1). Orthographic: it
    leaves from (2a, 2b, 0) towards (0, 0, -1), and the matrix carries the scale: rotation, position
    and last element are all divided by s, so that the view is 2/s world units wide. (a, b) span
    [-1/2, 1/2], right and up, over the padded full image, of which `box` is shown; the sample of
    pixel (row i, column j) is taken at that pixel's left upper corner.
    """

    camera_to_world: Float[Tensor, "*batch 4 4"]
    """The camera's x is right, y up, and it looks along -z."""
    focal: Float[Tensor, "*batch"] | None
    """In widths of the full image; none if orthographic."""
    box: Float[Tensor, "*batch 2 2"]
    """Left and lower edge, then width and height, in a full image of [-1, 1], y up."""


def to_nerf_from_image(
    camera: Camera, height: int | None = None, width: int | None = None
) -> NerfFromImageCamera:
    """The camera with the box as wide as the full image; what is off-centre is told by the box.

    Args:
        camera: its world is not turned.
        height: with `width`, the picture's size: pixels then get the rays they get here, although
            theirs go through corners. Without them (u, v) keep their places.
        width: see `height`.
    """
    fx, fy, cx, cy = camera.intrinsics.unbind(dim=-1)
    cx, cy = cx - _half_pixel(width), cy - _half_pixel(height)
    box_height = 2.0 * fx / fy
    left, lower = -2.0 * cx, (cy - 1.0) * box_height
    start = torch.stack([left, lower], dim=-1)
    size = torch.stack([torch.full_like(fx, 2.0), box_height], dim=-1)
    box = torch.stack([start, size], dim=-2)
    pose = flip_camera_axes(camera.camera_to_world)
    if camera.kind == "perspective":
        return NerfFromImageCamera(pose, fx, box)
    element = 0.5 / fx  # 1/s: half the width of the full image in world units
    rotation = pose[..., :3, :3] * element[..., None, None]
    scaled = rigid(rotation, pose[..., :3, 3])
    scaled[..., 3, 3] = element
    return NerfFromImageCamera(scaled, None, box)


def from_nerf_from_image(
    stored: NerfFromImageCamera, height: int | None = None, width: int | None = None
) -> Camera:
    """The camera of such a pose, focal length and box.

    Args:
        stored: the pose as their code holds it, after any flip of mirrored data sets.
        height: with `width`, the picture's size, as in `to_nerf_from_image`.
        width: see `height`.
    """
    start, size = stored.box[..., 0, :], stored.box[..., 1, :]
    center = torch.stack(
        [
            -start[..., 0] / size[..., 0] + _half_pixel(width),
            1.0 + start[..., 1] / size[..., 1] + _half_pixel(height),
        ],
        dim=-1,
    )
    pose = stored.camera_to_world
    if stored.focal is not None:
        focal = 2.0 * stored.focal[..., None] / size
        return Camera(
            camera_to_world=flip_camera_axes(pose),
            intrinsics=torch.cat([focal, center], dim=-1),
        )
    element = pose[..., 3, 3]
    unscaled = rigid(pose[..., :3, :3] / element[..., None, None], pose[..., :3, 3])
    return Camera(
        camera_to_world=flip_camera_axes(unscaled),
        intrinsics=torch.cat([1.0 / (element[..., None] * size), center], dim=-1),
        kind="orthographic",
    )


def full_box(like: Tensor) -> Float[Tensor, "2 2"]:
    """nerf-from-image's box of the whole image: from (-1, -1), 2 wide and 2 high."""
    return like.new_tensor([[-1.0, -1.0], [2.0, 2.0]])


def _half_pixel(pixels: int | None) -> float:
    return 0.0 if pixels is None else 0.5 / pixels
