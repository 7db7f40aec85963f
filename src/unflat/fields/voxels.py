"""A box of voxels that hold density and colour: the plainest field there is.

field = VoxelField(density, colors, bounds=torch.tensor([[-1.0] * 3, [1.0] * 3]))
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.fields.field import FieldOutput


class VoxelField(nn.Module):
    """A dense grid in a box, trilinear between the voxels' centres, empty outside.

    The first voxel's centre lies half a voxel inside the box; in the outermost half voxel the
    values go on as they are. Grids are stored z first, x last: ``density[b, z, y, x]``.
    """

    def __init__(
        self,
        density: Float[Tensor, "batch z y x"],
        features: Float[Tensor, "batch channels z y x"],
        bounds: Float[Tensor, "2 3"],
    ):
        """Grids of a batch of scenes, learned where they are an ``nn.Parameter``.

        Args:
            density: at least 0 (lower values count as 0), per world unit.
            features: colours in [0, 1], or features.
            bounds: lowest and highest corner of the box, world units.

        Raises:
            ValueError: the box has no volume.
        """
        super().__init__()
        self.density: Tensor
        self.features: Tensor
        self.bounds: Tensor
        for name, grid in (("density", density), ("features", features)):
            if isinstance(grid, nn.Parameter):
                self.register_parameter(name, grid)
            else:
                self.register_buffer(name, grid)
        self.register_buffer("bounds", checked_bounds(bounds))

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """Interpolated density and features; the direction does not matter."""
        inside, coordinates = box_coordinates(points, self.bounds)
        grid = coordinates.flatten(1, -2)[:, None, None]  # batch 1 1 points 3
        # Looked up one by one: joining them would copy the whole grid for every call.
        density, features = (
            functional.grid_sample(values, grid, padding_mode="border", align_corners=False)
            for values in (self.density[:, None].clamp_min(0), self.features)
        )
        shape = points.shape[1:-1]
        density = density[:, 0, 0, 0].unflatten(1, shape)
        features = features[:, :, 0, 0].mT.unflatten(1, shape)
        return FieldOutput(torch.where(inside, density, 0.0), features)


def checked_bounds(bounds: Float[Tensor, "2 3"]) -> Float[Tensor, "2 3"]:
    """The box itself.

    Raises:
        ValueError: a side's length is not above 0.
    """
    if not bool((bounds[1] > bounds[0]).all()):
        raise ValueError(f"bounds must grow along every axis, got {bounds.tolist()}")
    return bounds


def box_coordinates(
    points: Float[Tensor, "*batch 3"], bounds: Float[Tensor, "2 3"]
) -> tuple[Bool[Tensor, "*batch"], Float[Tensor, "*batch 3"]]:
    """Whether points lie in a box (its faces included), and their place in it, [-1, 1] inside."""
    coordinates = 2 * (points - bounds[0]) / (bounds[1] - bounds[0]) - 1
    return (coordinates.abs() <= 1).all(dim=-1), coordinates
