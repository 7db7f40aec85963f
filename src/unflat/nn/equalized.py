"""Layers with an equalised learning rate, and the low-pass halving between them.

Weights start at unit variance and are scaled when they are used, so that one learning rate of Adam
moves every layer by the same share (progressive GANs, arXiv 1710.10196, section 4.1; StyleGAN2,
arXiv 1912.04958).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

BINOMIAL = (1.0, 3.0, 3.0, 1.0)
"""StyleGAN2's resample filter, before it is divided by its sum."""


class EqualizedLinear(nn.Module):
    """A linear layer whose weights are divided by the root of their fan-in when used."""

    def __init__(self, entering: int, leaving: int, lr_multiplier: float = 1.0):
        """Sizes, and what the layer's learning rate is multiplied by (mapping networks: 0.01)."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(leaving, entering) / lr_multiplier)
        self.bias = nn.Parameter(torch.zeros(leaving))
        self.gain = lr_multiplier / math.sqrt(entering)
        self.bias_gain = lr_multiplier

    def forward(self, features: Float[Tensor, "*batch entering"]) -> Float[Tensor, "*batch left"]:
        """W x over the root of its fan-in, plus b."""
        return functional.linear(features, self.weight * self.gain, self.bias * self.bias_gain)


class EqualizedMatrix(nn.Module):
    """The same without a bias, as in front of a normalization."""

    def __init__(self, entering: int, leaving: int):
        """Sizes."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(leaving, entering))
        self.gain = 1 / math.sqrt(entering)

    def forward(self, features: Float[Tensor, "*batch entering"]) -> Float[Tensor, "*batch left"]:
        """W x over the root of its fan-in."""
        return functional.linear(features, self.weight * self.gain)


class EqualizedConv2d(nn.Module):
    """A convolution of the same kind; with ``halve`` it follows a low-pass filter, stride 2."""

    def __init__(
        self, entering: int, leaving: int, size: int, *, bias: bool = True, halve: bool = False
    ):
        """Channels, and side of the kernel: odd."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(leaving, entering, size, size))
        self.bias = nn.Parameter(torch.zeros(leaving)) if bias else None
        self.gain = 1 / math.sqrt(entering * size**2)
        self.padding, self.halve = size // 2, halve

    def forward(
        self, maps: Float[Tensor, "batch entering height width"]
    ) -> Float[Tensor, "batch leaving _ _"]:
        """The same height and width, or half of both."""
        weight = self.weight * self.gain
        if not self.halve:
            return functional.conv2d(maps, weight, self.bias, padding=self.padding)
        if weight.shape[-1] == 1:  # what is not looked at need not be filtered
            return functional.conv2d(blur(maps, 1, stride=2), weight, self.bias)
        return functional.conv2d(blur(maps, self.padding + 1), weight, self.bias, stride=2)


def blur(
    maps: Float[Tensor, "batch channels height width"], padding: int, stride: int = 1
) -> Float[Tensor, "batch channels _ _"]:
    """StyleGAN2's resample filter, 1 3 3 1 over 8 each way, zeros around the maps.

    Args:
        maps: any features.
        padding: zeros on every side; with 1 and a stride of 2 the sides are halved.
        stride: between the positions that are kept.
    """
    row = maps.new_tensor(BINOMIAL) / sum(BINOMIAL)
    kernel = (row[:, None] * row).expand(maps.shape[1], 1, -1, -1)
    return functional.conv2d(maps, kernel, stride=stride, padding=padding, groups=maps.shape[1])


def leaky(features: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Leaky ReLU of slope 0.2, times sqrt(2): keeps the second moment of what enters."""
    return functional.leaky_relu(features, 0.2) * math.sqrt(2.0)


def equalize(layer: nn.Linear) -> nn.Linear:
    """The same layer with unit weights, divided by the root of their fan-in when used; no bias yet.

    What reads its ``weight`` finds the divided one, with gradients.
    """
    nn.init.normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    parametrize.register_parametrization(layer, "weight", _Gain(1 / math.sqrt(layer.in_features)))
    return layer


class _Gain(nn.Module):
    def __init__(self, gain: float):
        super().__init__()
        self.gain = gain

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.gain
