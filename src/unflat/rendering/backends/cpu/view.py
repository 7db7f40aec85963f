"""Coordinates (u, v, delta) of `unflat.fields.viewspace` for vectors of samples."""

import numpy as np

from unflat.fields.viewspace import MARGIN
from unflat.geometry.projective import Frame
from unflat.rendering.backends.cpu.dense import STRIDE
from unflat.rendering.backends.cpu.simd import (
    LANES,
    fma,
    inlined,
    larger,
    load,
    peek,
    root,
    smaller,
    splat,
    store,
    where_less,
)


def numbers(frame: Frame) -> np.ndarray:
    """What the functions below know of a frame."""
    span = frame.d_near - frame.d_far
    return np.array(
        [
            *(frame.focal_true, frame.a, frame.b, frame.d_far, 1 / span),
            *(0.2 * frame.d_far, 2 * frame.d_near, 4 * frame.d_near, frame.focal_ratio),
        ],
        np.float32,
    )


@inlined
def assumed_length(frame, line, near, far):
    """Straight line between two distances of a ray, in the assumed space."""
    ox, oy, oz, dx, dy, dz = line
    x0, y0, z0 = _assumed(frame, fma(near, dx, ox), fma(near, dy, oy), fma(near, dz, oz))
    x1, y1, z1 = _assumed(frame, fma(far, dx, ox), fma(far, dy, oy), fma(far, dz, oz))
    x, y, z = x1 - x0, y1 - y0, z1 - z0
    return root(fma(x, x, fma(y, y, z * z)))


@inlined
def _assumed(frame, x, y, z):
    """`unflat.fields.assumed_points`."""
    one = splat(np.float32(1))
    farthest, nearest = splat(peek(frame, 5)), splat(peek(frame, 7))
    widest = splat(np.float32(64))
    inverse = one / larger(z, splat(np.float32(1e-6)))
    disparity = fma(splat(peek(frame, 1)), inverse, splat(peek(frame, 2)))
    disparity = smaller(larger(disparity, farthest), nearest)
    depth = one / disparity
    scale = splat(peek(frame, 8)) * inverse
    return _held(x * scale, widest) * depth, _held(y * scale, widest) * depth, depth


@inlined
def _held(x, limit):
    return larger(smaller(x, limit), splat(np.float32(0)) - limit)


@inlined
def to_view(frame, block, places, delta, factor, count):
    """`unflat.fields.view_coordinates`: coordinates of planes, delta, and density's factor."""
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    tiny = splat(np.float32(1e-6))
    a, b, d_far = splat(peek(frame, 1)), splat(peek(frame, 2)), splat(peek(frame, 3))
    per_span, lowest, highest = (
        splat(peek(frame, 4)),
        splat(peek(frame, 5)),
        splat(peek(frame, 6)),
    )
    for s in range(0, count, LANES):
        z = load(block.z, s)
        inverse = one / larger(z, tiny)
        scale = splat(peek(frame, 0)) * inverse
        disparity = fma(a, inverse, b)
        held = larger(disparity, lowest)
        weight = where_less(tiny, z, where_less(disparity, highest, one, zero), zero)
        store(factor, s, weight * held * held * per_span)
        nearness = smaller(larger((disparity - d_far) * per_span, zero), splat(np.float32(1.5)))
        place(places, delta, s, load(block.x, s) * scale, load(block.y, s) * scale, nearness)


@inlined
def place(places, delta, s, u, v, nearness):
    """Where the planes are looked up."""
    outer = splat(np.float32(1 / MARGIN))
    store(delta, s, nearness)
    store(places, s, u)
    store(places, STRIDE + s, v)
    store(places, 2 * STRIDE + s, fma(splat(np.float32(-2)), nearness, splat(np.float32(1))))
    store(places, 3 * STRIDE + s, u * outer)
    store(places, 4 * STRIDE + s, v * outer)
