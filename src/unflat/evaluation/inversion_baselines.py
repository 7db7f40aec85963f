"""What an inversion has to beat: no 3D at all, and the nearest picture of the training set."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from unflat.data.posed_objects import PosedObjects
from unflat.errors import UserError
from unflat.evaluation.inverter import Inverter
from unflat.geometry.camera import Camera
from unflat.metrics import rotation_error

MOST_REFERENCES = 10_000
"""Training views that are compared with; beyond that, objects are drawn by seed."""
SIDE = 32
"""Pixels a side of what is compared."""

BASELINES = ("copy", "mean-color", "mean-pose", "retrieval")
"""By name; the last two need a training split."""

_CHUNK = 1024  # references whose differences are in memory at once


@dataclass(frozen=True, kw_only=True)
class Flat:
    """One picture for every camera; keeps `unflat.evaluation.inverter.Inversion`."""

    image: Float[Tensor, "3 height width"]
    mask: Float[Tensor, "height width"] | None
    camera: Camera | None = None

    def render(
        self, camera: Camera, height: int, width: int
    ) -> tuple[Float[Tensor, "views 3 height width"], Float[Tensor, "views height width"] | None]:
        """The same picture as often as there are cameras."""
        views = camera.batch_shape[0]
        image = self.image.expand(views, -1, -1, -1)
        return image, None if self.mask is None else self.mask.expand(views, -1, -1)


class Copy:
    """The input unchanged, from wherever it is asked."""

    name, has_pose, has_focal = "copy", False, False

    def describe(self) -> dict[str, object]:
        """What it does."""
        return {"what": "the input unchanged for every camera"}

    def invert(
        self,
        image: Float[Tensor, "3 height width"],
        mask: Float[Tensor, "height width"] | None,
        seed: int,
    ) -> Flat:
        """The picture itself."""
        return Flat(image=image, mask=mask)


class MeanColor:
    """One color, the mean of the input with its background."""

    name, has_pose, has_focal = "mean-color", False, False

    def describe(self) -> dict[str, object]:
        """What it does."""
        return {"what": "the mean color of the input, background included, for every camera"}

    def invert(
        self,
        image: Float[Tensor, "3 height width"],
        mask: Float[Tensor, "height width"] | None,
        seed: int,
    ) -> Flat:
        """A picture of one color."""
        return Flat(image=image.mean(dim=(1, 2), keepdim=True).expand_as(image), mask=None)


class References:
    """Views of a training split, small enough to be kept all at once.

    Args:
        objects: of the training split, at the resolution of the evaluation.
        seed: draws objects where there are more than `MOST_REFERENCES` views.

    Raises:
        UserError: not one object could be read.
    """

    def __init__(self, objects: PosedObjects, seed: int = 0) -> None:
        self.objects = objects
        order = torch.randperm(len(objects), generator=torch.Generator().manual_seed(seed))
        small, poses, intrinsics, places, total = [], [], [], [], None
        count = 0
        for index in order.tolist():
            try:
                item = objects[index]
            except UserError as error:
                objects.reject(index, error)
                continue
            if count and count + len(item.images) > MOST_REFERENCES:
                break
            count += len(item.images)
            layers = _layers(item.images, item.masks)
            total = layers.double().sum(dim=0) + (0.0 if total is None else total)
            small.append(_small(layers))
            poses.append(item.camera.camera_to_world)
            intrinsics.append(item.camera.intrinsics)
            places += [(index, view) for view in range(len(item.images))]
        if total is None:
            raise UserError(
                f"{objects.path}: no object of its training split could be read; "
                "check it with unflat data check."
            )
        self.small: UInt8[Tensor, "references values"] = torch.cat(small)
        self.camera = Camera(camera_to_world=torch.cat(poses), intrinsics=torch.cat(intrinsics))
        self.places: Int[Tensor, "references 2"] = torch.tensor(places)
        self.mean: Float[Tensor, "4 height width"] = (total / count).float()

    def nearest_picture(
        self, image: Float[Tensor, "3 height width"], mask: Float[Tensor, "height width"] | None
    ) -> int:
        """The reference of the least squared difference of color and matte at `SIDE` pixels."""
        masks = None if mask is None else mask[None]
        wanted = _small(_layers(image[None], masks)).float()
        distances = [
            (rows.float() - wanted).square().sum(dim=1) for rows in self.small.split(_CHUNK)
        ]
        return int(torch.cat(distances).argmin())

    def middle_camera(self) -> Camera:
        """The reference camera nearest to the mean rotation: least squared chordal distances."""
        rotation = self.camera.rotation.double()
        closeness = (rotation * rotation.mean(dim=0)).sum(dim=(1, 2))
        return self.camera[int(closeness.argmax())]


class MeanPose:
    """The middle camera and the mean picture of the training views, whatever the input."""

    name, has_pose, has_focal = "mean-pose", True, False

    def __init__(self, references: References) -> None:
        self.mean, self.camera = references.mean, references.middle_camera()

    def describe(self) -> dict[str, object]:
        """What it does."""
        return {
            "what": "the training camera nearest to their mean rotation, and the mean of all "
            "training pictures and mattes for every camera"
        }

    def invert(
        self,
        image: Float[Tensor, "3 height width"],
        mask: Float[Tensor, "height width"] | None,
        seed: int,
    ) -> Flat:
        """The same for every input."""
        has_mask = mask is not None
        return Flat(
            image=self.mean[:3], mask=self.mean[3] if has_mask else None, camera=self.camera
        )


class Retrieval:
    """The nearest training picture: its object, its camera, and its other views."""

    name, has_pose, has_focal = "retrieval", True, False

    def __init__(self, references: References) -> None:
        self.references = references

    def describe(self) -> dict[str, object]:
        """What it does."""
        return {
            "what": f"the training view of the least squared difference of color and matte at "
            f"{SIDE} px gives object and camera; a novel view is that object's training view of "
            "the least angle to the camera",
            "references": len(self.references.places),
        }

    def invert(
        self,
        image: Float[Tensor, "3 height width"],
        mask: Float[Tensor, "height width"] | None,
        seed: int,
    ) -> "Retrieved":
        """The nearest training picture."""
        return Retrieved(self.references, self.references.nearest_picture(image, mask))


class Retrieved:
    """An object of the training split; keeps `unflat.evaluation.inverter.Inversion`."""

    def __init__(self, references: References, nearest: int) -> None:
        self.references = references
        self.camera = references.camera[nearest]
        self.index = int(references.places[nearest, 0])

    def render(
        self, camera: Camera, height: int, width: int
    ) -> tuple[Float[Tensor, "views 3 height width"], Float[Tensor, "views height width"] | None]:
        """For each camera the object's training view that is turned least from it."""
        ours = torch.nonzero(self.references.places[:, 0] == self.index).flatten()
        rotation = self.references.camera.rotation[ours]
        chosen = [
            int(rotation_error(rotation, wanted.expand_as(rotation)).argmin())
            for wanted in camera.rotation
        ]
        once = sorted(set(chosen))
        item = self.references.objects.views(self.index, once)
        order = [once.index(view) for view in chosen]
        return item.images[order], None if item.masks is None else item.masks[order]


def open_baselines(references: References | None) -> list[Inverter]:
    """All baselines, without those that need a training split where there is none."""
    flat: list[Inverter] = [Copy(), MeanColor()]
    return flat if references is None else [*flat, MeanPose(references), Retrieval(references)]


def _layers(
    images: Float[Tensor, "views 3 height width"], masks: Float[Tensor, "views height width"] | None
) -> Float[Tensor, "views 4 height width"]:
    """Colors and matte; a matte of ones where the set has none."""
    matte = torch.ones_like(images[:, 0]) if masks is None else masks
    return torch.cat([images, matte[:, None]], dim=1)


def _small(layers: Float[Tensor, "views 4 height width"]) -> UInt8[Tensor, "views values"]:
    reduced = functional.interpolate(layers, size=(SIDE, SIDE), mode="area")
    return (reduced * 255.0).round().to(torch.uint8).flatten(1)
