"""A reconstructed scene with objects put into it.

A reconstruction measures lengths in its frame's assumed space, an object in its own. At a point,
along a ray's direction, one unit of world length is |J d| units of assumed length (J: derivative of
the warp), so an object's density is divided by that before it is added: along every ray each keeps
the optical depth that it has alone, and occlusion is right by construction. Light and contact
shadows are not.

    chair = Inserted(voxels, similarity(0.4, translation=(0.0, 0.3, 2.0)))
    field = EditedField(scene.field, [chair])
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.fields.composition import check_similarity
from unflat.fields.cutout import CutoutField
from unflat.fields.detail import DetailField
from unflat.fields.field import FieldOutput
from unflat.fields.viewspace import ViewSpaceField, stretch
from unflat.fields.voxels import VoxelField, box_coordinates
from unflat.geometry.box import intersect_box
from unflat.geometry.projective import Frame
from unflat.geometry.rays import Rays

INNER_EDGES = 97
"""Along a ray through an object's box: a voxel grid of 128 is met in each of its shells."""


class Inserted(NamedTuple):
    """An object and where it stands."""

    field: VoxelField | CutoutField
    """One scene, in its own space, empty outside its bounds; its density is per own length."""
    object_to_world: Float[Tensor, "4 4"]
    """Rotation, one scale for all axes, translation, into the scene world (`similarity`)."""


class EditedField(nn.Module):
    """A scene of one picture, and objects in it."""

    def __init__(self, base: ViewSpaceField | DetailField, objects: Sequence[Inserted]):
        """The sum of the base and of objects.

        Raises:
            ValueError: no objects, or a placement that is no similarity.
        """
        super().__init__()
        if not objects:
            raise ValueError("an edited field needs at least one object")
        self.base = base
        for index, placed in enumerate(objects):
            check_similarity(placed.object_to_world, index)
            self.add_module(f"object{index}", placed.field)
            self.register_buffer(f"placement{index}", placed.object_to_world, persistent=False)
        self._count = len(objects)

    @property
    def objects(self) -> list[Inserted]:
        """What was put in, in order."""
        return [
            Inserted(getattr(self, f"object{index}"), getattr(self, f"placement{index}"))
            for index in range(self._count)
        ]

    @property
    def frame(self) -> Frame:
        """Of the base."""
        return self.base.frame

    def with_frame(self, frame: Frame) -> "EditedField":
        """The base under another field of view or disparity scale; objects stay in the world."""
        return EditedField(self.base.with_frame(frame), self.objects)

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """Density per unit of length in the base's assumed space, and colour in [0, 1].

        Without directions the canonical camera's rays are meant.
        """
        density, rgb = self.base(points, directions)
        shape = points.shape[1:-1]
        points, density, rgb = points.flatten(1, -2), density.flatten(1), rgb.flatten(1, -2)
        if directions is None:
            travel = functional.normalize(points, dim=-1)
        else:
            travel = directions.flatten(1, -2)
        extra, light = torch.zeros_like(density), torch.zeros_like(rgb)
        for placed in self.objects:
            local = to_object(points, placed.object_to_world)
            chosen = _inside(local, placed.field).any(dim=0).nonzero().flatten()
            if len(chosen) == 0:
                continue
            ways = travel[:, chosen] @ _rotation(placed.object_to_world.to(travel))
            answer = placed.field(local[:, chosen], ways)
            longer = stretch(points[:, chosen], travel[:, chosen], self.frame)
            more = answer.density / (_scale(placed.object_to_world) * longer)
            extra = extra.index_add(1, chosen, more)
            light = light.index_add(1, chosen, more[..., None] * answer.features)
        total, touched = density + extra, extra > 0
        mixed = (density[..., None] * rgb + light) / torch.where(touched, total, 1.0)[..., None]
        rgb = torch.where(touched[..., None], mixed, rgb)
        return FieldOutput(total.unflatten(1, shape), rgb.unflatten(1, shape))

    def warp(self, points: Float[Tensor, "batch *points 3"]) -> Float[Tensor, "batch *points 3"]:
        """Points in the frame's assumed space, where lengths are measured."""
        return self.base.warp(points)

    def inner_edges(
        self,
        origins: Float[Tensor, "batch rays 3"],
        directions: Float[Tensor, "batch rays 3"],
    ) -> Float[Tensor, "batch rays m"]:
        """Distances at which rays should be cut so that no object is missed; infinite elsewhere."""
        found: list[Tensor] = []
        share = torch.linspace(0, 1, INNER_EDGES, device=origins.device, dtype=origins.dtype)
        for placed in self.objects:
            near, far = object_limits(placed, origins, directions)
            edges = near[..., None] + (far - near)[..., None] * share
            found.append(edges.where((far > near)[..., None], torch.inf))
        return torch.cat(found, dim=-1)


def object_limits(
    placed: Inserted, origins: Float[Tensor, "*rays 3"], directions: Float[Tensor, "*rays 3"]
) -> tuple[Float[Tensor, "*rays"], Float[Tensor, "*rays"]]:
    """Where world rays enter and leave an object's box, world units; both 0 where they miss."""
    to_world = placed.object_to_world.to(origins)
    # Not of unit length: a distance along the ray stays one in the world.
    ways = directions @ _rotation(to_world) / _scale(to_world)
    hits = intersect_box(Rays(to_object(origins, to_world), ways), placed.field.bounds.to(origins))
    return hits.near, hits.far


def to_object(
    points: Float[Tensor, "*batch 3"], object_to_world: Float[Tensor, "4 4"]
) -> Float[Tensor, "*batch 3"]:
    """World points in an object's own space."""
    to_world = object_to_world.to(points)
    return (points - to_world[:3, 3]) @ _rotation(to_world) / _scale(to_world)


def _scale(object_to_world: Tensor) -> Tensor:
    return object_to_world[:3, 0].norm()


def _rotation(object_to_world: Tensor) -> Tensor:
    return object_to_world[:3, :3] / _scale(object_to_world)


def _inside(local: Tensor, field: VoxelField | CutoutField) -> Bool[Tensor, "*batch"]:
    return box_coordinates(local, field.bounds.to(local))[0]
