"""Names of StyleGAN2's code, on which both nerf-from-image and EG3D build, to ours."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from unflat.errors import UserError
from unflat.hub import published_names
from unflat.hub.published_names import Names, linear_names
from unflat.nn.equalized import BINOMIAL

_FILTER = "resample_filter"


def renamed(state: Mapping[str, Tensor], names: Names, source: str) -> dict[str, Tensor]:
    """The weights under our names, as `unflat.hub.published_names.renamed` has them.

    Raises:
        UserError: a key is missing or unknown, or a low-pass filter is another than StyleGAN2's.
    """
    weights = published_names.renamed(state, names, source)
    row = torch.tensor(BINOMIAL) / sum(BINOMIAL)
    for name in names:
        if name.endswith(_FILTER) and not torch.allclose(state[name].float(), row[:, None] * row):
            raise UserError(
                f"{source}: {name} is not StyleGAN2's low-pass; give a file as published."
            )
    return weights


class SynthesisSizes(NamedTuple):
    """What the shapes tell of a synthesis network."""

    side: int
    """Of the maps, pixels."""
    channels: int
    """Of the maps."""
    base: int
    """Features of a block are base / side, at most ``widest``."""
    widest: int
    """Most features."""
    style_dim: int
    """Numbers of a style."""


def synthesis_sizes(state: Mapping[str, Tensor], prefix: str, source: str) -> SynthesisSizes:
    """Sizes of the synthesis network under a prefix, as in ``backbone.synthesis.``.

    Raises:
        UserError: there is none, or its widths are not StyleGAN2's.
    """
    found = (re.fullmatch(re.escape(prefix) + r"b(\d+)\.torgb\.weight", name) for name in state)
    sides = sorted(int(match[1]) for match in found if match)
    if not sides or sides != [4 * 2**level for level in range(len(sides))] or len(sides) < 2:
        raise UserError(f"{source}: holds no whole StyleGAN2 generator; give a file as published.")
    out = [state[f"{prefix}b{side}.torgb.weight"].shape for side in sides]
    widest, base = out[0][1], out[-1][1] * sides[-1]
    for side, shape in zip(sides, out, strict=True):
        if shape[1] != min(base // side, widest):
            raise UserError(
                f"{source}: {prefix}b{side}.torgb.weight has {shape[1]} features where StyleGAN2 "
                f"has {min(base // side, widest)}; give a file as published."
            )
    affine = f"{prefix}b4.torgb.affine.weight"
    if affine not in state:
        raise UserError(f"{source}: lacks {affine}; give a file as published.")
    return SynthesisSizes(sides[-1], out[-1][0], base, widest, state[affine].shape[1])


def mapping_names(published: str, ours: str, depth: int) -> Names:
    """Layers of a mapping network; without its embedding and its average."""
    names: Names = {}
    for layer in range(depth):
        names |= linear_names(f"{published}fc{layer}", f"{ours}layers.{layer}")
    return names


def synthesis_names(published: str, ours: str, side: int, *, noise: bool) -> Names:
    """A synthesis network up to a side in pixels.

    Args:
        published: prefix, as in ``backbone.synthesis.``.
        ours: prefix, as in ``synthesis.``.
        side: of the maps.
        noise: whether the constant noise is wanted, which files hold in either case.
    """
    names: Names = {f"{published}b4.const": f"{ours}constant"}
    for level in range(side.bit_length() - 2):
        block = f"{published}b{4 * 2**level}."
        layers = 1 if level == 0 else 2
        names |= block_names(block, f"{ours}blocks.{level}.", layers, noise=noise)
    return names


def block_names(published: str, ours: str, layers: int = 2, *, noise: bool) -> Names:
    """A block of one or two convolutions and its output."""
    names: Names = {f"{published}{_FILTER}": None}
    for number in range(layers):
        theirs = f"{published}conv{number + 2 - layers}."
        mine = f"{ours}layers.{number}."
        names |= {
            f"{theirs}{_FILTER}": None,
            f"{theirs}weight": f"{mine}conv.weight",
            f"{theirs}bias": f"{mine}bias",
            f"{theirs}noise_strength": f"{mine}noise_strength" if noise else None,
            f"{theirs}noise_const": f"{mine}noise" if noise else None,
            **linear_names(f"{theirs}affine", f"{mine}conv.affine"),
        }
    return names | {
        f"{published}torgb.weight": f"{ours}output.weight",
        f"{published}torgb.bias": f"{ours}output_bias",
        **linear_names(f"{published}torgb.affine", f"{ours}output.affine"),
    }
