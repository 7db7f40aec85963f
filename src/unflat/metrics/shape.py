"""How near one surface is to another: distances between points on them, and whether it is closed.

Surfaces are anything with ``vertices`` and ``faces``, as `trimesh.Trimesh`. Lengths are in the
world's own unit: say which one beside every figure.

>>> import numpy as np
>>> square = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
>>> chamfer(square + [0, 0, 0.1], square).half_sum.round(3)
np.float64(0.1)
"""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

_WELD = 1e-6  # share of the box's diagonal within which vertices are one


@runtime_checkable
class Surface(Protocol):
    """Triangles."""

    @property
    def vertices(self) -> np.ndarray:
        """Positions, vertices 3."""
        ...

    @property
    def faces(self) -> np.ndarray:
        """Indices into the vertices, faces 3."""
        ...


class Triangles(NamedTuple):
    """The plainest `Surface`."""

    vertices: Float[np.ndarray, "vertices 3"]
    """Positions, world units."""
    faces: Int[np.ndarray, "faces 3"]
    """Indices into the vertices."""


class Chamfer(NamedTuple):
    """Mean distances between two sets of points, world units; lower is better."""

    accuracy: float
    """From each predicted point to the nearest true one."""
    completeness: float
    """From each true point to the nearest predicted one."""
    squared_accuracy: float
    """Mean of the squares, square world units."""
    squared_completeness: float
    """Mean of the squares, square world units."""

    @property
    def half_sum(self) -> float:
        """Half the sum of both unsquared means, as SyncDreamer (arXiv 2309.03453) prints it."""
        return 0.5 * (self.accuracy + self.completeness)

    @property
    def squared_sum(self) -> float:
        """Sum of both squared means, as Fan et al. 2017 (arXiv 1612.00603) and many after them."""
        return self.squared_accuracy + self.squared_completeness


class FScore(NamedTuple):
    """Shares of points that lie within a distance of the other set, in [0, 1]; higher is better."""

    precision: float
    """Of the predicted points."""
    recall: float
    """Of the true points."""

    @property
    def value(self) -> float:
        """Harmonic mean of both; 0 if both are."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total > 0 else 0.0


def sample_surface(surface: Surface, count: int, seed: int = 0) -> Float[np.ndarray, "points 3"]:
    """Points spread evenly by area over all faces, inner ones included; equal for equal seeds.

    Args:
        surface: to sample.
        count: how many points.
        seed: of the draw.

    Raises:
        ValueError: the surface has no area, or a vertex is not finite.
    """
    corner = triangles_of(surface).vertices[np.asarray(surface.faces)]
    first, second = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    ends = np.cumsum(np.linalg.norm(np.cross(first, second), axis=1))
    if not len(ends) or not ends[-1] > 0:
        raise ValueError(f"a surface of {len(corner)} faces has no area to sample")
    generator = np.random.default_rng(seed)
    # one stratum for each point: less noise than independent draws, the same expectation
    place = (np.arange(count) + generator.random(count)) / count * ends[-1]
    face = np.minimum(np.searchsorted(ends, place, side="right"), len(ends) - 1)
    u, v = generator.random((2, count, 1))
    outside = u + v > 1  # the other half of the parallelogram
    u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
    return corner[face, 0] + u * first[face] + v * second[face]


class Distances(NamedTuple):
    """From each point of two sets to the nearest of the other, world units."""

    to_true: Float[np.ndarray, " points"]
    """Of the predicted points."""
    to_predicted: Float[np.ndarray, " others"]
    """Of the true points."""

    @property
    def chamfer(self) -> Chamfer:
        """As the function of that name."""
        squared = [np.square(distances).mean() for distances in self]
        return Chamfer(*(float(value) for value in (*(d.mean() for d in self), *squared)))

    def f_score(self, threshold: float) -> FScore:
        """As the function of that name."""
        if not threshold > 0:
            raise ValueError(f"threshold is {threshold}; it must be positive")
        return FScore(*(float((distances <= threshold).mean()) for distances in self))


def nearest_distances(
    predicted: Float[np.ndarray, "points 3"], true: Float[np.ndarray, "others 3"]
) -> Distances:
    """What `chamfer` and `f_score` are made of, for whoever wants several of them.

    Args:
        predicted: points on the predicted surface.
        true: points on the true one.

    Raises:
        ValueError: a set is empty or holds values that are not finite.
    """
    return Distances(_nearest(predicted, true), _nearest(true, predicted))


def chamfer(
    predicted: Float[np.ndarray, "points 3"], true: Float[np.ndarray, "others 3"]
) -> Chamfer:
    """Mean distances to the nearest neighbor, both ways, unsquared and squared.

    Papers print one number under this name and mean squared or unsquared, sum or half sum: none is
    preferred here. With finitely many points two draws from one surface are not 0 apart but
    about half the spacing of points: print the count beside it.

    Args:
        predicted: points on the predicted surface.
        true: points on the true one.

    Raises:
        ValueError: a set is empty or holds values that are not finite.
    """
    return nearest_distances(predicted, true).chamfer


def f_score(
    predicted: Float[np.ndarray, "points 3"], true: Float[np.ndarray, "others 3"], threshold: float
) -> FScore:
    """Precision and recall of points at a distance (Knapitsch et al. 2017, Tanks and Temples).

    Args:
        predicted: points on the predicted surface.
        true: points on the true one.
        threshold: world units; a point exactly so far away counts.

    Raises:
        ValueError: a set is empty or holds values that are not finite, or the threshold is not
            positive.
    """
    return nearest_distances(predicted, true).f_score(threshold)


class Watertightness(NamedTuple):
    """Whether a surface encloses a volume."""

    share: float
    """Share of edges at which exactly two faces meet, in [0, 1]; higher is better."""
    is_closed: bool
    """All of them: no edge is open and none has three faces."""


def watertightness(surface: Surface) -> Watertightness:
    """How closed a surface is, whichever way its faces wind.

    Vertices at one place count as one, and faces without area are left out: files often split
    vertices for the sake of colors.

    Raises:
        ValueError: the surface has no face with an area, or a vertex is not finite.
    """
    faces = weld(surface).faces
    if not len(faces):
        raise ValueError("a surface without faces is neither open nor closed")
    _, counts = np.unique(edge_numbers(faces), return_counts=True)
    share = float((counts == 2).mean())
    return Watertightness(share, share == 1.0)


def triangles_of(surface: Surface) -> Triangles:
    """The arrays of a surface, in float64 and int64.

    Raises:
        ValueError: a shape is wrong, a vertex is not finite, or a face names no vertex.
    """
    vertices = np.asarray(surface.vertices, dtype=np.float64)
    faces = np.asarray(surface.faces, dtype=np.int64)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.shape[1:] != (3,):
        raise ValueError(f"want vertices n 3 and faces m 3, got {vertices.shape}, {faces.shape}")
    if not np.isfinite(vertices).all():
        row = int(np.argwhere(~np.isfinite(vertices).all(axis=1))[0, 0])
        raise ValueError(f"vertex {row} is {vertices[row].tolist()}; all must be finite")
    if len(faces) and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise ValueError(f"faces name vertices {faces.min()}..{faces.max()} of {len(vertices)}")
    return Triangles(vertices, faces)


def weld(surface: Surface) -> Triangles:
    """The surface with one vertex for each place, and without the faces that lose their area.

    Places within a millionth of the box's diagonal are one.

    Raises:
        ValueError: as of `triangles_of`.
    """
    vertices, faces = triangles_of(surface)
    if not len(faces):
        return Triangles(vertices, faces)
    unit = _WELD * float(np.linalg.norm(np.ptp(vertices[faces].reshape(-1, 3), axis=0))) or 1.0
    # A grid would part near places that a line of it runs between; a tree does not.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    count = len(vertices)
    pairs = KDTree(vertices).query_pairs(unit, output_type="ndarray")
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    parts, place = connected_components(links, directed=False)
    first = np.full(parts, count)
    np.minimum.at(first, place, np.arange(count))
    faces = place[faces].astype(np.int64)
    distinct = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    return Triangles(vertices[first], faces[distinct])


def edge_numbers(faces: Int[np.ndarray, "faces 3"]) -> Int[np.ndarray, " sides"]:
    """A number for each side of each face, three in a row, equal where two vertices are."""
    sides = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    return sides.min(axis=1) * (int(faces.max()) + 1) + sides.max(axis=1)


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance of each point to the nearest of the others."""
    from scipy.spatial import KDTree

    for name, values in (("the first", points), ("the second", others)):
        if not len(values):
            raise ValueError(f"{name} set of points is empty")
        if not np.isfinite(values).all():
            raise ValueError(f"{name} set of points holds values that are not finite")
    return KDTree(others).query(points)[0]
