"""A picture to where on the object each of its pixels is, what is object at all, and its code.

    encoder = build(small())
    guess = encoder(images)         # in [0, 1], before the background that the generator draws
    guess.points, guess.opacity     # the canonical map: from it the camera is found
    guess.w                         # from it the generator makes an object alike

Pavllo et al., "Shape, Pose, and Appearance from a Single Image via Bootstrapped Radiance Field
Inversion" (CVPR 2023, arXiv 2211.11674): a SegFormer with two heads, taught by the generator's own
pictures, of which all three answers are known.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.nn.segformer import MIX_SIZES, MixSizes, SegFormer

_SLOPE = 0.2  # of the mapping network's last activation: codes end alike
_POINT, _OPACITY = 3, 1  # channels of the map head
_FIRST_SCALE = 0.1  # of the map's error before any training, world units


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of the encoder; the defaults are the paper's."""

    backbone: MixSizes = MIX_SIZES["b5"]
    """Of the transformer."""
    decoder_width: int = 768
    """Of the layers that join its four maps."""
    features: int = 512
    """Channels of the joined map, which the heads read."""
    head_width: int = 512
    """Channels within the head of the map, which works on every pixel."""
    code_width: int = 512
    """Channels within the head of the code."""
    style_dim: int = 512
    """Numbers of the generator's code w."""
    has_confidence: bool = False
    """Whether it tells for each pixel how far off the map may be; not in the paper."""
    is_separate: bool = False
    """Whether the code has a SegFormer of its own."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Config":
        """The config of which `dataclasses.asdict` made these values."""
        backbone: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values["backbone"].items()
        }
        return cls(**{**values, "backbone": MixSizes(**backbone)})


def paper() -> Config:
    """As published: 92.6 M parameters, most of them ImageNet's at first."""
    return Config()


def small() -> Config:
    """For pictures of 32 to 64 pixels on a CPU: 2 M parameters."""
    return Config(
        backbone=MIX_SIZES["small"],
        decoder_width=128,
        features=64,
        head_width=48,
        code_width=128,
        style_dim=192,
        has_confidence=True,
    )


def tiny() -> Config:
    """For tests."""
    return Config(
        backbone=MIX_SIZES["tiny"],
        decoder_width=32,
        features=32,
        head_width=32,
        code_width=32,
        style_dim=64,
        has_confidence=True,
    )


PRESETS = {"tiny": tiny, "small": small, "paper": paper}


class ObjectGuess(NamedTuple):
    """What a picture tells of the object on it."""

    points: Float[Tensor, "batch 3 height width"]
    """The canonical map: where on the object a pixel looks, object world; means nothing where
    nothing is."""
    opacity: Float[Tensor, "batch 1 height width"]
    """Share of the pixel that the object covers, in [0, 1]."""
    w: Float[Tensor, "batch style_dim"]
    """Code of the generator, one for all of its layers."""
    log_scale: Float[Tensor, "batch 1 height width"] | None
    """Logarithm of the map's expected error in world units; None for an encoder without."""

    def part(self, rows: slice) -> "ObjectGuess":
        """Of some of the pictures."""
        return ObjectGuess(*(None if each is None else each[rows] for each in self))  # pyright: ignore[reportArgumentType] only the last may be None


class Encoder(nn.Module):
    """Pictures to an `ObjectGuess` each."""

    def __init__(self, config: Config):
        """An encoder with its first weights."""
        super().__init__()
        self.config = config

        def trunk() -> SegFormer:
            return SegFormer(config.backbone, config.decoder_width, config.features)

        self.trunk = trunk()
        self.code_trunk = trunk() if config.is_separate else None
        self.map_head = MapHead(config.features, config.head_width, config.has_confidence)
        self.code_head = CodeHead(config.features, config.code_width, config.style_dim)

    def forward(self, image: Float[Tensor, "batch 3 height width"]) -> ObjectGuess:
        """What the pictures tell.

        Args:
            image: sRGB in [0, 1], before the background that the generator draws; of any sides.
        """
        normalized = 2 * image - 1
        features = self.trunk(normalized)
        code_features = features if self.code_trunk is None else self.code_trunk(normalized)
        # Cells of the last row and column may lie partly beyond the picture.
        fine = functional.interpolate(
            features, scale_factor=self.trunk.stride, mode="bilinear", align_corners=False
        )[..., : image.shape[-2], : image.shape[-1]]
        points, opacity, log_scale = self.map_head(fine)
        return ObjectGuess(points, opacity, self.code_head(code_features), log_scale)


class MapHead(nn.Module):
    """Features of pixels to the canonical map, opacity, and how sure the map is."""

    def __init__(self, features: int, width: int, has_confidence: bool):
        super().__init__()
        out = _POINT + _OPACITY + has_confidence
        self.first = nn.Conv2d(features, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, out, 3, padding=1)
        if has_confidence and self.last.bias is not None:
            nn.init.constant_(self.last.bias[-1], math.log(_FIRST_SCALE))

    def forward(
        self, features: Float[Tensor, "batch channels height width"]
    ) -> tuple[
        Float[Tensor, "batch 3 height width"],
        Float[Tensor, "batch 1 height width"],
        Float[Tensor, "batch 1 height width"] | None,
    ]:
        """Points, opacity, and the logarithm of the points' scale where it is told."""
        hidden = functional.relu(self.first(functional.relu(features)))
        out = self.last(functional.relu(self.second(hidden)))
        points, opacity, rest = out[:, :_POINT], out[:, _POINT : _POINT + 1], out[:, _POINT + 1 :]
        return points, torch.sigmoid(opacity), rest if rest.shape[1] else None


class CodeHead(nn.Module):
    """Features of cells to one code for the picture, by their mean."""

    def __init__(self, features: int, width: int, style_dim: int):
        super().__init__()
        self.before = nn.Conv2d(features, width, 3, padding=1)
        self.hidden = nn.Linear(width, width)
        self.last = nn.Linear(width, style_dim)

    def forward(
        self, features: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch style_dim"]:
        """Codes, as the mapping network's last layer would leave them."""
        pooled = functional.relu(self.before(functional.relu(features))).mean((-1, -2))
        hidden = functional.relu(self.hidden(pooled))
        return functional.leaky_relu(self.last(hidden), _SLOPE)


def build(config: Config) -> Encoder:
    """The encoder of a config, with its first weights."""
    return Encoder(config)
