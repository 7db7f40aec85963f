"""Is a generated object one of its category, seen from where it should be: true objects tell.

The silhouette asks for the shape: from cameras all around, which true object has the most alike
outlines? The azimuth asks for the pose: does a picture made for a camera look as true objects do
from there, or as they do from somewhere else?

    family = TrueFamily(TrueObjects(ProceduralObjects(count=16)), cameras, side=32)
    family.likeness(maker.make([0], cameras[None], 32).solid[0])
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional

from unflat.evaluation.object_maker import ObjectMaker, ObjectViews, turned_about_up
from unflat.evaluation.view_maker import as_batch
from unflat.geometry import Camera
from unflat.metrics import mask_iou

STEP_DEG = 10.0
"""Azimuths at which true objects are held against a picture lie so far apart."""
POSE_SIDE = 32
"""Pixels a side at which colors are compared for the pose."""


class Likeness(NamedTuple):
    """The true object with the most alike outlines."""

    iou: float
    """Mean over the cameras, [0, 1]; higher is better."""
    number: int
    """Of the true object."""


class TrueFamily:
    """True objects from cameras all around, rendered once.

    Args:
        truth: its objects, all that it has.
        camera: batch (views,), for outlines; every fourth one for poses.
        side: pixels at which outlines are compared.
        told: is told the number of pictures that were made since it was told last.
    """

    def __init__(
        self,
        truth: ObjectMaker,
        camera: Camera,
        side: int,
        told: Callable[[int], None] | None = None,
    ) -> None:
        if truth.count is None:
            raise ValueError(f"{truth.name} has no end; true objects are rendered all of them")
        self.truth, self.camera, self.side = truth, camera, side
        self.pose_places = pose_places(camera)
        self.offsets_deg = torch.arange(0.0, 360.0, STEP_DEG)
        around = _around(
            camera[torch.tensor(self.pose_places)], self.offsets_deg
        )  # pose views, azimuths
        solids, images, masks = [], [], []
        for number in range(truth.count):
            solids.append(truth.make([number], as_batch(camera), side).solid[0])
            small = _small(truth.make([number], as_batch(around.flat), POSE_SIDE))
            images.append(small.images.unflatten(0, around.shape))
            masks.append(small.solid.unflatten(0, around.shape))
            if told is not None:
                told(pictures_of_one(camera))
        self.solid: Bool[Tensor, "objects views side side"] = torch.stack(solids)
        self.images: UInt8[Tensor, "objects pose_views azimuths 3 small small"]
        self.images = torch.stack(images)
        self.masks: Bool[Tensor, "objects pose_views azimuths small small"] = torch.stack(masks)

    def __len__(self) -> int:
        """How many true objects there are."""
        return len(self.solid)

    def likeness(self, solid: Bool[Tensor, "views side side"], but: int | None = None) -> Likeness:
        """The nearest true object by the mean IoU of its outlines.

        Args:
            solid: an object from the family's cameras.
            but: a true object to leave out: the one that is asked about.
        """
        objects, views = self.solid.shape[:2]
        every = solid.expand(objects, -1, -1, -1).flatten(0, 1).float()
        values = mask_iou(every, self.solid.flatten(0, 1).float()).view(objects, views).mean(1)
        if but is not None:
            values[but] = -1
        best = int(values.argmax())
        return Likeness(values[best].item(), best)

    def azimuths(self, views: ObjectViews, but: int | None = None) -> Float[Tensor, " pose_views"]:
        """How far each picture is from where it should have been taken, degrees in [-180, 180).

        The mean squared difference of colors, over the pixels that the picture or the true object
        covers, is least for some true object at some azimuth: that azimuth less the camera's. NaN
        where the picture is empty.

        Args:
            views: one object (n = 1) from the family's pose cameras.
            but: a true object to leave out.
        """
        small = _small(views)
        found = []
        for place, (image, mask) in enumerate(zip(small.images, small.solid, strict=True)):
            either = self.masks[:, place] | mask  # objects azimuths small small
            off = (self.images[:, place].float() - image.float()).square().sum(2)
            pixels = either.sum((2, 3)).clamp_min(1)
            distance = (off * either).sum((2, 3)) / pixels  # objects azimuths
            if but is not None:
                distance[but] = torch.inf
            best = self.offsets_deg[int(distance.argmin()) % len(self.offsets_deg)]
            found.append(wrapped(best) if bool(mask.any()) else best * torch.nan)
        return torch.stack(found)


def pose_places(camera: Camera) -> list[int]:
    """Which of a family's cameras are those for poses: every fourth."""
    return list(range(0, camera.batch_shape[0], 4))


def pictures_of_one(camera: Camera) -> int:
    """How many pictures a family makes of each true object."""
    return camera.batch_shape[0] + len(pose_places(camera)) * round(360 / STEP_DEG)


def wrapped(degrees: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The same angle in [-180, 180)."""
    return (degrees + 180) % 360 - 180


def fit_offset(azimuths: Float[Tensor, "*shape"]) -> float:
    """The one angle on the grid that leaves the least mean error when it is taken off, degrees.

    Args:
        azimuths: as `TrueFamily.azimuths` gives them; NaN is left out.
    """
    candidates = torch.arange(0.0, 360.0, STEP_DEG)
    errors = wrapped(azimuths.flatten()[:, None] - candidates).abs().nanmean(0)
    return wrapped(candidates[int(errors.argmin())]).item()


def chance_within(degrees: float) -> float:
    """Share of a grid's azimuths less than an angle away from the right one."""
    return (2 * math.ceil(degrees / STEP_DEG) - 1) * STEP_DEG / 360


class _Small(NamedTuple):
    """Pictures of one object as they are compared."""

    images: UInt8[Tensor, "views 3 small small"]
    solid: Bool[Tensor, "views small small"]


def _small(views: ObjectViews) -> _Small:
    layers = torch.cat([views.images[0], views.opacity[0, :, None]], dim=1)
    if layers.shape[-1] != POSE_SIDE:
        layers = functional.interpolate(layers, size=(POSE_SIDE, POSE_SIDE), mode="area")
    images = (layers[:, :3].clamp(0, 1) * 255).round().to(torch.uint8)
    return _Small(images, layers[:, 3] >= 0.5)


class _Around(NamedTuple):
    """Cameras and those around the object from each, in one row."""

    flat: Camera
    shape: tuple[int, int]


def _around(camera: Camera, offsets_deg: Float[Tensor, " azimuths"]) -> _Around:
    turned = [turned_about_up(camera, offset) for offset in offsets_deg.tolist()]
    poses = torch.stack([one.camera_to_world for one in turned], dim=1)
    lens = torch.stack([one.intrinsics for one in turned], dim=1)
    shape = (poses.shape[0], poses.shape[1])
    flat = Camera(
        camera_to_world=poses.flatten(0, 1), intrinsics=lens.flatten(0, 1), kind=camera.kind
    )
    return _Around(flat, shape)
