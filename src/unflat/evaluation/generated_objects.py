"""A trained generator of objects behind the `ObjectMaker` protocol."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from unflat.evaluation.object_maker import ObjectViews
from unflat.fields.field import Field
from unflat.geometry import Camera
from unflat.systems.gan.generator import Made
from unflat.systems.gan.pipeline import ObjectModel

_RAYS = 2**15  # rendered at once: what a step of training renders, or less


class GeneratedObjects:
    """Objects of a model, rendered as it renders them itself.

    Args:
        model: the generator.
        name: for the report and the table.
        facts: what else the report keeps, as the file's hash.
        truncation: 1 draws as in training, less draws nearer to the mean object.
        seed: of the latents.
    """

    count = None

    def __init__(
        self,
        model: ObjectModel,
        name: str,
        *,
        facts: Mapping[str, object] | None = None,
        truncation: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.model, self.name, self.facts = model, name, dict(facts or {})
        self.truncation, self.seed = truncation, seed

    def describe(self) -> dict[str, object]:
        """System, how objects are drawn, and the file."""
        return {
            "system": self.model.system,
            "truncation": self.truncation,
            "seed": self.seed,
            "rendered_side": f"1 / {self.model.generator.scale} of the picture's",
            **self.facts,
        }

    def field(self, number: int) -> Field:
        """The object that a mesh is made of; without the 2D network, where there is one."""
        return self.model.field(self._codes([number]))

    @torch.no_grad()
    def make(self, numbers: Sequence[int], camera: Camera, side: int) -> ObjectViews:
        """Pictures; opacity and depth are those of the rays, repeated where there are fewer."""
        numbers, views = list(numbers), camera.batch_shape[1]
        camera = camera.to(self._device, torch.float32)
        rays = (side // self.model.generator.scale) ** 2
        many = max(1, _RAYS // (rays * views))  # objects at once
        few = max(1, min(views, _RAYS // rays))  # views of each
        rows = []
        for start in range(0, len(numbers), many):
            codes = self._codes(numbers[start : start + many])
            form, cameras = self.model.generator.form(codes), camera[start : start + many]
            parts = [
                self._views(
                    self.model.generator.picture(form, codes, cameras[:, v : v + few], side), side
                ).unflatten(0, (len(codes), -1))
                for v in range(0, views, few)
            ]
            rows.append(torch.cat(parts, dim=1))
        made = torch.cat(rows).cpu()
        return ObjectViews(
            images=made[:, :, :3].clamp(0, 1), opacity=made[:, :, 3], depth=made[:, :, 4]
        )

    def _views(self, made: Made, side: int) -> Tensor:
        """Color, opacity and depth as channels of one picture."""
        rays = torch.cat([made.opacity, made.depth[:, None]], dim=1)
        if rays.shape[-1] != side:
            rays = functional.interpolate(rays, size=(side, side), mode="nearest-exact")
        return torch.cat([made.image, rays], dim=1)

    def _codes(self, numbers: Sequence[int]) -> Tensor:
        return self.model.codes(self.model.latents(numbers, self.seed), self.truncation)

    @property
    def _device(self) -> torch.device:
        return next(self.model.generator.parameters()).device
