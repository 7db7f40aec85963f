"""A trained inversion model as the inversion task asks it, with any number of steps.

inverters = open_inverters("runs/cars", steps=(0, 10, 30))
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.errors import UserError
from unflat.evaluation.inverter import Inverter
from unflat.geometry.camera import Camera
from unflat.geometry.published_pose import camera_from_pose
from unflat.hub.registry import FEATURES, find
from unflat.losses import FeatureDistance, frozen
from unflat.systems.features import load as load_features
from unflat.systems.inversion.compare import Comparison, look
from unflat.systems.inversion.fit import FitConfig, Unknowns, steps_of
from unflat.systems.inversion.pipeline import InversionModel, load
from unflat.training.model_file import model_hash


class Found:
    """An object of a model; keeps `unflat.evaluation.inverter.Inversion`."""

    def __init__(self, model: InversionModel, unknowns: Unknowns, has_camera: bool) -> None:
        self.model, self.unknowns = model, unknowns
        self.form = model.form(unknowns)
        self.camera: Camera | None = None
        if has_camera:
            self.camera = camera_from_pose(unknowns.pose)[0].to("cpu")

    @torch.no_grad()
    def render(
        self, camera: Camera, height: int, width: int
    ) -> tuple[Float[Tensor, "views 3 height width"], Float[Tensor, "views height width"] | None]:
        """The object on the model's background.

        Raises:
            UserError: the pictures are not square.
        """
        if height != width:
            raise UserError(f"{width} x {height} pixels: objects are rendered in squares only.")
        views = Camera(
            camera_to_world=camera.camera_to_world[None],
            intrinsics=camera.intrinsics[None],
            kind=camera.kind,
        ).to(self.unknowns.codes.device)
        maker = self.model.objects.generator
        made = maker.picture(self.form, self.unknowns.codes, views, height)
        return made.image.clamp(0, 1), made.opacity[:, 0]


class ModelInverter:
    """A model with a number of steps; keeps `unflat.evaluation.inverter.Inverter`."""

    has_pose, has_focal = True, True

    def __init__(
        self,
        name: str,
        model: InversionModel,
        distance: torch.nn.Module,
        config: FitConfig,
        comparison: Comparison,
        sha256: str,
    ) -> None:
        self.name, self.model, self.distance = name, model, distance
        self.config, self.comparison, self.sha256 = config, comparison, sha256

    def describe(self) -> dict[str, object]:
        """How it is refined, and what compares pictures."""
        return {
            "sha256": self.sha256,
            "side": self.model.side,
            "fit": asdict(self.config),
            "comparison": asdict(self.comparison),
        }

    def invert(
        self,
        image: Float[Tensor, "3 height width"],
        mask: Float[Tensor, "height width"] | None,
        seed: int,
    ) -> Found:
        """The encoder's guess, and as many steps as it is made for.

        Raises:
            UserError: the set has no masks, or its pictures are not square.
        """
        if mask is None:
            raise UserError(f"{self.name}: needs masks, which the set does not give.")
        if image.shape[-1] != image.shape[-2]:
            raise UserError(f"{self.name}: needs square pictures, not {tuple(image.shape[1:])}.")
        model = self.model
        batch = image[None].to(model.device), mask[None].to(model.device)
        seen = look(*batch, model.side, model.objects.generator.background)
        start = model.start(seen)
        unknowns = start.unknowns
        if self.config.steps:
            with torch.enable_grad():
                unknowns = model.refine(
                    unknowns,
                    seen,
                    self.distance,
                    self.config,
                    comparison=self.comparison,
                    seed=seed,
                ).unknowns
        return Found(model, unknowns, start.judged.chosen[0] >= 0)


def open_inverters(
    name: str, steps: Sequence[int], device: str = "cpu", *, offline: bool = False
) -> list[Inverter]:
    """The model of a name or a path, with each number of steps.

    Raises:
        UserError: no such model, or one that finds no objects in pictures.
    """
    path = find(name, offline=offline)
    model = load(path, device)
    title = Path(name).name if Path(name).exists() else name
    distance = frozen(FeatureDistance(load_features(find(FEATURES)))).to(device)
    digest = model_hash(path)
    return [
        ModelInverter(f"{title} N={count}", model, distance, steps_of(count), Comparison(), digest)
        for count in steps
    ]
