"""What the task "objects" asks of a generator: any generator, a baseline, or the truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unflat.fields.field import Field
from unflat.geometry import Camera, rotation_about

SURFACE = 0.5
"""Opacity from which a pixel shows the object's surface."""


@dataclass(frozen=True, kw_only=True)
class ObjectViews:
    """Some objects, each from its own cameras."""

    images: Float[Tensor, "n views 3 side side"]
    """Over white, in [0, 1]."""
    opacity: Float[Tensor, "n views side side"]
    """Share of each pixel that the object covers."""
    depth: Float[Tensor, "n views side side"]
    """Along the optical axis, world units; infinite where nothing is."""

    @property
    def solid(self) -> Bool[Tensor, "n views side side"]:
        """Where the object covers at least `SURFACE` of a pixel."""
        return self.opacity >= SURFACE

    @property
    def surface_depth(self) -> Float[Tensor, "n views side side"]:
        """Depths where the object is solid, infinite elsewhere."""
        return self.depth.where(self.solid, torch.inf)

    @property
    def colors(self) -> Float[Tensor, "n views 3 side side"]:
        """The object's own colors in [0, 1], the white behind it taken out; white where nothing is.

        A pixel at an outline is partly white, which is no property of the surface there.
        """
        opacity = self.opacity[:, :, None]
        own = (self.images - (1 - opacity)) / opacity.clamp_min(1e-6)
        return torch.where(opacity > 0, own.clamp(0, 1), 1.0)

    def some(self, views: Sequence[int]) -> "ObjectViews":
        """The objects from some of the cameras.

        Args:
            views: which, in the order wanted.
        """
        chosen = list(views)
        return ObjectViews(
            images=self.images[:, chosen],
            opacity=self.opacity[:, chosen],
            depth=self.depth[:, chosen],
        )


@runtime_checkable
class ObjectMaker(Protocol):
    """Something that makes objects in the object world: y up, front +z."""

    name: str
    """For the report and the table."""

    @property
    def count(self) -> int | None:
        """How many objects it can make; None for any number."""
        ...

    def describe(self) -> dict[str, object]:
        """What the report should keep: weights, truncation, where pictures come from."""
        ...

    def make(self, numbers: Sequence[int], camera: Camera, side: int) -> ObjectViews:
        """Views of objects by their numbers; the same number gives the same object.

        Args:
            numbers: of the objects, from 0 and below `count`.
            camera: of each view, batch (n, views), in the object world.
            side: of the pictures, in pixels.
        """
        ...


@runtime_checkable
class FieldMaker(Protocol):
    """An `ObjectMaker` whose objects can be asked at points."""

    def field(self, number: int) -> Field | None:
        """The object as a batch of one, of colors; None if it is none, as a picture."""
        ...


class Turned:
    """Another maker's objects, turned about the world's up (y).

    Args:
        maker: whose objects.
        azimuth_deg: by how much they are turned, counter-clockwise seen from above.
    """

    def __init__(self, maker: ObjectMaker, azimuth_deg: float) -> None:
        self.maker, self.azimuth_deg, self.name = maker, azimuth_deg, maker.name

    @property
    def count(self) -> int | None:
        """As of the maker."""
        return self.maker.count

    def describe(self) -> dict[str, object]:
        """Of the maker, and the angle."""
        return {**self.maker.describe(), "turned_deg": self.azimuth_deg}

    def make(self, numbers: Sequence[int], camera: Camera, side: int) -> ObjectViews:
        """The maker's objects from cameras that are turned the other way."""
        return self.maker.make(numbers, turned_about_up(camera, -self.azimuth_deg), side)


def turned_about_up(camera: Camera, azimuth_deg: float) -> Camera:
    """The camera carried around the world's up axis through the origin; its azimuth grows.

    Args:
        camera: of the object world, any batch.
        azimuth_deg: counter-clockwise seen from above.
    """
    pose = camera.camera_to_world
    angle = torch.deg2rad(pose.new_tensor(azimuth_deg))
    motion = torch.eye(4, dtype=pose.dtype, device=pose.device)
    motion[:3, :3] = rotation_about(pose.new_tensor([0.0, 1.0, 0.0]), angle)
    return Camera(camera_to_world=motion @ pose, intrinsics=camera.intrinsics, kind=camera.kind)


def one_view(camera: Camera) -> Camera:
    """Cameras of a batch (n,) as the only view of n objects, batch (n, 1)."""
    return Camera(
        camera_to_world=camera.camera_to_world[..., None, :, :],
        intrinsics=camera.intrinsics[..., None, :],
        kind=camera.kind,
    )
