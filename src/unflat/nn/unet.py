"""A small denoising U-Net with attention (DDPM, arXiv 2006.11239; contexts as in 2112.10752).

The picture is cut into patches whose pixels become channels, so that its widest maps are cheap
("simple diffusion", arXiv 2301.11093). At each level residual blocks scale and shift by an
embedding (of a timestep, of anything else told in numbers); where a level attends, positions look
at each other and at the tokens of a context.

>>> import torch
>>> net = UNet(8, 4, side=64, patch=4, widths=(32, 48), blocks=1, attends=(False, True),
...            embedding=64, context=40, heads=4)
>>> net(torch.zeros(2, 8, 64, 64), torch.zeros(2, 64), torch.zeros(2, 5, 40)).shape
torch.Size([2, 4, 64, 64])
"""

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.nn.transformer import Attention

_GROUP = 16
"""Channels that are normalised together."""


class UNet(nn.Module):
    """Pictures to pictures of the same size; says nothing (zeros) before it has learned.

    Args:
        in_channels: of what comes in.
        out_channels: of what goes out.
        side: of pictures, pixels.
        patch: pixels along a side that become one position.
        widths: channels of each level; each level has half the positions along a side.
        blocks: residual blocks of a level on the way down; on the way up there are as many.
        attends: for each level, whether positions look at each other and at the context.
        embedding: numbers that scale and shift.
        context: numbers of a context token; 0 if there is none.
        heads: of attention; must divide the widths that attend.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        side: int,
        patch: int,
        widths: tuple[int, ...],
        blocks: int,
        attends: tuple[bool, ...],
        embedding: int,
        context: int,
        heads: int,
    ) -> None:
        super().__init__()
        grid = side // patch
        if grid * patch != side or grid % 2 ** (len(widths) - 1):
            raise ValueError(f"side {side} cannot be cut by patch {patch} and {len(widths)} levels")
        self.patch = patch
        self.stem = nn.Conv2d(in_channels * patch**2, widths[0], 3, padding=1)
        self.positions = nn.Parameter(0.02 * torch.randn(1, widths[0], grid, grid))
        self.down = nn.ModuleList()
        self.shrink = nn.ModuleList()
        self.up = nn.ModuleList()
        self.merge = nn.ModuleList()
        self.grow = nn.ModuleList()
        for level, (width, attending) in enumerate(zip(widths, attends, strict=True)):
            told = (width, blocks, attending, embedding, context, heads)
            self.down.append(_Level(*told))
            if level + 1 < len(widths):
                self.shrink.append(nn.Conv2d(width, widths[level + 1], 3, stride=2, padding=1))
                self.up.append(_Level(*told))
                self.merge.append(nn.Conv2d(2 * width, width, 1))
                self.grow.append(nn.Conv2d(widths[level + 1], width, 1))
        self.norm = nn.GroupNorm(widths[0] // _GROUP, widths[0])
        self.out = nn.Conv2d(widths[0], out_channels * patch**2, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(_bias(self.out))

    def forward(
        self,
        x: Float[Tensor, "batch in_channels side side"],
        embedding: Float[Tensor, "batch numbers"],
        context: Float[Tensor, "batch tokens channels"] | None = None,
    ) -> Float[Tensor, "batch out_channels side side"]:
        """What it makes of pictures.

        Args:
            x: pictures.
            embedding: scales and shifts.
            context: tokens to look at; None if it was built for none.
        """
        x = self.stem(functional.pixel_unshuffle(x, self.patch)) + self.positions
        x = x.contiguous(memory_format=torch.channels_last)
        kept: list[Tensor] = []
        for level, down in enumerate(self.down):
            x = down(x, embedding, context)
            if level < len(self.shrink):
                kept.append(x)
                x = self.shrink[level](x)
        for level in reversed(range(len(self.up))):
            x = functional.interpolate(self.grow[level](x), scale_factor=2.0, mode="nearest")
            x = self.merge[level](torch.cat([x, kept[level]], dim=1))
            x = self.up[level](x, embedding, context)
        x = self.out(functional.silu(self.norm(x)))
        return functional.pixel_shuffle(x.contiguous(), self.patch)


class _Level(nn.Module):
    """Residual blocks, each followed by attention where the level attends."""

    def __init__(
        self, width: int, blocks: int, attending: bool, embedding: int, context: int, heads: int
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Residual(width, embedding) for _ in range(blocks))
        self.looks = nn.ModuleList(
            _Look(width, context, heads) for _ in range(blocks if attending else 0)
        )

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        for number, block in enumerate(self.blocks):
            x = block(x, embedding)
            if self.looks:
                x = self.looks[number](x, context)
        return x


class _Residual(nn.Module):
    """x + conv(norm(conv(norm(x))) scaled and shifted); adds nothing before it has learned."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(width // _GROUP, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.told = nn.Linear(embedding, 2 * width)
        self.norm = nn.GroupNorm(width // _GROUP, width)
        self.last = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(_bias(self.last))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.told(embedding)[:, :, None, None].chunk(2, dim=1)
        y = self.first(functional.silu(self.first_norm(x)))
        y = torch.addcmul(shift, self.norm(y), 1 + scale)
        return x + self.last(functional.silu(y))


class _Look(nn.Module):
    """Positions look at each other, then at the context, then each at itself."""

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.own_norm = nn.LayerNorm(width)
        self.own = Attention(width, heads)
        self.cross_norm = nn.LayerNorm(width)
        self.cross = CrossAttention(width, context, heads) if context else None
        self.mlp_norm = nn.LayerNorm(width)
        last = nn.Linear(2 * width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), last)
        for layer in (self.own.out, last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        height, width = x.shape[-2:]
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.own(self.own_norm(tokens))
        if self.cross is not None:
            if context is None:
                raise ValueError("this network was built for a context, and is given none")
            tokens = tokens + self.cross(self.cross_norm(tokens), context)
        tokens = tokens + self.mlp(self.mlp_norm(tokens))
        x = tokens.transpose(1, 2).unflatten(2, (height, width))
        return x.contiguous(memory_format=torch.channels_last)


class CrossAttention(nn.Module):
    """Positions look at a context: softmax(q k / sqrt(d)) v. With one token it is a constant.

    Args:
        width: numbers of a position.
        context: numbers of a context token.
        heads: must divide the width.
    """

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(context, 2 * width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        positions: Float[Tensor, "batch n width"],
        context: Float[Tensor, "batch tokens channels"],
    ) -> Float[Tensor, "batch n width"]:
        """What each position takes from the context."""
        key, value = self.key_value(context).unflatten(-1, (2, self.heads, -1)).unbind(2)
        if context.shape[1] == 1:  # softmax over one entry is 1, whatever is asked
            return self.out(value.flatten(2)).expand(-1, positions.shape[1], -1)
        query = self.query(positions).unflatten(-1, (self.heads, -1))
        mixed = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        )
        return self.out(mixed.transpose(1, 2).flatten(2))


class PictureTokens(nn.Module):
    """A picture as a grid of tokens and one that stands for all of it.

    Args:
        in_channels: of the picture.
        side: of the picture, pixels.
        patch: pixels along a side that become one position of the first level.
        widths: channels of each level; tokens have the last.
        heads: of attention.
    """

    def __init__(
        self, in_channels: int, *, side: int, patch: int, widths: tuple[int, ...], heads: int
    ) -> None:
        super().__init__()
        self.patch = patch
        grid = side // patch
        layers: list[nn.Module] = [nn.Conv2d(in_channels * patch**2, widths[0], 3, padding=1)]
        for width, wider in itertools.pairwise(widths):
            layers += [_Plain(width), nn.Conv2d(width, wider, 3, stride=2, padding=1)]
        self.body = nn.Sequential(*layers)
        self.last = _Plain(widths[-1])
        self.positions = nn.Parameter(
            0.02 * torch.randn(1, widths[-1], grid // 2 ** (len(widths) - 1), 1)
            + 0.02 * torch.randn(1, widths[-1], 1, grid // 2 ** (len(widths) - 1))
        )
        self.look = _Look(widths[-1], 0, heads)
        self.norm = nn.LayerNorm(widths[-1])

    def forward(
        self, x: Float[Tensor, "batch channels side side"]
    ) -> Float[Tensor, "batch tokens width"]:
        """The token of all, then one for each position in raster order."""
        x = self.body(functional.pixel_unshuffle(x, self.patch)) + self.positions
        x = self.look(self.last(x), None)
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)


class _Plain(nn.Module):
    """x + conv(norm(conv(norm(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(width // _GROUP, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(width // _GROUP, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def sine_embedding(
    values: Float[Tensor, "*batch"], numbers: int, longest: float = 10_000.0
) -> Float[Tensor, "*batch numbers"]:
    """Cosines and sines of values, at frequencies falling geometrically from 1 to 1 / longest.

    Args:
        values: timesteps in 0..999, or anything on such a scale.
        numbers: even.
        longest: of the wavelengths, in multiples of the shortest.
    """
    half = numbers // 2
    frequencies = torch.exp(-math.log(longest) * torch.arange(half, device=values.device) / half)
    phases = values[..., None].float() * frequencies
    return torch.cat([phases.cos(), phases.sin()], dim=-1)


def _bias(layer: nn.Conv2d) -> Tensor:
    if layer.bias is None:
        raise ValueError("the layer has no bias")
    return layer.bias
