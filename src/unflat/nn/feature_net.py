"""A small convolutional network whose features tell pictures apart, at any size of picture.

It is what distances between sets of pictures (``kid-unflat``) and between two pictures
(``perceptual-unflat``) are measured with where nobody has Inception's or VGG's weights::

    vectors = network(images)        # one for each picture, what whole sets are compared with
    maps = network.maps(images)      # five, from full resolution down to a sixteenth

The vector holds the mean of every map, so that coarse stages tell what is shown and fine ones how:
blur and noise move the fine ones, a missing kind of picture the coarse ones.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

MAX_SIDE = 128
"""Larger pictures are reduced to this first: it is what the network was made for."""
MIN_SIDE = 16
"""Smaller pictures have no coarsest map."""

_GROUPS = 8


class FeatureNet(nn.Module):
    """Five stages of convolutions, each at half the resolution of the one before.

    Args:
        widths: channels of the stages, multiples of 8.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, widths: Sequence[int] = (24, 32, 64, 128, 160)) -> None:
        super().__init__()
        self.widths = tuple(widths)
        stages: list[nn.Module] = [
            nn.Sequential(nn.Conv2d(3, widths[0], 3, padding=1), nn.ReLU()),
        ]
        for before, width in pairwise(widths):
            down = nn.Conv2d(before, width, 3, stride=2, padding=1)
            stages.append(nn.Sequential(down, nn.GroupNorm(_GROUPS, width), _Block(width)))
        self.stages = nn.ModuleList(stages)
        self.register_buffer("center", torch.zeros(self.dim))
        self.register_buffer("scale", torch.ones(self.dim))

    @property
    def dim(self) -> int:
        """Length of a picture's vector."""
        return sum(self.widths)

    def maps(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> list[Float[Tensor, "batch channels map_height map_width"]]:
        """Features of every stage, at least 0, at full, 1/2, 1/4, 1/8 and 1/16 resolution.

        Args:
            images: in [0, 1], at the size they come in.

        Raises:
            ValueError: a side is below `MIN_SIDE`.
        """
        if min(images.shape[-2:]) < MIN_SIDE:
            raise ValueError(f"features need sides of at least {MIN_SIDE}, got {images.shape}")
        values, found = 2 * images - 1, []
        for stage in self.stages:
            values = stage(values)
            found.append(values)
        return found

    def pooled(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Means of all maps over positions, before `calibrate`'s shift and scale."""
        return torch.cat([values.mean(dim=(2, 3)) for values in self.maps(images)], dim=1)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """One vector per picture: 0 and of unit variance, stage by stage, on the training set."""
        return (self.pooled(images) - self.center) / self.scale

    def calibrate(self, pooled: Float[Tensor, "n dim"]) -> None:
        """Center the vectors and give every stage the same share of their variance.

        Channels of a stage share one divisor, the root of their mean variance: a channel that
        hardly ever moves is not blown up.

        Args:
            pooled: of the pictures that stand for all.
        """
        self.center.copy_(pooled.mean(0))
        variance = pooled.var(0)
        parts = [part.mean().sqrt().expand_as(part) for part in variance.split(self.widths)]
        self.scale.copy_(torch.cat(parts).clamp_min(1e-6))


class _Block(nn.Module):
    """Two convolutions beside the identity, then a ReLU: maps are at least 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(_GROUPS, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.last = nn.ReLU()

    def forward(
        self, values: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        return self.last(values + self.body(values))
