"""Pictures moved to another camera by their own depth: splatting without a field.

The cheapest view synthesis there is, used as supervision for novel views and as the baseline that
a radiance field has to beat. Every pixel is split into sub-points that are carried to the other
camera and kept where they are nearest (a z-buffer); what nothing lands on is a hole.

Example:
    ```python
    warped = forward_warp(image, inverse_depth, camera_from, camera_to)
    picture = fill_holes(warped).image
    ```
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unflat.geometry.camera import Camera


class Warped(NamedTuple):
    """A picture in another camera, with what was seen of it."""

    image: Float[Tensor, "batch channels height width"]
    """Colours of the nearest surfaces; the mean color of the source where nothing landed."""
    inverse_depth: Float[Tensor, "batch height width"]
    """1 / depth in the target camera, 1 / world units; 0 is infinitely far, and in holes."""
    visible: Bool[Tensor, "batch height width"]
    """True where a point of the source landed; stays false in holes after they are filled."""


@torch.no_grad()
def forward_warp(
    image: Float[Tensor, "batch channels height width"],
    inverse_depth: Float[Tensor, "batch height width"],
    camera_from: Camera,
    camera_to: Camera,
    subpixels: int = 2,
    blend: float = 0.0,
) -> Warped:
    """The picture as another camera sees its surfaces, with holes where they hid something.

    Each pixel becomes subpixels x subpixels points of its color and inverse depth, at the centres
    of its sub-pixels; the largest inverse depth in the target wins a target pixel. Points are
    carried as (direction, inverse depth), so that infinitely far ones move by the rotation alone
    and need no large number. Points behind the target camera or outside its picture are dropped.

    Args:
        image: any range and any channels; it may hold features.
        inverse_depth: 1 / depth along the source camera's axis, 1 / world units; 0 is infinitely
            far, negative values count as 0.
        camera_from: perspective, one per picture or one for all.
        camera_to: perspective, one per picture or one for all.
        subpixels: points along a side of a pixel; 2 closes the cracks of surfaces that grow
            up to twofold.
        blend: points this share of the largest inverse depth behind it still count, and the
            colours of all that count are averaged: smoother, at some more cost. 0.05 gains about
            0.5 dB on true depth; 0 takes the nearest point alone.

    Raises:
        ValueError: a camera is orthographic.
    """
    batch, channels, height, width = image.shape
    pixels = height * width
    finer = (height * subpixels, width * subpixels)
    dtype = torch.float64 if image.dtype == torch.float64 else torch.float32
    # abs turns -0 into 0: its bits would be the smallest integer, not the smallest depth
    near = inverse_depth.to(dtype).clamp_min(0).abs()[:, :, None, :, None]
    near = near.expand(-1, -1, subpixels, -1, subpixels).reshape(batch, *finer)
    across, down, forward = _carried(near, camera_from, camera_to, height, width).unbind(1)
    ahead = forward > 1e-6
    forward = torch.where(ahead, forward, 1)
    column, row = across / forward, down / forward
    inside = ahead & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    place = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
    target = torch.where(inside, place, pixels).flatten(1)  # one spare pixel takes the rest
    near = (near / forward).flatten(1)
    source = torch.arange(pixels, device=image.device).reshape(height, 1, width, 1)
    source = source.expand(-1, subpixels, -1, subpixels).reshape(-1)  # each point's own pixel
    winner = _nearest(near, target, pixels)
    visible = winner >= 0
    point = winner.clamp_min(0)
    colors = image.reshape(batch, channels, pixels)
    colors = colors.gather(2, source[point][:, None].expand(-1, channels, -1))
    mean = image.mean(dim=(2, 3))[..., None]
    depth = near.gather(1, point) * visible
    if blend > 0:
        front = _append_zero(depth).gather(1, target) * (1 - blend)
        target = torch.where(near >= front, target, pixels)
        colors = _mean_color(image.reshape(batch, channels, pixels), source, target)
    return Warped(
        torch.where(visible[:, None], colors, mean).reshape(image.shape),
        depth.reshape(batch, height, width).to(inverse_depth.dtype),
        visible.reshape(batch, height, width),
    )


@torch.no_grad()
def fill_holes(warped: Warped) -> Warped:
    """The warped picture with every hole closed by the background beside it.

    What a move uncovers lies behind what it was hidden by: a hole takes color and inverse depth of
    the farthest among the nearest seen pixels to its left, right, top and bottom. Holes that see
    none of them are filled in a second pass from filled ones; a picture of holes stays as it is.
    `visible` is unchanged, so that it still tells seen from guessed.
    """
    image, inverse_depth, known = _fill_once(warped.image, warped.inverse_depth, warped.visible)
    if not known.all():
        image, inverse_depth, _ = _fill_once(image, inverse_depth, known)
    return Warped(image, inverse_depth, warped.visible)


def _carried(
    near: Float[Tensor, "batch finer_height finer_width"],
    camera_from: Camera,
    camera_to: Camera,
    height: int,
    width: int,
) -> Float[Tensor, "batch 3 finer_height finer_width"]:
    """Sub-pixel centres in the target: column and row times the third part, depth to / depth from.

    K (R (x, y, 1) + t / z) with K in pixels: one part of it changes along rows only, one along
    columns only, and one follows the inverse depth.
    """
    batch, rows, columns = near.shape
    u = (torch.arange(columns, device=near.device, dtype=near.dtype) + 0.5) / columns
    v = (torch.arange(rows, device=near.device, dtype=near.dtype) + 0.5) / rows
    fx, fy, cx, cy = _intrinsics(camera_from, batch, near)[..., None].unbind(1)
    matrix = _relative_pose(camera_from, camera_to, batch, near)
    f, c = _intrinsics(camera_to, batch, near).split(2, dim=-1)
    across = f[..., None] * matrix[:, :2] + c[..., None] * matrix[:, 2:3]  # of the picture's sides
    size = near.new_tensor([width, height])
    matrix = torch.cat([across * size[:, None], matrix[:, 2:3]], dim=1)  # batch 3 4
    along_row = matrix[..., :1] * ((u - cx) / fx)[:, None] + matrix[..., 2:3]
    along_column = matrix[..., 1:2] * ((v - cy) / fy)[:, None]
    rotated = along_column[..., None] + along_row[:, :, None]  # batch 3 rows columns
    return rotated.addcmul_(matrix[..., 3, None, None], near[:, None])


def _intrinsics(camera: Camera, batch: int, like: Tensor) -> Tensor:
    if camera.kind != "perspective":
        raise ValueError(f"forward warping needs perspective cameras, got {camera.kind}")
    return camera.intrinsics.to(like).expand(batch, 4)


def _relative_pose(camera_from: Camera, camera_to: Camera, batch: int, like: Tensor) -> Tensor:
    """From the source camera's axes to the target's; inverted in float64, once per picture."""
    start = camera_from.camera_to_world.to(like.device, torch.float64)
    end = camera_to.camera_to_world.to(like.device, torch.float64)
    return torch.linalg.solve(*torch.broadcast_tensors(end, start)).expand(batch, 4, 4).to(like)


def _nearest(
    inverse_depth: Float[Tensor, "batch n"], target: Int[Tensor, "batch n"], pixels: int
) -> Int[Tensor, "batch pixels"]:
    """Number of the nearest point on each target pixel, -1 where there is none.

    One integer maximum does depth test and argmax together: positive float32 numbers are ordered
    like their bits, which stand above the point's number. Equal depths go to the larger number.
    """
    batch, n = target.shape
    bits = inverse_depth.float().contiguous().view(torch.int32).long()
    key = (bits << 32) | torch.arange(n, device=target.device)
    best = torch.full((batch, pixels + 1), -1, dtype=torch.long, device=target.device)
    best = best.scatter_reduce(1, target, key, reduce="amax")[:, :pixels]
    return torch.where(best < 0, best, best & 0xFFFFFFFF)


def _mean_color(
    colors: Float[Tensor, "batch channels pixels"],
    source: Int[Tensor, " n"],
    target: Int[Tensor, "batch n"],
) -> Float[Tensor, "batch channels pixels"]:
    """Mean color of the points on each target pixel; points on the spare last pixel are dropped."""
    batch, channels, pixels = colors.shape
    total = colors.new_zeros(batch, channels + 1, pixels + 1)
    ones = colors.new_ones(batch, 1, len(source))
    points = torch.cat([colors[:, :, source], ones], dim=1)
    total.scatter_add_(2, target[:, None].expand(-1, channels + 1, -1), points)
    return total[:, :-1, :-1] / total[:, -1:, :-1].clamp_min(1)


def _append_zero(values: Float[Tensor, "batch n"]) -> Float[Tensor, "batch n+1"]:
    return torch.cat([values, values.new_zeros(len(values), 1)], dim=1)


def _fill_once(
    image: Tensor, inverse_depth: Tensor, known: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One pass of filling: rows and columns that hold a known pixel leave no hole behind."""
    batch, channels, height, width = image.shape
    number = torch.arange(height * width, device=image.device).reshape(1, height, width)
    rows = torch.arange(height, device=image.device)[:, None]
    columns = torch.arange(width, device=image.device)
    candidates = torch.stack(
        [
            rows * width + _last_known(columns, known, 2),
            rows * width + _next_known(columns, known, 2),
            _last_known(rows, known, 1) * width + columns,
            _next_known(rows, known, 1) * width + columns,
        ],
        dim=1,
    )  # batch 4 height width; where a side has no known pixel stands the hole itself
    flat = candidates.reshape(batch, -1)
    valid = known.reshape(batch, -1).gather(1, flat)
    depth = inverse_depth.reshape(batch, -1).gather(1, flat).masked_fill(~valid, torch.inf)
    depth, side = depth.reshape(batch, 4, -1).min(dim=1)
    taken = flat.reshape(batch, 4, -1).gather(1, side[:, None])[:, 0]
    found = depth.isfinite().reshape(known.shape)
    source = torch.where(known | ~found, number, taken.reshape(known.shape)).reshape(batch, -1)
    filled = image.reshape(batch, channels, -1).gather(2, source[:, None].expand(-1, channels, -1))
    new_depth = inverse_depth.reshape(batch, -1).gather(1, source)
    return filled.reshape(image.shape), new_depth.reshape(known.shape), known | found


def _last_known(position: Tensor, known: Tensor, dim: int) -> Tensor:
    """Position of the nearest known pixel at or before each one along an axis; its own if none."""
    last = torch.where(known, position, -1).cummax(dim).values
    return torch.where(last >= 0, last, position)


def _next_known(position: Tensor, known: Tensor, dim: int) -> Tensor:
    """Position of the nearest known pixel at or after each one along an axis; its own if none."""
    end = known.shape[dim]
    back = torch.where(known, -position, -end).flip(dim).cummax(dim).values.flip(dim)
    return torch.where(-back < end, -back, position)
