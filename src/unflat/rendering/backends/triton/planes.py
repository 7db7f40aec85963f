"""Planes texel by texel, the channels of one side by side: lookups and their derivatives."""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def gather(planes, x, y, z, asked, height, width, CHANNELS: tl.constexpr, C: tl.constexpr):
    """Sum of the lookups XY, XZ and YZ, [R, C] in float32."""
    size = height * width * CHANNELS
    found = _look(planes, x, y, asked, height, width, CHANNELS, C)
    found += _look(planes + size, x, z, asked, height, width, CHANNELS, C)
    found += _look(planes + 2 * size, y, z, asked, height, width, CHANNELS, C)
    return found


@triton.jit
@no_type_check
def scatter(
    planes, grad_planes, by_found, x, y, z, asked, height, width,
    CHANNELS: tl.constexpr, C: tl.constexpr, OF_PLANES: tl.constexpr, OF_RAYS: tl.constexpr,
):  # fmt: skip
    """Adds the derivatives by the planes; returns those by x, y and z."""
    size = height * width * CHANNELS
    if OF_PLANES:
        _add(grad_planes, by_found, x, y, asked, height, width, CHANNELS, C)
        _add(grad_planes + size, by_found, x, z, asked, height, width, CHANNELS, C)
        _add(grad_planes + 2 * size, by_found, y, z, asked, height, width, CHANNELS, C)
    by_x, by_y, by_z = x * 0, y * 0, z * 0
    if OF_RAYS:
        x1, y1 = _slopes(planes, by_found, x, y, asked, height, width, CHANNELS, C)
        x2, z1 = _slopes(planes + size, by_found, x, z, asked, height, width, CHANNELS, C)
        y2, z2 = _slopes(planes + 2 * size, by_found, y, z, asked, height, width, CHANNELS, C)
        by_x, by_y, by_z = x1 + x2, y1 + y2, z1 + z2
    return by_x, by_y, by_z


@triton.jit
@no_type_check
def _texel(u, size):
    """First and second texel that a coordinate lies between, and how far it is to the second."""
    place = tl.minimum(tl.maximum((u + 1) * (0.5 * size) - 0.5, 0.0), size - 1.0)
    first = place.to(tl.int32)
    return first, tl.minimum(first + 1, size - 1), place - first


@triton.jit
@no_type_check
def _corner(plane, column, row, asked, width, CHANNELS: tl.constexpr, C: tl.constexpr):
    """Pointers to texels' channels, [R, C], and which of them exist and are asked for."""
    channel = tl.arange(0, C)
    at = plane + (row * width + column)[:, None] * CHANNELS + channel[None, :]
    return at, asked[:, None] & (channel < CHANNELS)[None, :]


@triton.jit
@no_type_check
def _read(plane, column, row, asked, width, CHANNELS: tl.constexpr, C: tl.constexpr):
    """Texels, [R, C] in float32."""
    at, real = _corner(plane, column, row, asked, width, CHANNELS, C)
    return tl.load(at, mask=real, other=0.0).to(tl.float32)


@triton.jit
@no_type_check
def _look(plane, u, v, asked, height, width, CHANNELS: tl.constexpr, C: tl.constexpr):
    """Bilinear lookups in one plane."""
    left, right, across = _texel(u, width)
    top, bottom, down = _texel(v, height)
    upper, lower = 1 - down, down
    found = _read(plane, left, top, asked, width, CHANNELS, C) * ((1 - across) * upper)[:, None]
    found += _read(plane, right, top, asked, width, CHANNELS, C) * (across * upper)[:, None]
    found += _read(plane, left, bottom, asked, width, CHANNELS, C) * ((1 - across) * lower)[:, None]
    found += _read(plane, right, bottom, asked, width, CHANNELS, C) * (across * lower)[:, None]
    return found


@triton.jit
@no_type_check
def _add(plane, value, u, v, asked, height, width, CHANNELS: tl.constexpr, C: tl.constexpr):
    """Adds values to the four texels around, as bilinear lookups share them."""
    left, right, across = _texel(u, width)
    top, bottom, down = _texel(v, height)
    at, real = _corner(plane, left, top, asked, width, CHANNELS, C)
    tl.atomic_add(at, value * ((1 - across) * (1 - down))[:, None], mask=real, sem="relaxed")
    at, real = _corner(plane, right, top, asked, width, CHANNELS, C)
    tl.atomic_add(at, value * (across * (1 - down))[:, None], mask=real, sem="relaxed")
    at, real = _corner(plane, left, bottom, asked, width, CHANNELS, C)
    tl.atomic_add(at, value * ((1 - across) * down)[:, None], mask=real, sem="relaxed")
    at, real = _corner(plane, right, bottom, asked, width, CHANNELS, C)
    tl.atomic_add(at, value * (across * down)[:, None], mask=real, sem="relaxed")


@triton.jit
@no_type_check
def _slopes(plane, value, u, v, asked, height, width, CHANNELS: tl.constexpr, C: tl.constexpr):
    """Derivatives of bilinear lookups by u and v, times values; 0 in the border."""
    left, right, across = _texel(u, width)
    top, bottom, down = _texel(v, height)
    left_top = tl.sum(_read(plane, left, top, asked, width, CHANNELS, C) * value, 1)
    right_top = tl.sum(_read(plane, right, top, asked, width, CHANNELS, C) * value, 1)
    left_bottom = tl.sum(_read(plane, left, bottom, asked, width, CHANNELS, C) * value, 1)
    right_bottom = tl.sum(_read(plane, right, bottom, asked, width, CHANNELS, C) * value, 1)
    by_u = (right_top - left_top) * (1 - down) + (right_bottom - left_bottom) * down
    by_v = (left_bottom - left_top) * (1 - across) + (right_bottom - right_top) * across
    return by_u * _inner(u, width), by_v * _inner(v, height)


@triton.jit
@no_type_check
def _inner(u, size):
    """Texels per unit of a coordinate: none where border padding holds it."""
    place = (u + 1) * (0.5 * size) - 0.5
    return tl.where((place > 0) & (place < size - 1), 0.5 * size, 0.0)
