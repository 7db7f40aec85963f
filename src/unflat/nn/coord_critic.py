"""A critic that grows with its pictures and knows where in them it looks: pi-GAN's.

Residual blocks of convolutions that see their coordinates (CoordConv, arXiv 1807.03247), entered at
any of several sides; a new side is faded in as in progressive GANs (arXiv 1710.10196). Chan et al.,
"pi-GAN" (arXiv 2012.00926), and its code for sizes and first weights.

    critic = CoordCritic(128, start_side=32)
    logits, pose = critic(torch.zeros(8, 3, 64, 64), fade=0.3)       # 8, and 8 2
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.nn.critic import ConditionMapping

_LAST_SIDE = 2
_SLOPE = 0.2  # of the leaky ReLU


class CoordCritic(nn.Module):
    """Residual blocks that halve the picture down to 2 pixels, then how real it looks and its pose.

    No layer is equalised and pictures of a batch are not compared, unlike in
    `unflat.nn.critic.Critic`. A generator that is judged by the pose as well is held to show the
    same thing under every camera (`unflat.losses.play`).
    """

    def __init__(
        self,
        side: int,
        start_side: int | None = None,
        *,
        channels: int = 3,
        base: int = 8192,
        widest: int = 400,
        pose_dim: int = 2,
        condition_dim: int = 0,
    ):
        """A critic with its first weights: Kaiming's in the blocks, torch's own elsewhere.

        Args:
            side: of the largest pictures in pixels, a power of 2, at least 4.
            start_side: of the smallest; the same if not given, so that nothing grows.
            channels: of the pictures.
            base: features at a side are base / side, at most ``widest``.
            widest: most features.
            pose_dim: numbers of a pose; 0 for none.
            condition_dim: numbers that a picture is judged given; 0 for none.

        Raises:
            ValueError: sides that are not powers of 2, or not in this order.
        """
        super().__init__()
        start_side = side if start_side is None else start_side
        for each in (start_side, side):
            if each < 2 * _LAST_SIDE or each & (each - 1):
                raise ValueError(f"side is {each}; it must be a power of 2, at least 4")
        if start_side > side:
            raise ValueError(f"start_side is {start_side}, more than the side {side}")
        halvings = round(math.log2(side / _LAST_SIDE))
        sides = [side >> level for level in range(halvings + 1)]
        widths = [max(1, min(base // each, widest)) for each in sides]
        self.sides = tuple(each for each in sides if each >= start_side)
        self.enter = nn.ModuleList(
            nn.Conv2d(channels, width, 1) for width in widths[: len(self.sides)]
        )
        self.blocks = nn.ModuleList(_CoordBlock(*sizes) for sizes in pairwise(widths))
        last = widths[-1]
        self.pose_dim, self.features = pose_dim, last if condition_dim else 1
        self.leave = nn.Conv2d(last, self.features + pose_dim, _LAST_SIDE)
        self.mapping = ConditionMapping(condition_dim, last, 2) if condition_dim else None

    def forward(
        self,
        normalized: Float[Tensor, "batch channels side side"],
        condition: Float[Tensor, "batch dim"] | None = None,
        *,
        fade: float = 1.0,
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch pose_dim"]]:
        """Logits, above 0 where it looks real, and poses.

        Args:
            normalized: about -1 to 1, of any side that the critic was made for.
            condition: if the critic was made for one.
            fade: how far this side is faded in: at 0 the first block is passed by, and the picture
                enters where one of half its side would (the mean of 2 x 2 pixels; pi-GAN's code
                takes one of the four).

        Raises:
            ValueError: pictures of another side, a fade at the smallest side, or a condition too
                many or too few.
        """
        side = normalized.shape[-1]
        if side not in self.sides or normalized.shape[-2] != side:
            raise ValueError(f"pictures of side {self.sides} are judged, got {normalized.shape}")
        if (condition is None) != (self.mapping is None):
            raise ValueError("a condition is given exactly if the critic has a condition_dim")
        level = self.sides.index(side)
        maps = self.blocks[level](_leaky(self.enter[level](normalized)))
        if fade < 1:
            if level + 1 == len(self.sides):
                raise ValueError(f"fade is {fade} at side {side}; no smaller pictures are judged")
            smaller = functional.avg_pool2d(normalized, 2)
            maps = torch.lerp(_leaky(self.enter[level + 1](smaller)), maps, fade)
        for block in self.blocks[level + 1 :]:
            maps = block(maps)
        told = self.leave(maps)[..., 0, 0]
        features, pose = told.split([self.features, self.pose_dim], dim=1)
        if self.mapping is None or condition is None:
            return features[:, 0], pose
        logits = (features * self.mapping(condition)).sum(1) / math.sqrt(self.features)
        return logits, pose


class _CoordBlock(nn.Module):
    """Two convolutions that see coordinates, beside none; both halve the side."""

    def __init__(self, entering: int, leaving: int):
        super().__init__()
        self.first = nn.Conv2d(entering + 2, leaving, 3, padding=1)
        self.second = nn.Conv2d(leaving + 2, leaving, 3, padding=1)
        for layer in (self.first, self.second):
            nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
        self.skip = nn.Conv2d(entering, leaving, 1) if entering != leaving else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        deep = _leaky(self.first(with_coordinates(maps)))
        deep = _leaky(self.second(with_coordinates(deep)))
        deep, maps = functional.avg_pool2d(deep, 2), functional.avg_pool2d(maps, 2)
        return (deep + self.skip(maps)) / math.sqrt(2.0)


def with_coordinates(
    maps: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels+2 height width"]:
    """The maps, with two more: column and row, from -1 at the first pixel to 1 at the last."""
    height, width = maps.shape[-2:]
    row, column = (
        torch.linspace(-1, 1, size, device=maps.device, dtype=maps.dtype)
        for size in (height, width)
    )
    grid = torch.stack(torch.meshgrid(column, row, indexing="xy"))
    return torch.cat([maps, grid.expand(len(maps), -1, -1, -1)], dim=1)


def _leaky(maps: Tensor) -> Tensor:
    return functional.leaky_relu(maps, _SLOPE)
