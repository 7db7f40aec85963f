"""Blocks of samples along rays: where they lie, which are asked, how light passes them.

With d_i = density_i length_i, T_i = exp(-sum over j < i of d_j), w_i = T_i (1 - exp(-d_i)) and g_i
the gradient that weight i receives, its own and through the features,

    dL/dd_i = g_i T_(i+1) - sum over j > i of g_j w_j.

The sum over all j is known from what the march forward gave, so one march front to back makes all
gradients, and nothing is kept but features and weights.
"""

from typing import Any, NamedTuple

import numpy as np

from unflat.rendering.backends.cpu.dense import STRIDE
from unflat.rendering.backends.cpu.functions import exponential
from unflat.rendering.backends.cpu.kinds import measure
from unflat.rendering.backends.cpu.simd import LANES, fma, inlined, load, splat, store

SLAB = 8
"""Intervals of a block; between blocks, rays whose light is spent are left."""
RAYS = STRIDE // SLAB
"""Rays of a block."""
SKIPPING = 4
"""So many times more intervals make a block where most are skipped."""


class Block(NamedTuple):
    """Samples along some rays; that of lane r in interval i stands at i * lanes + r."""

    stride: int
    """Room for samples."""
    x: Any
    """Middles of the intervals, world units; ``stride`` numbers, like all that follow."""
    y: Any
    z: Any
    length: Any
    density: Any
    weight: Any
    features: Any
    """Channel by channel: channels * stride."""
    density_gradient: Any
    feature_gradient: Any
    x_gradient: Any
    y_gradient: Any
    z_gradient: Any
    length_gradient: Any


class RayArrays(NamedTuple):
    """Rays of all scenes, one after the other."""

    origins: Any
    """Rays * 3."""
    directions: Any
    edges: Any
    """Rays * (intervals + 1)."""
    lengths: Any
    """Rays * intervals, or nothing: as the field measures them."""
    intervals: int


class Grid(NamedTuple):
    """Where samples are asked: cells of a box that may hold matter."""

    cells: Any
    """Scenes * z * y * x of uint8, 1 where matter may be; nothing: samples are asked everywhere."""
    low: Any
    """Lowest corner of the box, three numbers."""
    scale: Any
    """Cells per world unit along x, y, z."""
    shape: Any
    """Cells along x, y, z."""
    scenes: int
    """As many as the field's, or one for all."""
    outside: bool
    """Whether samples outside of the box are asked."""


class Given(NamedTuple):
    """What the march back starts from, and where it leaves gradients of rays."""

    features: Any
    """As `forward` wrote them."""
    weights: Any
    feature_gradient: Any
    weight_gradient: Any
    origins: Any
    """Written, if cameras get gradients; rays * 3."""
    directions: Any
    lengths: Any
    """Written, unless it has no room."""


@inlined
def most_intervals(grid):
    """Intervals of a block."""
    return SLAB * SKIPPING if grid.cells.size else SLAB


@inlined
def new_block(channels, stride):
    """Room for a block of samples."""
    many = channels * stride
    return Block(
        stride,
        np.zeros(stride, np.float32),
        np.zeros(stride, np.float32),
        np.zeros(stride, np.float32),
        np.zeros(stride, np.float32),
        np.zeros(stride, np.float32),
        np.zeros(stride, np.float32),
        np.zeros(many, np.float32),
        np.zeros(stride, np.float32),
        np.zeros(many, np.float32),
        np.zeros(stride, np.float32),
        np.zeros(stride, np.float32),
        np.zeros(stride, np.float32),
        np.zeros(stride, np.float32),
    )


@inlined
def aim(rays, alive, left, light, line):
    """Fills whole vectors with rays; the last is repeated, without light. Gives their number."""
    lanes = (left + LANES - 1) // LANES * LANES
    for lane in range(lanes):
        ray = alive[min(lane, left - 1)]
        for axis in range(3):
            line[axis * RAYS + lane] = rays.origins[ray * 3 + axis]
            line[(3 + axis) * RAYS + lane] = rays.directions[ray * 3 + axis]
        if lane >= left:
            light[lane] = 0
    return lanes


@inlined
def cut(field, rays, alive, left, line, begin, slab, lanes, block):
    """Middles of the intervals and their lengths."""
    n, given = rays.intervals, rays.lengths.size > 0
    near, far = block.x, block.y  # until they are places
    for lane in range(lanes):
        ray = alive[min(lane, left - 1)]
        edge = ray * (n + 1) + begin
        for i in range(slab):
            near[i * lanes + lane] = rays.edges[edge + i]
            far[i * lanes + lane] = rays.edges[edge + i + 1]
            if given:
                block.length[i * lanes + lane] = rays.lengths[ray * n + begin + i]
    half = splat(np.float32(0.5))
    for v in range(0, lanes, LANES):
        ox, oy, oz = load(line, v), load(line, RAYS + v), load(line, 2 * RAYS + v)
        dx, dy, dz = load(line, 3 * RAYS + v), load(line, 4 * RAYS + v), load(line, 5 * RAYS + v)
        for at in range(v, slab * lanes, lanes):
            start, end = load(near, at), load(far, at)
            if not given:
                store(block.length, at, measure(field, (ox, oy, oz, dx, dy, dz), start, end))
            middle = half * (start + end)
            store(block.x, at, fma(middle, dx, ox))
            store(block.y, at, fma(middle, dy, oy))
            store(block.z, at, fma(middle, dz, oz))


@inlined
def shine(block, light, sums, lanes, slab, closed, channels):
    """Weights of a block, the light that passes it, and what it adds to features.

    Interval ``closed`` takes all light; none does if it is ``slab``.
    """
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    for v in range(0, lanes, LANES):
        passing = load(light, v)
        for i in range(slab):
            at = i * lanes + v
            through = exponential(zero - load(block.density, at) * load(block.length, at))
            if i == closed:
                through = zero
            store(block.weight, at, passing * (one - through))
            passing = passing * through
        store(light, v, passing)
        for k in range(channels):
            a = zero
            for at in range(v, slab * lanes, lanes):
                a = fma(load(block.weight, at), load(block.features, k * block.stride + at), a)
            store(sums, k * RAYS + v, a)


@inlined
def shine_back(block, light, rest, wish, shares, lanes, slab, closed, channels):
    """Gradients of a block's density, features and lengths.

    Args:
        block: read and written.
        light: that reaches the block; becomes what passes it.
        rest: sum of g_j w_j over this block and all that follow; becomes that of what follows.
        wish: gradients of the rays' features, channels * RAYS.
        shares: gradients of the block's weights.
        lanes: rays in the block, whole vectors.
        slab: intervals.
        closed: as in `shine`.
        channels: of the features.
    """
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    for v in range(0, lanes, LANES):
        passing, following = load(light, v), load(rest, v)
        for i in range(slab):
            at = i * lanes + v
            density, length = load(block.density, at), load(block.length, at)
            through = exponential(zero - density * length)
            if i == closed:
                through = zero
            weight = passing * (one - through)
            g = load(shares, at)
            for k in range(channels):
                asked = load(wish, k * RAYS + v)
                g = fma(asked, load(block.features, k * block.stride + at), g)
                store(block.feature_gradient, k * block.stride + at, asked * weight)
            passing = passing * through
            following = following - g * weight
            change = g * passing - following
            if i == closed:
                change = zero
            store(block.density_gradient, at, change * length)
            store(block.length_gradient, at, change * density)
        store(light, v, passing)
        store(rest, v, following)


@inlined
def all_that_follows(given, ray, n, channels):
    """Sum of g_j w_j over a whole ray, from what the march forward gave."""
    following = np.float32(0)
    for k in range(ray * channels, (ray + 1) * channels):
        following += given.feature_gradient[k] * given.features[k]
    for i in range(ray * n, (ray + 1) * n):
        following += given.weight_gradient[i] * given.weights[i]
    return following


@inlined
def wishes(given, alive, left, lanes, begin, slab, n, channels, wish, shares):
    """Gradients that come in, lane by lane; 0 for repeated rays."""
    for lane in range(lanes):
        ray, real = alive[min(lane, left - 1)], lane < left
        for k in range(channels):
            value = given.feature_gradient[ray * channels + k]
            wish[k * RAYS + lane] = value if real else np.float32(0)
        for i in range(slab):
            value = given.weight_gradient[ray * n + begin + i]
            shares[i * lanes + lane] = value if real else np.float32(0)


@inlined
def to_cameras(rays, given, alive, left, lanes, begin, slab, block):
    """What the samples' places ask of origins and directions."""
    half = np.float32(0.5)
    for lane in range(left):
        ray = alive[lane]
        edge = ray * (rays.intervals + 1) + begin
        for i in range(slab):
            middle = half * (rays.edges[edge + i] + rays.edges[edge + i + 1])
            at = i * lanes + lane
            gx, gy, gz = block.x_gradient[at], block.y_gradient[at], block.z_gradient[at]
            given.origins[ray * 3] += gx
            given.origins[ray * 3 + 1] += gy
            given.origins[ray * 3 + 2] += gz
            given.directions[ray * 3] += middle * gx
            given.directions[ray * 3 + 1] += middle * gy
            given.directions[ray * 3 + 2] += middle * gz


@inlined
def keep(alive, light, rest, left, least_light):
    """Moves rays that still carry light to the front, with what belongs to them; their number."""
    kept = 0
    for lane in range(left):
        if light[lane] > least_light:
            alive[kept], light[kept], rest[kept] = alive[lane], light[lane], rest[lane]
            kept += 1
    return kept


@inlined
def choose(grid, scene, block, left, lanes, slab, closed, chosen):
    """Numbers of the samples that are asked, in order; gives how many."""
    nx, ny, nz = grid.shape[0], grid.shape[1], grid.shape[2]
    base = (scene if grid.scenes > 1 else 0) * nx * ny * nz
    count = 0
    for i in range(slab):
        for lane in range(left):
            at = i * lanes + lane
            x = (block.x[at] - grid.low[0]) * grid.scale[0]
            y = (block.y[at] - grid.low[1]) * grid.scale[1]
            z = (block.z[at] - grid.low[2]) * grid.scale[2]
            if x >= 0 and y >= 0 and z >= 0 and x <= nx and y <= ny and z <= nz:
                column, row = min(int(x), nx - 1), min(int(y), ny - 1)
                cell = (min(int(z), nz - 1) * ny + row) * nx + column
                wanted = grid.cells[base + cell] != 0
            else:
                wanted = grid.outside
            if wanted or i == closed:  # its color is seen whether or not anything is there
                chosen[count] = at
                count += 1
    return count


@inlined
def clear(block, count, channels):
    """Nothing is where nothing is asked."""
    zero = splat(np.float32(0))
    for s in range(0, count, LANES):
        store(block.density, s, zero)
        store(block.x_gradient, s, zero)
        store(block.y_gradient, s, zero)
        store(block.z_gradient, s, zero)
        for k in range(channels):
            store(block.features, k * block.stride + s, zero)


@inlined
def pack(block, packed, chosen, part, some):
    """Places of chosen samples, the last repeated to whole vectors; gives their number."""
    whole = (some + LANES - 1) // LANES * LANES
    for s in range(whole):
        at = chosen[part + min(s, some - 1)]
        packed.x[s], packed.y[s], packed.z[s] = block.x[at], block.y[at], block.z[at]
    return whole


@inlined
def unpack(block, packed, chosen, part, some, channels):
    """Density and features of chosen samples, back to where they belong."""
    for s in range(some):
        at = chosen[part + s]
        block.density[at] = packed.density[s]
        for k in range(channels):
            block.features[k * block.stride + at] = packed.features[k * STRIDE + s]


@inlined
def pack_gradients(block, packed, chosen, part, some, whole, channels):
    """Gradients of chosen samples; 0 for repeated ones."""
    for s in range(whole):
        at, real = chosen[part + min(s, some - 1)], s < some
        packed.density_gradient[s] = block.density_gradient[at] if real else np.float32(0)
        for k in range(channels):
            value = block.feature_gradient[k * block.stride + at]
            packed.feature_gradient[k * STRIDE + s] = value if real else np.float32(0)


@inlined
def unpack_places(block, packed, chosen, part, some):
    """Gradients of chosen samples' places, back to where they belong."""
    for s in range(some):
        at = chosen[part + s]
        block.x_gradient[at] = packed.x_gradient[s]
        block.y_gradient[at] = packed.y_gradient[s]
        block.z_gradient[at] = packed.z_gradient[s]
