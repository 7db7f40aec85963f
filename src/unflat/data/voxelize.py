"""Surfaces as voxels of density and color: what a mesh is to a radiance field.

Density is highest at the surface and falls evenly to 0 within some voxels, so that trilinear
interpolation between the voxels sees a smooth surface and not their steps.

    field = voxelize(read_object_mesh("chair.glb"))
"""

import numpy as np
import torch
from jaxtyping import Float, Int

from unflat.data.object_mesh import ObjectSurface
from unflat.fields.field import Bounded, Field
from unflat.fields.voxels import VoxelField
from unflat.rendering.backends import ask

RESOLUTION = 128
"""Voxels along the longest side: about one for each pixel of an object that fills a quarter of a
512 px picture's width."""

_REACH = 1.5  # voxels from the surface to where the density is 0
_OPTICAL_DEPTH = 24.0  # of a surface crossed straight; e^-24 of the light passes
_MARGIN = 3  # empty voxels around the surface
_COLORED = 2.0  # voxels from the surface that get its color: interpolation asks beyond _REACH
_PER_VOXEL = 4  # sample points on a voxel's area of surface
_MOST_POINTS = 2_000_000
_SMOOTH = 1.0  # voxels; blur of the occupancy whose slope is the normal
_AMBIENT = 0.68
"""Share of light that comes from everywhere; the rest from above, left and in front."""
LIGHT = (-0.4, 0.75, 0.55)
"""Towards the light, in the object world of an object that is not turned."""


def voxelize(
    surface: ObjectSurface,
    resolution: int = RESOLUTION,
    light: tuple[float, float, float] = LIGHT,
) -> VoxelField:
    """A field of one scene in the surface's own space.

    Args:
        surface: need not be closed.
        resolution: voxels along its longest side, at least 8.
        light: towards it; shades what has no light of its own.

    Raises:
        ValueError: fewer than 8 voxels.
    """
    if resolution < 8:
        raise ValueError(f"resolution is {resolution}; a surface needs at least 8 voxels")
    low, high = surface.bounds
    side = float((high - low).max()) / resolution
    shape = np.ceil((high - low) / side).astype(int) + 2 * _MARGIN  # x y z
    low = (low + high) / 2 - shape * side / 2
    points, colors, owners = _samples(surface, side)
    place = np.floor((points - low) / side).astype(int)
    near = _neighborhood(place, shape)
    centers = low + (near + 0.5) * side
    distance, color = _nearest(centers, points, colors, owners, surface.triangles)
    distance /= side
    values = np.zeros((*shape, 4), dtype=np.float32)
    index = tuple(near.T)
    values[index] = np.concatenate([(1 - distance / _REACH).clip(0)[:, None], color], axis=1)
    if not surface.has_light:
        values[index] *= _shades(values[..., 0], np.array(light), index)
    values[..., 0] *= _OPTICAL_DEPTH / (_REACH * side)
    grids = torch.from_numpy(np.ascontiguousarray(values.transpose(3, 2, 1, 0)))  # channels z y x
    bounds = torch.from_numpy(np.stack([low, low + shape * side])).float()
    return VoxelField(grids[:1], grids[None, 1:], bounds)


@torch.no_grad()
def voxels_of_field(field: Field, resolution: int = RESOLUTION) -> VoxelField:
    """Any field of one scene with bounds, asked at the voxels' centres.

    Args:
        field: of colours; its density is per unit of its own length.
        resolution: voxels along the longest side of its box.

    Raises:
        ValueError: it has no bounds.
    """
    if not isinstance(field, Bounded):
        raise ValueError(f"{type(field).__name__} has no bounds: nothing says where it ends")
    low, high = field.bounds
    side = float((high - low).max()) / resolution
    counts = ((high - low) / side).ceil().long().clamp_min(1).tolist()
    steps = [
        low[axis] + (torch.arange(count) + 0.5) * (high[axis] - low[axis]) / count
        for axis, count in enumerate(counts)
    ]
    z, y, x = torch.meshgrid(steps[2], steps[1], steps[0], indexing="ij")
    answer = ask(field, torch.stack([x, y, z], dim=-1)[None])
    return VoxelField(answer.density, answer.features.permute(0, 4, 1, 2, 3), field.bounds)


def _samples(
    surface: ObjectSurface, side: float
) -> tuple[
    Float[np.ndarray, "n 3"],
    Float[np.ndarray, "n 3"],
    Int[np.ndarray, " n"],
]:
    """Points all over the surface, their colors, and their triangles' numbers.

    Every triangle has some, in proportion to its area, spread by the plastic number's sequence.
    """
    triangles = surface.triangles
    edge = triangles[:, 1:] - triangles[:, :1]
    area = np.linalg.norm(np.cross(edge[:, 0], edge[:, 1]), axis=1) / 2
    density = min(_PER_VOXEL / side**2, _MOST_POINTS / max(area.sum(), 1e-30))
    counts = np.ceil(area * density).astype(int).clip(1)
    owners = np.repeat(np.arange(len(triangles)), counts)
    number = np.arange(len(owners))
    a, b = (0.5 + number * 0.7548776662) % 1, (0.5 + number * 0.5698402910) % 1
    folded = a + b > 1
    a, b = np.where(folded, 1 - a, a), np.where(folded, 1 - b, b)
    shares = np.stack([1 - a - b, a, b], axis=1)
    points = (triangles[owners] * shares[..., None]).sum(1)
    colors, first = [], 0
    for part in surface.parts:
        own = (owners >= first) & (owners < first + len(part.triangles))
        colors.append(part.colors_at(owners[own] - first, shares[own]))
        first += len(part.triangles)
    return points, np.concatenate(colors), owners


def _neighborhood(
    place: Int[np.ndarray, "n 3"], shape: Int[np.ndarray, "3"]
) -> Int[np.ndarray, "m 3"]:
    """Voxels within the reach of those that hold a point."""
    from scipy.ndimage import binary_dilation

    filled = np.zeros(tuple(shape), dtype=bool)
    filled[tuple(place.clip(0, shape - 1).T)] = True
    steps = int(np.ceil(_COLORED))
    return np.argwhere(binary_dilation(filled, np.ones((3, 3, 3), dtype=bool), steps))


def _nearest(
    centers: Float[np.ndarray, "m 3"],
    points: Float[np.ndarray, "n 3"],
    colors: Float[np.ndarray, "n 3"],
    owners: Int[np.ndarray, " n"],
    triangles: Float[np.ndarray, "faces 3 3"],
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m 3"]]:
    """Distance to the surface, by the triangles of the nearest points, and these points' color."""
    from scipy.spatial import KDTree
    from trimesh.triangles import closest_point

    count = min(2, len(points))
    _, found = KDTree(points).query(centers, k=count, workers=1)
    found = found.reshape(len(centers), count)
    closest = closest_point(triangles[owners[found[:, 0]]], centers)
    return np.linalg.norm(closest - centers, axis=1), colors[found].mean(1)


def _shades(
    occupancy: np.ndarray, light: np.ndarray, index: tuple[np.ndarray, ...]
) -> Float[np.ndarray, "m 4"]:
    """Factors of density (1) and colors at some voxels: Lambert's law for a soft light.

    The normal points to where there is less matter; what the surface encloses counts as matter.
    """
    from scipy.ndimage import binary_fill_holes, gaussian_filter

    inside = np.asarray(binary_fill_holes(occupancy > 0.3))
    filled = np.maximum(occupancy, inside).astype(np.float32)
    solid = np.asarray(gaussian_filter(filled, _SMOOTH))
    normal = -np.stack([np.gradient(solid, axis=axis)[index] for axis in range(3)], axis=-1)
    length = np.linalg.norm(normal, axis=1)
    facing = normal @ (light / np.linalg.norm(light)) / np.maximum(length, 1e-6)
    shade = _AMBIENT + (1 - _AMBIENT) * facing.clip(-0.5, 1)
    ones = np.ones_like(shade)
    return np.stack([ones, shade, shade, shade], axis=1)
