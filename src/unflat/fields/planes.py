"""Feature planes and how they are looked up.

Conventions: half-pixel centres (the first texel's centre lies half a texel inside), border padding
(beyond the edge the last texel goes on), coordinates in [-1, 1], first coordinate along columns.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def sample_plane(
    plane: Float[Tensor, "batch channels height width"],
    coordinates: Float[Tensor, "batch *points 2"],
    mode: str = "bilinear",
) -> Float[Tensor, "batch *points channels"]:
    """Features at coordinates in [-1, 1] (column, row), bilinear, clamped at the border."""
    points = coordinates.shape[1:-1]
    grid = coordinates.reshape(plane.shape[0], 1, -1, 2)
    found = functional.grid_sample(
        plane, grid, mode=mode, padding_mode="border", align_corners=False
    )
    return found[:, :, 0].transpose(1, 2).unflatten(1, points) if points else found[:, :, 0, 0]


def sample_triplane(
    planes: Float[Tensor, "batch 3 channels height width"],
    points: Float[Tensor, "batch *points 3"],
) -> Float[Tensor, "batch *points channels"]:
    """Sum of the three lookups XY, XZ, YZ of points in [-1, 1]^3.

    A plane's column follows the first letter, its row the second. Three distinct planes: EG3D's
    published axis table repeats one (x, z against z, x) and has no YZ.
    """
    pairs = torch.stack([points[..., [0, 1]], points[..., [0, 2]], points[..., [1, 2]]], dim=1)
    batch, three, channels, height, width = planes.shape
    features = sample_plane(
        planes.reshape(batch * three, channels, height, width),
        pairs.reshape(batch * three, *pairs.shape[2:]),
    )
    return features.unflatten(0, (batch, three)).sum(dim=1)
