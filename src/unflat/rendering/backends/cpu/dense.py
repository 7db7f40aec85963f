"""Layers of a small network for a block of samples, and the way back through them.

Numbers of a block are stored channel by channel: a flat array in which channel c of sample s stands
at c STRIDE + s. Weights are PyTorch's, ``out * into`` numbers row by row, their rows padded to a
multiple of four. A tile of 4 channels times 4 vectors of samples stays in registers while it is
summed, which comes near the rate of a large matrix product.
"""

from unflat.rendering.backends.cpu.simd import LANES, fma, inlined, load, peek, splat, store

STRIDE = 128
"""Samples of a block: two layers of 32 and 64 channels just fit a first-level cache."""
SAMPLES_OF_TILE = 4 * LANES


@inlined
def layer(weight, bias, x, y, out, into, count):
    """Y = weight x + bias for ``count`` samples, rounded up to whole tiles.

    Args:
        weight: out * into.
        bias: out.
        x: of ``into`` channels.
        y: of ``out`` channels, written.
        out: a multiple of 4.
        into: at least 1.
        count: at most STRIDE.
    """
    for s in range(0, count, SAMPLES_OF_TILE):
        for j in range(0, out, 4):
            w0, w1, w2, w3 = j * into, (j + 1) * into, (j + 2) * into, (j + 3) * into
            a0 = a1 = a2 = a3 = splat(peek(bias, j))
            b0 = b1 = b2 = b3 = splat(peek(bias, j + 1))
            c0 = c1 = c2 = c3 = splat(peek(bias, j + 2))
            d0 = d1 = d2 = d3 = splat(peek(bias, j + 3))
            for c in range(into):
                at = c * STRIDE + s
                x0, x1 = load(x, at), load(x, at + LANES)
                x2, x3 = load(x, at + 2 * LANES), load(x, at + 3 * LANES)
                w = splat(peek(weight, w0 + c))
                a0, a1, a2, a3 = fma(w, x0, a0), fma(w, x1, a1), fma(w, x2, a2), fma(w, x3, a3)
                w = splat(peek(weight, w1 + c))
                b0, b1, b2, b3 = fma(w, x0, b0), fma(w, x1, b1), fma(w, x2, b2), fma(w, x3, b3)
                w = splat(peek(weight, w2 + c))
                c0, c1, c2, c3 = fma(w, x0, c0), fma(w, x1, c1), fma(w, x2, c2), fma(w, x3, c3)
                w = splat(peek(weight, w3 + c))
                d0, d1, d2, d3 = fma(w, x0, d0), fma(w, x1, d1), fma(w, x2, d2), fma(w, x3, d3)
            _put(y, j * STRIDE + s, a0, a1, a2, a3)
            _put(y, (j + 1) * STRIDE + s, b0, b1, b2, b3)
            _put(y, (j + 2) * STRIDE + s, c0, c1, c2, c3)
            _put(y, (j + 3) * STRIDE + s, d0, d1, d2, d3)


@inlined
def add_products(sums, x, y, out, into, count):
    """sums[j, c] += y_j x_c, one sum for every lane: the gradient of a layer's weight.

    Args:
        sums: out * into * LANES.
        x: what went into the layer; ``into`` channels, a multiple of 4.
        y: gradient of what came out; ``out`` channels, a multiple of 4.
        out: rows of the weight.
        into: columns of the weight.
        count: samples; those up to the next multiple of LANES must be 0 in y.
    """
    for j in range(0, out, 4):
        for c in range(0, into, 4):
            r0 = (j * into + c) * LANES
            r1, r2, r3 = r0 + into * LANES, r0 + 2 * into * LANES, r0 + 3 * into * LANES
            a0, a1, a2, a3 = _four(sums, r0)
            b0, b1, b2, b3 = _four(sums, r1)
            c0, c1, c2, c3 = _four(sums, r2)
            d0, d1, d2, d3 = _four(sums, r3)
            for s in range(0, count, LANES):
                at = c * STRIDE + s
                x0, x1 = load(x, at), load(x, at + STRIDE)
                x2, x3 = load(x, at + 2 * STRIDE), load(x, at + 3 * STRIDE)
                at = j * STRIDE + s
                g = load(y, at)
                a0, a1, a2, a3 = fma(g, x0, a0), fma(g, x1, a1), fma(g, x2, a2), fma(g, x3, a3)
                g = load(y, at + STRIDE)
                b0, b1, b2, b3 = fma(g, x0, b0), fma(g, x1, b1), fma(g, x2, b2), fma(g, x3, b3)
                g = load(y, at + 2 * STRIDE)
                c0, c1, c2, c3 = fma(g, x0, c0), fma(g, x1, c1), fma(g, x2, c2), fma(g, x3, c3)
                g = load(y, at + 3 * STRIDE)
                d0, d1, d2, d3 = fma(g, x0, d0), fma(g, x1, d1), fma(g, x2, d2), fma(g, x3, d3)
            _put(sums, r0, a0, a1, a2, a3)
            _put(sums, r1, b0, b1, b2, b3)
            _put(sums, r2, c0, c1, c2, c3)
            _put(sums, r3, d0, d1, d2, d3)


@inlined
def add_rows(sums, y, out, count):
    """sums[j] += y_j, one sum for every lane: the gradient of a layer's bias."""
    for j in range(out):
        a = load(sums, j * LANES)
        for s in range(0, count, LANES):
            a = a + load(y, j * STRIDE + s)
        store(sums, j * LANES, a)


@inlined
def _put(array, place, a, b, c, d):
    store(array, place, a)
    store(array, place + LANES, b)
    store(array, place + 2 * LANES, c)
    store(array, place + 3 * LANES, d)


@inlined
def _four(array, place):
    return (
        load(array, place),
        load(array, place + LANES),
        load(array, place + 2 * LANES),
        load(array, place + 3 * LANES),
    )
