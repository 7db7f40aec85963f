"""How much of their volume two surfaces share, closed or not.

Game assets are open, overlap themselves and wind their faces at random, so that "inside" needs a
rule that survives this. Ours is a generalized winding number (Jacobson et al. 2013) seen along six
directions: every connected part is first wound one way and outward; a voxel is inside as seen in a
direction if a ray from its middle leaves more surfaces than it enters; four of the six must agree.

- Parts that overlap unite, and the parts inside a closed part, cavities too, are filled.
- A box without a lid is filled to the rim: five of six directions meet a wall.
- A sheet has no inside.
"""

import numpy as np
from jaxtyping import Bool, Float

from unflat.metrics.shape import Surface, Triangles, edge_numbers, weld

_AGREEING = 4  # of six directions
_PAIRS = 1 << 22  # of triangles and columns at once
_MARGIN = 1e-3  # of the longest side, so that no face lies in the border


def volumetric_iou(
    predicted: Surface,
    true: Surface,
    resolution: int = 64,
    bounds: Float[np.ndarray, "2 3"] | None = None,
) -> float:
    """Volume of the intersection over that of the union, in [0, 1]; higher is better.

    Counted in voxels whose middle is inside (`occupancy`). If neither surface encloses any voxel
    the figure is NaN: nothing was measured.

    Args:
        predicted: one surface.
        true: the other.
        resolution: voxels along each side of the bounds.
        bounds: smallest and largest corner; the smallest cube about both surfaces if not given.
            What sticks out of given bounds is not counted.

    Raises:
        ValueError: a surface has no faces, or a vertex is not finite.
    """
    if bounds is None:
        bounds = cube_about(predicted, true)
    first = occupancy(predicted, resolution, bounds)
    second = occupancy(true, resolution, bounds)
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else float("nan")


def cube_about(*surfaces: Surface) -> Float[np.ndarray, "2 3"]:
    """The smallest cube with the middle of the joint box in its own, and a hair more."""
    corners = np.concatenate(
        [np.asarray(s.vertices, dtype=np.float64)[np.unique(np.asarray(s.faces))] for s in surfaces]
    )
    if not len(corners):
        raise ValueError("surfaces without faces have no bounds")
    low, high = corners.min(axis=0), corners.max(axis=0)
    half = (0.5 + _MARGIN) * float((high - low).max())
    return np.stack([0.5 * (low + high) - half, 0.5 * (low + high) + half])


def occupancy(
    surface: Surface, resolution: int, bounds: Float[np.ndarray, "2 3"]
) -> Bool[np.ndarray, "nx ny nz"]:
    """Whether the middle of each voxel is inside, by the rule of this module.

    Args:
        surface: closed or not.
        resolution: voxels along each side.
        bounds: smallest and largest corner of the grid.

    Raises:
        ValueError: the surface has no faces, a vertex is not finite, or the bounds are empty.
    """
    low, high = np.asarray(bounds, dtype=np.float64)
    if not (high > low).all():
        raise ValueError(f"bounds {low.tolist()}..{high.tolist()} hold nothing")
    oriented = orient_outward(weld(surface))
    if not len(oriented.faces):
        raise ValueError("a surface without faces has no inside")
    places = (oriented.vertices - low) / (high - low) * resolution  # in voxels
    votes = np.zeros((resolution,) * 3, dtype=np.int8)
    for axis in range(3):
        order = [(axis + 1) % 3, (axis + 2) % 3, axis]  # cyclic: keeps the winding
        below, above = _crossings(places[:, order][oriented.faces], resolution)
        found = (below >= 1).astype(np.int8) + (above >= 1)
        votes += found.transpose([order.index(i) for i in range(3)])
    return votes >= _AGREEING


def orient_outward(surface: Triangles) -> Triangles:
    """The same faces, each connected part wound one way and with a positive volume.

    Faces are connected by edges at which exactly two of them meet. A part that has no two sides
    keeps its winding.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    faces = surface.faces
    count = len(faces)
    if not count:
        return surface
    first, second, agrees = _neighbors(faces)
    # Every face stands twice, as it is and turned; neighbors are linked in the states that agree.
    other = np.where(agrees, second, second + count)
    turned = np.where(agrees, second + count, second)
    rows, columns = np.concatenate([first, first + count]), np.concatenate([other, turned])
    links = coo_array((np.ones(len(rows)), (rows, columns)), shape=(2 * count, 2 * count))
    _, label = connected_components(links, directed=False)
    as_is, flipped = label[:count], label[count:]
    part = np.minimum(as_is, flipped)
    flip = as_is > flipped  # equal for a part with one side only, which stays
    _, part = np.unique(part, return_inverse=True)
    corner = surface.vertices[faces]
    size = np.bincount(part)
    middle = np.stack([np.bincount(part, v) / size for v in corner.mean(axis=1).T], axis=1)
    corner = corner - middle[part][:, None]
    volume = np.einsum("ni,ni->n", corner[:, 0], np.cross(corner[:, 1], corner[:, 2]))
    is_inward = np.bincount(part, np.where(flip, -volume, volume)) < 0
    flip ^= is_inward[part]
    return Triangles(surface.vertices, np.where(flip[:, None], faces[:, ::-1], faces))


def _neighbors(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of faces that share an edge nobody else has, and whether they wind alike."""
    sides = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    rising = sides[:, 0] < sides[:, 1]
    _, edge, counts = np.unique(edge_numbers(faces), return_inverse=True, return_counts=True)
    order = np.argsort(edge, kind="stable")
    order = order[counts[edge[order]] == 2].reshape(-1, 2)
    agrees = rising[order[:, 0]] != rising[order[:, 1]]  # alike if they run along it oppositely
    return order[:, 0] // 3, order[:, 1] // 3, agrees


def _crossings(triangles: np.ndarray, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Signed surfaces below and above each voxel's middle along the last axis.

    Args:
        triangles: corners in voxels, n 3 3.
        resolution: voxels along a side.

    Returns:
        How often a ray down, and a ray up, leaves more than it enters.
    """
    steps = np.zeros((resolution * resolution, resolution + 1), dtype=np.int32)
    # a column exactly through an edge would count for both faces or none: move all by a hair
    flat = triangles[..., :2] - np.array([0.5 + 1.7e-5, 0.5 + 2.9e-5])
    low = np.clip(np.ceil(flat.min(axis=1)), 0, resolution).astype(np.int64)
    high = np.clip(np.floor(flat.max(axis=1)) + 1, 0, resolution).astype(np.int64)
    size = np.maximum(high - low, 0)
    number = size[:, 0] * size[:, 1]
    kept = np.flatnonzero(number)
    ends = np.cumsum(number[kept])
    start = 0
    while start < len(kept):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _PAIRS, side="right")))
        _add_crossings(steps, triangles, flat, low, size, kept[start:stop], resolution)
        start = stop
    total = steps.cumsum(axis=1).reshape(resolution, resolution, resolution + 1)
    below = total[..., :-1]
    return -below, total[..., -1:] - below


def _add_crossings(
    steps: np.ndarray,
    triangles: np.ndarray,
    flat: np.ndarray,
    low: np.ndarray,
    size: np.ndarray,
    chosen: np.ndarray,
    resolution: int,
) -> None:
    """Adds the sign of each chosen triangle where a column goes through it."""
    number = size[chosen, 0] * size[chosen, 1]
    face = np.repeat(chosen, number)
    within = np.arange(len(face)) - np.repeat(np.cumsum(number) - number, number)
    column = low[face] + np.stack([within // size[face, 1], within % size[face, 1]], axis=1)
    a, b, c = (flat[face, corner] - column for corner in range(3))
    weights = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=1)
    area = weights.sum(axis=1)
    hit = ((weights >= 0).all(axis=1) | (weights <= 0).all(axis=1)) & (area != 0)
    face, column, weights, area = face[hit], column[hit], weights[hit], area[hit]
    height = np.einsum("ni,ni->n", weights, triangles[face, :, 2]) / area
    first_above = np.clip(np.ceil(height - 0.5), 0, resolution).astype(np.int64)
    sign = np.where(area > 0, 1, -1)  # up where a ray upward leaves
    np.add.at(steps, (column[:, 0] * resolution + column[:, 1], first_above), sign)


def _cross(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
