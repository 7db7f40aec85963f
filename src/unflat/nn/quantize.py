"""Quantisers: continuous token vectors become integers and come back.

Two kinds with one interface: finite scalar quantisation (FSQ, arXiv 2309.15505) and a factorised,
l2-normalised codebook (ViT-VQGAN, arXiv 2110.04627, section 3.2) with restart of dead codes.

>>> import torch
>>> fsq = FiniteScalarQuantizer([(8, 5, 5, 5)])
>>> out = fsq(torch.zeros(2, 64, fsq.dim))
>>> out.indices.shape, fsq.codebook_sizes
(torch.Size([2, 64, 1]), (1000,))
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional


class Quantized(NamedTuple):
    """What a quantiser gives back."""

    tokens: Float[Tensor, "batch n dim"]
    """Quantised vectors, with straight-through gradients to the input."""
    indices: Int[Tensor, "batch n codes"]
    """Integers per token, one for each of its codes."""
    loss: Float[Tensor, ""]
    """What the quantiser wants added to the training loss; 0 for FSQ."""


class FiniteScalarQuantizer(nn.Module):
    """Each number is squashed by tanh and rounded to the middle of one of its level cells.

    Numbers are grouped into codes; a code's size is the product of its numbers' levels. Unlike the
    paper, all cells are equally wide (the paper's outermost are half as wide), and the levels may
    differ strongly between numbers: strong principal components deserve more bits.
    """

    def __init__(self, levels: Sequence[Sequence[int]]):
        """Levels of each number, grouped by code: [(32, 32), (16, 8, 8)] is two codes."""
        super().__init__()
        flat = [level for code in levels for level in code]
        if not flat or min(flat) < 2:
            raise ValueError(f"every number needs at least 2 levels, got {levels}")
        self.groups = tuple(len(code) for code in levels)
        self.codebook_sizes = tuple(math.prod(code) for code in levels)
        self.dim = len(flat)
        bases = [math.prod(code[:place]) for code in levels for place in range(len(code))]
        self.levels: Tensor
        self.bases: Tensor
        self.register_buffer("levels", torch.tensor(flat), persistent=False)
        self.register_buffer("bases", torch.tensor(bases), persistent=False)

    @property
    def bits(self) -> float:
        """Bits that one token carries."""
        return float(sum(math.log2(size) for size in self.codebook_sizes))

    def forward(self, tokens: Float[Tensor, "batch n dim"], rounding: float = 1.0) -> Quantized:
        """Quantised tokens in (-1, 1).

        Args:
            tokens: unbounded; tanh is applied here.
            rounding: 1 rounds, 0 only bounds (for the first steps of a training), between mixes.
        """
        bounded = tokens.tanh()
        cells = self._cells(bounded)
        rounded = self._middles(cells).to(bounded.dtype)
        quantized = bounded + rounding * (rounded - bounded).detach()
        return Quantized(quantized, self._pack(cells), tokens.new_zeros(()))

    def decode(self, indices: Int[Tensor, "batch n codes"]) -> Float[Tensor, "batch n dim"]:
        """Token vectors of the given integers, in (-1, 1)."""
        spread = torch.repeat_interleave(
            indices, torch.tensor(self.groups, device=indices.device), dim=-1
        )
        return self._middles(spread // self.bases % self.levels)

    def _cells(self, bounded: Tensor) -> Tensor:
        cells = ((bounded + 1) * 0.5 * self.levels).floor().long()
        return torch.minimum(cells.clamp_min(0), self.levels - 1)

    def _middles(self, cells: Tensor) -> Tensor:
        return (2 * cells + 1) / self.levels - 1

    def _pack(self, cells: Tensor) -> Tensor:
        parts = (cells * self.bases).split(self.groups, dim=-1)
        return torch.stack([part.sum(-1) for part in parts], dim=-1)


class VectorQuantizer(nn.Module):
    """Nearest neighbour on the unit sphere in a learned table, shared by a token's codes.

    A token of ``codes_per_token * code_dim`` numbers is cut into codes; tokens and table are both
    l2-normalised, what comes out is the normalised code. Loss: |e - sg(z)|^2 + beta |z - sg(e)|^2,
    means over all elements (ViT-VQGAN). Call :meth:`restart_dead` often early on: without it a
    small codebook collapses within a hundred steps.
    """

    def __init__(
        self, codes: int, code_dim: int, codes_per_token: int = 1, commitment: float = 0.25
    ):
        super().__init__()
        self.codes = codes
        self.code_dim = code_dim
        self.codes_per_token = codes_per_token
        self.commitment = commitment
        self.dim = code_dim * codes_per_token
        self.codebook_sizes = (codes,) * codes_per_token
        self.table = nn.Parameter(functional.normalize(torch.randn(codes, code_dim), dim=-1))
        self.recent_use: Tensor
        self.recent_inputs: Tensor
        self.register_buffer("recent_use", torch.ones(codes))
        self.register_buffer("recent_inputs", torch.zeros(0, code_dim), persistent=False)

    @property
    def bits(self) -> float:
        """Bits that one token carries."""
        return self.codes_per_token * math.log2(self.codes)

    def forward(self, tokens: Float[Tensor, "batch n dim"], rounding: float = 1.0) -> Quantized:
        """Quantised tokens: unit vectors, ``codes_per_token`` of them side by side."""
        vectors = functional.normalize(tokens.unflatten(-1, (-1, self.code_dim)), dim=-1)
        table = functional.normalize(self.table, dim=-1)
        indices = (vectors.detach() @ table.detach().T).argmax(-1)
        codes = table[indices]
        loss = functional.mse_loss(codes, vectors.detach()) + self.commitment * (
            functional.mse_loss(vectors, codes.detach())
        )
        if self.training:
            self._remember(vectors.detach().reshape(-1, self.code_dim), indices.flatten())
        quantized = vectors + rounding * (codes - vectors).detach()
        return Quantized(quantized.flatten(-2), indices, rounding * loss)

    def decode(self, indices: Int[Tensor, "batch n codes"]) -> Float[Tensor, "batch n dim"]:
        """Token vectors of the given integers."""
        return functional.normalize(self.table, dim=-1)[indices].flatten(-2)

    @torch.no_grad()
    def restart_dead(self, generator: torch.Generator, threshold: float = 0.03) -> int:
        """Codes whose decaying share of use fell below the threshold, replaced; their number.

        A dead code becomes a recent encoder output, chosen at random.

        Args:
            generator: source of the choice, on the CPU.
            threshold: in units of equal use of all codes.
        """
        dead = (self.recent_use < threshold).nonzero().flatten()
        if len(dead) == 0 or len(self.recent_inputs) == 0:
            return 0
        choice = torch.randint(len(self.recent_inputs), (len(dead),), generator=generator)
        self.table[dead] = self.recent_inputs[choice.to(self.recent_inputs.device)]
        self.recent_use[dead] = 1.0
        return len(dead)

    def _remember(self, vectors: Tensor, indices: Tensor) -> None:
        counts = torch.bincount(indices, minlength=self.codes).to(self.recent_use.dtype)
        self.recent_use.lerp_(counts * (self.codes / len(indices)), 0.02)
        self.recent_inputs = vectors[:: max(1, len(vectors) // 4096)].clone()


class CodeUsage(NamedTuple):
    """How a codebook was used over a set of pictures."""

    usage: float
    """Share of codes used at least once, in [0, 1]; mean over the codes of a token."""
    perplexity: float
    """exp(entropy) of the codes' distribution, in 1...codes; mean over the codes of a token."""


def code_usage(indices: Int[Tensor, "*batch codes"], codebook_sizes: Sequence[int]) -> CodeUsage:
    """Usage and perplexity, each code slot of a token counted by itself, then averaged."""
    usages, perplexities = [], []
    for slot, size in enumerate(codebook_sizes):
        counts = torch.bincount(indices[..., slot].flatten(), minlength=size).double()
        shares = counts[counts > 0] / counts.sum()
        usages.append((counts > 0).double().mean().item())
        perplexities.append((-(shares * shares.log()).sum()).exp().item())
    return CodeUsage(sum(usages) / len(usages), sum(perplexities) / len(perplexities))
