"""Two sets of pictures compared by their features: moments, Fréchet distance, Inception score.

Features come batch by batch; what is kept does not grow with the number of pictures.

>>> import torch
>>> real, fake = FeatureMoments(2), FeatureMoments(2)
>>> real.add(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]]))
>>> fake.add(torch.tensor([[3.0, 0.0], [5.0, 0.0], [3.0, 2.0], [5.0, 2.0]]))
>>> round(frechet_distance(real, fake), 6)   # the same spread, 3 apart
9.0
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unflat.errors import UserError
from unflat.metrics.checks import check_features, refuse_pictures


class FeatureMoments:
    """Count, mean and covariance of feature vectors that come in batches, in float64.

    Batches are merged by the pairwise update of Chan, Golub and LeVeque 1979, which does not
    subtract large sums from each other: the result is that of all vectors at once, up to rounding.
    Memory is 8 (dim + dim^2) bytes whatever the count.

    Args:
        dim: numbers of a feature vector.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.count = 0
        self._mean = torch.zeros(dim, dtype=torch.float64)
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64)  # sum of (x - mean)(x - mean)'

    def add(self, features: Float[Tensor, "batch dim"]) -> None:
        """The features of some more pictures.

        Raises:
            ValueError: another number of features, or rows that are not finite (they are named).
        """
        check_features(features, "features", dim=self.dim, first=self.count)
        if len(features) == 0:
            return
        rows = features.detach().to("cpu", torch.float64)
        mean = rows.mean(0)
        rows = rows - mean
        self._merge(len(rows), mean, rows.T @ rows)

    def merge(self, other: "FeatureMoments") -> None:
        """All pictures that another one has seen; it stays as it is.

        Raises:
            ValueError: another number of features.
        """
        if other.dim != self.dim:
            raise ValueError(f"moments of {other.dim} features do not merge with {self.dim}")
        self._merge(other.count, other._mean, other._scatter)

    @property
    def mean(self) -> Float[Tensor, " dim"]:
        """Mean of every feature; zeros before anything was added."""
        return self._mean.clone()

    @property
    def covariance(self) -> Float[Tensor, "dim dim"]:
        """Unbiased covariance, the scatter over count - 1.

        Raises:
            UserError: fewer than two pictures.
        """
        if self.count < 2:
            raise UserError(
                f"too few images for a covariance: {self.count} for {self.dim} features; "
                f"give at least 2, and more than {self.dim} for one of full rank."
            )
        return self._scatter / (self.count - 1)

    @property
    def is_rank_deficient(self) -> bool:
        """Whether there are too few pictures (at most dim) for a covariance of full rank."""
        return self.count <= self.dim

    @property
    def warning(self) -> str | None:
        """What to print beside a distance of a covariance without full rank; None if it has it."""
        if not self.is_rank_deficient:
            return None
        return (
            f"{self.count} images for a covariance of {self.dim} features: it has no full rank, "
            "which biases a Fréchet distance upwards; compare it only between equal counts"
        )

    def _merge(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.count + count
        if total == 0:
            return
        step = mean - self._mean
        self._scatter += scatter
        self._scatter.addr_(step, step, alpha=self.count * count / total)
        self._mean += step * (count / total)
        self.count = total


class FeatureSample:
    """An even random sample of the feature vectors of a stream, in memory that does not grow.

    For figures that need the vectors themselves (kernel distance, precision). Every vector draws a
    number, and those with the smallest are kept: reservoir sampling by keys (Efraimidis and
    Spirakis 2006, with equal weights). The sample depends on the seed and on the order of the
    stream, never on how it was cut into batches.

    Args:
        capacity: most vectors that are kept; all of them if None.
        seed: of the numbers that are drawn.
    """

    def __init__(self, capacity: int | None = None, seed: int = 0) -> None:
        if capacity is not None and capacity < 1:
            raise ValueError(f"a sample keeps at least one vector, got a capacity of {capacity}")
        self.capacity = capacity
        self.seen = 0
        """How many vectors came."""
        self._random = np.random.default_rng(seed)
        self._parts: list[Tensor] = []  # while all are kept
        self._kept: Tensor | None = None  # from when the first one is dropped
        self._keys = np.empty(0)
        self._places = np.empty(0, dtype=np.int64)  # each kept vector's number in the stream

    def add(self, features: Float[Tensor, "batch dim"]) -> None:
        """The features of some more pictures.

        Raises:
            ValueError: another number of features, or rows that are not finite (they are named).
        """
        dim = self._parts[0].shape[1] if self._parts else features.shape[1]
        dim = dim if self._kept is None else self._kept.shape[1]
        check_features(features, "features", dim=dim, first=self.seen)
        rows = features.detach().cpu()
        keys = self._random.random(len(rows))
        places = np.arange(self.seen, self.seen + len(rows))
        self.seen += len(rows)
        if self.capacity is None or self.seen <= self.capacity:
            self._parts.append(rows.clone())
            self._keys = np.concatenate([self._keys, keys])
            self._places = np.concatenate([self._places, places])
        else:
            self._replace(rows, keys, places, self.capacity)

    @property
    def features(self) -> Float[Tensor, "n dim"]:
        """The vectors of the sample, in the order in which they came.

        Raises:
            UserError: nothing was added.
        """
        if self.seen == 0:
            raise UserError("no features: no image was added to the sample; give at least one.")
        kept = torch.cat(self._parts) if self._kept is None else self._kept
        return kept[torch.from_numpy(np.argsort(self._places))]

    @property
    def places(self) -> Int[Tensor, " n"]:
        """Number in the stream, from 0, of each vector of `features`."""
        return torch.from_numpy(np.sort(self._places))

    def _replace(self, rows: Tensor, keys: np.ndarray, places: np.ndarray, capacity: int) -> None:
        """New vectors take the slots of those that now have too large a number."""
        if self._kept is None:  # the sample becomes full with this batch
            self._kept = torch.empty(capacity, rows.shape[1], dtype=rows.dtype)
            held = len(self._keys)
            if held:
                self._kept[:held] = torch.cat(self._parts)
            self._parts = []
            free = np.full(capacity - held, np.inf)  # empty slots go before anything else
            self._keys = np.concatenate([self._keys, free])
            self._places = np.concatenate([self._places, np.full(capacity - held, -1)])
        every = np.concatenate([self._keys, keys])
        smallest = np.argpartition(every, capacity - 1)[:capacity]
        stays = np.zeros(len(every), dtype=bool)
        stays[smallest] = True
        slots, new = np.flatnonzero(~stays[:capacity]), np.flatnonzero(stays[capacity:])
        self._kept[torch.from_numpy(slots)] = rows[torch.from_numpy(new)].to(self._kept.dtype)
        self._keys[slots], self._places[slots] = keys[new], places[new]


def frechet_distance(a: FeatureMoments, b: FeatureMoments) -> float:
    """Squared Fréchet distance of the Gaussians with these moments, at least 0; lower is better.

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)); Heusel et al. 2017, arXiv 1706.08500, eq. 6.
    It is FID when the features are the pool features of the FID's own Inception network, and
    nothing that may be called so with others. Biased upwards by the finite counts: name them, and
    compare only equal ones. In squared units of the features.

    The trace of the root is the sum of the singular values of F_a' F_b with C = F F', which needs
    no root of a matrix that is not symmetric and stays exact for covariances without full rank.

    Raises:
        ValueError: different numbers of features.
        UserError: a side has fewer than two pictures.
    """
    if a.dim != b.dim:
        raise ValueError(f"moments of {a.dim} and of {b.dim} features do not compare")
    first, second = a.covariance, b.covariance
    overlap = torch.linalg.svdvals(_factor(first).T @ _factor(second)).sum()
    shift = (a.mean - b.mean).square().sum()
    distance = shift + first.trace() + second.trace() - 2 * overlap
    return max(distance.item(), 0.0)  # rounding may leave equal ones just below 0


class InceptionScore(NamedTuple):
    """The score of every part of the pictures, as mean and spread."""

    mean: float
    """In [1, classes]; higher is better."""
    std: float
    """Population standard deviation over the parts. Not an error bar: the parts' bias is shared."""


def inception_score(probabilities: Float[Tensor, "n classes"], splits: int = 10) -> InceptionScore:
    """How sure and how different pictures are: exp E KL(p(class | picture) | p(class)).

    In [1, classes]; higher is better. Salimans et al. 2016, arXiv 1606.03498. It knows nothing of
    the real pictures, means little away from ImageNet, and grows with the pictures of a part: name
    n and the splits.

    Args:
        probabilities: of the classes of one picture in each row, sums 1.
        splits: the pictures are cut into so many parts in their order, each with its own p(class).

    Raises:
        UserError: fewer pictures than splits.
        ValueError: rows that are no distributions.
    """
    check_features(probabilities, "probabilities")
    count = len(probabilities)
    if count < splits:
        raise UserError(
            f"too few images for an Inception score: {count} for {splits} splits; give more."
        )
    rows = probabilities.detach().cpu().double()
    wrong = (rows < 0).any(1) | ((rows.sum(1) - 1).abs() > 1e-3)
    refuse_pictures(wrong, "the probabilities are no distribution in picture")
    scores = []
    for part in range(splits):
        p = rows[part * count // splits : (part + 1) * count // splits]
        divergence = torch.xlogy(p, p).sum(1) - torch.xlogy(p, p.mean(0)).sum(1)
        scores.append(divergence.mean().exp())
    values = torch.stack(scores)
    return InceptionScore(values.mean().item(), values.std(correction=0).item())


def _factor(covariance: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim rank"]:
    """F with F F' = covariance, as many columns as its numerical rank."""
    values, vectors = torch.linalg.eigh(covariance)
    least = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    keep = values > least
    return vectors[:, keep] * values[keep].sqrt()
