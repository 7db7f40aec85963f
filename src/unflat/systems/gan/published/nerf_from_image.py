"""Generators of google-research/nerf-from-image (arXiv 2211.11674), from their published weights.

    config, weights = generator_from_published(state, DATA_SETS["p3d_car"])
    generator = build(config, weights)                  # as those that were trained here
    codes = generator.codes(torch.randn(1, config.latent_dim))
    scene = generator.form(codes).scene()               # any of our renderers takes it

A style for each layer of the synthesis network makes three planes of a signed distance and of soft
choices among ten colours, which one further style makes. What differs between the data sets and
does not stand in the files stands in `DATA_SETS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unflat.errors import UserError
from unflat.fields.distance import (
    DistanceDecoder,
    DistanceTriplaneField,
    LaplaceDensity,
)
from unflat.hub.published_names import Names, filled, linear_names
from unflat.nn.palette import PaletteNetwork
from unflat.nn.stylegan import MappingNetwork, SynthesisNetwork
from unflat.rendering import Casting
from unflat.systems.gan.generator import Form, Generator
from unflat.systems.gan.published.directed import DirectedTriplaneField, ViewDirectionNetwork
from unflat.systems.gan.published.keys import (
    mapping_names,
    renamed,
    synthesis_names,
    synthesis_sizes,
)

_PLANES = 3
_DEPTH = 2  # layers of the mapping network
_AVERAGED = 10_000  # latents of which an average style is made


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """What the published code derives from the name of a data set."""

    half_side: float
    """Of the box that holds the object, world units."""
    background: float
    """Grey level behind the object: 1 is white."""
    camera: Literal["perspective", "orthographic"]
    """Kind of its cameras."""
    is_flipped: bool
    """Whether its poses are stored with the second to fourth column of camera-to-world negated."""
    has_mask: bool
    """Whether its critic sees the opacity as a fourth channel."""
    noise: bool
    """Whether the synthesis network adds noise."""


_ROUND = DataSet(
    half_side=0.55,
    background=1.0,
    camera="perspective",
    is_flipped=False,
    has_mask=False,
    noise=False,
)
_PHOTOS = DataSet(
    half_side=1.4,
    background=0.5,
    camera="perspective",
    is_flipped=True,
    has_mask=True,
    noise=False,
)

DATA_SETS: dict[str, DataSet] = {
    "shapenet_cars": _ROUND,
    "shapenet_chairs": _ROUND,
    "carla": replace(_ROUND, half_side=3.0),
    "p3d_car": _PHOTOS,
    "imagenet_car": _PHOTOS,
    "imagenet_airplane": _PHOTOS,
    "imagenet_motorcycle": _PHOTOS,
    "imagenet_zebra": _PHOTOS,
    "imagenet_elephant": replace(_PHOTOS, noise=True),
    "cub": replace(_PHOTOS, half_side=2.0, camera="orthographic", noise=True),
}
"""The data sets for which generators were published."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """A generator as its file and its data set tell it; the defaults are the published ones."""

    data: DataSet
    """What does not stand in the file."""
    latent_dim: int = 512
    """Numbers of a latent."""
    style_dim: int = 512
    """Numbers of a style."""
    side: int = 256
    """Of a plane, texels."""
    channels: int = 32
    """Of a plane."""
    base: int = 32768
    """Features of a synthesis block are base / side, at most ``widest``."""
    widest: int = 512
    """Most features of a synthesis block."""
    hidden: int = 64
    """Width of the decoder."""
    colors: int = 10
    """Of the palette; 0 for colours without one."""
    palette_width: int = 512
    """Of the palette's layers."""
    features: int = 10
    """What the decoder gives beside a distance: logits, or 32 features with ``has_view``."""
    has_view: bool = False
    """Whether colours depend on the direction of view."""
    view_width: int = 64
    """Of the layers that see the direction."""
    has_distance: bool = True
    """Whether density is made of a signed distance."""


class Body(nn.Module):
    """Codes to planes and palettes, as arXiv 2211.11674 describes it; the last is the palette's."""

    def __init__(self, config: Config):
        """Networks with first weights; `build` fills them."""
        super().__init__()
        self.config = config
        self.synthesis = SynthesisNetwork(
            config.side,
            _PLANES * config.channels,
            style_dim=config.style_dim,
            base=config.base,
            widest=config.widest,
            noise=config.data.noise,
        )
        self.decoder = DistanceDecoder(config.channels, config.hidden, config.features)
        self.density = LaplaceDensity() if config.has_distance else None
        self.palette = self.view = None
        if config.colors:
            self.palette = PaletteNetwork(
                config.style_dim, config.colors, width=config.palette_width
            )
        if config.has_view:
            logits = config.colors or 3
            self.view = ViewDirectionNetwork(config.features, logits, config.view_width)
        self.codes = self.synthesis.codes + (self.palette is not None)
        self.bounds: Tensor
        self.register_buffer("bounds", _box(config.data))

    def planes(
        self, codes: Float[Tensor, "batch codes style_dim"]
    ) -> Float[Tensor, "batch 3 channels side side"]:
        """Features of planes XY, XZ, YZ."""
        maps = self.synthesis(codes[:, : self.synthesis.codes])
        return maps.unflatten(1, (_PLANES, -1))

    def forward(self, codes: Float[Tensor, "batch codes style_dim"]) -> Form:
        """Objects of codes."""
        planes = self.planes(codes)
        palette = None if self.palette is None else self.palette(codes[:, -1])
        if self.density is not None and palette is not None and self.view is None:
            field = DistanceTriplaneField(
                planes, self.decoder, self.density, self.bounds, align_corners=True
            )
        else:
            field = DirectedTriplaneField(
                planes,
                self.decoder,
                self.bounds,
                density=self.density,
                view=self.view,
                has_palette=palette is not None,
            )
        return Form(field, palette)


def data_set_of(path: str | Path, data: str | None = None) -> DataSet:
    """The data set that a published folder's name tells, as in ``g_p3d_car_pretrained``.

    Args:
        path: of the file; the folder it lies in comes first.
        data: name of the data set, where the folder has another name.

    Raises:
        UserError: none is told, or the name is no data set's.
    """
    known = ", ".join(DATA_SETS)
    if data is not None:
        if data not in DATA_SETS:
            raise UserError(
                f"{data}: is no data set of a published generator; give one of {known}."
            )
        return DATA_SETS[data]
    for part in reversed(Path(path).absolute().parts):
        for name, found in DATA_SETS.items():
            if f"_{name}_" in f"_{part}_":
                return found
    raise UserError(
        f"{path}: its folder does not tell the data set, on which box and background depend; name "
        f"the folder as published (g_p3d_car_pretrained), or the data set: {known}."
    )


def generator_from_published(
    state: Mapping[str, Tensor], data: DataSet, source: str = "the generator"
) -> tuple[Config, dict[str, Tensor]]:
    """What a published state tells, and its weights under our names.

    The mean of the three planes' lookups becomes a third in the decoder's first layer. A running
    average of styles, which the files do not have, is made of 10 000 latents, always the same.

    Args:
        state: as ``model_ema`` of a published checkpoint.
        data: see `data_set_of`.
        source: for messages, as in the path of the file.

    Raises:
        UserError: a key is unknown or missing (the message names the first), or has another shape
            than the others suggest.
    """
    config = _told(state, data, source)
    weights = renamed(state, _names(config), source)
    weights["body.decoder.into.weight"] = weights["body.decoder.into.weight"] / _PLANES
    for name in ("body.density.alpha", "body.density.beta", "body.palette.constant"):
        if name in weights:
            weights[name] = weights[name].squeeze(0)
    weights["body.bounds"] = _box(data)
    weights["mapping.average"] = _average(weights, config, source)
    weights["mapping.seen"] = torch.zeros(config.style_dim + 1)
    return config, weights


def build(config: Config, weights: dict[str, Tensor], source: str = "the generator") -> Generator:
    """The generator with the weights of `generator_from_published`, frozen.

    Its ``picture`` is made by our rule of quadrature; `render_as_published` has theirs.

    Raises:
        UserError: a weight has another shape.
    """

    def made() -> Generator:
        return Generator(
            MappingNetwork(config.latent_dim, config.style_dim, depth=_DEPTH),
            Body(config),
            Casting(coarse=64, fine=64, keep="both"),
            background=config.data.background,
        )

    return filled(made, weights, source)


def _told(state: Mapping[str, Tensor], data: DataSet, source: str) -> Config:
    """Layout and sizes."""
    sizes = synthesis_sizes(state, "synthesis_network.", source)

    def shape(name: str) -> torch.Size:
        if name not in state or state[name].ndim != 2:
            raise UserError(f"{source}: lacks {name}; give a file as published.")
        return state[name].shape

    colors, has_view = 0, "viewdir_mapper.fc0.weight" in state
    if "texture_mapper.const" in state:
        colors = shape("texture_mapper.fc_values.weight")[0] // 3
    hidden, channels = shape("decoder.net.0.weight")
    return Config(
        data=data,
        latent_dim=shape("mapping_network.backbone.fc0.weight")[1],
        style_dim=sizes.style_dim,
        side=sizes.side,
        channels=channels,
        base=sizes.base,
        widest=sizes.widest,
        hidden=hidden,
        colors=colors,
        palette_width=shape("texture_mapper.const")[1] if colors else 0,
        features=shape("decoder.net.2.weight")[0] - 1,
        has_view=has_view,
        view_width=shape("viewdir_mapper.fc0.weight")[0] if has_view else 0,
        has_distance="alpha" in state or "beta" in state,
    )


def _names(config: Config) -> Names:
    names = mapping_names("mapping_network.backbone.", "mapping.", _DEPTH)
    names |= synthesis_names(
        "synthesis_network.", "body.synthesis.", config.side, noise=config.data.noise
    )
    names |= linear_names("decoder.net.0", "body.decoder.into")
    names |= linear_names("decoder.net.2", "body.decoder.out")
    if config.has_distance:
        names |= {"alpha": "body.density.alpha", "beta": "body.density.beta"}
    if config.colors:
        names["texture_mapper.const"] = "body.palette.constant"
        for number in range(4):
            theirs, ours = f"texture_mapper.norm{number + 1}", f"body.palette.layers.{number}"
            names[f"texture_mapper.fc{number + 1}.weight"] = f"{ours}.linear.weight"
            names |= linear_names(f"{theirs}.fc_gamma", f"{ours}.scale")
            names |= linear_names(f"{theirs}.fc_beta", f"{ours}.shift")
        names |= linear_names("texture_mapper.fc5", "body.palette.last")
        names |= linear_names("texture_mapper.fc_values", "body.palette.out")
    if config.has_view:
        for number in range(4):
            names[f"viewdir_mapper.fc{number + 1}.weight"] = f"body.view.linear.{number}.weight"
            names |= linear_names(f"viewdir_mapper.norm{number + 1}", f"body.view.norm.{number}")
        for theirs, ours in (("fc0", "into"), ("fc5", "last"), ("fc6", "to_features")):
            names |= linear_names(f"viewdir_mapper.{theirs}", f"body.view.{ours}")
        names |= linear_names("viewdir_mapper.output", "body.view.out")
    return names


@torch.no_grad()
def _average(weights: dict[str, Tensor], config: Config, source: str) -> Tensor:
    """Mean of many styles."""
    own = {
        name.removeprefix("mapping."): weight
        for name, weight in weights.items()
        if name.startswith("mapping.")
    }
    own["average"] = torch.zeros(config.style_dim)
    own["seen"] = torch.zeros(config.style_dim + 1)
    mapping = filled(
        lambda: MappingNetwork(config.latent_dim, config.style_dim, depth=_DEPTH), own, source
    )
    draw = torch.Generator().manual_seed(0)
    return mapping(torch.randn(_AVERAGED, config.latent_dim, generator=draw)).mean(dim=0)


def _box(data: DataSet) -> Tensor:
    """Lowest and highest corner."""
    corner = torch.full((3,), data.half_side)
    return torch.stack([-corner, corner])
