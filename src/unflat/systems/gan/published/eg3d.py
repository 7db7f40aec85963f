"""Generators of NVlabs/eg3d (arXiv 2112.07945), from their published weights.

    config, weights = generator_from_published(state, told, SCENES["ffhq"])
    generator = build(config, weights)                                 # as those trained here
    codes = generator.codes(latent, to_eg3d(camera), truncation=0.7)
    made = generator.picture(generator.form(codes), codes, camera, config.resolution)

Two things differ from EG3D as it is trained here. The published code looks the third plane up at
(z, x), where the second already is: the weights know no other planes (`Config.third_plane`). And
its planes are zero beyond the box, not empty: what is asked there is the decoder's answer to zeros,
so that rays go from a near to a far distance and the field has no bounds.

The rays' sums are ours: density and colour are asked in the middle of an interval, where theirs are
the means of what the interval's ends give, before the softplus.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.errors import UserError
from unflat.fields.distance import DistanceDecoder
from unflat.fields.field import FieldOutput
from unflat.hub.published_names import Names, filled, linear_names
from unflat.nn.stylegan import MappingNetwork, SuperResolution, SynthesisNetwork
from unflat.rendering import Casting
from unflat.systems.gan.generator import Form, Generator
from unflat.systems.gan.published.keys import (
    block_names,
    mapping_names,
    renamed,
    synthesis_names,
    synthesis_sizes,
)

_PLANES = 3
_BLOCKS = 2  # of the super-resolution
_HALF_PRECISION = 256.0  # magnitude at which layers in half precision are cut
_ENTERING = {64: 64, 128: 128, 256: 128}  # side of the first block to the side that enters it

ThirdPlane = Literal["zx", "zy", "yz"]
"""Column and row of the third plane: as published; as its authors correct it; as ours."""
_AXES: dict[ThirdPlane, tuple[int, int]] = {"zx": (2, 0), "zy": (2, 1), "yz": (1, 2)}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Where rays go and what is behind: ``rendering_kwargs`` of the published code."""

    half_side: float
    """Of the box that the planes span, world units; half of its ``box_warp``."""
    near: float
    """Where rays begin, world units."""
    far: float
    """Where they end."""
    coarse: int
    """Samples of the first pass."""
    fine: int
    """Further ones."""
    background: float
    """Of all features, behind the object: 1 is white, 0 black."""


_HEADS = Scene(half_side=0.5, near=2.25, far=3.3, coarse=48, fine=48, background=0.0)
SCENES = {
    "ffhq": _HEADS,
    "afhq": _HEADS,
    "shapenet": Scene(half_side=0.8, near=0.1, far=2.6, coarse=64, fine=64, background=1.0),
}
"""The data sets for which generators were published, for files that do not tell."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """A generator as its file tells it; the defaults are those of 512 px."""

    scene: Scene
    """Rays and background."""
    third_plane: ThirdPlane = "zx"
    """Where the third plane is looked up."""
    latent_dim: int = 512
    """Numbers of a latent."""
    style_dim: int = 512
    """Numbers of a style."""
    condition_dim: int = 25
    """Numbers of a camera that the mapping is told."""
    depth: int = 2
    """Layers of the mapping."""
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
    features: int = 32
    """Rendered; the first three are the small picture."""
    resolution: int = 512
    """Side of the pictures."""
    rendered: int = 128
    """Side of what the rays bring."""
    entering: int = 128
    """Side to which that is brought before it is sharpened."""
    sharpening_width: int = 256
    """Features of the first sharpening block."""
    clamp: float | None = _HALF_PRECISION
    """Magnitude at which sharpening layers are cut."""


class ZeroPaddedField(nn.Module):
    """Planes XY, XZ and a third one of choice, decoded everywhere, zero beyond their edges."""

    def __init__(
        self,
        planes: Float[Tensor, "batch 3 channels side side"],
        decoder: DistanceDecoder,
        half_side: float,
        third_plane: ThirdPlane,
    ):
        """Planes of a batch of scenes, with one decoder for all.

        Args:
            planes: half-pixel centres.
            decoder: features of points, added, to a raw density and raw features.
            half_side: of the box that the planes span, world units.
            third_plane: its column and row.
        """
        super().__init__()
        self.planes: Tensor
        self.register_buffer("planes", planes)
        self.decoder, self.half_side = decoder, half_side
        self.third_plane: ThirdPlane = third_plane

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """Density per world unit and features in [-0.001, 1.001]; directions do not matter."""
        raw, features = self.decoder(self._looked_up(points / self.half_side))
        return FieldOutput(functional.softplus(raw - 1), features.sigmoid() * 1.002 - 0.001)

    @torch.no_grad()
    def first(self, count: int) -> "ZeroPaddedField":
        """A field of its own that gives the first so many features alone."""
        out, channels = self.decoder.out, self.planes.shape[2]
        decoder = DistanceDecoder(channels, out.weight.shape[1], count).to(out.weight)
        decoder.into.load_state_dict(self.decoder.into.state_dict())
        decoder.out.weight.copy_(out.weight[: 1 + count])
        decoder.out.bias.copy_(out.bias[: 1 + count])
        return ZeroPaddedField(self.planes, decoder, self.half_side, self.third_plane)

    def _looked_up(self, places: Tensor) -> Tensor:
        """Sum of the three lookups, in coordinates of the box."""
        batch, shape = len(places), places.shape[1:-1]
        axes: list[int] = [0, 1, 0, 2, *_AXES[self.third_plane]]
        grid = places[..., axes].reshape(batch, -1, _PLANES, 2).transpose(1, 2).flatten(0, 1)
        found = functional.grid_sample(
            self.planes.flatten(0, 1), grid[:, None], padding_mode="zeros", align_corners=False
        )
        return found[:, :, 0].unflatten(0, (batch, _PLANES)).sum(1).mT.unflatten(1, shape)


class Body(nn.Module):
    """Codes to planes; the last of them also drives the sharpening."""

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
            noise=True,
        )
        self.decoder = DistanceDecoder(config.channels, config.hidden, config.features)
        self.codes = self.synthesis.codes

    def forward(self, codes: Float[Tensor, "batch codes style_dim"]) -> Form:
        """Scenes of codes."""
        planes = self.synthesis(codes).unflatten(1, (_PLANES, -1))
        config = self.config
        return Form(
            ZeroPaddedField(planes, self.decoder, config.scene.half_side, config.third_plane)
        )


def scene_of(rendering: Mapping[str, Any]) -> Scene:
    """What ``rendering_kwargs`` tell of the rays.

    Raises:
        KeyError: they do not tell it.
    """
    return Scene(
        half_side=rendering["box_warp"] / 2,
        near=rendering["ray_start"],
        far=rendering["ray_end"],
        coarse=rendering["depth_resolution"],
        fine=rendering["depth_resolution_importance"],
        background=1.0 if rendering.get("white_back") else 0.0,
    )


def generator_from_published(
    state: Mapping[str, Tensor],
    told: Mapping[str, Any],
    scene: Scene,
    third_plane: ThirdPlane = "zx",
    source: str = "the generator",
) -> tuple[Config, dict[str, Tensor]]:
    """What a published state tells, and its weights under our names.

    The mean of the lookups, the decoder's learning rate multiplier and the scale of the camera that
    the mapping is told (0 for one that is told none) become factors of weights.

    Args:
        state: of ``G_ema``.
        told: beside the weights: ``rendering_kwargs``, ``init_kwargs``,
            ``neural_rendering_resolution``, each as far as it is known.
        scene: see `SCENES` and `scene_of`.
        third_plane: see `Config`.
        source: for messages, as in the path of the file.

    Raises:
        UserError: a key is unknown or missing (the message names the first), or shapes tell of
            another network.
    """
    rendering, init = told.get("rendering_kwargs", {}), told.get("init_kwargs", {})
    if init.get("conv_clamp") is not None:
        raise UserError(
            f"{source}: its planes' network is cut at {init['conv_clamp']}, which is not known "
            "here; give a generator as published."
        )
    config = _sized(state, told, scene, third_plane, source)
    weights = renamed(state, _names(config, state), source)
    multiplier = rendering.get("decoder_lr_mul", 1)
    for name in weights:
        if name.startswith("body.decoder."):
            weights[name] = weights[name] * multiplier
    weights["body.decoder.into.weight"] = weights["body.decoder.into.weight"] / _PLANES
    is_told = 0 if rendering.get("c_gen_conditioning_zero") else rendering.get("c_scale", 1)
    if config.condition_dim:
        weights["mapping.embed.weight"] = weights["mapping.embed.weight"] * is_told
    weights["mapping.seen"] = torch.zeros(config.style_dim + 1)
    return config, weights


def build(config: Config, weights: dict[str, Tensor], source: str = "the generator") -> Generator:
    """The generator with the weights of `generator_from_published`, frozen.

    Raises:
        UserError: a weight has another shape.
    """

    def made() -> Generator:
        doublings = (config.resolution // config.entering).bit_length() - 1
        sharpening = SuperResolution(
            config.features,
            doublings,
            style_dim=config.style_dim,
            width=config.sharpening_width,
            blocks=_BLOCKS,
            side=config.entering,
            clamp=config.clamp,
        )
        scene = config.scene
        mapping = MappingNetwork(
            config.latent_dim,
            config.style_dim,
            condition_dim=config.condition_dim,
            depth=config.depth,
        )
        return Generator(
            mapping,
            Body(config),
            Casting(
                coarse=scene.coarse, fine=scene.fine, keep="both", near=scene.near, far=scene.far
            ),
            background=scene.background,
            decoder=sharpening,
            scale=config.resolution // config.rendered,
        )

    return filled(made, weights, source)


def _sized(
    state: Mapping[str, Tensor],
    told: Mapping[str, Any],
    scene: Scene,
    third_plane: ThirdPlane,
    source: str,
) -> Config:
    """Sizes, from shapes."""
    sizes = synthesis_sizes(state, "backbone.synthesis.", source)

    def shape(name: str, axes: int = 2) -> torch.Size:
        if name not in state or state[name].ndim != axes:
            raise UserError(f"{source}: lacks {name}; give a file as published.")
        return state[name].shape

    first, last = (
        shape(f"superresolution.block{number}.conv1.noise_const")[0] for number in range(_BLOCKS)
    )
    if first not in _ENTERING or last != 2 * first:
        raise UserError(
            f"{source}: its super-resolution has sides {first} and {last}, none of the published "
            "ones (64, 128, 256, and twice that); give a file as published."
        )
    condition = shape("backbone.mapping.embed.weight")[1]
    layers = [name for name in state if re.fullmatch(r"backbone\.mapping\.fc\d+\.weight", name)]
    entering = shape("backbone.mapping.fc0.weight")[1]
    hidden, channels = shape("decoder.net.0.weight")
    half = told.get("init_kwargs", {}).get("sr_num_fp16_res", 1) > 0
    return Config(
        scene=scene,
        third_plane=third_plane,
        latent_dim=entering - sizes.style_dim,
        style_dim=sizes.style_dim,
        condition_dim=condition,
        depth=len(layers),
        side=sizes.side,
        channels=channels,
        base=sizes.base,
        widest=sizes.widest,
        hidden=hidden,
        features=shape("decoder.net.2.weight")[0] - 1,
        resolution=last,
        rendered=told.get("neural_rendering_resolution", _ENTERING[first]),
        entering=_ENTERING[first],
        sharpening_width=shape("superresolution.block0.conv1.weight", 4)[0],
        clamp=_HALF_PRECISION if half else None,
    )


def _names(config: Config, state: Mapping[str, Tensor]) -> Names:
    names = mapping_names("backbone.mapping.", "mapping.", config.depth)
    names |= linear_names("backbone.mapping.embed", "mapping.embed")
    names["backbone.mapping.w_avg"] = "mapping.average"
    names |= synthesis_names("backbone.synthesis.", "body.synthesis.", config.side, noise=True)
    names |= linear_names("decoder.net.0", "body.decoder.into")
    names |= linear_names("decoder.net.2", "body.decoder.out")
    for number in range(_BLOCKS):
        names |= block_names(
            f"superresolution.block{number}.", f"decoder.blocks.{number}.", noise=False
        )
    lone = "superresolution.resample_filter"  # most variants have it, none uses it
    return names | ({lone: None} if lone in state else {})
