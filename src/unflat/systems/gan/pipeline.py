"""From a model file to objects: what `unflat generate` and evaluation use.

model = load("cars.safetensors")
latents = model.latents([0, 1, 2], seed=0)
views = model.pictures(latents, camera, 64)
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.errors import UserError
from unflat.fields.field import Field
from unflat.geometry import Camera
from unflat.object_scene import ObjectScene
from unflat.rendering import Casting
from unflat.scene import SceneHeader
from unflat.systems.gan.game import camera_label
from unflat.systems.gan.generator import Generator, Made
from unflat.systems.gan.recipe import GanRecipe
from unflat.systems.gan.registry import build, config_of
from unflat.training.model_file import load_part, load_weights, model_hash

SYSTEM = "gan"
_PREFIX = "generator."


class ObjectModel:
    """A trained generator, and the cameras that it learned from."""

    def __init__(
        self,
        generator: Generator,
        *,
        system: str,
        config: Any,
        camera: Camera,
        header: dict[str, Any],
    ):
        """A model in evaluation mode.

        Args:
            generator: with its weights.
            system: its name.
            config: the system's.
            camera: some of the cameras of its training, a batch; the first is the canonical one.
            header: of its file.
        """
        self.generator = generator.eval()
        self.system, self.config, self.camera, self.header = system, config, camera, header

    def to(self, device: str) -> "ObjectModel":
        """Itself, computing there."""
        self.generator.to(device)
        return self

    @property
    def resolution(self) -> int:
        """Side of the pictures that it learned from."""
        return self.config.resolution

    @property
    def shown_side(self) -> int:
        """Side of pictures to look at: twice as large as those it learned from.

        Networks that sharpen in 2D know one side only, and stay at that.
        """
        return self.resolution * (2 if self.generator.decoder is None else 1)

    def latents(self, numbers: Sequence[int], seed: int = 0) -> Float[Tensor, "batch latent_dim"]:
        """The latents of objects by their numbers; each depends on seed and number alone."""
        rows = []
        for number in numbers:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
            rows.append(torch.randn(self.generator.latent_dim, generator=generator))
        return torch.stack(rows).to(self._device)

    @torch.no_grad()
    def codes(self, latents: Float[Tensor, "batch latent_dim"], truncation: float = 1.0) -> Tensor:
        """Codes of latents, told the canonical camera where a generator is told one."""
        camera = self.camera[:1].to(self._device)
        label = camera_label(camera).expand(len(latents), -1)
        return self.generator.codes(latents, label, truncation)

    @torch.no_grad()
    def field(self, codes: Tensor) -> Field:
        """The field of colours, of a batch of objects."""
        return self.generator.form(codes).scene()

    @torch.no_grad()
    def pictures(
        self, codes: Tensor, camera: Camera, side: int, casting: Casting | None = None
    ) -> Made:
        """Pictures of objects, each through its own camera, as the generator makes them."""
        form = self.generator.form(codes)
        return self.generator.picture(form, codes, camera, side, casting=casting)

    def scene(
        self,
        number: int,
        *,
        seed: int = 0,
        truncation: float = 1.0,
        name: str = "",
        sha256_of: Path | None = None,
    ) -> ObjectScene:
        """An object by its number, as a scene that needs no generator.

        Args:
            number: of the object.
            seed: of all.
            truncation: how far from the average it may be, in [0, 1].
            name: of the model, for its header.
            sha256_of: the model's file.
        """
        codes = self.codes(self.latents([number], seed), truncation)
        header = SceneHeader(
            system=self.system,
            model=name,
            model_sha256=model_hash(sha256_of) if sha256_of else "",
            licence=str(self.header.get("card", {}).get("licence", "not stated")),
            fov_deg=math.degrees(float(self.camera[:1].fov)),
            created=datetime.now(UTC).date().isoformat(),
            settings={"seed": seed, "number": number, "truncation": truncation},
        )
        return ObjectScene(self.field(codes), header, self.camera[:1])

    @property
    def _device(self) -> torch.device:
        return next(self.generator.parameters()).device


def load(path: Path | str, device: str = "cpu") -> ObjectModel:
    """The model of a file.

    Raises:
        UserError: no such file, or a model of another system.
    """
    weights, header = load_weights(path)
    if header.get("system") != SYSTEM:
        raise UserError(
            f"{path}: is a model of {header.get('system', 'nothing known')}, not a generator of "
            "objects; see unflat models list."
        )
    return from_weights(weights, header, path).to(device)


def from_weights(
    weights: dict[str, Tensor], header: dict[str, Any], path: Path | str
) -> ObjectModel:
    """The model of what a file holds.

    Args:
        weights: those of the generator have the prefix ``generator.``; others are left alone.
        header: with ``config`` and ``cameras``.
        path: of the file, for messages.

    Raises:
        UserError: the weights do not fit the config.
    """
    system, config = config_of(header["config"])
    generator = build(system, config).generator
    load_part(generator, weights, _PREFIX, path)
    return ObjectModel(
        generator,
        system=system,
        config=config,
        camera=cameras_from_json(header["cameras"]),
        header=header,
    )


def header_of(recipe: GanRecipe, camera: Camera) -> dict[str, Any]:
    """What a model file says beside its weights: system, config, and some cameras."""
    return {**recipe.config_json(), "cameras": cameras_to_json(camera)}


def weights_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of all that a run trains, what a model file keeps: the generator."""
    return {name: value for name, value in state.items() if name.startswith(_PREFIX)}


def cameras_to_json(camera: Camera) -> dict[str, Any]:
    """Cameras as plain numbers, and of which kind they are."""
    return {
        "kind": camera.kind,
        "camera_to_world": camera.camera_to_world.tolist(),
        "intrinsics": camera.intrinsics.tolist(),
    }


def cameras_from_json(values: dict[str, Any]) -> Camera:
    """The way back from `cameras_to_json`."""
    return Camera(
        camera_to_world=torch.tensor(values["camera_to_world"]),
        intrinsics=torch.tensor(values["intrinsics"]),
        kind=values.get("kind", "perspective"),  # that of files which do not say
    )
