"""Colours in a picture: the texture of a mesh, asked from the field that the mesh is of.

mesh = scene.mesh()
write_mesh(textured(mesh, scene.field), "car.glb")
"""

import importlib.util
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8

from unflat.errors import UserError, require_extra
from unflat.export.isosurface import colors_at
from unflat.export.mesh import Mesh, vertex_normals
from unflat.export.mesh_formats import Texture
from unflat.fields.field import Bounded, Field

MOST_FACES = 10_000
"""Cutting a surface open takes xatlas 2 s for so many triangles on one core, and 20 s for the
40,000 that a car has on a grid of 128 points; the surface moves by 0.03 of a cell."""
SIDE = 512
"""Texels; colours are then nearer to the field's than a vertex for each cell has them."""

_TOO_MANY = 2  # times more triangles than wanted: then cutting takes minutes
_EXTRA = ("xatlas", "fast_simplification")
_BELOW = 1 / 256  # of the box's longest side: half a cell of the usual grid, see mesh_of_field
_GENTLE = 3  # of fast_simplification's 1 to 10: slower by milliseconds, half the error of its 7
_PADDING = 4  # texels between islands, at the size that xatlas packs for
_REACH = 1.5  # texels beyond an island that a bilinear look-up just inside of it may touch
_PAIRS = 1 << 20  # of texels and triangles, compared at once


def can_texture() -> bool:
    """Whether the packages of the mesh extra that `textured` needs are installed."""
    return all(importlib.util.find_spec(name) is not None for name in _EXTRA)


def textured(
    mesh: Mesh, field: Field, *, side: int = SIDE, most_faces: int | None = MOST_FACES
) -> Mesh:
    """The surface with a texture, of fewer triangles where it has very many.

    The surface is simplified by quadric errors (fast-simplification), cut into islands that are
    laid flat (xatlas), and each texel asks the field for the colour where it lies on the surface,
    just below it as the vertices of `mesh_of_field` do. Texels around an island get the colour of
    its nearest point, and the rest that of the nearest texel, so that no seam shows however the
    texture is read.

    Vertices are doubled where the surface was cut: merge them by position to find it closed.

    Args:
        mesh: a surface of the field, in the field's world.
        field: of one scene of colours, in a box.
        side: of the square texture, texels.
        most_faces: triangles that are kept, up to twice as many where holes and parts are in the
            way of fewer; all if None.

    Raises:
        UserError: the mesh extra is not installed, or the surface is so rough that more than twice
            ``most_faces`` are left.
        ValueError: the field has no bounds, no colours, or more than one scene, or the mesh has no
            triangle.
    """
    if not isinstance(field, Bounded):
        raise ValueError(f"{type(field).__name__} has no bounds: nothing says where it ends")
    if len(mesh.faces) == 0:
        raise ValueError("the mesh has no triangle")
    vertices, faces = mesh.vertices, mesh.faces
    if most_faces is not None and len(faces) > most_faces:
        vertices, faces = _simplified(vertices, faces, most_faces)
        if len(faces) > _TOO_MANY * most_faces:
            raise UserError(
                f"texture: the surface is so rough that {len(faces)} triangles are left where "
                f"{most_faces} are wanted; look at the object's pictures, or use vertex colours."
            )
    normals = vertex_normals(vertices, faces)
    cut = _unwrapped(vertices, faces, side)
    vertices, normals = vertices[cut.origin], normals[cut.origin]
    bounds = field.bounds
    below = vertices - _BELOW * float((bounds[1] - bounds[0]).max()) * normals

    def asked(points: Float[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 3"]:
        return colors_at(field, torch.from_numpy(points).float().to(bounds.device))

    texels = _texels(cut.uv[cut.faces] * side, side)
    points = (below[cut.faces[texels.face]] * texels.shares[..., None]).sum(1)
    image = np.zeros((side, side, 3), dtype=np.uint8)
    is_known = np.zeros((side, side), dtype=bool)
    image[texels.row, texels.column] = asked(points)
    is_known[texels.row, texels.column] = True
    texture = Texture(uv=cut.uv, image=_filled(image, is_known))
    return Mesh(vertices, cut.faces, asked(below), normals, mesh.world, texture)


def _simplified(
    vertices: Float32[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    most_faces: int,
) -> tuple[Float32[np.ndarray, "fewer 3"], Int[np.ndarray, "left 3"]]:
    reducer = require_extra("fast_simplification", "mesh", "a texture")
    fewer, left = reducer.simplify(
        vertices, faces.astype(np.int32), target_count=most_faces, agg=_GENTLE
    )
    return fewer.astype(np.float32), left.astype(np.int64)


class _Cut(NamedTuple):
    """A surface cut into islands."""

    origin: Int[np.ndarray, " vertices"]
    """The vertex before cutting, of each one after it."""
    faces: Int[np.ndarray, "faces 3"]
    uv: Float32[np.ndarray, "vertices 2"]
    """In [0, 1]; texels are square."""


def _unwrapped(
    vertices: Float32[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"], side: int
) -> _Cut:
    xatlas = require_extra("xatlas", "mesh", "a texture")
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices, faces.astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding, packing.bilinear = side, _PADDING, True
    atlas.generate(xatlas.ChartOptions(), packing)
    origin, cut_faces, uv = atlas[0]
    # The atlas comes out about as large as asked for, not quite square: it is laid into a square.
    longest = max(atlas.width, atlas.height)
    uv = uv * np.array([atlas.width / longest, atlas.height / longest])
    return _Cut(
        origin.astype(np.int64), cut_faces.astype(np.int64), uv.clip(0, 1).astype(np.float32)
    )


class _Texels(NamedTuple):
    """Texels in islands and around them, each once, and which point of the surface each shows."""

    row: Int[np.ndarray, " n"]
    column: Int[np.ndarray, " n"]
    face: Int[np.ndarray, " n"]
    shares: Float[np.ndarray, "n 3"]
    """Of the triangle's corners, summing to 1."""


def _texels(corners: Float[np.ndarray, "faces 3 2"], side: int) -> _Texels:
    """All texels with a triangle in reach of their middle.

    Args:
        corners: of the triangles, in texels from the upper left corner.
        side: of the texture, texels.
    """
    corners = corners.astype(np.float64)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    number = np.flatnonzero(np.abs(area) > 1e-9)  # others show no texel
    # Texel i has its middle at i + 1/2.
    low = np.ceil(corners.min(1) - _REACH - 0.5).clip(0, side - 1).astype(np.int64)[number]
    high = np.floor(corners.max(1) + _REACH - 0.5).clip(0, side - 1).astype(np.int64)[number]
    width, height = (high - low + 1).T
    ends = np.cumsum(width * height)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    for group in np.split(
        np.arange(len(number)), np.flatnonzero(np.diff((ends - 1) // _PAIRS)) + 1
    ):
        count = (width * height)[group]
        own = np.repeat(group, count)
        step = np.arange(len(own)) - np.repeat(np.cumsum(count) - count, count)
        column = low[own, 0] + step % width[own]
        row = low[own, 1] + step // width[own]
        middles = np.stack([column, row], 1) + 0.5
        face = number[own]
        shares, off = _nearest_in_triangle(middles, a[face], b[face], c[face])
        near = off <= _REACH
        parts.append((row[near] * side + column[near], face[near], shares[near], off[near]))
    place, face, shares, off = (np.concatenate(values) for values in zip(*parts, strict=True))
    order = np.lexsort((off, place))
    first = order[np.unique(place[order], return_index=True)[1]]
    row, column = np.divmod(place[first], side)
    return _Texels(row, column, face[first], shares[first])


def _nearest_in_triangle(
    points: Float[np.ndarray, "n 2"],
    a: Float[np.ndarray, "n 2"],
    b: Float[np.ndarray, "n 2"],
    c: Float[np.ndarray, "n 2"],
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, " n"]]:
    """Shares of the corners at the nearest point of each point's triangle, and how far that is."""

    def cross(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]

    whole = cross(b - a, c - a)
    second, third = cross(points - a, c - a) / whole, cross(b - a, points - a) / whole
    shares = np.stack([1 - second - third, second, third], axis=1)
    off = np.where((shares >= 0).all(1), 0.0, np.inf)
    outside = np.flatnonzero(off)
    corners = (a[outside], b[outside], c[outside])
    for start in range(3):
        end = (start + 1) % 3
        along = corners[end] - corners[start]
        arm = points[outside] - corners[start]
        length = np.maximum((along * along).sum(1), 1e-30)
        share = ((arm * along).sum(1) / length).clip(0, 1)
        distance = np.linalg.norm(arm - share[:, None] * along, axis=1)
        nearer = distance < off[outside]
        chosen = outside[nearer]
        off[chosen] = distance[nearer]
        shares[chosen] = 0.0
        shares[chosen, start] = 1 - share[nearer]
        shares[chosen, end] = share[nearer]
    return shares, off


def _filled(
    image: UInt8[np.ndarray, "side side 3"], is_known: Bool[np.ndarray, "side side"]
) -> UInt8[np.ndarray, "side side 3"]:
    """Each unknown texel as the nearest known one: smaller copies of a texture mix them too."""
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~is_known, return_distances=False, return_indices=True)
    return image[tuple(np.asarray(nearest))]
