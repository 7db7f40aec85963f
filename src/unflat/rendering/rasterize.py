"""Triangles seen by a camera: which face each pixel's middle meets first, and how far away.

A z-buffer without a graphics card: exact at pixel middles, no gradients, some milliseconds for some
thousand faces. For silhouettes and depth maps of meshes.

    seen = rasterize(vertices, faces, camera, 128, 128)
    depth = 1 / seen.inverse_depth            # infinite where there is nothing
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unflat.geometry.camera import Camera

_PAIRS = 1 << 21  # of faces and pixels at once
_LEAST_DEPTH = 1e-6


class Rasterized(NamedTuple):
    """What each pixel's middle sees, for each view."""

    inverse_depth: Float[Tensor, "views height width"]
    """1 / depth along the optical axis, 1 / world units; 0 where there is nothing."""
    face: Int[Tensor, "views height width"]
    """Number of the face seen; -1 where there is nothing."""


@torch.no_grad()
def rasterize(
    vertices: Float[Tensor, "vertices 3"],
    faces: Int[Tensor, "faces 3"],
    cameras: Camera,
    height: int,
    width: int,
) -> Rasterized:
    """The nearest face at each pixel's middle, seen from both of its sides.

    Faces that reach behind a camera are left out of its view whole: no clipping. Of equally near
    faces the one with the larger number is seen.

    Args:
        vertices: world units.
        faces: indices into the vertices.
        cameras: perspective, a batch of views.
        height: of the pictures, pixels.
        width: of the pictures, pixels.

    Raises:
        ValueError: a camera is orthographic.
    """
    if cameras.kind != "perspective":
        raise ValueError(f"rasterizing needs perspective cameras, got {cameras.kind}")
    cameras = cameras.to(device=vertices.device, dtype=torch.float64)
    views = [
        _view(vertices.double(), faces, cameras[view], height, width)
        for view in range(len(cameras.intrinsics))
    ]
    return Rasterized(
        torch.stack([view.inverse_depth for view in views]).to(vertices.dtype),
        torch.stack([view.face for view in views]),
    )


def silhouette(
    vertices: Float[Tensor, "vertices 3"],
    faces: Int[Tensor, "faces 3"],
    cameras: Camera,
    height: int,
    width: int,
    rays: int = 2,
) -> Float[Tensor, "views height width"]:
    """Share of each pixel that the triangles cover, in [0, 1].

    Args:
        vertices: world units.
        faces: indices into the vertices.
        cameras: perspective, a batch of views.
        height: of the pictures, pixels.
        width: of the pictures, pixels.
        rays: along a side of a pixel.
    """
    seen = rasterize(vertices, faces, cameras, rays * height, rays * width).face >= 0
    blocks = seen.reshape(len(seen), height, rays, width, rays)
    return blocks.to(vertices.dtype).mean(dim=(2, 4))


def _view(vertices: Tensor, faces: Tensor, camera: Camera, height: int, width: int) -> Rasterized:
    uv, depth = camera.project(vertices)
    ahead = (depth > _LEAST_DEPTH)[faces].all(dim=1)
    number = torch.nonzero(ahead)[:, 0]
    # middles of pixels are at whole numbers
    corner = (uv * uv.new_tensor([width, height]) - 0.5)[faces[number]]
    near = (1 / depth)[faces[number]]
    size = torch.tensor([width, height], device=faces.device)
    low = corner.amin(dim=1).ceil().clamp_min(0).long()
    high = torch.minimum(corner.amax(dim=1).floor().long() + 1, size)
    extent = (high - torch.minimum(low, high)).clamp_min(0)
    counts = extent[:, 0] * extent[:, 1]
    best = torch.full((height * width,), -1, dtype=torch.long, device=faces.device)
    for chosen in _groups(counts):
        face, pixel = _pairs(chosen, counts, extent, low)
        inside, value = _interpolate(corner[face], near[face], pixel)
        key = value[inside].float().view(torch.int32).long() << 32 | number[face[inside]]
        place = (pixel[:, 1] * width + pixel[:, 0])[inside]
        best.scatter_reduce_(0, place, key, reduce="amax")
    seen = best >= 0
    bits = (best.clamp_min(0) >> 32).to(torch.int32)
    return Rasterized(
        torch.where(seen, bits.view(torch.float32).double(), 0.0).reshape(height, width),
        torch.where(seen, best & 0xFFFFFFFF, -1).reshape(height, width),
    )


def _groups(counts: Int[Tensor, " faces"]) -> list[Int[Tensor, " some"]]:
    """Faces with pixels, in groups of a bounded number of pixels, one face at the least."""
    kept = torch.nonzero(counts)[:, 0]
    groups = (counts[kept].cumsum(0) - 1) // _PAIRS
    return [kept[groups == group] for group in groups.unique()]


def _pairs(
    chosen: Tensor, counts: Tensor, extent: Tensor, low: Tensor
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, "pairs 2"]]:
    """Every chosen face with every pixel (x, y) of its box."""
    number = counts[chosen]
    face = torch.repeat_interleave(chosen, number)
    start = torch.repeat_interleave(number.cumsum(0) - number, number)
    within = torch.arange(len(face), device=face.device) - start
    columns = extent[face, 0]
    return face, low[face] + torch.stack([within % columns, within // columns], dim=1)


def _interpolate(
    corner: Float[Tensor, "pairs 3 2"],
    near: Float[Tensor, "pairs 3"],
    pixel: Int[Tensor, "pairs 2"],
) -> tuple[Tensor, Tensor]:
    """Whether the pixel's middle is inside, and 1 / depth there, which is linear in the picture."""
    a, b, c = (corner - pixel[:, None]).unbind(dim=1)
    weights = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], dim=1)
    area = weights.sum(dim=1)
    inside = ((weights >= 0).all(dim=1) | (weights <= 0).all(dim=1)) & (area != 0)
    area = torch.where(area == 0, 1, area)
    return inside, (weights * near).sum(dim=1) / area


def _cross(first: Tensor, second: Tensor) -> Tensor:
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
