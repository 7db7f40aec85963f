"""Quick views of a layered depth picture with objects standing in it.

The scene is splatted from its layers, each object is seen by itself, and every pixel shows what is
nearer: occlusion as rays through all of it would find it, at a fraction of the cost.

    picture = FurnishedPicture(layered, field.objects)
    view = picture.view(camera)
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from unflat.fields.cutout import CutoutField
from unflat.fields.detail import DetailField
from unflat.fields.edited import Inserted
from unflat.geometry.camera import Camera, rigid
from unflat.rendering.layered import LayeredPicture
from unflat.rendering.render import RenderOptions, render

OBJECT_SAMPLES = 128
"""Intervals of a ray between entering and leaving an object's box: one a voxel, or closer."""

_CHUNK = 1 << 16  # rays at once: kernels lay out all voxels anew for every chunk
_CUTOUT_SIDE = 96  # pixels of a cutout's depth picture where rays have to find it
_LEAST_DEPTH = 1e-3  # of an object's own units; what is nearer to a camera is not drawn


class SeenObject(NamedTuple):
    """One object alone, as a camera sees it."""

    rgb: Float[Tensor, "3 height width"]
    """Its colour, whatever its opacity."""
    inverse_depth: Float[Tensor, "height width"]
    """1 / depth, 1 / world units; 0 where there is nothing."""
    opacity: Float[Tensor, "height width"]
    """In [0, 1]."""


class FurnishedPicture:
    """A layered depth picture and objects, ready to be seen by other cameras."""

    def __init__(self, room: LayeredPicture, objects: Sequence[Inserted]):
        """The scene without objects, and these; at the scene's size."""
        self.room = room
        self.size = room.size
        self._objects = [_prepared(placed, room.size) for placed in objects]

    @torch.no_grad()
    def view(self, camera: Camera) -> Float[Tensor, "3 height width"]:
        """All of it seen by a perspective camera (batch of one)."""
        seen = self.room.seen(camera)
        image, inverse = seen.image[0], seen.inverse_depth[0]
        for look in self._objects:
            rgb, nearness, opacity = look.seen(camera, self.size)
            share = torch.where(nearness > inverse, opacity, 0.0)
            image = image + share * (rgb - image)
            inverse = torch.where(share > 0.5, nearness, inverse)
        return image


@torch.no_grad()
def see_voxels(placed: Inserted, camera: Camera, size: tuple[int, int]) -> SeenObject:
    """A voxel object by rays through its box alone.

    Args:
        placed: the object.
        camera: perspective, batch of one.
        size: height and width.
    """
    local, scale = camera_in_object(camera, placed.object_to_world)
    low, high = placed.field.bounds
    reach = float((high - low).norm())
    middle = float(((low + high) / 2 - local.position[0]).norm())
    near = max(_LEAST_DEPTH, middle - reach)
    options = RenderOptions(
        samples=OBJECT_SAMPLES,
        near=near,
        far=max(near, middle) + reach,
        spacing="distance",
        opaque_last=False,
        fit_box=True,
        chunk=_CHUNK,
    )
    top, bottom, left, right = _window(placed.field.bounds, local, size)
    stack = local.intrinsics.new_zeros(5, *size)
    if top < bottom and left < right:
        window = _cropped(local, size, (top, bottom, left, right))
        found = render(placed.field, window, bottom - top, right - left, options)
        divisor = found.opacity.clamp_min(1e-6)
        parts = found.rgb[0] / divisor, found.disparity / divisor / scale, found.opacity
        stack[:, top:bottom, left:right] = torch.cat(parts)
    return SeenObject(stack[:3].clamp(0, 1), stack[3], stack[4])


def _window(bounds: Tensor, camera: Camera, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the pixels that may see a box; all of them from within it."""
    height, width = size
    number = torch.arange(8)
    corners = torch.stack([bounds[number >> axis & 1, axis] for axis in range(3)], dim=-1)
    uv, depth = camera.project(corners[None])
    if float(depth.min()) < _LEAST_DEPTH:
        return 0, height, 0, width
    low, high = uv[0].amin(0), uv[0].amax(0)
    left, right = math.floor(float(low[0]) * width), math.ceil(float(high[0]) * width)
    top, bottom = math.floor(float(low[1]) * height), math.ceil(float(high[1]) * height)
    return max(0, top), min(height, bottom), max(0, left), min(width, right)


def _cropped(camera: Camera, size: tuple[int, int], window: tuple[int, int, int, int]) -> Camera:
    """The camera that takes only some rows and columns of a picture."""
    (height, width), (top, bottom, left, right) = size, window
    whole = camera.intrinsics.new_tensor([width, height])
    corner = camera.intrinsics.new_tensor([left, top]) / whole
    return camera.within(corner, camera.intrinsics.new_tensor([right - left, bottom - top]) / whole)


def cutout_front(
    cutout: CutoutField, size: tuple[int, int]
) -> tuple[
    Float[Tensor, "3 height width"],
    Float[Tensor, "height width"],
    Bool[Tensor, "height width"],
]:
    """What a cutout's own canonical camera sees of it: colour, 1 / depth, and where it is.

    Args:
        cutout: of a scene.
        size: height and width.
    """
    base, frame = cutout.base, cutout.base.frame
    if isinstance(base, DetailField):
        rgb = functional.interpolate(base.photo, size, mode="area")[0]
        normalised = functional.interpolate(base.disparity, size, mode="nearest")[0, 0]
        assumed = frame.d_far + (frame.d_near - frame.d_far) * normalised
        mask = functional.interpolate(cutout.mask, size, mode="nearest")[0, 0] > 0.5
        return rgb, (assumed - frame.b) / frame.a, mask
    side = min(_CUTOUT_SIDE, *size)
    low, high = cutout.bounds
    options = RenderOptions(
        samples=48, near=float(low[2]), far=float(high.norm()), opaque_last=False
    )
    found = render(cutout, own_camera(cutout), side, side, options)
    divisor = found.opacity[:, None].clamp_min(1e-6)
    stack = torch.cat([found.rgb / divisor, found.disparity[:, None] / divisor], dim=1)
    stack = functional.interpolate(stack, size, mode="nearest")[0]
    there = functional.interpolate(found.opacity[:, None], size, mode="bilinear")[0, 0] > 0.5
    return stack[:3].clamp(0, 1), stack[3], there


def own_camera(cutout: CutoutField) -> Camera:
    """The canonical camera of the scene that a cutout comes from, in that scene's world."""
    half = cutout.base.frame.focal_true / 2
    return Camera(
        camera_to_world=torch.eye(4)[None], intrinsics=torch.tensor([[half, half, 0.5, 0.5]])
    )


def camera_in_object(camera: Camera, object_to_world: Float[Tensor, "4 4"]) -> tuple[Camera, float]:
    """A world camera in an object's own space, and world units per unit there."""
    scale = float(object_to_world[:3, 0].norm())
    turned = (object_to_world[:3, :3] / scale).mT
    position = (camera.position - object_to_world[:3, 3]) @ turned.mT / scale
    pose = rigid(turned @ camera.rotation, position)
    return Camera(camera_to_world=pose, intrinsics=camera.intrinsics, kind=camera.kind), scale


class _Voxels(NamedTuple):
    placed: Inserted

    def seen(self, camera: Camera, size: tuple[int, int]) -> SeenObject:
        return see_voxels(self.placed, camera, size)


class _Relief(NamedTuple):
    """A cutout, splatted from its own depth picture."""

    picture: LayeredPicture
    object_to_world: Tensor

    def seen(self, camera: Camera, size: tuple[int, int]) -> SeenObject:
        local, scale = camera_in_object(camera, self.object_to_world)
        found = self.picture.seen(local)
        there = found.visible[0]
        inverse = torch.where(there, found.inverse_depth[0] / scale, 0.0)
        return SeenObject(found.image[0], inverse, there.float())


def _prepared(placed: Inserted, size: tuple[int, int]) -> _Voxels | _Relief:
    if not isinstance(placed.field, CutoutField):
        return _Voxels(placed)
    rgb, inverse, there = cutout_front(placed.field, size)
    camera = own_camera(placed.field)
    return _Relief(LayeredPicture([rgb], [inverse], [there], camera), placed.object_to_world)
