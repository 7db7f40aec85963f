"""Held-out objects, the views asked of them, and figures of the views that a model makes."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from unflat.data import PosedViews, open_views
from unflat.evaluation.view_following import pose_following
from unflat.geometry import Camera
from unflat.geometry.pose import orbit_coordinates
from unflat.geometry.relative_pose import RelativePose
from unflat.metrics import mask_iou, psnr
from unflat.systems.zero123.make import make_views
from unflat.systems.zero123.model import Tensors, ViewModel, Views
from unflat.systems.zero123.sampler import Sampler

SET = "objects-zero123.tar"
SPLIT = "val"


class Object(NamedTuple):
    """All views of one object; the first is the picture."""

    image: Tensor
    opacity: Tensor
    camera: Camera

    def reference(self, model: ViewModel, tells_elevation: bool = True) -> Tensors:
        """What a model is told of the picture."""
        elevation, _, _ = orbit_coordinates(self.camera.position[:1])
        told = elevation if tells_elevation else None
        return model.reference(self.image[:1], self.opacity[:1], told)

    def some(self, views: int) -> "Object":
        """Only the first so many views beside the picture."""
        kept = slice(0, views + 1)
        return Object(self.image[kept], self.opacity[kept], self.camera[kept])

    def poses(self) -> RelativePose:
        """From the picture to all other views."""
        return RelativePose.between(self.camera[0], self.camera[1:])


def objects(data: Path, side: int, count: int) -> list[Object]:
    """The first so many held-out objects."""
    views: PosedViews = open_views(data / SET, side, SPLIT)
    if views.masks is None or views.camera is None:
        raise ValueError("the set has no masks or cameras")
    found = []
    for number in range(min(count, len(views.names))):
        own = (views.objects == number).nonzero()[:, 0]
        found.append(
            Object(
                views.images[own].float() / 255, views.masks[own].float() / 255, views.camera[own]
            )
        )
    return found


def figures(many: list[Object], make: Callable[[Object, int], Views]) -> dict[str, float]:
    """Means over all views of all objects.

    Args:
        many: the objects.
        make: views of an object, for a seed that is its number.
    """
    found: dict[str, list[float]] = {}
    for number, one in enumerate(many):
        views = make(one, number)
        true, mask = one.image[1:], one.opacity[1:]
        values = {
            "psnr": psnr(views.image, true).tolist(),
            "psnr_object": psnr(views.image, true, mask[:, None]).tolist(),
            "outline_iou": mask_iou(
                mask if views.opacity is None else views.opacity, mask
            ).tolist(),
        }
        values |= {
            f"pose_{kind}": share for kind, share in pose_following(views.image, true).items()
        }
        for key, own in values.items():
            found.setdefault(key, []).extend(own)
    return {key: float(torch.tensor(own).nanmean()) for key, own in found.items()}


def sampled(
    model: ViewModel, sampler: Sampler, **settings: object
) -> Callable[[Object, int], Views]:
    """Views of an object by a model.

    Args:
        model: makes them.
        sampler: how.
        settings: of `make_views`; ``tells_elevation`` beside them.
    """
    told = bool(settings.pop("tells_elevation", True))

    def make(one: Object, seed: int) -> Views:
        reference = one.reference(model, told)
        return make_views(model, reference, one.poses(), sampler, seed=seed, batch=24, **settings)  # pyright: ignore[reportArgumentType]

    return make
