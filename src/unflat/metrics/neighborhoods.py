"""Fidelity and variety apart: which pictures lie where those of the other set are.

A set is taken for the union of balls around its feature vectors, each as wide as the distance to
its k-th nearest neighbor. Distances are computed in blocks, so that 10,000 against 10,000 fit.

>>> import torch
>>> real = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
>>> dropped = real[real[:, 0] > 0]           # every picture is right, half of the world is missing
>>> result = precision_recall(real, dropped)
>>> result.precision > 0.95, result.recall < 0.85
(True, True)
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.errors import UserError
from unflat.metrics.checks import check_features

_BLOCK = 512  # rows of the matrix of distances that are held at once


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]; higher is better."""

    precision: float
    """Generated pictures that lie in a ball of a real one."""
    recall: float
    """Real pictures that lie in a ball of a generated one."""


class DensityCoverage(NamedTuple):
    """Higher is better."""

    density: float
    """Real balls that a generated picture lies in, over k; at least 0, around 1 for equals."""
    coverage: float
    """Real balls that hold a generated picture; a share in [0, 1]."""


def precision_recall(
    real: Float[Tensor, "n dim"], fake: Float[Tensor, "m dim_fake"], k: int = 3
) -> PrecisionRecall:
    """Precision and recall of generated pictures.

    Kynkäänniemi et al. 2019, arXiv 1904.06991, eq. 1 and 2. Both depend on the counts and grow with
    k; the paper takes 50,000 of each. One far real picture has a wide ball and lifts precision.

    Args:
        real: features of real pictures, more than k.
        fake: features of generated ones, more than k.
        k: a ball reaches to the k-th nearest neighbor in its own set; its edge belongs to it.

    Raises:
        UserError: not more than k pictures on a side.
        ValueError: different numbers of features, NaN, or k below 1.
    """
    real, fake = _pair(real, fake, k, least_fake=k + 1)
    real_reach, fake_reach = _reach(real, k), _reach(fake, k)
    precise = torch.zeros(len(fake), dtype=torch.bool)
    recalled = torch.zeros(len(real), dtype=torch.bool)
    for rows, distance in _distances(real, fake):
        precise |= (distance <= real_reach[rows, None]).any(0)
        recalled[rows] = (distance <= fake_reach).any(1)
    return PrecisionRecall(precise.double().mean().item(), recalled.double().mean().item())


def density_coverage(
    real: Float[Tensor, "n dim"], fake: Float[Tensor, "m dim_fake"], k: int = 5
) -> DensityCoverage:
    """Density and coverage of generated pictures: steadier under outliers than precision, recall.

    Naeem et al. 2020, arXiv 2002.09797; only real pictures have balls. For equal
    distributions density is 1 in expectation and coverage 1 - about 2^-k for equal counts.

    Args:
        real: features of real pictures, more than k.
        fake: features of generated ones.
        k: a ball reaches to the k-th nearest neighbor among the real; its edge is outside, as in
            the authors' code.

    Raises:
        UserError: not more than k real pictures, or no generated one.
        ValueError: different numbers of features, NaN, or k below 1.
    """
    real, fake = _pair(real, fake, k, least_fake=1)
    reach = _reach(real, k)
    inside, covered = 0, 0
    for rows, distance in _distances(real, fake):
        hits = distance < reach[rows, None]
        inside += int(hits.sum())
        covered += int(hits.any(1).sum())
    return DensityCoverage(inside / (k * len(fake)), covered / len(real))


def _pair(real: Tensor, fake: Tensor, k: int, least_fake: int) -> tuple[Tensor, Tensor]:
    """Both sides in float64, once they are known to compare."""
    if k < 1:
        raise ValueError(f"k is {k}; a ball reaches to the first neighbor at least")
    check_features(real, "features of the real set")
    check_features(fake, "features of the generated set", dim=real.shape[1])
    if len(real) <= k or len(fake) < least_fake:
        raise UserError(
            f"too few images for neighborhoods of {k}: {len(real)} real and {len(fake)} generated; "
            f"give at least {k + 1} of each."
        )
    return real.detach().cpu().double(), fake.detach().cpu().double()


def _distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances of some rows of a to all of b, with which rows they are."""
    lengths = b.square().sum(1)
    for start in range(0, len(a), _BLOCK):
        block = a[start : start + _BLOCK]
        squares = block.square().sum(1)[:, None] + lengths - 2 * block @ b.T
        yield slice(start, start + len(block)), squares.clamp_min(0)


def _reach(points: Tensor, k: int) -> Tensor:
    """Squared distance of every point to its k-th nearest neighbor, itself not counted."""
    reach = []
    for rows, distance in _distances(points, points):
        distance.diagonal(rows.start).fill_(torch.inf)
        reach.append(distance.kthvalue(k, dim=1).values)
    return torch.cat(reach)
