"""Weights and inputs by rule, as the numbers in tests/fixtures/nerf_from_image were made of.

A value depends on the tensor's name alone: PCG64's raw stream, seeded with the crc32 of the name,
gives 53 bits u in [0, 1); the value is mean + std sqrt(3) (2u - 1).
"""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FIXTURES = Path(__file__).with_name("fixtures") / "nerf_from_image"


def seeded(key: str, shape: tuple[int, ...], mean: float = 0.0, std: float = 1.0) -> Tensor:
    """One tensor in float32."""
    raw = np.random.PCG64(zlib.crc32(key.encode())).random_raw(max(1, math.prod(shape)))
    uniform = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    value = mean + std * 3.0**0.5 * (2.0 * uniform - 1.0)
    return torch.from_numpy(value.reshape(shape).astype(np.float32))


def seeded_state(names: Path) -> dict[str, Tensor]:
    """Tensors of a list of names: shape, mean, spread; or shape, "blur" for the low-pass."""
    state = {}
    for name, entry in json.loads(names.read_text()).items():
        if isinstance(entry, dict):  # the longer form, of lists that lie elsewhere
            entry = [entry["shape"], *([entry["fill"]] if "fill" in entry else [])] + [
                entry[word] for word in ("mean", "std") if word in entry
            ]
        shape, *how = entry
        if how == ["blur"]:
            row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
            state[name] = row[:, None] * row
        else:
            state[name] = seeded(name, tuple(shape), *how)
    return state
