"""Feature planes and how they are looked up.

Conventions: half-pixel centres (the first texel's centre lies half a texel inside), border padding
(beyond the edge the last texel goes on), coordinates in [-1, 1], first coordinate along columns.

On the CPU and without gradients, planes whose channels lie side by side (`by_texel`) are read as
rows of a table: the same numbers, several times faster, and in the order that layers want.
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
    if mode == "bilinear" and _is_table(plane, coordinates):
        return _rows(plane, coordinates)
    points = coordinates.shape[1:-1]
    grid = coordinates.reshape(plane.shape[0], 1, -1, 2)
    found = functional.grid_sample(
        plane, grid, mode=mode, padding_mode="border", align_corners=False
    )
    return found[:, :, 0].transpose(1, 2).unflatten(1, points) if points else found[:, :, 0, 0]


def by_texel(
    plane: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """The plane with the channels of a texel side by side in memory, where that is faster.

    That is on the CPU and without gradients; otherwise the plane as it is.
    """
    if plane.device.type != "cpu" or (plane.requires_grad and torch.is_grad_enabled()):
        return plane
    return plane.contiguous(memory_format=torch.channels_last)


def sample_triplane(
    planes: Float[Tensor, "batch 3 channels height width"],
    points: Float[Tensor, "batch *points 3"],
) -> Float[Tensor, "batch *points channels"]:
    """Sum of the three lookups XY, XZ, YZ of points in [-1, 1]^3.

    A plane's column follows the first letter, its row the second. Three distinct planes: EG3D's
    published axis table repeats one (x, z against z, x) and has no YZ.
    """
    planes = planes.to(torch.promote_types(planes.dtype, points.dtype))  # bfloat16 may be stored
    pairs = torch.stack([points[..., [0, 1]], points[..., [0, 2]], points[..., [1, 2]]], dim=1)
    batch, three, channels, height, width = planes.shape
    features = sample_plane(
        planes.reshape(batch * three, channels, height, width),
        pairs.reshape(batch * three, *pairs.shape[2:]),
    )
    return features.unflatten(0, (batch, three)).sum(dim=1)


def _is_table(plane: Tensor, coordinates: Tensor) -> bool:
    """Whether texels can be read as rows; the number of points must not matter."""
    learned = torch.is_grad_enabled() and (plane.requires_grad or coordinates.requires_grad)
    return (
        not learned
        and plane.device.type == "cpu"
        and plane.dtype == coordinates.dtype == torch.float32
        and plane.is_contiguous(memory_format=torch.channels_last)
    )


def _rows(plane: Tensor, coordinates: Tensor) -> Tensor:
    """Bilinear lookups as weighted sums of four rows of a table, one row per texel."""
    batch, channels, height, width = plane.shape
    place = coordinates.reshape(batch, -1, 2)
    column = ((place[..., 0] + 1) * (0.5 * width) - 0.5).clamp(0, width - 1)
    row = ((place[..., 1] + 1) * (0.5 * height) - 0.5).clamp(0, height - 1)
    left, top = column.floor(), row.floor()
    across, down = column - left, row - top
    first = (top.int() * width + left.int()).clamp_(0, height * width - 1)  # for NaN
    if batch > 1:
        first += (torch.arange(batch, dtype=torch.int32) * (height * width))[:, None]
    right = (left < width - 1).int()
    below = (top < height - 1).int() * width
    corners = torch.stack([first, first + right, first + below, first + below + right], -1)
    rest = 1 - across
    upper = 1 - down
    shares = torch.stack([rest * upper, across * upper, rest * down, across * down], -1)
    found = functional.embedding_bag(
        corners.flatten(0, 1),
        plane.permute(0, 2, 3, 1).reshape(-1, channels),
        per_sample_weights=shares.flatten(0, 1),
        mode="sum",
    )
    return found.reshape(*coordinates.shape[:-1], channels)
