"""A box of voxels that hold a signed distance and colour: a solid with a surface to draw.

field = DistanceVoxelField(distances, colors, bounds, softness=0.01)
mesh_of_field(field)                       # its surface, where the distance is 0
"""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unflat.fields.voxels import VoxelField, box_coordinates

_SUNK: Final = (0.55, 1.1)  # voxels, and softnesses: by how much light is stopped further inside


class DistanceVoxelField(VoxelField):
    """Voxels whose density is a Laplace distribution's share inside their distance.

    The density is made at the voxels' centres and interpolated there, as that of every
    `VoxelField`, so that all that renders voxels renders these. A ray that only grazes a soft
    surface would lose most of its light outside of it, and the solid would look a voxel fatter than
    its mesh; so the density is that of distances which are larger by 0.55 voxels + 1.1 softness
    (measured on balls and boxes: outlines are the surface's to some 0.3 voxels then). Asked for
    distances, the field interpolates them: its surface is finer than its voxels.
    """

    def __init__(
        self,
        distances: Float[Tensor, "batch z y x"],
        features: Float[Tensor, "batch channels z y x"],
        bounds: Float[Tensor, "2 3"],
        softness: float,
    ):
        """Grids of a batch of solids; gradients reach whatever they were made of.

        Args:
            distances: signed, world units, negative inside.
            features: colours in [0, 1], or features.
            bounds: lowest and highest corner of the box, world units.
            softness: as of `soft_density`.

        Raises:
            ValueError: the box has no volume, or the softness is not positive.
        """
        if not softness > 0:
            raise ValueError(f"softness is {softness}; it must be positive")
        of_voxel, of_softness = _SUNK
        voxel = float(bounds[1, 0] - bounds[0, 0]) / distances.shape[-1]
        sunk = distances + (of_voxel * voxel + of_softness * softness)
        super().__init__(soft_density(sunk, softness), features, bounds)
        self.distances: Tensor
        self.register_buffer("distances", distances)
        self.softness = softness

    def distance(self, points: Float[Tensor, "batch *points 3"]) -> Float[Tensor, " batch *points"]:
        """Signed distance in world units, trilinear; beyond the box it grows on."""
        _, coordinates = box_coordinates(points, self.bounds)
        grid = coordinates.flatten(1, -2)[:, None, None]
        found = functional.grid_sample(
            self.distances[:, None], grid, padding_mode="border", align_corners=False
        )[:, 0, 0, 0].unflatten(1, points.shape[1:-1])
        held = torch.minimum(torch.maximum(points, self.bounds[0]), self.bounds[1])
        return found + (points - held).norm(dim=-1)


def soft_density(distance: Float[Tensor, "*points"], softness: float) -> Float[Tensor, "*points"]:
    """Density per world unit of a signed distance: Psi(-distance) / softness, as in VolSDF.

    Psi is the distribution function of a Laplace distribution of scale ``softness`` (arXiv
    2106.12052, eq. 2): half of the light's last stretch lies within one softness of the surface.
    `unflat.fields.LaplaceDensity` learns that number; here it is given.

    Args:
        distance: world units, negative inside.
        softness: world units.
    """
    tail = 0.5 * torch.exp(-distance.abs() / softness)
    return torch.where(distance > 0, tail, 1 - tail) / softness
