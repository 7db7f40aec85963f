"""A model of new views as the task "views" asks it."""

import hashlib
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unflat.geometry.camera import Camera
from unflat.geometry.pose import orbit_coordinates
from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.make import make_views
from unflat.systems.zero123.model import ViewModel
from unflat.systems.zero123.sampler import Sampler

BATCH = 24
"""Views at a time."""


class ModelViews:
    """Views that a model samples from the picture as the set frames it; keeps `ViewMaker`.

    Args:
        model: makes them.
        sampler: how.
        tells_elevation: whether the model is told how high the picture was taken; what every
            method knows by the picture's camera.
        file: of the model, for its hash.
    """

    is_random = True

    def __init__(
        self,
        model: ViewModel,
        sampler: Sampler,
        *,
        tells_elevation: bool = True,
        file: Path | None = None,
    ) -> None:
        self.model, self.sampler, self.tells_elevation = model, sampler, tells_elevation
        self.name, self.file = model.name, file

    def describe(self) -> dict[str, Any]:
        """How views are sampled, and by what."""
        found: dict[str, Any] = {
            "side": self.model.side,
            **vars(self.sampler),
            "noise": "the same for all views of an object and seed",
            "elevation": "told" if self.tells_elevation else "not told",
        }
        if self.file is not None and self.file.is_file():
            found["sha256"] = hashlib.sha256(self.file.read_bytes()).hexdigest()
        return found

    def make(
        self,
        image: Float[Tensor, "3 height width"],
        mask: Float[Tensor, "height width"],
        reference: Camera,
        cameras: Camera,
        seed: int,
    ) -> Float[Tensor, "views 3 height width"]:
        """See `ViewMaker`."""
        model, size = self.model, image.shape[-2:]
        shown, opacity = (
            resized(value[None], (model.side, model.side)).to(model.device)
            for value in (image, mask[None])
        )
        height, _, _ = orbit_coordinates(reference.position)
        told = height[None].to(model.device) if self.tells_elevation else None
        views = make_views(
            model,
            model.reference(shown, opacity[:, 0], told),
            RelativePose.between(reference, cameras),
            self.sampler,
            seed=seed,
            batch=BATCH,
        )
        return resized(views.image.cpu(), (size[0], size[1])).clamp(0, 1)


def resized(
    values: Float[Tensor, "batch channels height width"], size: tuple[int, int]
) -> Float[Tensor, "batch channels rows columns"]:
    """Smaller without aliasing, larger smoothly; in [0, 1]."""
    if tuple(values.shape[-2:]) == size:
        return values
    return functional.interpolate(
        values, size=size, mode="bicubic", align_corners=False, antialias=True
    ).clamp(0, 1)
