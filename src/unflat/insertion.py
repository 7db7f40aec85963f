"""What can be put into a scene, made into fields with a place: meshes, voxels, other scenes.

placed = inserted(read_object_mesh("chair.glb"), Placement(y=-0.4, size=0.5), frame, nearest=0.7)
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
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
_TRIALS = 200  # planes through three pixels
_LEAST_SLOPE = 0.05  # of normalised disparity over half a picture: walls have less
_ON_GROUND, _STANDS_OUT = 0.015, 0.05  # of normalised disparity
_LEAST_GROUND = 1 / 3  # of the lower half
_LEAST_SUBJECT = 0.02  # of what is near; with less, the plane was the subject itself


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
    kept: "Subject",
    *,
    nearest: float = 0.0,
) -> list[Inserted]:
    """The subject of another scene and the objects in it, with their places.

    Args:
        other: its field; its object world is its scene world turned upright.
        where: its subject goes.
        frame: of the scene that it goes into.
        kept: what of it is taken.
        nearest: depth that it may not come before, world units.

    Raises:
        UserError: it would reach into the camera, or nothing of it is kept.
    """
    base = other.base if isinstance(other, EditedField) else other
    try:
        cutout = CutoutField(base, kept.farthest, kept.mask[None, None].float())
    except ValueError as error:
        raise UserError(
            f"farthest {kept.farthest:g}: nothing of the inserted scene is that near (and in its "
            "mask, if one is given); give less."
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


class Subject(NamedTuple):
    """What of a scene's canonical picture is taken."""

    farthest: float
    """Normalised disparity below which nothing is."""
    mask: Bool[Tensor, "height width"]
    """Pixels of which something is."""


def find_subject(disparity: Float[Tensor, "height width"], farthest: float | None) -> Subject:
    """What stands in the foreground: near, and not part of the ground.

    Near is what Otsu's threshold says. The ground is a plane, and a plane's disparity is linear in
    the picture: the one that most pixels of the lower half lie on, if these are a third of them.

    Args:
        disparity: normalised, of what the canonical camera sees.
        farthest: keep what is nearer, whatever the threshold.
    """
    cut = foreground_cut(disparity) if farthest is None else farthest
    near = disparity >= cut
    ground = _ground(disparity)
    if ground is None:
        return Subject(cut, near)
    standing = near & (disparity - ground > _STANDS_OUT)
    enough = standing.sum() >= _LEAST_SUBJECT * near.sum()
    return Subject(cut, standing if enough else near)


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


def _ground(disparity: Float[Tensor, "height width"]) -> Float[Tensor, "height width"] | None:
    """Disparity of the ground's plane over the whole picture, if there seems to be one."""
    height, width = disparity.shape
    v, u = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    everywhere = torch.stack([u, v, torch.ones_like(u)], dim=-1)
    places, values = everywhere[height // 2 :].reshape(-1, 3), disparity[height // 2 :].flatten()
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(values), (_TRIALS, 3), generator=generator)
    corners = places[chosen]
    corners = corners[torch.linalg.det(corners).abs() > 0.05]  # not on a line
    chosen = chosen[torch.linalg.det(places[chosen]).abs() > 0.05]
    planes = torch.linalg.solve(corners, values[chosen])
    planes = planes[
        planes[:, 1] > _LEAST_SLOPE
    ]  # nearer below: what one stands on, not a wall or a ceiling
    if len(planes) == 0:
        return None
    lies_on = (places @ planes.T - values[:, None]).abs() < _ON_GROUND
    best = int(lies_on.sum(0).argmax())
    own = lies_on[:, best]
    if own.double().mean() < _LEAST_GROUND:
        return None
    plane = torch.linalg.lstsq(places[own], values[own, None]).solution[:, 0]
    return everywhere @ plane


def _light_on(turn: float) -> tuple[float, float, float]:
    """The scene's light in the world of an object turned by an angle."""
    x, y, z = LIGHT
    cos, sin = math.cos(turn), math.sin(turn)
    return cos * x - sin * z, y, sin * x + cos * z
