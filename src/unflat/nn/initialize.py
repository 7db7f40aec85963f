"""Starts of layers."""

from torch import nn


def start_small(layer: nn.Linear | nn.Conv2d, std: float) -> None:
    """Normal weights of the given spread and no bias: an output that begins near zero."""
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
