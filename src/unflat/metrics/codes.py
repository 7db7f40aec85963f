"""How much of a codebook is used: counted batch by batch, asked at the end.

>>> import torch
>>> counts = CodeCounts((4, 4))
>>> counts.add(torch.tensor([[[0, 1], [1, 1]]]))   # one picture, two tokens of two codes
>>> counts.usage, counts.perplexity
(0.375, 1.5)
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor


class CodeCounts:
    """Counts of every code, for each of a token's code slots by itself.

    Args:
        codebook_sizes: of each slot; a token of one code has one.
    """

    def __init__(self, codebook_sizes: Sequence[int]) -> None:
        self.codebook_sizes = tuple(codebook_sizes)
        self._counts = [torch.zeros(size, dtype=torch.long) for size in self.codebook_sizes]

    def add(self, indices: Int[Tensor, "*tokens codes"]) -> None:
        """The codes of some more pictures.

        Raises:
            ValueError: another number of slots, or an index outside its codebook.
        """
        flat = indices.detach().reshape(-1, indices.shape[-1]).cpu()
        if flat.shape[1] != len(self.codebook_sizes):
            raise ValueError(f"tokens have {flat.shape[1]} codes, not {len(self.codebook_sizes)}")
        for column, counts in zip(flat.unbind(1), self._counts, strict=True):
            if column.numel() and not 0 <= int(column.min()) <= int(column.max()) < len(counts):
                raise ValueError(f"a code index lies outside 0...{len(counts) - 1}")
            counts += torch.bincount(column, minlength=len(counts))

    @property
    def total(self) -> int:
        """How many tokens were counted."""
        return int(self._counts[0].sum())

    @property
    def usage(self) -> float:
        """Share of codes used at least once, in [0, 1], mean over slots; higher is better.

        It grows with the number of pictures: state it. With N codes and n tokens it cannot exceed
        n / N.
        """
        return _mean([(counts > 0).double().mean().item() for counts in self._counts])

    @property
    def perplexity(self) -> float:
        """exp(entropy) of the codes' distribution, mean over slots; higher is better.

        Between 1 (one code for everything) and the codebook's size (all equally often). 0 before
        anything was counted.
        """
        if self.total == 0:
            return 0.0
        return _mean([_perplexity(counts) for counts in self._counts])


def _perplexity(counts: Int[Tensor, " codes"]) -> float:
    shares = counts[counts > 0].double() / counts.sum()
    return (-(shares * shares.log()).sum()).exp().item()


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
