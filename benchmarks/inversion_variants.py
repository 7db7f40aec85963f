"""What the ablation of inversion compares: encoders, generators, and the direct way to a pose."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.nn.segformer import SegFormer
from unflat.systems.gan.recipe import Parts
from unflat.systems.gan.terms import PathLengthTerm
from unflat.systems.inversion.encoder import Config
from unflat.systems.inversion.framing import Framing
from unflat.systems.inversion.recipe import EncoderRecipe

STILL = Framing(around_deg=0.0, turn_deg=0.0, scale=0.0, shift=0.0, color=0.0, hue=0.0)


@dataclass(frozen=True, kw_only=True)
class EncoderVariant:
    """One way to teach an encoder."""

    says: str
    objective: Mapping[str, Any] = field(default_factory=dict[str, Any])
    is_regression: bool = False
    knows_pictures: bool = True


ENCODERS = {
    "whole": EncoderVariant(says="canonical map and PnP"),
    "regression": EncoderVariant(says="rotation told directly", is_regression=True),
    "made-only": EncoderVariant(
        says="map and PnP, made pictures only (as published)", knows_pictures=False
    ),
    "no-augmentation": EncoderVariant(
        says="map and PnP, no change of camera, window and color", objective={"framing": STILL}
    ),
}

GENERATORS = {
    "generator": "path lengths and colour mapping",
    "no-path-length": "no path lengths",
    "no-colour-mapping": "no colour mapping: the palette is the corners of the colour cube",
}


class CubePalette(nn.Module):
    """The eight corners of the colour cube, whatever the code: choices among them are any color."""

    def __init__(self) -> None:
        super().__init__()
        bits = [[float(n >> place & 1) for place in range(3)] for n in range(8)]
        self.corners: Tensor
        self.register_buffer("corners", torch.tensor(bits))

    def forward(self, code: Float[Tensor, "batch style_dim"]) -> Float[Tensor, "batch 8 3"]:
        """For each code the same."""
        return self.corners.expand(len(code), -1, -1)


def changed_parts(parts: Parts, variant: str) -> Parts:
    """A generator's parts without what the variant lacks; colors = 8 where there is no mapping."""
    if variant == "no-colour-mapping":
        parts.generator.body.palette = CubePalette()  # pyright: ignore[reportAttributeAccessIssue]
    if variant != "no-path-length":
        return parts
    terms = tuple(term for term in parts.terms if not isinstance(term, PathLengthTerm))
    values = {name: getattr(parts, name) for name in Parts.__dataclass_fields__}
    return Parts(**{**values, "terms": terms})


class RotationEncoder(nn.Module):
    """The same trunk, and six numbers made a rotation (arXiv 1812.07035)."""

    def __init__(self, config: Config):
        super().__init__()
        self.trunk = SegFormer(config.backbone, config.decoder_width, config.features)
        self.before = nn.Conv2d(config.features, config.code_width, 3, padding=1)
        self.hidden = nn.Linear(config.code_width, config.code_width)
        self.last = nn.Linear(config.code_width, 6)

    def forward(self, image: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch 3 3"]:
        """Camera to world, of pictures in [0, 1]."""
        features = functional.relu(self.trunk(2 * image - 1))
        pooled = functional.relu(self.before(features)).mean((-1, -2))
        first, second = self.last(functional.relu(self.hidden(pooled))).chunk(2, dim=1)
        x = functional.normalize(first, dim=1)
        y = functional.normalize(second - (second * x).sum(1, keepdim=True) * x, dim=1)
        return torch.stack([x, y, torch.linalg.cross(x, y)], dim=2)


class RotationRecipe(EncoderRecipe):
    """Teaches a `RotationEncoder` from the very pictures that the canonical map is learned from."""

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings)
        self.rotations = RotationEncoder(self.config)
        self.networks = nn.ModuleDict({"encoder": self.rotations})

    def step(
        self, batch: dict[str, Tensor], progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """``rotation``: mean squared distance of matrices."""
        shown = self.show(batch, generator)
        known = self._known(batch, generator)
        pictures = [(shown.image, shown.camera)]
        pictures += [] if known is None else [(known.image, known.camera)]
        guess = self.rotations(torch.cat([image for image, _ in pictures]))
        truth = torch.cat([camera.rotation for _, camera in pictures])
        cost = (guess - truth).square().sum((1, 2)).mean()
        return {"loss": cost, "rotation": cost}
