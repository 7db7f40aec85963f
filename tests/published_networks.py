"""Weights in the layout of published networks, from integers alone: the same on every machine."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def hashed(shape: tuple[int, ...], seed: int) -> Tensor:
    """Numbers spread evenly over [-1, 1), float32; a pure function of place and seed."""
    count = int(torch.Size(shape).numel())
    mask = 0xFFFFFFFF
    x = (torch.arange(count) * 0x9E3779B1 + seed * 0x85EBCA77) & mask
    for shift, factor in ((16, 0x7FEB352D), (15, 0x6C078965)):
        x = ((x ^ (x >> shift)) * factor) & mask
    x = x ^ (x >> 16)
    return ((x >> 8).float() / 2**23 - 1).reshape(shape)


def hashed_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights that keep the size of what flows through: He's spread, norms near the identity."""
    state: dict[str, Tensor] = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        values = hashed(tuple(shape), seed)
        if name.endswith(("bn.weight", "running_var")):
            values = 1 + 0.3 * values
        elif len(shape) > 1:
            values *= (6 / torch.Size(shape[1:]).numel()) ** 0.5
        else:
            values *= 0.1
        state[name] = values
    return state


def hashed_heads(channels: tuple[int, ...]) -> dict[str, Tensor]:
    """Heads of LPIPS, none negative."""
    return {
        f"lin{layer}.model.1.weight": hashed((1, count, 1, 1), 100 + layer).abs()
        for layer, count in enumerate(channels)
    }


def hashed_pictures(batch: int, height: int, width: int, seed: int = 7) -> Tensor:
    """Pictures in [0, 1]: waves of several lengths under noise."""
    rows = torch.linspace(0, 6, height)[:, None]
    columns = torch.linspace(0, 9, width)
    waves = [
        0.5 + 0.3 * torch.sin(rows * (1 + picture) + columns * (channel - 1))
        for picture in range(batch)
        for channel in range(3)
    ]
    smooth = torch.stack(waves).reshape(batch, 3, height, width)
    return (smooth + 0.2 * hashed((batch, 3, height, width), seed)).clamp(0, 1)


def published_output(name: str) -> dict[str, Any]:
    """What a published package answered; `fixtures/make_network_outputs.py` asked it."""
    path = Path(__file__).parent / "fixtures" / "network_outputs.json"
    return json.loads(path.read_text(encoding="utf-8"))[name]
