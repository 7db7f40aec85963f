"""Bilinear lookups in feature planes for a block of samples, and gradients back into them.

Planes are stored texel by texel, channels side by side (``height width channels``), so that a
corner is one stretch of memory. Conventions are those of `unflat.fields.planes`: half-pixel
centers, border padding.
"""

import numpy as np

from unflat.rendering.backends.cpu.dense import STRIDE
from unflat.rendering.backends.cpu.simd import (
    LANES,
    converted,
    fma,
    inlined,
    larger,
    load,
    peek,
    smaller,
    splat,
    splat_int,
    store,
    total,
    transpose,
    truncated,
    where_less,
)

CORNERS = 4


@inlined
def place_corners(
    places,
    column,
    row,
    slot,
    corners,
    shares,
    slopes,
    start,
    height,
    width,
    size,
    count,
):
    """Where the four texels around each sample lie in memory, and how much each counts.

    Args:
        places: coordinates of samples, [-1, 1] across a plane, STRIDE for each.
        column: where in ``places`` the first begins.
        row: where the second begins.
        slot: number of the plane among those looked up together.
        corners: int32, written: places of texels, CORNERS rows of STRIDE for each slot.
        shares: float32, written: their weights, likewise.
        slopes: float32, written: two rows for each slot: how many texels a unit of the column
            (row) moves, 0 beyond the border.
        start: place of the plane's first texel among what is looked up.
        height: texels.
        width: texels.
        size: numbers of a texel.
        count: samples, rounded up to whole vectors.
    """
    zero, one, half = splat(np.float32(0)), splat(np.float32(1)), splat(np.float32(0.5))
    wide, high = np.float32(width), np.float32(height)
    last_column, last_row = splat(wide - np.float32(1)), splat(high - np.float32(1))
    across_scale, down_scale = splat(np.float32(0.5) * wide), splat(np.float32(0.5) * high)
    at = slot * CORNERS * STRIDE
    for s in range(0, count, LANES):
        x = fma(load(places, column + s) + one, across_scale, zero - half)
        y = fma(load(places, row + s) + one, down_scale, zero - half)
        # The comparison is false for what is not a number, which then is the first texel.
        held_x = smaller(larger(x, zero), last_column)
        held_y = smaller(larger(y, zero), last_row)
        store(slopes, 2 * slot * STRIDE + s, inside_border(x, last_column, across_scale))
        store(slopes, (2 * slot + 1) * STRIDE + s, inside_border(y, last_row, down_scale))
        left, top = truncated(held_x), truncated(held_y)
        across, down = held_x - converted(left), held_y - converted(top)
        rest, upper = one - across, one - down
        right = truncated(where_less(converted(left), last_column, one, zero))
        below = truncated(where_less(converted(top), last_row, one, zero))
        texel = splat_int(np.int32(size))
        line = splat_int(np.int32(size * width))
        first = top * line + left * texel + splat_int(np.int32(start))
        store(corners, at + s, first)
        store(corners, at + STRIDE + s, first + right * texel)
        store(corners, at + 2 * STRIDE + s, first + below * line)
        store(corners, at + 3 * STRIDE + s, first + below * line + right * texel)
        store(shares, at + s, rest * upper)
        store(shares, at + STRIDE + s, across * upper)
        store(shares, at + 2 * STRIDE + s, rest * down)
        store(shares, at + 3 * STRIDE + s, across * down)


@inlined
def gather(table, base, corners, shares, slot, planes, size, texels, count):
    """Sums of weighted texels, ``size`` numbers side by side for each sample.

    Args:
        table: float32, or bfloat16 as int16.
        base: place of the scene's first number in it.
        corners: from `place_corners`.
        shares: from `place_corners`.
        slot: the first plane that counts.
        planes: how many count.
        size: a multiple of LANES.
        texels: written; count * size.
        count: samples.
    """
    first, last = slot * CORNERS * STRIDE, (slot + planes) * CORNERS * STRIDE
    for s in range(count):
        c = 0
        while c + 2 * LANES <= size:
            a = b = splat(np.float32(0))
            for row in range(first + s, last + s, STRIDE):
                share = splat(peek(shares, row))
                place = base + peek(corners, row) + c
                a = fma(share, load(table, place), a)
                b = fma(share, load(table, place + LANES), b)
            store(texels, s * size + c, a)
            store(texels, s * size + c + LANES, b)
            c += 2 * LANES
        if c < size:
            a = splat(np.float32(0))
            for row in range(first + s, last + s, STRIDE):
                share = splat(peek(shares, row))
                a = fma(share, load(table, base + peek(corners, row) + c), a)
            store(texels, s * size + c, a)


@inlined
def scatter(gradient, base, corners, shares, slot, planes, size, texels, count):
    """The way back through `gather`: adds what each sample asks for to its texels."""
    first, last = slot * CORNERS * STRIDE, (slot + planes) * CORNERS * STRIDE
    for s in range(count):
        for c in range(0, size, LANES):
            wish = load(texels, s * size + c)
            for row in range(first + s, last + s, STRIDE):
                place = base + peek(corners, row) + c
                store(gradient, place, fma(splat(peek(shares, row)), wish, load(gradient, place)))


@inlined
def pull_coordinates(
    table,
    base,
    corners,
    shares,
    slopes,
    slot,
    size,
    texels,
    gradient,
    column,
    row,
    count,
):
    """Gradients of the coordinates that one plane was looked up at, added.

    Args:
        table: as in `gather`.
        base: as in `gather`.
        corners: as in `gather`.
        shares: as in `gather`.
        slopes: from `place_corners`.
        slot: the plane.
        size: as in `gather`.
        texels: gradients of what was looked up; count * size.
        gradient: of the places, STRIDE for each, added to.
        column: where the first coordinate's begins.
        row: where the second's begins.
        count: samples.
    """
    at = slot * CORNERS * STRIDE
    for s in range(count):
        s0, s1 = peek(shares, at + s), peek(shares, at + STRIDE + s)
        s2, s3 = peek(shares, at + 2 * STRIDE + s), peek(shares, at + 3 * STRIDE + s)
        p0, p1 = base + peek(corners, at + s), base + peek(corners, at + STRIDE + s)
        p2, p3 = (
            base + peek(corners, at + 2 * STRIDE + s),
            base + peek(corners, at + 3 * STRIDE + s),
        )
        upper, down, rest, across = splat(s0 + s1), splat(s2 + s3), splat(s0 + s2), splat(s1 + s3)
        x = y = splat(np.float32(0))
        for c in range(0, size, LANES):
            wish = load(texels, s * size + c)
            v0, v1 = load(table, p0 + c), load(table, p1 + c)
            v2, v3 = load(table, p2 + c), load(table, p3 + c)
            x = fma(wish, fma(upper, v1 - v0, down * (v3 - v2)), x)
            y = fma(wish, fma(rest, v2 - v0, across * (v3 - v1)), y)
        gradient[column + s] += total(x) * peek(slopes, 2 * slot * STRIDE + s)
        gradient[row + s] += total(y) * peek(slopes, (2 * slot + 1) * STRIDE + s)


@inlined
def to_channels(texels, size, x, first, count):
    """Sample by sample into channel by channel, from channel ``first`` of x on."""
    for s in range(0, count, LANES):
        for c in range(0, size, LANES):
            transpose(texels, s * size + c, size, x, (first + c) * STRIDE + s, STRIDE)


@inlined
def to_samples(x, first, texels, size, count):
    """Channel by channel into sample by sample."""
    for s in range(0, count, LANES):
        for c in range(0, size, LANES):
            transpose(x, (first + c) * STRIDE + s, STRIDE, texels, s * size + c, size)


@inlined
def inside_border(place, last, scale):
    """The scale where 0 < place < last, else 0."""
    zero = splat(np.float32(0))
    return where_less(zero, place, where_less(place, last, scale, zero), zero)
