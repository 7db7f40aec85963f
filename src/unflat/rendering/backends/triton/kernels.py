"""Triton kernels: a block of rays goes through tri-planes front to back, one interval at a time.

Every program owns ``R`` neighbouring rays of one scene and keeps their light and their sums in
registers; at interval i it gathers R points, decodes them by two small matrix products and adds
what they send back, unless none of them can hold matter. Nothing but the weights is as large as
rays times intervals. Neighbouring rays are at neighbouring points, so that their texels are read
together and found in the cache.

The backward kernel walks the same way and computes everything again. With the depth d = density x
length of an interval, q_i = d loss / d weight_i and T the transmittance, the quadrature's
derivative is

    d loss / d d_i = q_i T_{i+1} - sum over j > i of q_j weight_j

and the sum behind i is the whole sum, which forward's results give, less what has been passed.

Sizes in capitals are known when a kernel is compiled: CHANNELS, HIDDEN and OUT (1 + what is seen)
are the decoder's, C, H and K the same rounded up to powers of two, at least 16, as matrix products
want them; what lies between is masked to 0.
"""

from typing import no_type_check

import triton
import triton.language as tl

from unflat.rendering.backends.triton.decoder import (
    color,
    color_slope,
    column_of,
    decoder,
    sigmoid,
    softplus,
)
from unflat.rendering.backends.triton.planes import gather, scatter
from unflat.rendering.backends.triton.points import by_point, coordinates, occupied

SIZES = ("rays", "n", "height", "width", "cells_x", "cells_y", "cells_z", "cells_apart")
"""Arguments for whose values, as for 1, no kernel of its own is compiled."""


@triton.jit(do_not_specialize=SIZES)
@no_type_check  # of a kernel's names only Triton knows the types
def forward(
    planes, into, into_bias, out, out_bias, bounds,  # the field
    cells, cells_bounds,  # where it may hold matter
    origins, directions, edges, lengths,  # rays
    features, weights,  # results; weights are 0 before
    rays, n, height, width, cells_x, cells_y, cells_z, cells_apart, least_light,
    CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, OUT: tl.constexpr,
    C: tl.constexpr, H: tl.constexpr, K: tl.constexpr, R: tl.constexpr,
    CONTRACTED: tl.constexpr, CELLS: tl.constexpr, EMPTY_OUTSIDE: tl.constexpr,
    LENGTHS: tl.constexpr, OPAQUE_LAST: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Features and weights of R rays."""
    scene, row, here = _rows(rays, R)
    planes += scene * 3 * height * width * CHANNELS
    cells += scene * cells_apart
    ox, oy, oz = _vectors(origins, row, here)
    dx, dy, dz = _vectors(directions, row, here)
    column = tl.arange(0, K)
    light = tl.where(here, 1.0, 0.0)
    seen = tl.zeros([R, K], tl.float32)
    before = tl.load(edges + row * (n + 1), mask=here, other=0.0)
    start = n * 0
    alive = n > 0
    while alive:
        for i in range(start, tl.minimum(start + BLOCK, n)):
            after = tl.load(edges + row * (n + 1) + i + 1, mask=here, other=0.0)
            length = _length(lengths, before, after, row, n, i, here, LENGTHS)
            t = 0.5 * (before + after)
            px, py, pz = ox + t * dx, oy + t * dy, oz + t * dz
            x, y, z, inside = coordinates(px, py, pz, bounds, CONTRACTED)
            if CELLS:
                inside &= occupied(
                    cells, cells_bounds, cells_x, cells_y, cells_z, px, py, pz, here, EMPTY_OUTSIDE
                )
            last = OPAQUE_LAST & (i == n - 1)
            asked = (light > 0) & (inside | last)
            if tl.max(asked.to(tl.int32), 0) > 0:
                # Read anew, from the nearest cache, and not kept in registers that gathering needs.
                into_w, into_b, out_w, out_b = decoder(
                    into, into_bias, out, out_bias, CHANNELS, HIDDEN, OUT, C, H, K
                )
                found = gather(planes, x, y, z, asked, height, width, CHANNELS, C)
                pre = tl.dot(found, into_w, input_precision=PRECISION) + into_b[None, :]
                raw = tl.dot(softplus(pre), out_w, input_precision=PRECISION) + out_b[None, :]
                density = softplus(column_of(raw, 0) - 1)
                passing = _passing(density, length, inside, last)
                weight = light * (1 - passing)
                seen += weight[:, None] * color(sigmoid(raw))
                tl.store(weights + row * n + i, weight, mask=here)
                light *= passing
            before = after
        start += BLOCK
        light = tl.where(light > least_light, light, 0.0)
        alive = (start < n) & (tl.max(light, 0) > 0)
    place = row[:, None] * (OUT - 1) + column[None, :] - 1
    shown = (column > 0) & (column < OUT)
    tl.store(features + place, seen, mask=here[:, None] & shown[None, :])


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def backward(
    planes, into, into_bias, out, out_bias, bounds,  # the field
    cells, cells_bounds,  # where it may hold matter
    origins, directions, edges, lengths,  # rays
    features, weights,  # results of forward
    grad_features, grad_weights,
    grad_planes, grad_into, grad_into_bias, grad_out, grad_out_bias,  # added to
    grad_origins, grad_directions, grad_lengths,  # results; 0 before
    rays, n, height, width, cells_x, cells_y, cells_z, cells_apart, least_light,
    CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, OUT: tl.constexpr,
    C: tl.constexpr, H: tl.constexpr, K: tl.constexpr, R: tl.constexpr,
    CONTRACTED: tl.constexpr, CELLS: tl.constexpr, EMPTY_OUTSIDE: tl.constexpr,
    LENGTHS: tl.constexpr, OPAQUE_LAST: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
    OF_PLANES: tl.constexpr, OF_DECODER: tl.constexpr, OF_RAYS: tl.constexpr,
    OF_LENGTHS: tl.constexpr,
):  # fmt: skip
    """Derivatives by planes, decoder and rays, from R rays."""
    scene, row, here = _rows(rays, R)
    planes += scene * 3 * height * width * CHANNELS
    cells += scene * cells_apart
    grad_planes += scene * 3 * height * width * CHANNELS
    ox, oy, oz = _vectors(origins, row, here)
    dx, dy, dz = _vectors(directions, row, here)
    column = tl.arange(0, K)
    shown = here[:, None] & ((column > 0) & (column < OUT))[None, :]
    place = row[:, None] * (OUT - 1) + column[None, :] - 1
    grad_seen = tl.load(grad_features + place, mask=shown, other=0.0)
    seen = tl.load(features + place, mask=shown, other=0.0)
    behind = tl.sum(grad_seen * seen, 1)  # sum of q_j weight_j over what is still ahead
    behind += _product(grad_weights, weights, row, n, here, R)
    light = tl.where(here, 1.0, 0.0)
    by_into = tl.zeros([C, H], tl.float32)
    by_into_bias = tl.zeros([H], tl.float32)
    by_out = tl.zeros([H, K], tl.float32)
    by_out_bias = tl.zeros([K], tl.float32)
    gox = tl.zeros([R], tl.float32)
    goy, goz, gdx, gdy, gdz = gox, gox, gox, gox, gox
    before = tl.load(edges + row * (n + 1), mask=here, other=0.0)
    start = n * 0
    alive = n > 0
    while alive:
        for i in range(start, tl.minimum(start + BLOCK, n)):
            after = tl.load(edges + row * (n + 1) + i + 1, mask=here, other=0.0)
            length = _length(lengths, before, after, row, n, i, here, LENGTHS)
            t = 0.5 * (before + after)
            px, py, pz = ox + t * dx, oy + t * dy, oz + t * dz
            x, y, z, inside = coordinates(px, py, pz, bounds, CONTRACTED)
            if CELLS:
                inside &= occupied(
                    cells, cells_bounds, cells_x, cells_y, cells_z, px, py, pz, here, EMPTY_OUTSIDE
                )
            last = OPAQUE_LAST & (i == n - 1)
            asked = (light > 0) & (inside | last)
            if tl.max(asked.to(tl.int32), 0) > 0:
                into_w, into_b, out_w, out_b = decoder(
                    into, into_bias, out, out_bias, CHANNELS, HIDDEN, OUT, C, H, K
                )
                found = gather(planes, x, y, z, asked, height, width, CHANNELS, C)
                pre = tl.dot(found, into_w, input_precision=PRECISION) + into_b[None, :]
                hidden = softplus(pre)
                raw = tl.dot(hidden, out_w, input_precision=PRECISION) + out_b[None, :]
                drawn = column_of(raw, 0) - 1
                density = softplus(drawn)
                passing = _passing(density, length, inside, last)
                weight = light * (1 - passing)

                # Quadrature: from features and weights to what the decoder said.
                shares = sigmoid(raw)
                by_weight = tl.sum(grad_seen * color(shares), 1)
                by_weight += tl.load(grad_weights + row * n + i, mask=here, other=0.0)
                behind -= by_weight * weight
                by_depth = by_weight * light * passing - behind
                by_depth = tl.where(asked & inside & (last == 0), by_depth, 0.0)
                if OF_LENGTHS:
                    tl.store(grad_lengths + row * n + i, by_depth * density, mask=here)
                by_drawn = by_depth * length * sigmoid(drawn)
                by_raw = (weight[:, None] * grad_seen) * color_slope(shares)
                by_raw = tl.where(column[None, :] == 0, by_drawn[:, None], by_raw)

                # Decoder.
                by_hidden = tl.dot(by_raw, tl.trans(out_w), input_precision=PRECISION)
                by_pre = by_hidden * sigmoid(pre)
                if OF_DECODER:
                    by_out += tl.dot(tl.trans(hidden), by_raw, input_precision=PRECISION)
                    by_out_bias += tl.sum(by_raw, 0)
                    by_into += tl.dot(tl.trans(found), by_pre, input_precision=PRECISION)
                    by_into_bias += tl.sum(by_pre, 0)

                # Planes, and from there the points.
                if OF_PLANES or OF_RAYS:
                    by_found = tl.dot(by_pre, tl.trans(into_w), input_precision=PRECISION)
                    by_x, by_y, by_z = scatter(
                        planes, grad_planes, by_found, x, y, z, asked, height, width,
                        CHANNELS, C, OF_PLANES, OF_RAYS,
                    )  # fmt: skip
                    if OF_RAYS:
                        gx, gy, gz = by_point(px, py, pz, by_x, by_y, by_z, bounds, CONTRACTED)
                        gox, goy, goz = gox + gx, goy + gy, goz + gz
                        gdx, gdy, gdz = gdx + t * gx, gdy + t * gy, gdz + t * gz
                light *= passing
            before = after
        start += BLOCK
        light = tl.where(light > least_light, light, 0.0)
        alive = (start < n) & (tl.max(light, 0) > 0)
    if OF_DECODER:
        channel, unit = tl.arange(0, C), tl.arange(0, H)
        real = (channel < CHANNELS)[:, None] & (unit < HIDDEN)[None, :]
        at = unit[None, :] * CHANNELS + channel[:, None]
        tl.atomic_add(grad_into + at, by_into, mask=real, sem="relaxed")
        tl.atomic_add(grad_into_bias + unit, by_into_bias, mask=unit < HIDDEN, sem="relaxed")
        real = (unit < HIDDEN)[:, None] & (column < OUT)[None, :]
        at = column[None, :] * HIDDEN + unit[:, None]
        tl.atomic_add(grad_out + at, by_out, mask=real, sem="relaxed")
        tl.atomic_add(grad_out_bias + column, by_out_bias, mask=column < OUT, sem="relaxed")
    if OF_RAYS:
        _store_vectors(grad_origins, gox, goy, goz, row, here)
        _store_vectors(grad_directions, gdx, gdy, gdz, row, here)


# Rays


@triton.jit
@no_type_check
def _rows(rays, R: tl.constexpr):
    """Scene of this program, rows of its rays in tables over scenes and rays, and which exist."""
    scene = tl.program_id(1).to(tl.int64)
    ray = tl.program_id(0) * R + tl.arange(0, R)
    return scene, scene * rays + ray, ray < rays


@triton.jit
@no_type_check
def _vectors(table, row, here):
    """Columns x, y, z of rows of a table."""
    x = tl.load(table + row * 3, mask=here, other=0.0)
    y = tl.load(table + row * 3 + 1, mask=here, other=0.0)
    z = tl.load(table + row * 3 + 2, mask=here, other=0.0)
    return x, y, z


@triton.jit
@no_type_check
def _store_vectors(table, x, y, z, row, here):
    """Writes what `_vectors` reads."""
    tl.store(table + row * 3, x, mask=here)
    tl.store(table + row * 3 + 1, y, mask=here)
    tl.store(table + row * 3 + 2, z, mask=here)


@triton.jit
@no_type_check
def _length(lengths, before, after, row, n, i, here, LENGTHS: tl.constexpr):
    """Of interval i: given, or the distance between its edges."""
    return tl.load(lengths + row * n + i, mask=here, other=0.0) if LENGTHS else after - before


@triton.jit
@no_type_check
def _product(one, two, row, n, here, R: tl.constexpr):
    """Sum over a row of the products of two tables."""
    total = tl.zeros([R], tl.float32)
    for start in range(0, n, 16):
        i = start + tl.arange(0, 16)
        real = here[:, None] & (i < n)[None, :]
        at = row[:, None] * n + i[None, :]
        first = tl.load(one + at, mask=real, other=0.0)
        second = tl.load(two + at, mask=real, other=0.0)
        total += tl.sum(first * second, 1)
    return total


@triton.jit
@no_type_check
def _passing(density, length, inside, last):
    """Share of light that passes an interval."""
    passing = tl.where(inside, tl.exp(-density * length), 1.0)
    return tl.where(last, 0.0, passing)
