"""What the generation task asks of a generator: any generator, or one that is none."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.data.sample import Reject
from unflat.evaluation.baselines import warp_picture
from unflat.geometry.camera import Camera
from unflat.geometry.trajectory import turn_about_pivot


@dataclass(frozen=True, kw_only=True)
class GeneratedViews:
    """Some generated scenes, each from the same angles; angle 0 is the canonical camera."""

    names: list[str]
    """Of the scenes."""
    numbers: list[int]
    """By which the generator makes them again."""
    images: Float[Tensor, "count views 3 side side"]
    """In [0, 1]."""
    inverse_depth: Float[Tensor, "count views side side"] | None = None
    """1 / depth in each view's camera, 0 where there is nothing; None for a method without."""
    camera: Camera | None = None
    """Of each view, batch (count, views), in units of `inverse_depth`."""
    labels: list[str | None] | None = None
    """The class that each scene is of, or was asked to be of, where that is known."""


@runtime_checkable
class Generator(Protocol):
    """Something that makes scenes from nothing, or from pictures as if from nothing."""

    name: str
    """For the report and the table."""

    @property
    def count(self) -> int | None:
        """How many scenes it can make; None for any number."""
        ...

    @property
    def rejects(self) -> list[Reject]:
        """Inputs that could not be used."""
        ...

    def describe(self) -> dict[str, object]:
        """What the report should keep: weights, truncation, where inputs come from."""
        ...

    def generate(
        self, indices: Sequence[int], angles_deg: Sequence[float], side: int
    ) -> GeneratedViews:
        """Scenes by their numbers; the same number gives the same scene.

        Args:
            indices: numbers from 0; scenes that cannot be made are left out.
            angles_deg: how far the camera is turned to the right about the scene's pivot.
            side: of the pictures, in pixels.
        """
        ...


@runtime_checkable
class Pictures(Protocol):
    """Pictures by their numbers, as `PictureStream` gives them."""

    @property
    def rejects(self) -> list[Reject]:
        """What cannot be read."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...

    def describe(self) -> dict[str, object]:
        """What the report should keep."""
        ...

    def label(self, index: int) -> str | None:
        """The class of a picture, if it is known."""
        ...

    def batch(
        self, indices: Sequence[int]
    ) -> tuple[list[str], list[int], Float[Tensor, "batch 3 side side"]]:
        """Names, numbers and pictures of the readable ones."""
        ...


class FlatPictures:
    """The 2D-only reference: pictures as flat cards that are turned.

    Whatever a 2D generator reaches on pictures, it reaches here at angle 0; turning shows what is
    lost without any depth. Beside the card its edge is repeated.

    Args:
        pictures: of a 2D generator, or photographs: the best that a 2D generator could give.
        fov_deg: of the camera.
        name: for the report and the table.
    """

    default_name = "flat"

    def __init__(self, pictures: Pictures, fov_deg: float = 50.0, name: str = default_name) -> None:
        self.pictures, self.fov_deg, self.name = pictures, fov_deg, name

    @property
    def count(self) -> int:
        """One scene for each picture."""
        return len(self.pictures)

    @property
    def rejects(self) -> list[Reject]:
        """Unreadable pictures."""
        return self.pictures.rejects

    def describe(self) -> dict[str, object]:
        """The field of view, and which pictures."""
        return {"fov_deg": self.fov_deg, "distance": 1.0, **self.pictures.describe()}

    def generate(
        self, indices: Sequence[int], angles_deg: Sequence[float], side: int
    ) -> GeneratedViews:
        """Cards seen from the angles."""
        names, numbers, images = self.pictures.batch(indices)
        card = torch.ones(side, side)
        angles = torch.deg2rad(torch.tensor(list(angles_deg)))
        poses = turn_about_pivot(angles, torch.zeros_like(angles), 1.0)
        focal = 0.5 / math.tan(math.radians(self.fov_deg) / 2)
        lens = torch.tensor([focal, focal, 0.5, 0.5])
        cameras = Camera(camera_to_world=poses, intrinsics=lens.expand(len(angles), 4))
        canonical = Camera(camera_to_world=torch.eye(4)[None], intrinsics=lens[None])
        empty = torch.empty(0, len(angles), 3, side, side)
        made = [self._views(image, card, canonical, cameras, angles) for image in images]
        depth = _card_inverse_depth(angles, focal, side)
        count = len(names)
        return GeneratedViews(
            names=names,
            numbers=numbers,
            images=torch.stack(made) if made else empty,
            inverse_depth=depth.expand(count, -1, -1, -1),
            camera=Camera(
                camera_to_world=poses.expand(count, -1, -1, -1),
                intrinsics=lens.expand(count, len(angles), 4),
            ),
            labels=[self.pictures.label(number) for number in numbers],
        )

    @staticmethod
    def _views(
        image: Tensor, card: Tensor, canonical: Camera, cameras: Camera, angles: Tensor
    ) -> Float[Tensor, "views 3 side side"]:
        warped = warp_picture(image, card, canonical, cameras, supersample=2)
        is_canonical = (angles == 0)[:, None, None, None]
        return torch.where(is_canonical, image.expand_as(warped), warped)


def _card_inverse_depth(
    angles: Float[Tensor, " views"], focal: float, side: int
) -> Float[Tensor, "views side side"]:
    """1 / depth of the plane z = 1 from cameras that were turned about (0, 0, 1).

    In a camera that was turned by a to the right the card's normal is (sin a, 0, cos a), and the
    point at depth 1 on the axis lies on it: a point at depth z along (x, y, 1) fulfils
    z (x sin a + cos a) = cos a.
    """
    across = (torch.arange(side) + 0.5) / side - 0.5
    x = (across / focal)[None, None, :]
    tangent = torch.tan(angles)[:, None, None]
    return (1 + x * tangent).clamp_min(0).expand(-1, side, -1)
