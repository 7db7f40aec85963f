"""The similarity that brings one set of points onto another, for shapes without a common frame.

Aligned figures flatter: say so beside them, and which of scale, rotation and shift was free.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_STEPS = 60
_SETTLED = 1e-7  # relative gain of the trimmed error below which a run ends
_MOST_POINTS = 4000  # of each set, drawn with the seed


class Similarity(NamedTuple):
    """x becomes scale rotation x + translation."""

    scale: float
    """Positive."""
    rotation: Float[np.ndarray, "3 3"]
    """Proper."""
    translation: Float[np.ndarray, "3"]
    """World units of the target."""

    def apply(self, points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3"]:
        """The points where they are brought to."""
        return self.scale * points @ self.rotation.T + self.translation


def align_similarity(
    source: Float[np.ndarray, "points 3"],
    target: Float[np.ndarray, "others 3"],
    scale: bool = True,
) -> Similarity:
    """The best similarity between corresponding points, in least squares (Umeyama 1991).

    Args:
        source: what is moved.
        target: where each of its points belongs.
        scale: whether the size is free; 1 otherwise.

    Raises:
        ValueError: fewer than three pairs, or all source points at one place.
    """
    if len(source) < 3 or len(source) != len(target):
        raise ValueError(f"want three pairs or more, got {len(source)} and {len(target)} points")
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    mean_source, mean_target = source.mean(axis=0), target.mean(axis=0)
    centered, wanted = source - mean_source, target - mean_target
    left, values, right = np.linalg.svd(wanted.T @ centered)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    spread = np.square(centered).sum()
    if not spread > 0:
        raise ValueError(f"all {len(source)} source points are at one place")
    factor = float((values * signs).sum() / spread) if scale else 1.0
    rotation = (left * signs) @ right
    return Similarity(factor, rotation, mean_target - factor * rotation @ mean_source)


def align_icp(
    source: Float[np.ndarray, "points 3"],
    target: Float[np.ndarray, "others 3"],
    *,
    scale: bool = True,
    trim: float = 0.9,
    turns: int = 1,
    seed: int = 0,
) -> Similarity:
    """A similarity that brings points near a surface, without knowing which belongs where.

    Trimmed iterative closest point (Chetverikov et al. 2002): pairs are the nearest neighbors of
    both directions, the farthest are left out, and `align_similarity` moves the source until the
    error settles. It begins with equal means and, if free, equal root mean square radii; it finds a
    near optimum, not the best one. Both directions are paired so that shrinking to a point does
    not pay.

    Args:
        source: points on the surface that is moved.
        target: points on the surface that stays.
        scale: whether the size is free.
        trim: share of pairs that count, in (0, 1].
        turns: beginnings, evenly turned about y; the best end is kept.
        seed: of the draw where a set has more than 4,000 points.

    Raises:
        ValueError: fewer than three points, values that are not finite, or a share outside (0, 1].
    """
    if not 0 < trim <= 1:
        raise ValueError(f"trim is {trim}; it must be in (0, 1]")
    for name, points in (("source", source), ("target", target)):
        if len(points) < 3 or not np.isfinite(points).all():
            raise ValueError(f"{name}: want three finite points or more, got {len(points)}")
    generator = np.random.default_rng(seed)
    source, target = (_thinned(np.asarray(p, np.float64), generator) for p in (source, target))
    size = _radius(target) / _radius(source) if scale else 1.0
    best, least = None, np.inf
    for turn in range(turns):
        angle = 2 * np.pi * turn / turns
        cos, sin = np.cos(angle), np.sin(angle)
        rotation = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
        shift = target.mean(axis=0) - size * rotation @ source.mean(axis=0)
        found, error = _settle(source, target, Similarity(size, rotation, shift), scale, trim)
        if error < least:
            best, least = found, error
    assert best is not None  # the first error is finite
    return best


def _settle(
    source: np.ndarray, target: np.ndarray, motion: Similarity, scale: bool, trim: float
) -> tuple[Similarity, float]:
    """Where iterations from one beginning end, and the trimmed mean square error there."""
    from scipy.spatial import KDTree

    tree, best, least = KDTree(target), motion, np.inf
    for _ in range(_STEPS):
        moved = motion.apply(source)
        forth, to_target = map(np.asarray, tree.query(moved))
        back, to_source = map(np.asarray, KDTree(moved).query(target))
        chosen_forth = _nearest_share(forth, trim)
        chosen_back = _nearest_share(back, trim)
        error = float(np.square(np.concatenate([forth[chosen_forth], back[chosen_back]])).mean())
        if not error < least * (1 - _SETTLED):
            break
        best, least = motion, error
        pairs = np.concatenate([source[chosen_forth], source[to_source[chosen_back]]])
        wanted = np.concatenate([target[to_target[chosen_forth]], target[chosen_back]])
        motion = align_similarity(pairs, wanted, scale)
    return best, least


def _nearest_share(distances: np.ndarray, share: float) -> np.ndarray:
    count = max(3, round(share * len(distances)))
    return np.argsort(distances, kind="stable")[:count]


def _thinned(points: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    if len(points) <= _MOST_POINTS:
        return points
    return points[np.sort(generator.choice(len(points), _MOST_POINTS, replace=False))]


def _radius(points: np.ndarray) -> float:
    radius = float(np.sqrt(np.square(points - points.mean(axis=0)).sum(axis=1).mean()))
    if not radius > 0:
        raise ValueError("all points are at one place")
    return radius
