"""What can be put into a scene, made into fields with a place: meshes, voxels, other scenes.

placed = inserted(read_object_mesh("chair.glb"), Placement(y=-0.4, size=0.5), frame, nearest=0.7)
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.data.object_mesh import ObjectSurface, surface_of_mesh
from unflat.data.voxelize import LIGHT, RESOLUTION, voxelize, voxels_of_field
from unflat.errors import UserError
from unflat.export.mesh import Mesh
from unflat.fields.composition import similarity
from unflat.fields.cutout import CutoutField
from unflat.fields.detail import DetailField
from unflat.fields.edited import EditedField, Inserted
from unflat.fields.field import Field
from unflat.fields.viewspace import ViewSpaceField
from unflat.fields.voxels import VoxelField
from unflat.geometry.placement import OBJECT_TO_SCENE, Placement
from unflat.geometry.projective import Frame

Where = Placement | Float[Tensor, "4 4"]
"""A placement, or the object world's own way into the scene world (`similarity`)."""

_TURN_OVER = similarity(rotation=torch.diag(torch.tensor(OBJECT_TO_SCENE)))
_CELLS = 64  # of the histogram that a cut is found in


def inserted(
    other: Mesh | ObjectSurface | Field,
    where: Where,
    frame: Frame,
    *,
    nearest: float = 0.0,
    resolution: int = RESOLUTION,
) -> Inserted:
    """A mesh, or a field of a box, with its place in the scene world.

    Args:
        other: a mesh; or a field of colours in the object world (y up, front +z) with bounds, which
            is made into voxels unless it is some.
        where: it goes.
        frame: of the scene that it goes into.
        nearest: depth that a placed object may not come before, world units.
        resolution: voxels along its longest side.

    Raises:
        UserError: it would reach into the camera.
        ValueError: the field has no bounds, no colour, or more than one scene.
    """
    if isinstance(other, Mesh):
        other = surface_of_mesh(other)
    if isinstance(other, ObjectSurface):
        turn = where.turn if isinstance(where, Placement) else 0.0
        voxels = voxelize(other, resolution, _light_on(turn))
        low, high = torch.from_numpy(other.bounds).float()
    else:
        voxels = other if isinstance(other, VoxelField) else voxels_of_field(other, resolution)
        low, high = voxels.bounds
    if tuple(voxels.features.shape[:2]) != (1, 3):
        raise ValueError(
            f"an object is one scene of three channels, not {tuple(voxels.features.shape[:2])}"
        )
    if isinstance(where, Placement):
        where = where.matrix(low, high, frame, nearest)
    return Inserted(voxels, where)


def inserted_scene(
    other: ViewSpaceField | DetailField | EditedField,
    where: Where,
    frame: Frame,
    farthest: float,
    *,
    nearest: float = 0.0,
) -> list[Inserted]:
    """The near part of another scene and the objects in it, with their places.

    Args:
        other: its field; its object world is its scene world turned upright.
        where: its near part goes.
        frame: of the scene that it goes into.
        farthest: normalised disparity down to which it is taken.
        nearest: depth that it may not come before, world units.

    Raises:
        UserError: it would reach into the camera, or nothing of it is that near.
    """
    base = other.base if isinstance(other, EditedField) else other
    try:
        cutout = CutoutField(base, farthest)
    except ValueError as error:
        raise UserError(
            f"farthest {farthest:g}: nothing of the inserted scene is that near; give less."
        ) from error
    if isinstance(where, Placement):
        corners = cutout.bounds * torch.tensor(OBJECT_TO_SCENE)
        where = where.matrix(corners.amin(0), corners.amax(0), frame, nearest)
    to_world = where @ _TURN_OVER
    further = other.objects if isinstance(other, EditedField) else []
    return [
        Inserted(cutout, to_world),
        *(Inserted(part, to_world @ placement) for part, placement in further),
    ]


def foreground_cut(disparity: Float[Tensor, "height width"]) -> float:
    """The normalised disparity that parts near from far best: Otsu's threshold.

    It makes the variance between the two parts largest (N. Otsu, 1979).
    """
    low, high = float(disparity.min()), float(disparity.max())
    if high <= low:
        return low
    counts = torch.histc(disparity.double(), _CELLS, low, high)
    middles = low + (torch.arange(_CELLS) + 0.5) * ((high - low) / _CELLS)
    below = counts.cumsum(0)[:-1]
    above = counts.sum() - below
    sums = (counts * middles).cumsum(0)
    means = sums[:-1] / below.clamp_min(1), (sums[-1] - sums[:-1]) / above.clamp_min(1)
    between = below * above * (means[1] - means[0]).square()
    best = int(between.argmax())
    return low + (best + 1) * (high - low) / _CELLS


def _light_on(turn: float) -> tuple[float, float, float]:
    """The scene's light in the world of an object turned by an angle."""
    x, y, z = LIGHT
    cos, sin = math.cos(turn), math.sin(turn)
    return cos * x - sin * z, y, sin * x + cos * z
