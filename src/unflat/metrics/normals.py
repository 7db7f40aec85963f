"""Which way surfaces face, from depth, and by what angle they are off.

>>> import math, torch
>>> camera = Camera.from_fov(math.radians(50))
>>> wall = normals_from_depth(torch.full((1, 8, 8), 2.0), camera)     # it faces the camera
>>> [round(value, 3) for value in wall[0, :, 4, 4].tolist()]
[0.0, 0.0, -1.0]
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from unflat.geometry import Camera, pixel_grid
from unflat.metrics.checks import refuse_pictures


def normals_from_depth(
    depth: Float[Tensor, "batch height width"], camera: Camera
) -> Float[Tensor, "batch 3 height width"]:
    """Unit normals of the surface that a depth map shows, in world axes, towards the camera.

    Cross product of the central differences of the unprojected points (one-sided at the border of
    the picture): exact on planes, second order in the pixel on smooth surfaces, meaningless across
    depth edges, so leave those out by `inner_pixels` of a mask. NaN where a neighbor has no depth
    (NaN or infinity), zero where three neighboring points fall on a line.

    Args:
        depth: along the optical axis, above 0, in world units.
        camera: one for each map, or one for all.

    Raises:
        ValueError: a map of fewer than 2 pixels a side.
    """
    batch, height, width = depth.shape
    if min(height, width) < 2:
        raise ValueError(f"normals need depth of at least 2 x 2 pixels, got {height} x {width}")
    depth = depth.double()
    uv = pixel_grid(height, width, device=depth.device, dtype=depth.dtype).reshape(-1, 2)
    camera = camera.to(depth.device, depth.dtype)
    points = camera.unproject(uv.expand(batch, -1, 2), depth.flatten(1))
    points = points.reshape(batch, height, width, 3)
    down, right = torch.gradient(points, dim=(1, 2))
    # right x down runs along the optical axis, away from the camera
    normal = functional.normalize(torch.linalg.cross(down, right, dim=-1), dim=-1, eps=1e-30)
    return normal.permute(0, 3, 1, 2).float()


def inner_pixels(mask: Bool[Tensor, "batch height width"]) -> Bool[Tensor, "batch height width"]:
    """Pixels of a mask whose eight neighbors are in it too; the picture's border is not inside."""
    padded = functional.pad(mask[:, None].double(), (1, 1, 1, 1))
    return -functional.max_pool2d(-padded, 3, stride=1)[:, 0] > 0


def mean_angle_deviation(
    normals: Float[Tensor, "batch 3 height width"],
    true: Float[Tensor, "batch 3 height width"],
    mask: Bool[Tensor, "batch height width"] | None = None,
) -> Float[Tensor, " batch"]:
    """Mean angle between two maps of normals ("MAD"), in degrees, in [0, 180]; lower is better.

    Wu et al. 2020, arXiv 1911.11130. A wall that faces the camera gets 45 against a half
    sphere. Lengths do not matter.

    Args:
        normals: in the axes of the truth.
        true: of the reference.
        mask: pixels that count; all if not given. Leave depth edges out with `inner_pixels`.

    Raises:
        ValueError: a picture without pixels under the mask, or one with NaN or a zero normal there.
    """
    keep = torch.ones_like(normals[:, 0], dtype=torch.bool) if mask is None else mask
    refuse_pictures(~keep.flatten(1).any(1), "the mask leaves no pixels of picture")
    for name, map_ in (("normals", normals), ("true normals", true)):
        wrong = ~map_.isfinite().all(1) | (map_ == 0).all(1)
        refuse_pictures((wrong & keep).flatten(1).any(1), f"{name} hold NaN or zero in picture")
    a, b = normals.double(), true.double()
    sine = torch.linalg.cross(a, b, dim=1).norm(dim=1)
    angle = torch.rad2deg(torch.atan2(sine, (a * b).sum(1))).where(keep, 0.0)
    return (angle.sum((1, 2)) / keep.sum((1, 2))).float()
