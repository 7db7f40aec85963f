"""A critic of pictures: StyleGAN2's residual discriminator (arXiv 1912.04958).

>>> import torch
>>> critic = Critic(32, channels=4)       # colour and disparity
>>> critic(torch.zeros(8, 4, 32, 32)).shape
torch.Size([8])
"""

import math
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from unflat.nn.equalized import EqualizedConv2d, EqualizedLinear, leaky

MappingKind = Literal["embedded", "plain"]
"""How a condition is brought to the features; see `ConditionMapping`."""

_LAST_SIDE = 4
_MAPPING_LR = 0.01  # of the condition's mapping, as a share of the other layers'


class Critic(nn.Module):
    """Residual blocks that halve the picture down to 4 pixels, then one number: how real it looks.

    Before the last convolution a map is added that holds how much the pictures of a group differ
    from each other (`minibatch_deviation`), so that a generator of one picture is seen through.
    """

    def __init__(
        self,
        side: int,
        *,
        channels: int = 3,
        width: int = 16,
        widest: int = 96,
        group: int = 4,
        condition_dim: int = 0,
        mapping_depth: int = 2,
        mapping_kind: MappingKind = "embedded",
        is_spectral: bool = False,
    ):
        """A critic with its first weights.

        Args:
            side: of the pictures in pixels: 4 times a power of 2, at least 8.
            channels: of the pictures.
            width: features at the full side; they double with every halving.
            widest: most features; StyleGAN2 has 512.
            group: pictures that are compared with each other; 1 compares none, in effect.
            condition_dim: numbers that a picture is judged given, as of a class (one-hot) or a
                camera; 0 for none.
            mapping_depth: layers between the condition and its product with the features.
            mapping_kind: whether these come after an embedding, see `ConditionMapping`.
            is_spectral: also divides every convolution by its largest singular value (arXiv
                1802.05957), a bound on the slope where a gradient penalty is not enough.

        Raises:
            ValueError: the side is not one of those.
        """
        super().__init__()
        halvings = round(math.log2(max(side, 1) / _LAST_SIDE))
        if halvings < 1 or side != _LAST_SIDE * 2**halvings:
            raise ValueError(f"side is {side}; it must be 4 times a power of 2, at least 8")
        self.side, self.group = side, group
        widths = [min(width * 2**level, widest) for level in range(halvings + 1)]
        self.enter = EqualizedConv2d(channels, widths[0], 1)
        self.blocks = nn.ModuleList(_Halving(before, after) for before, after in pairwise(widths))
        last = widths[-1]
        self.join = EqualizedConv2d(last + 1, last, 3)
        self.flatten = EqualizedLinear(last * _LAST_SIDE**2, last)
        self.leave = EqualizedLinear(last, last if condition_dim else 1)
        self.mapping = None
        if condition_dim:
            self.mapping = ConditionMapping(condition_dim, last, mapping_depth, mapping_kind)
        if is_spectral:
            for layer in list(self.modules()):
                if isinstance(layer, EqualizedConv2d):
                    _bound_slope(layer)

    def forward(
        self,
        normalized: Float[Tensor, "batch channels side side"],
        condition: Float[Tensor, "batch dim"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """Logits: above 0 looks real.

        Args:
            normalized: about -1 to 1.
            condition: if the critic was made for one.

        Raises:
            ValueError: pictures of another side, or a condition too many or too few.
        """
        if normalized.shape[-2:] != (self.side, self.side):
            raise ValueError(f"pictures of side {self.side} are judged, got {normalized.shape}")
        if (condition is None) != (self.mapping is None):
            raise ValueError("a condition is given exactly if the critic has a condition_dim")
        maps = leaky(self.enter(normalized.contiguous(memory_format=torch.channels_last)))
        for block in self.blocks:
            maps = block(maps)
        maps = leaky(self.join(minibatch_deviation(maps, self.group)))
        features = self.leave(leaky(self.flatten(maps.flatten(1))))
        if self.mapping is None or condition is None:
            return features[:, 0]
        return (features * self.mapping(condition)).sum(1) / math.sqrt(features.shape[1])


class _Halving(nn.Module):
    """Two convolutions beside a single one; both halve the side, and are averaged in energy."""

    def __init__(self, entering: int, leaving: int):
        super().__init__()
        self.first = EqualizedConv2d(entering, entering, 3)
        self.second = EqualizedConv2d(entering, leaving, 3, halve=True)
        self.skip = EqualizedConv2d(entering, leaving, 1, bias=False, halve=True)

    def forward(self, maps: Tensor) -> Tensor:
        deep = leaky(self.second(leaky(self.first(maps))))
        return (deep + self.skip(maps)) / math.sqrt(2.0)


class ConditionMapping(nn.Module):
    """A condition as a vector that features are multiplied with (projection, arXiv 1802.05637).

    "embedded" is StyleGAN2's with a condition: a layer that learns as fast as others, its output
    normalised, then slow ones. "plain" is nerf-from-image's: slow layers alone.
    """

    def __init__(self, dim: int, width: int, depth: int, kind: MappingKind = "embedded"):
        """A mapping with its first weights.

        Args:
            dim: numbers of a condition.
            width: of the vector.
            depth: slow layers.
            kind: see the class.
        """
        super().__init__()
        self.embed = EqualizedLinear(dim, width) if kind == "embedded" else None
        self.layers = nn.ModuleList(
            EqualizedLinear(
                dim if number == 0 and self.embed is None else width, width, _MAPPING_LR
            )
            for number in range(depth)
        )

    def forward(self, condition: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch width"]:
        """The vector of each condition."""
        vector = condition
        if self.embed is not None:
            vector = self.embed(condition)
            vector = vector * (vector.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            vector = leaky(layer(vector))
        return vector


def minibatch_deviation(
    maps: Float[Tensor, "batch channels height width"], group: int
) -> Float[Tensor, "batch channels+1 height width"]:
    """The maps, with one more that tells how much the pictures of a group differ.

    The standard deviation over the group, averaged over channels and positions, is one number for
    each group. Neighbours of the batch form a group, so that a batch that was cut into parts has
    the same groups (StyleGAN2 takes every n-th). A batch that is no multiple of the group is cut
    into smaller ones, as large as can be.

    Args:
        maps: features of the pictures.
        group: pictures of a group, at least 1.
    """
    batch = len(maps)
    size = next(size for size in range(min(group, batch), 0, -1) if batch % size == 0)
    grouped = maps.reshape(batch // size, size, *maps.shape[1:])
    variance = (grouped - grouped.mean(1, keepdim=True)).square().mean(1)
    deviation = (variance + 1e-8).sqrt().mean((1, 2, 3))  # one for each group
    added = deviation.repeat_interleave(size)[:, None, None, None]
    return torch.cat([maps, added.expand(-1, 1, *maps.shape[-2:])], dim=1)


def _bound_slope(layer: EqualizedConv2d) -> None:
    """Divides the weights by their largest singular value, in place of the root of the fan-in."""
    parametrizations.spectral_norm(layer)
    layer.gain = 1.0
