"""Light along rays, block by block of samples, forward and back: the same loop for every field.

A block is up to RAYS rays times SLAB intervals, small enough for a core's own cache; it is asked,
summed and forgotten before the next.
"""

import numpy as np

from unflat.rendering.backends.cpu.blocks import (
    RAYS,
    Given,
    Grid,
    RayArrays,
    aim,
    all_that_follows,
    choose,
    clear,
    cut,
    keep,
    most_intervals,
    new_block,
    pack,
    pack_gradients,
    shine,
    shine_back,
    to_cameras,
    unpack,
    unpack_places,
    wishes,
)
from unflat.rendering.backends.cpu.dense import STRIDE
from unflat.rendering.backends.cpu.kinds import ask, implements, measure, pull, workspace
from unflat.rendering.backends.cpu.simd import LANES, compiled

__all__ = [
    "RAYS",
    "Given",
    "Grid",
    "RayArrays",
    "ask",
    "backward",
    "forward",
    "implements",
    "measure",
    "pull",
    "query",
    "workspace",
]


@compiled
def forward(
    field,
    rays,
    grid,
    scene,
    first,
    last,
    channels,
    opaque_last,
    least_light,
    features,
    weights,
):
    """Marches rays ``first`` to ``last`` (of all scenes, in one count) through a scene.

    Args:
        field: a named tuple.
        rays: all of them.
        grid: where samples are asked.
        scene: which of the field's.
        first: ray.
        last: ray after the last one.
        channels: of the features.
        opaque_last: the last interval takes all light that is left.
        least_light: what a ray may lose by ending early.
        features: written; rays * channels, 0 before.
        weights: written; rays * n, 0 before.
    """
    n, most = rays.intervals, most_intervals(grid)
    packed, space = new_block(channels, STRIDE), workspace(field)
    block = new_block(channels, most * RAYS) if grid.cells.size else packed
    line, alive = np.zeros(6 * RAYS, np.float32), np.zeros(RAYS, np.int64)
    light, sums = np.zeros(RAYS, np.float32), np.zeros(channels * RAYS, np.float32)
    chosen = np.zeros(most * RAYS, np.int64)
    for start in range(first, last, RAYS):
        left = min(RAYS, last - start)
        for lane in range(left):
            alive[lane], light[lane] = start + lane, 1
        for begin in range(0, n, most):
            slab = min(most, n - begin)
            lanes = aim(rays, alive, left, light, line)
            cut(field, rays, alive, left, line, begin, slab, lanes, block)
            closed = slab - 1 if opaque_last and begin + slab == n else slab
            if grid.cells.size:
                count = choose(grid, scene, block, left, lanes, slab, closed, chosen)
                clear(block, slab * lanes, channels)
                for part in range(0, count, STRIDE):
                    some = min(STRIDE, count - part)
                    ask(field, scene, packed, space, pack(block, packed, chosen, part, some))
                    unpack(block, packed, chosen, part, some, channels)
            else:
                ask(field, scene, block, space, slab * lanes)
            shine(block, light, sums, lanes, slab, closed, channels)
            for lane in range(left):
                ray = alive[lane]
                for k in range(channels):
                    features[ray * channels + k] += sums[k * RAYS + lane]
                for i in range(slab):
                    weights[ray * n + begin + i] = block.weight[i * lanes + lane]
            left = keep(alive, light, light, left, least_light)
            if left == 0:
                break


@compiled
def backward(
    field,
    gradients,
    rays,
    grid,
    scene,
    first,
    last,
    channels,
    opaque_last,
    least_light,
    given,
    cameras,
):
    """Marches again, now with gradients.

    Args:
        field: as in `forward`.
        gradients: a named tuple of the field's, added to.
        rays: as in `forward`.
        grid: as in `forward`.
        scene: as in `forward`.
        first: ray.
        last: ray after the last one.
        channels: of the features.
        opaque_last: as in `forward`.
        least_light: as in `forward`.
        given: what `forward` wrote, what is asked of it, and room for gradients of rays.
        cameras: whether origins and directions get gradients.
    """
    n, most = rays.intervals, most_intervals(grid)
    packed, space = new_block(channels, STRIDE), workspace(field)
    block = new_block(channels, most * RAYS) if grid.cells.size else packed
    line, alive = np.zeros(6 * RAYS, np.float32), np.zeros(RAYS, np.int64)
    light, rest = np.zeros(RAYS, np.float32), np.zeros(RAYS, np.float32)
    wish, shares = np.zeros(channels * RAYS, np.float32), np.zeros(most * RAYS, np.float32)
    chosen = np.zeros(most * RAYS, np.int64)
    for start in range(first, last, RAYS):
        left = min(RAYS, last - start)
        for lane in range(left):
            alive[lane], light[lane] = start + lane, 1
            rest[lane] = all_that_follows(given, start + lane, n, channels)
        for begin in range(0, n, most):
            slab = min(most, n - begin)
            lanes = aim(rays, alive, left, light, line)
            rest[left:lanes] = 0  # what rays that have ended left there
            cut(field, rays, alive, left, line, begin, slab, lanes, block)
            closed = slab - 1 if opaque_last and begin + slab == n else slab
            wishes(given, alive, left, lanes, begin, slab, n, channels, wish, shares)
            if grid.cells.size:
                count = choose(grid, scene, block, left, lanes, slab, closed, chosen)
                clear(block, slab * lanes, channels)
                for part in range(0, count, STRIDE):
                    some = min(STRIDE, count - part)
                    ask(field, scene, packed, space, pack(block, packed, chosen, part, some))
                    unpack(block, packed, chosen, part, some, channels)
                shine_back(block, light, rest, wish, shares, lanes, slab, closed, channels)
                for part in range(0, count, STRIDE):
                    some = min(STRIDE, count - part)
                    whole = pack(block, packed, chosen, part, some)
                    ask(field, scene, packed, space, whole)  # what `pull` needs, anew
                    pack_gradients(block, packed, chosen, part, some, whole, channels)
                    pull(field, gradients, scene, packed, space, whole, cameras)
                    unpack_places(block, packed, chosen, part, some)
            else:
                ask(field, scene, block, space, slab * lanes)
                shine_back(block, light, rest, wish, shares, lanes, slab, closed, channels)
                pull(field, gradients, scene, block, space, slab * lanes, cameras)
            if cameras:
                to_cameras(rays, given, alive, left, lanes, begin, slab, block)
            if given.lengths.size:
                for lane in range(left):
                    for i in range(slab):
                        at = alive[lane] * n + begin + i
                        given.lengths[at] = block.length_gradient[i * lanes + lane]
            left = keep(alive, light, rest, left, least_light)
            if left == 0:
                break


@compiled
def query(field, points, scene, first, last, channels, density, features):
    """Asks a scene at points ``first`` to ``last`` (of all scenes, in one count).

    Args:
        field: a named tuple.
        points: points * 3, world units.
        scene: which of the field's.
        first: point.
        last: point after the last one.
        channels: of the features.
        density: written; one for each point.
        features: written; points * channels.
    """
    block, space = new_block(channels, STRIDE), workspace(field)
    for start in range(first, last, STRIDE):
        some = min(STRIDE, last - start)
        count = (some + LANES - 1) // LANES * LANES
        for s in range(count):  # whole vectors: the last point is repeated
            at = (start + min(s, some - 1)) * 3
            block.x[s], block.y[s], block.z[s] = points[at], points[at + 1], points[at + 2]
        ask(field, scene, block, space, count)
        for s in range(some):
            density[start + s] = block.density[s]
            for k in range(channels):
                features[(start + s) * channels + k] = block.features[k * STRIDE + s]
