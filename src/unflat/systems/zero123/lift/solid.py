"""What lifting learns: a solid as a grid of signed distances with colours.

A solid can begin as anything that has an inside (a visual hull, a ball), is rendered by the same
marches as every other voxel field, and always has a surface to draw, however soft it still is.

    solid = Solid.of_values(hull_values, 0.5, bounds)
    seen = solid.render(cameras, 64, 64, softness=0.02)
    field = solid.field(softness=0.01)
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.fields.distance_voxels import DistanceVoxelField
from unflat.fields.voxels import box_coordinates
from unflat.geometry.camera import Camera
from unflat.geometry.rays import Rays, image_rays
from unflat.rendering.render import render_rays
from unflat.rendering.sampling import box_limits, even_edges

_LEAST_NEAR = 0.05  # world units: rays begin no nearer to the camera
_FAR = 100.0  # world units
_LEVELS = 3  # grids that add up, each half as fine as the next
_COARSEST = 6  # voxels along a side that a grid has at least
_EPSILON = 1e-6  # world units: keeps the slope of a flat place finite


class Seen(NamedTuple):
    """A solid along rays."""

    color: Float[Tensor, "*rays 3"]
    """Times the opacity: nothing lies behind."""
    opacity: Float[Tensor, "*rays"]
    """In [0, 1]."""
    distance: Float[Tensor, "*rays"]
    """Mean distance at which light ends, times the opacity, world units."""


class Solid(nn.Module):
    """Signed distances and colours on one grid in a box.

    Both are what they began with plus grids of several finenesses that are learned: a step moves
    a surface as a whole and not voxel by voxel.
    """

    def __init__(
        self,
        distances: Float[Tensor, "z y x"],
        colors: Float[Tensor, "3 z y x"],
        bounds: Float[Tensor, "2 3"],
    ):
        """A solid as it begins.

        Args:
            distances: signed, world units, negative inside; cells are cubes.
            colors: in [0, 1].
            bounds: lowest and highest corner, world units.
        """
        super().__init__()
        start = torch.cat([distances[None], colors.clamp(0.02, 0.98).logit()])
        self.start: Tensor
        self.bounds: Tensor
        self.register_buffer("start", start)
        self.register_buffer("bounds", bounds.clone())
        sizes = [
            [max(_COARSEST, count >> level) for count in distances.shape]
            for level in range(_LEVELS)
        ]
        self.shape_steps = nn.ParameterList(nn.Parameter(start.new_zeros(1, *s)) for s in sizes)
        self.color_steps = nn.ParameterList(nn.Parameter(start.new_zeros(3, *s)) for s in sizes)

    @property
    def cell(self) -> float:
        """Side of a voxel, world units."""
        return float(self.bounds[1, 0] - self.bounds[0, 0]) / self.start.shape[-1]

    def distances(self) -> Float[Tensor, "z y x"]:
        """Signed, world units, negative inside."""
        return self.start[0] + self.cell * _summed(self.shape_steps, self.start.shape[1:])[0]

    def colors(self) -> Float[Tensor, "3 z y x"]:
        """In [0, 1]."""
        return (self.start[1:] + _summed(self.color_steps, self.start.shape[1:])).sigmoid()

    def field(self, softness: float) -> DistanceVoxelField:
        """As others render it, with gradients; softness as of `soft_density`, world units."""
        return DistanceVoxelField(
            self.distances()[None], self.colors()[None], self.bounds, softness
        )

    @torch.no_grad()
    def settle(self) -> None:
        """Begins anew where it has come to, with distances that are such again."""
        distances = signed_distances(-self.distances(), 0.0, self.cell)
        self.start.copy_(torch.cat([distances[None], self.colors().clamp(0.02, 0.98).logit()]))
        for steps in (*self.shape_steps, *self.color_steps):
            steps.zero_()


def along_rays(field: DistanceVoxelField, rays: Rays, samples: int) -> Seen:
    """A solid along some rays, `*rays`; with gradients to what it was made of.

    Args:
        field: of one scene.
        rays: in the world.
        samples: between entering and leaving the box.
    """
    shape = rays.origins.shape[:-1]
    origins, directions = (each.reshape(1, -1, 3) for each in rays)
    near, far = box_limits(origins, directions, field.bounds, _LEAST_NEAR, _FAR)
    edges = near[..., None] + (far - near)[..., None] * even_edges(samples, device=near.device)
    light = render_rays(field, origins, directions, edges, opaque_last=False)
    distance = (light.weights * light.middles).sum(-1)
    return Seen(
        light.features[0].reshape(*shape, 3),
        light.opacity[0].reshape(shape),
        distance[0].reshape(shape),
    )


def seen_by(
    field: DistanceVoxelField, cameras: Camera, side: int, samples: int | None = None
) -> Seen:
    """Square pictures of a solid, "views side side"; samples are one a voxel if not told."""
    count = samples or samples_of(field)
    return along_rays(field, image_rays(cameras, side, side), count)


def samples_of(field: DistanceVoxelField) -> int:
    """Intervals of a ray that are about a voxel long on the way straight through the box."""
    return max(field.distances.shape[1:])


def on_white(seen: Seen) -> Float[Tensor, "views 3 side side"]:
    """Pictures before a white background, in [0, 1]."""
    return (seen.color + (1 - seen.opacity)[..., None]).permute(0, 3, 1, 2)


def signed_distances(
    values: Float[Tensor, "z y x"], level: float, cell: float
) -> Float[Tensor, "z y x"]:
    """Distances to where values cross a level, world units, negative where they are above it.

    Far from the surface they are distances of voxels (Euclidean distance transform); next to it
    they are where the values' own slope says that the level lies, which is finer.

    Args:
        values: of voxels.
        level: that of the surface.
        cell: side of a voxel, world units.
    """
    from scipy.ndimage import distance_transform_edt

    heights = (values - level).detach().double().cpu().numpy()
    inside = heights > 0
    if inside.all() or not inside.any():
        return torch.full_like(values, -cell if inside.all() else 1.0)
    steps = np.asarray(distance_transform_edt(~inside)) - np.asarray(distance_transform_edt(inside))
    steps -= 0.5 * np.sign(steps)  # the surface runs between voxels
    slope = np.sqrt(sum(np.square(part) for part in np.gradient(heights)))
    near = np.abs(steps) < 1
    fine = -heights / np.maximum(slope, 1e-12)
    agreeing = near & (np.abs(fine) < 1.5)
    steps[agreeing] = fine[agreeing]
    return torch.from_numpy(cell * steps).to(values)


def unevenness(
    distances: Float[Tensor, "z y x"], cell: float, reach: float = 4.0
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """How far distances are from being such, and how rough they are; means near the surface.

    The first is (|slope| - 1)^2 (eikonal, arXiv 2002.10099) by differences of neighbours. The
    second is b^2 / (1 + b^2) of the sum b of second differences in cells, which bends of the
    surface add to; it ends at 1, as in the middle of thin walls distances must bend sharply.

    Args:
        distances: world units.
        cell: side of a voxel, world units.
        reach: voxels from the surface within which they count.
    """
    d = distances / cell
    middle = d[1:-1, 1:-1, 1:-1]
    near = (middle.detach().abs() < reach).to(d)
    total = near.sum().clamp_min(1)
    ahead = (d[2:, 1:-1, 1:-1], d[1:-1, 2:, 1:-1], d[1:-1, 1:-1, 2:])
    behind = (d[:-2, 1:-1, 1:-1], d[1:-1, :-2, 1:-1], d[1:-1, 1:-1, :-2])
    square, bend = torch.zeros_like(middle), torch.zeros_like(middle)
    for after, before in zip(ahead, behind, strict=True):
        square = square + (0.5 * (after - before)).square()
        bend = bend + after + before - 2 * middle
    eikonal = ((square + _EPSILON).sqrt() - 1).square()
    rough = bend.square() / (1 + bend.square())
    return (near * eikonal).sum() / total, (near * rough).sum() / total


def roughness(values: Float[Tensor, "channels z y x"]) -> Float[Tensor, ""]:
    """Mean squared difference of neighbours along the three axes, added."""
    return sum(
        (values.diff(dim=axis).square().mean() for axis in (1, 2, 3)), start=values.new_zeros(())
    )


@torch.no_grad()
def nearest_approach(solid: Solid, cameras: Camera, side: int) -> Float[Tensor, "views side side"]:
    """The least distance to the surface that each pixel's ray comes to, world units.

    Where it is below a level, the ray meets what that level encloses. Rays that miss the box have
    the largest distance there is.
    """
    distances = solid.distances()[None]
    count = 2 * max(distances.shape[1:])
    parts = []
    for view in range(len(cameras.camera_to_world)):
        rays = image_rays(cameras[view], side, side)
        origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
        near, far = box_limits(origins, directions, solid.bounds, _LEAST_NEAR, _FAR)
        along = near[:, None] + (far - near)[:, None] * even_edges(count, device=near.device)
        points = origins[:, None] + along[..., None] * directions[:, None]
        inside, place = box_coordinates(points, solid.bounds)
        found = functional.grid_sample(
            distances[None], place[None, None], padding_mode="border", align_corners=False
        )[0, 0, 0]
        parts.append(found.where(inside, distances.max()).amin(1).view(side, side))
    return torch.stack(parts)


def _summed(steps: nn.ParameterList, size: torch.Size) -> Float[Tensor, "channels z y x"]:
    """Grids of several finenesses on the finest, added."""
    total = steps[0]
    for grid in list(steps)[1:]:
        total = total + functional.interpolate(grid[None], tuple(size), mode="trilinear")[0]
    return total
