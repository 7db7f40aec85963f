"""VQ3D stage 1: picture -> tokens -> planes of a radiance field (arXiv 2302.06833).

>>> import torch
>>> from unflat.systems.vq3d.config import tiny
>>> model = Autoencoder(tiny())
>>> out = model.encode(torch.zeros(1, 3, 32, 32))
>>> out.indices.shape
torch.Size([1, 16, 4])
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.fields.viewspace import (
    SURFACE_CHANNELS,
    ViewSpaceDecoder,
    ViewSpaceField,
    ViewSpacePlanes,
)
from unflat.geometry.projective import Frame
from unflat.nn.initialize import start_small
from unflat.nn.quantize import FiniteScalarQuantizer, Quantized, VectorQuantizer
from unflat.nn.transformer import Transformer
from unflat.systems.vq3d.config import Config
from unflat.systems.vq3d.refiner import DepthRefiner
from unflat.systems.vq3d.triplane import ContractedTriplaneField, TriplaneDecoder, TriplaneHead

Planes = ViewSpacePlanes | Float[Tensor, "batch 3 channels height width"]
SceneField = ViewSpaceField | ContractedTriplaneField


class Encoded(NamedTuple):
    """A batch of pictures behind the quantiser."""

    quantized: Quantized
    """Tokens, indices and the quantiser's loss."""
    features: Float[Tensor, "batch n width"]
    """The encoder's own output: the detail mode's skip path, not carried by the tokens."""


class Autoencoder(nn.Module):
    """Encoder, quantiser, token decoder and field decoder; with the detail mode's refiner."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.quantizer = _quantizer(config)
        dim = config.levels_dim if self.quantizer is None else self.quantizer.dim
        pixels = 3 * config.patch**2
        tokens = config.grid**2
        wide, deep = config.encoder_width, config.decoder_width
        self.embed = nn.Linear(pixels, wide)
        self.encoder_positions = nn.Parameter(0.3 * torch.randn(tokens, wide))
        self.encoder = Transformer(
            wide, config.encoder_depth, _heads(wide), config.mlp_ratio, config.activation
        )
        self.to_code = nn.Linear(wide, dim)
        self.skip_in = nn.Linear(pixels, dim) if config.linear_skip else None
        self.skip_out = nn.Linear(dim, pixels) if config.linear_skip else None
        self.from_code = nn.Linear(dim, deep)
        self.decoder_positions = nn.Parameter(0.3 * torch.randn(tokens, deep))
        self.decoder = Transformer(
            deep, config.decoder_depth, _heads(deep), config.mlp_ratio, config.activation
        )
        self.head: ViewSpaceHead | TriplaneHead
        self.field_decoder: ViewSpaceDecoder | TriplaneDecoder
        if config.field == "viewspace":
            self.head = ViewSpaceHead(config)
            self.field_decoder = ViewSpaceDecoder(config.channels, config.surface)
        else:
            self.head = TriplaneHead(deep, config.grid, config.channels, config.plane_resolution)
            self.field_decoder = TriplaneDecoder(config.channels)
        self.refiner = DepthRefiner(wide, config.refiner_width) if config.refiner_width else None
        if config.linear_skip:  # the transformers begin as a correction of the linear code
            start_small(self.to_code, 0.001)

    @property
    def frame(self) -> Frame:
        """The frame that the model was trained in: assumed field of view, own disparity."""
        focal = 1 / math.tan(math.radians(self.config.fov_deg) / 2)
        return Frame(
            focal_assumed=focal,
            focal_true=focal,
            a=1.0,
            b=0.0,
            d_near=self.config.d_near,
            d_far=self.config.d_far,
        )

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Sizes of a token's codes; empty without a quantiser."""
        return () if self.quantizer is None else self.quantizer.codebook_sizes

    def encode(self, image: Float[Tensor, "batch 3 side side"], rounding: float = 1.0) -> Encoded:
        """Pictures at the model's resolution, in [0, 1], as tokens.

        Args:
            image: sRGB in [0, 1].
            rounding: 1 quantises, 0 does not (the first steps of a training), between mixes.
        """
        patches = functional.pixel_unshuffle(image - 0.5, self.config.patch).flatten(2).mT
        features = self.encoder(self.embed(patches) + self.encoder_positions)
        code = self.to_code(features)
        if self.skip_in is not None:
            code = code + self.skip_in(patches)
        if self.quantizer is None:
            nothing = torch.zeros(*code.shape[:2], 0, dtype=torch.long, device=code.device)
            return Encoded(Quantized(code, nothing, code.new_zeros(())), features)
        return Encoded(self.quantizer(code, rounding), features)

    def decode(self, tokens: Float[Tensor, "batch n dim"]) -> Planes:
        """Planes of the radiance fields that the tokens describe."""
        code = self._expand(tokens)
        deep = self.decoder(self.from_code(code) + self.decoder_positions)
        base = None
        if self.skip_out is not None:
            pixels = self.skip_out(code).mT.unflatten(2, (self.config.grid, self.config.grid))
            base = functional.pixel_shuffle(pixels, self.config.patch) + 0.5
        return self.head(deep, base)

    def field(self, planes: Planes) -> SceneField:
        """The radiance fields of the planes, in the model's own frame."""
        if isinstance(planes, ViewSpacePlanes):
            assert isinstance(self.field_decoder, ViewSpaceDecoder)  # built together
            return ViewSpaceField(planes, self.field_decoder, self.frame)
        assert isinstance(self.field_decoder, TriplaneDecoder)
        return ContractedTriplaneField(planes, self.field_decoder, self.frame)

    @torch.no_grad()
    def start_from_patches(self, images: Float[Tensor, "batch 3 side side"]) -> float:
        """Sets the linear path to the principal components of the pictures' patches.

        Components are scaled to half a unit per standard deviation before tanh (heavy tails);
        the way back is the least squares fit from the quantised code to the patch.

        Args:
            images: some hundred pictures at the model's resolution, in [0, 1].

        Returns:
            PSNR of that linear code on the pictures' pooled patches, dB.

        Raises:
            ValueError: the configuration has no linear skip.
        """
        if self.skip_in is None or self.skip_out is None:
            raise ValueError("this configuration has no linear_skip to start")
        patches = functional.pixel_unshuffle(images - 0.5, self.config.patch).flatten(2).mT
        patches = patches.flatten(0, 1).double()
        mean = patches.mean(0)
        _, spread, axes = torch.linalg.svd(
            (patches - mean)[:: max(1, len(patches) // 50_000)], full_matrices=False
        )
        dim = self.skip_in.out_features
        deviation = spread / math.sqrt(min(len(patches), 50_000))
        rows = axes[:dim] / deviation[:dim, None] * 0.5
        self.skip_in.weight.copy_(rows)
        self.skip_in.bias.copy_(-rows @ mean)
        code = self.skip_in(patches.float())[None]
        if self.quantizer is not None:
            code = self.quantizer(code).tokens
        code = self._expand(code)[0].double()
        design = torch.cat([code, torch.ones_like(code[:, :1])], dim=1)
        solution = torch.linalg.lstsq(design, patches).solution  # dim+1 pixels
        self.skip_out.weight.copy_(solution[:-1].T)
        self.skip_out.bias.copy_(solution[-1])
        return float(-10 * ((design @ solution - patches).square().mean()).log10())

    def _expand(self, tokens: Tensor) -> Tensor:
        """FSQ's numbers before their tanh: evenly scaled again. Others pass."""
        if isinstance(self.quantizer, FiniteScalarQuantizer):
            return tokens.clamp(-0.995, 0.995).atanh()
        return tokens


class ViewSpaceHead(nn.Module):
    """Tokens to view-space planes."""

    NARROW = 32  # numbers that a token gives to the planes of its column and of its row

    def __init__(self, config: Config):
        super().__init__()
        self.grid = config.grid
        self.patch = config.plane_resolution // config.grid
        self.resolution = config.plane_resolution
        channels, width = config.channels, config.decoder_width
        self.wide = SURFACE_CHANNELS + channels
        self.to_uv = nn.Linear(width, self.wide * self.patch**2)
        hidden = 16
        last = nn.Conv2d(hidden, self.wide, 3, padding=1)
        self.smooth = nn.Sequential(  # across patch borders, guided by the base colour
            nn.Conv2d(self.wide, hidden, 3, padding=1), nn.SiLU(), last
        )
        self.to_line = nn.Linear(width, 2 * self.NARROW)
        self.side = config.side_resolution // config.grid
        self.deep = config.depth_resolution
        texels = channels * self.deep * self.side
        self.to_ud = nn.Linear(self.NARROW * self.grid, texels)
        self.to_vd = nn.Linear(self.NARROW * self.grid, texels)
        for layer in (last, self.to_uv, self.to_ud, self.to_vd):
            start_small(layer, 0.002)  # small beside the linear code's colour

    def forward(
        self,
        tokens: Float[Tensor, "batch n width"],
        base: Float[Tensor, "batch 3 side side"] | None,
    ) -> ViewSpacePlanes:
        """Planes; ``base`` is the colour of the linear code, in [0, 1]."""
        grid = tokens.unflatten(1, (self.grid, self.grid))  # batch row column width
        uv = self._picture(tokens, base)
        uv = uv + self.smooth(uv)
        column, row = self.to_line(grid).chunk(2, dim=-1)
        ud = self._line(self.to_ud(column.transpose(1, 2).flatten(2)))
        vd = self._line(self.to_vd(row.flatten(2)))
        return ViewSpacePlanes(uv, ud, vd)

    def _picture(self, tokens: Tensor, base: Tensor | None) -> Tensor:
        """The picture's plane before it is smoothed, each texel's channels side by side in memory.

        A token's numbers are ordered (channel, row, column), as pixel_shuffle wants them. For the
        features it is the layer's weights that are turned to (row, column, channel): they are
        fewer numbers than what comes out, which then only has to be moved in whole rows of texels.
        """
        colors, patch, grid = 3, self.patch, (self.grid, self.grid)
        cut = [colors * patch**2, (self.wide - colors) * patch**2]
        color_weight, weight = self.to_uv.weight.split(cut)
        color_bias, bias = self.to_uv.bias.split(cut)
        color = functional.linear(tokens, color_weight, color_bias).mT.unflatten(2, grid)
        color = functional.pixel_shuffle(color, patch)  # batch 3 height width
        if base is None:
            color = color + 0.5
        else:
            color = color + functional.interpolate(base, color.shape[-2:], mode="nearest")
        weight = weight.unflatten(0, (-1, patch**2)).transpose(0, 1).flatten(0, 1)
        bias = bias.unflatten(0, (-1, patch**2)).mT.flatten()
        rest = functional.linear(tokens, weight, bias)
        rest = rest.unflatten(2, (patch, patch, -1)).unflatten(1, grid).transpose(2, 3)
        color = color.unflatten(3, (-1, patch)).unflatten(2, (-1, patch)).permute(0, 2, 3, 4, 5, 1)
        texels = torch.cat([color, rest], dim=-1)  # batch row within column within channel
        return texels.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)

    def _line(self, texels: Tensor) -> Tensor:
        """Batch cells (channels deep side) -> batch channels deep (cells side)."""
        parts = texels.unflatten(-1, (-1, self.deep, self.side))  # batch cells channels deep side
        return parts.permute(0, 2, 3, 1, 4).flatten(3)


def _quantizer(config: Config) -> FiniteScalarQuantizer | VectorQuantizer | None:
    if config.quantizer == "fsq":
        return FiniteScalarQuantizer(config.levels)
    if config.quantizer == "vq":
        return VectorQuantizer(config.codes, config.code_dim, config.codes_per_token)
    return None


def _heads(width: int) -> int:
    return width // 64 if width >= 256 else max(1, width // 32)


def build(config: Config) -> Autoencoder:
    """The untrained model of a configuration."""
    return Autoencoder(config)
