"""Kernel distance (KID): two sets of features compared without a Gaussian, and without bias.

>>> import torch
>>> random = torch.Generator().manual_seed(0)
>>> a, b = (torch.randn(300, 8, generator=random) for _ in range(2))
>>> same, other = kid(a, b, subsets=20), kid(a, b + 1, subsets=20)
>>> abs(same.mean) < 3 * same.standard_error < other.mean
True
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unflat.errors import UserError
from unflat.metrics.checks import check_features

_BLOCK = 2048  # rows of the kernel matrix that are held at once


@dataclass(frozen=True, kw_only=True)
class Kid:
    """A kernel distance with what it was computed from. Unscaled: some papers print it x 1000."""

    mean: float
    """Mean over the subsets, the figure that papers call KID; lower is better, around 0 for equals.

    Unbiased, so that it may be negative."""
    standard_error: float
    """Of `mean`, over fresh draws of the pictures and of the subsets."""
    subset_std: float
    """Standard deviation of the subsets' values (n - 1), the spread that papers print."""
    complete: float
    """The same distance over all pairs at once: what `mean` would be with endless subsets."""
    subsets: int
    """How many there were; 1 where a subset holds all of both sets."""
    subset_size: int
    """Pictures of each side in a subset: the size asked for, or the smaller set."""
    counts: tuple[int, int]
    """Pictures of the two sets."""


def kid(
    features_a: Float[Tensor, "n dim"],
    features_b: Float[Tensor, "m dim_b"],
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> Kid:
    """Unbiased squared maximum mean discrepancy with k(a, b) = (a.b / dim + 1)^3; lower is better.

    Binkowski et al. 2018, arXiv 1801.01401: the mean over random subsets. The paper's subsets
    overlap, so that their spread over the root of their number says how well the mean over endless
    subsets is known, not how well the pictures are: it goes to 0 with more subsets. Here

        variance = variance of the complete estimate + subset_std^2 / subsets,

    by the law of total variance, as the subsets' mean is the complete estimate in expectation. The
    first part is the variance of a two-sample U-statistic (Hoeffding 1948; for this one Sutherland
    et al. 2017, arXiv 1611.04488, here for unequal counts), second order included: it
    is all there is when both sets have one distribution.

    It costs (n + m)^2 dim multiplications and keeps blocks of the kernel matrix alone: for 50,000
    pictures take a `FeatureSample` of 10,000.

    Args:
        features_a: of one set, at least 2.
        features_b: of the other, at least 2.
        subsets: how many are drawn, without replacement within one.
        subset_size: pictures of each side in a subset.
        seed: of the subsets.

    Raises:
        UserError: a side has fewer than two pictures.
        ValueError: different numbers of features, NaN, or fewer than two a subset.
    """
    a, b = _pair(features_a, features_b)
    if subsets < 1 or subset_size < 2:
        raise ValueError(f"KID needs subsets of 2 or more, got {subsets} of {subset_size}")
    size = min(subset_size, len(a), len(b))
    complete, variance = _complete(a, b)
    if size == len(a) == len(b):
        values = np.array([complete])
    else:
        random = np.random.default_rng(seed)
        values = np.array([_subset(a, b, size, random) for _ in range(subsets)])
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Kid(
        mean=float(values.mean()),
        standard_error=math.sqrt(variance + spread**2 / len(values)),
        subset_std=spread,
        complete=complete,
        subsets=len(values),
        subset_size=size,
        counts=(len(a), len(b)),
    )


def polynomial_mmd2(
    features_a: Float[Tensor, "n dim"], features_b: Float[Tensor, "m dim_b"]
) -> float:
    """Unbiased squared maximum mean discrepancy over all pairs, k(a, b) = (a.b / dim + 1)^3.

    Lower is better; around 0, on either side, for equal distributions. Gretton et al. 2012, eq. 3.

    Raises:
        UserError: a side has fewer than two pictures.
        ValueError: different numbers of features, or NaN.
    """
    return _complete(*_pair(features_a, features_b))[0]


def _pair(features_a: Tensor, features_b: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides in float64, once they are known to compare."""
    check_features(features_a, "features of the first set")
    check_features(features_b, "features of the second set", dim=features_a.shape[1])
    if min(len(features_a), len(features_b)) < 2:
        raise UserError(
            f"too few images for a kernel distance: {len(features_a)} and {len(features_b)}; "
            "give at least 2 of each set."
        )
    return features_a.detach().cpu().double(), features_b.detach().cpu().double()


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _subset(a: Tensor, b: Tensor, size: int, random: np.random.Generator) -> float:
    """The unbiased estimate of one subset."""
    a = a[torch.from_numpy(random.choice(len(a), size, replace=False))]
    b = b[torch.from_numpy(random.choice(len(b), size, replace=False))]
    within = sum(_kernel(x, x).fill_diagonal_(0).sum() for x in (a, b)) / (size * (size - 1))
    return (within - 2 * _kernel(a, b).mean()).item()


@dataclass(frozen=True)
class _Sums:
    """One kernel matrix, summed."""

    rows: Tensor  # mean of every row
    columns: Tensor
    square: float  # mean of the squares


def _sums(a: Tensor, b: Tensor | None = None) -> _Sums:
    """Of the kernel between a and b, or within a, where the diagonal does not count."""
    other = a if b is None else b
    rows, columns, square = [], a.new_zeros(len(other)), 0.0
    for start in range(0, len(a), _BLOCK):
        block = _kernel(a[start : start + _BLOCK], other)
        if b is None:
            block.diagonal(start).zero_()
        rows.append(block.sum(1))
        columns += block.sum(0)
        square += block.square().sum().item()
    wide, high = (len(other), len(a)) if b is not None else (len(a) - 1, len(a) - 1)
    pairs = len(a) * wide
    return _Sums(torch.cat(rows) / wide, columns / high, square / pairs)


def _complete(a: Tensor, b: Tensor) -> tuple[float, float]:
    """The estimate over all pairs, and an estimate of its variance.

    The estimate is a sum of uncorrelated parts: what each picture adds by itself (first order) and
    what is left of each pair (second order). Their variances are read off the kernel matrices'
    rows; the rows' own noise, which is second order, is taken off the first.
    """
    n, m = len(a), len(b)
    aa, bb, ab = _sums(a), _sums(b), _sums(a, b)
    estimate = aa.rows.mean() + bb.rows.mean() - 2 * ab.rows.mean()
    pair_aa = _pair_variance(aa.square, aa.rows, aa.rows)
    pair_bb = _pair_variance(bb.square, bb.rows, bb.rows)
    pair_ab = _pair_variance(ab.square, ab.rows, ab.columns)
    single_a = (aa.rows - ab.rows).var().item() - pair_aa / (n - 1) - pair_ab / m
    single_b = (bb.rows - ab.columns).var().item() - pair_bb / (m - 1) - pair_ab / n
    first = 4 * max(single_a, 0.0) / n + 4 * max(single_b, 0.0) / m
    second = 2 * pair_aa / (n * (n - 1)) + 2 * pair_bb / (m * (m - 1)) + 4 * pair_ab / (n * m)
    return estimate.item(), first + second


def _pair_variance(square: float, rows: Tensor, columns: Tensor) -> float:
    """Mean square of what is left of the kernel without its row means and column means."""
    mean = rows.mean()
    singles = (rows - mean).square().mean() + (columns - mean).square().mean()
    return max(square - mean.square().item() - singles.item(), 0.0)
