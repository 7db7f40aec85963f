"""The surface of a field in a box as a mesh, by marching cubes.

mesh = mesh_of_field(field, resolution=128)
print(mesh_report(mesh))
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from unflat.errors import UserError
from unflat.export.mesh import Mesh, vertex_normals
from unflat.fields.field import Bounded, Distanced, Field
from unflat.rendering.backends import ask

HALVING = 1 / 32
"""Of the box's longest side: matter that halves light over this way counts as solid."""

_INWARD = 0.5  # cells below the surface where colours are asked
_CHUNK = 1 << 16  # points asked at once
_SEALED = 1e3  # how much farther from the level it is beyond the box than anywhere inside
_TIE = 1e-6  # of the largest value: a grid point on the level itself makes empty triangles


def solid_level(density: Float[Tensor, "*points"], side: float) -> float:
    """The density at which the surface of a field without a distance is drawn.

    It is the density that lets half of the light through over 1/32 of the box's longest side,
    32 log(2) / side; or half of the largest density, where that is less.

    Args:
        density: all over the box, per world unit.
        side: the longest of the box, world units.

    Raises:
        UserError: no point is so dense that light would be halved on its way through the box.
    """
    densest = float(density.max())
    if densest * side < math.log(2):
        raise UserError(
            "mesh: the object has no surface, even its densest part lets most light through; look "
            "at its pictures, or give an object of a model that was trained for longer."
        )
    return min(math.log(2) / (HALVING * side), densest / 2)


@torch.no_grad()
def mesh_of_field(field: Field, resolution: int = 128, level: float | None = None) -> Mesh:
    """The whole surface of a field, with vertex colours, in the field's own (object) world.

    Values are asked on a grid that includes the faces of the box, and the surface is closed where
    the box cuts it. Nothing is dropped: floating parts stay (`mesh_report` counts them). Colours
    are asked half a cell below the surface, where the field is sure of them.

    Args:
        field: of one scene of colours, in a box.
        resolution: grid points along the box's longest side, at least 2.
        level: where the surface lies: signed distance (0 if not given) for fields that have one,
            else density per world unit (`solid_level` if not given).

    Raises:
        UserError: nothing lies inside of the surface, or the field gives what is no number.
        ValueError: the field has no bounds, no colours, or more than one scene.
    """
    from skimage.measure import marching_cubes

    if not isinstance(field, Bounded):
        raise ValueError(f"{type(field).__name__} has no bounds: nothing says where it ends")
    low, high = (bound.double().cpu().numpy() for bound in field.bounds)
    counts, points = _grid(field.bounds, resolution)
    heights = _heights(field, points, level, float((high - low).max())).reshape(counts)
    largest = float(np.abs(heights).max())
    heights[np.abs(heights) < _TIE * largest] = _TIE * largest
    padded = np.pad(heights, 1, constant_values=-_SEALED * largest)
    # Higher is inside: triangles then turn counter-clockwise seen from outside.
    corners, faces, _, _ = marching_cubes(padded, 0.0, gradient_direction="ascent")
    cell = (high - low) / (np.array(counts) - 1)
    vertices = (low + (corners.astype(np.float64) - 1) * cell).astype(np.float32)
    faces = faces.astype(np.int64)
    normals = vertex_normals(vertices, faces)
    below = vertices - _INWARD * float(cell.min()) * normals
    colors = colors_at(field, torch.from_numpy(below).to(field.bounds.device))
    return Mesh(vertices, faces, colors, normals, world="object")


@dataclass(frozen=True, kw_only=True)
class MeshReport:
    """What there is to know of a mesh before it is used."""

    vertices: int
    """How many."""
    faces: int
    """How many triangles."""
    parts: int
    """Pieces that share no edge."""
    main_share: float
    """Of the whole area that the largest piece has, in (0, 1]."""
    watertight: bool
    """Whether every edge has two triangles: it is closed, and can be printed."""
    area: float
    """Square world units."""
    volume: float | None
    """Cubic world units; None if it is not watertight."""

    def __str__(self) -> str:
        """In words, for the terminal."""
        parts = "one part" if self.parts == 1 else f"{self.parts} parts"
        main = "" if self.parts == 1 else f" (the main one has {100 * self.main_share:.1f} %)"
        closed = "watertight" if self.watertight else "not watertight"
        return f"{self.faces} triangles, {parts}{main}, {closed}"


def mesh_report(mesh: Mesh) -> MeshReport:
    """Size, pieces and closedness of a mesh, by trimesh.

    Raises:
        ValueError: the mesh has no triangle.
    """
    import trimesh

    if len(mesh.faces) == 0:
        raise ValueError("the mesh has no triangle")
    solid = trimesh.Trimesh(mesh.vertices.astype(np.float64), mesh.faces, process=False)
    label = trimesh.graph.connected_component_labels(
        solid.face_adjacency, node_count=len(mesh.faces)
    )
    area = np.bincount(label, solid.area_faces)
    watertight = bool(solid.is_watertight)
    return MeshReport(
        vertices=len(mesh.vertices),
        faces=len(mesh.faces),
        parts=len(area),
        main_share=float(area.max() / area.sum()),
        watertight=watertight,
        area=float(area.sum()),
        volume=float(solid.volume) if watertight else None,
    )


@torch.no_grad()
def colors_at(field: Field, points: Float[Tensor, "n 3"]) -> UInt8[np.ndarray, "n 3"]:
    """Colours of a field, sRGB, 8 bit, asked in parts that fit into memory.

    Args:
        field: of one scene of colours.
        points: in its world.

    Raises:
        ValueError: the field has no colours, or more than one scene.
    """
    parts = [ask(field, part[None]).features for part in points.split(_CHUNK)]
    rgb = torch.cat(parts, dim=1)
    if rgb.shape[0] != 1 or rgb.shape[-1] != 3:
        raise ValueError(f"a mesh is of one scene of three channels, not {tuple(rgb.shape)}")
    return (rgb[0].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def _grid(
    bounds: Float[Tensor, "2 3"], resolution: int
) -> tuple[tuple[int, int, int], Float[Tensor, "n 3"]]:
    """Points along each axis, and all of them, x slowest; the first and last lie on faces."""
    if resolution < 2:
        raise ValueError(f"resolution is {resolution}; a cell has at least 2 points along a side")
    sides = bounds[1] - bounds[0]
    x, y, z = (max(2, round(resolution * share)) for share in (sides / sides.max()).tolist())
    axes = [
        torch.linspace(float(bounds[0, axis]), float(bounds[1, axis]), count)
        for axis, count in enumerate((x, y, z))
    ]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    return (x, y, z), points.to(bounds.device)


def _heights(
    field: Field, points: Float[Tensor, "n 3"], level: float | None, side: float
) -> Float32[np.ndarray, " n"]:
    """How far inside of the surface each point is, in whatever the field measures."""
    parts = points.split(_CHUNK)
    if isinstance(field, Distanced):
        values = torch.cat([field.distance(part[None])[0] for part in parts])
    else:
        values = torch.cat([ask(field, part[None]).density[0] for part in parts])
    if not bool(values.isfinite().all()):
        raise UserError("mesh: the object's field gives values that are no numbers; make it again.")
    if isinstance(field, Distanced):
        level = 0.0 if level is None else level
        heights, missing = level - values, f"has a signed distance below {level:g}"
    else:
        level = solid_level(values, side) if level is None else level
        # Light stopped over the way that the level halves it: a step in density then lies midway
        # between two points, and not at the outer one.
        heights, missing = 0.5 - torch.exp2(-values / level), f"is denser than {level:g}"
    if not bool((heights > 0).any()):
        raise UserError(f"mesh: no part of the object {missing}; look at its pictures first.")
    return heights.float().cpu().numpy()
