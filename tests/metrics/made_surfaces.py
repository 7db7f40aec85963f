"""Small surfaces with known areas and volumes."""

import numpy as np

from unflat.metrics.shape import Triangles

# outward, two triangles a side: -x, +x, -y, +y, -z, +z of corners numbered by their bits zyx
CUBE_FACES = np.array(
    [
        *([0, 4, 6], [0, 6, 2]),
        *([1, 3, 7], [1, 7, 5]),
        *([0, 1, 5], [0, 5, 4]),
        *([2, 6, 7], [2, 7, 3]),
        *([0, 2, 3], [0, 3, 1]),
        *([4, 5, 7], [4, 7, 6]),
    ]
)


def cube(side=1.0, center=(0.0, 0.0, 0.0)):
    corners = np.array([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)], dtype=float) - 0.5
    return Triangles(side * corners + np.array(center), CUBE_FACES.copy())


def sphere(radius=1.0, center=(0.0, 0.0, 0.0), subdivisions=3):
    import trimesh

    made = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return Triangles(np.asarray(made.vertices) + np.array(center), np.asarray(made.faces))


def joined(*surfaces):
    starts = np.cumsum([0, *(len(s.vertices) for s in surfaces[:-1])])
    faces = [s.faces + start for s, start in zip(surfaces, starts, strict=True)]
    return Triangles(np.concatenate([s.vertices for s in surfaces]), np.concatenate(faces))


def split(surface):
    """Every face with vertices of its own, as files that color faces hold it."""
    return Triangles(
        surface.vertices[surface.faces].reshape(-1, 3),
        np.arange(3 * len(surface.faces)).reshape(-1, 3),
    )


def flipped(surface, seed=0):
    """A random half of the faces wound the other way."""
    turn = np.random.default_rng(seed).random(len(surface.faces)) < 0.5
    return Triangles(
        surface.vertices, np.where(turn[:, None], surface.faces[:, ::-1], surface.faces)
    )
