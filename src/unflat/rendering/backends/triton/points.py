"""World points: their places on the planes, and whether matter may be there."""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def coordinates(px, py, pz, bounds, CONTRACTED: tl.constexpr):
    """Places of world points on the planes, [-1, 1], and whether there is matter at all."""
    if CONTRACTED:
        scale = 0.5 * _shrinking(tl.sqrt(px * px + py * py + pz * pz))
        x, y, z = px * scale, py * scale, pz * scale
        inside = px == px
    else:
        lx, ly, lz = tl.load(bounds), tl.load(bounds + 1), tl.load(bounds + 2)
        hx, hy, hz = tl.load(bounds + 3), tl.load(bounds + 4), tl.load(bounds + 5)
        x = 2 * (px - lx) / (hx - lx) - 1
        y = 2 * (py - ly) / (hy - ly) - 1
        z = 2 * (pz - lz) / (hz - lz) - 1
        inside = (tl.abs(x) <= 1) & (tl.abs(y) <= 1) & (tl.abs(z) <= 1)
    return x, y, z, inside


@triton.jit
@no_type_check
def occupied(
    cells, bounds, cells_x, cells_y, cells_z, px, py, pz, here, EMPTY_OUTSIDE: tl.constexpr
):
    """Whether matter may be at world points, as `OccupancyGrid.at` says."""
    x, x_inside = _cell(px, tl.load(bounds), tl.load(bounds + 3), cells_x)
    y, y_inside = _cell(py, tl.load(bounds + 1), tl.load(bounds + 4), cells_y)
    z, z_inside = _cell(pz, tl.load(bounds + 2), tl.load(bounds + 5), cells_z)
    inside = x_inside & y_inside & z_inside
    held = tl.load(cells + (z * cells_y + y) * cells_x + x, mask=here, other=0) > 0
    return held & inside if EMPTY_OUTSIDE else held | (inside == 0)


@triton.jit
@no_type_check
def _cell(p, low, high, count):
    """The cell along one axis, the outermost one beyond, and whether points are in the box."""
    place = (p - low) / (high - low) * count
    cell = tl.minimum(tl.maximum(place, 0.0), count - 1.0).to(tl.int32)
    return cell, (place >= 0) & (place <= count)


@triton.jit
@no_type_check
def _shrinking(norm):
    """Factor by which contraction shortens a vector: (2 - 1 / norm) / norm beyond 1."""
    far = tl.maximum(norm, 1.0)
    return tl.where(norm <= 1, 1.0, (2 - 1 / far) / far)


@triton.jit
@no_type_check
def by_point(px, py, pz, by_x, by_y, by_z, bounds, CONTRACTED: tl.constexpr):
    """Derivatives by world points from those by places on the planes."""
    if CONTRACTED:
        norm = tl.sqrt(px * px + py * py + pz * pz)
        far = tl.maximum(norm, 1.0)
        scale = 0.5 * _shrinking(norm)
        slope = tl.where(norm <= 1, 0.0, (1 / far - 1) / (far * far))  # half the factor's, by norm
        along = (px * by_x + py * by_y + pz * by_z) * slope / far
        gx, gy, gz = by_x * scale + px * along, by_y * scale + py * along, by_z * scale + pz * along
    else:
        gx = 2 * by_x / (tl.load(bounds + 3) - tl.load(bounds))
        gy = 2 * by_y / (tl.load(bounds + 4) - tl.load(bounds + 1))
        gz = 2 * by_z / (tl.load(bounds + 5) - tl.load(bounds + 2))
    return gx, gy, gz
