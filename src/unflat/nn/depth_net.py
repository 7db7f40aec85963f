"""One picture to the disparity of what it shows, with how sure that is.

A U-Net over half, quarter and eighth of the picture's resolution, with a transformer at the
bottom: which way is down, and what stands on what, is told by the whole picture.

>>> import torch
>>> net = DepthNet()
>>> net(torch.zeros(2, 3, 64, 64)).disparity.shape
torch.Size([2, 1, 64, 64])
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.nn.initialize import start_small
from unflat.nn.transformer import Transformer

STRIDE = 8
"""Sides of pictures must be a multiple of this."""
LEAST_SPREAD = 0.005


class DepthGuess(NamedTuple):
    """The visible surface of a picture."""

    disparity: Float[Tensor, "batch 1 height width"]
    """Normalised disparity; 1 nearest, 0 farthest; may leave [0, 1] slightly."""
    spread: Float[Tensor, "batch 1 height width"]
    """Expected absolute error of it: the scale of a Laplace distribution, above 0."""
    softness: Float[Tensor, "batch 1 height width"]
    """Of a sheet of matter that is to stand there: scale of a logistic distribution, above 0."""


class DepthNet(nn.Module):
    """Picture (and what else is known of it, pixel by pixel) to a `DepthGuess`."""

    def __init__(
        self,
        widths: tuple[int, int, int] = (48, 96, 192),
        depth: int = 3,
        side: int = 64,
        known: int = 0,
        context: int = 0,
        mlp_ratio: float = 4.0,
    ):
        """An untrained network.

        Args:
            widths: channels at half, quarter and eighth resolution.
            depth: transformer blocks at the bottom.
            side: of the pictures that it learns from; others get its positions interpolated.
            known: further channels that are given beside the picture.
            mlp_ratio: hidden width of a block's MLP over its width.
            context: width of tokens that are given with it; 0 for none.
        """
        super().__init__()
        a, b, c = widths
        self.known = known
        self.enter = nn.Conv2d(4 * (3 + known), a, 3, padding=1)
        self.fine = _Block(a)
        self.down1 = nn.Conv2d(a, b, 2, stride=2)
        self.middle = _Block(b)
        self.down2 = nn.Conv2d(b, c, 2, stride=2)
        grid = side // STRIDE
        self.positions = nn.Parameter(0.3 * torch.randn(1, c, grid, grid))
        self.context = nn.Linear(context, c) if context else None
        self.whole = Transformer(c, depth, max(1, c // 64), mlp_ratio)
        self.up1 = nn.Conv2d(c, b, 1)
        self.middle_back = _Block(b)
        self.up2 = nn.Conv2d(b, a, 1)
        self.fine_back = _Block(a)
        self.leave = nn.Conv2d(a, 3 * 4, 3, padding=1)
        start_small(self.leave, 0.002)

    def forward(
        self,
        image: Float[Tensor, "batch 3 height width"],
        known: Float[Tensor, "batch k height width"] | None = None,
        context: Float[Tensor, "batch n dim"] | None = None,
    ) -> DepthGuess:
        """The visible surface.

        Args:
            image: sRGB in [0, 1]; sides a multiple of 8.
            known: as many channels as the network was built for; the first is a disparity from
                which the answer starts (a half, without any).
            context: tokens of a square grid in raster order.
        """
        entered = image - 0.5
        if known is not None:
            entered = torch.cat([entered, known - 0.5], dim=1)
        entered = functional.pixel_unshuffle(entered, 2)
        entered = entered.contiguous(memory_format=torch.channels_last)  # faster on CPU
        half = self.fine(self.enter(entered))
        quarter = self.middle(self.down1(half))
        eighth = self.down2(quarter)
        positions = self.positions
        if positions.shape[-2:] != eighth.shape[-2:]:
            positions = functional.interpolate(positions, eighth.shape[-2:], mode="bicubic")
        eighth = eighth + positions
        if self.context is not None:
            assert context is not None  # the network was built for it
            eighth = eighth + _grid(self.context(context), eighth.shape[-2:])
        tokens = eighth.flatten(2).mT
        whole = self.whole(tokens).mT.unflatten(2, eighth.shape[-2:])
        quarter = self.middle_back(quarter + _double(self.up1(whole)))
        half = self.fine_back(half + _double(self.up2(quarter)))
        out = functional.pixel_shuffle(self.leave(half), 2)
        start = 0.5 if known is None else known[:, :1]
        scales = LEAST_SPREAD + 0.1 * functional.softplus(out[:, 1:])
        return DepthGuess(start + out[:, :1], scales[:, :1], 0.5 * scales[:, 1:])


class _Block(nn.Module):
    """Two residual pairs of 3x3 convolutions; they begin as almost nothing."""

    def __init__(self, width: int):
        super().__init__()
        self.pairs = nn.ModuleList()
        for _ in range(2):
            last = nn.Conv2d(width, width, 3, padding=1)
            start_small(last, 0.003)
            self.pairs.append(
                nn.Sequential(nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), last)
            )

    def forward(self, x: Tensor) -> Tensor:
        for pair in self.pairs:
            x = x + pair(x)
        return x


def laplace_loss(
    guess: DepthGuess, target: Float[Tensor, "batch 1 height width"]
) -> Float[Tensor, "batch 1 height width"]:
    """Negative log likelihood of the target: |D - d| / b + log b, per pixel."""
    return (guess.disparity - target).abs() / guess.spread + guess.spread.log()


def _grid(tokens: Tensor, size: torch.Size) -> Tensor:
    """Tokens of a square grid as a map of the size."""
    side = round(tokens.shape[1] ** 0.5)
    grid = tokens.mT.unflatten(2, (side, side))
    if grid.shape[-2:] == size:
        return grid
    return functional.interpolate(grid, size, mode="bilinear")


def _double(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2.0, mode="nearest")
