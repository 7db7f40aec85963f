"""What the network of a tri-plane gives, as density and features, and the way back.

``field`` and ``space`` are those of `triplane`; ``space.raw`` holds what the network gave, channel
by channel, and on the way back its gradients.
"""

import numpy as np

from unflat.rendering.backends.cpu.dense import STRIDE
from unflat.rendering.backends.cpu.functions import (
    exponential,
    sigmoid,
    slope_of_softplus,
    softplus,
)
from unflat.rendering.backends.cpu.simd import (
    LANES,
    fma,
    inlined,
    larger,
    load,
    magnitude,
    peek,
    smaller,
    splat,
    store,
    where_less,
)


@inlined
def show_colors(field, block, space, count):
    """`unflat.fields.FeatureDecoder`: softplus for density, a stretched sigmoid for color."""
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    wide, shift = splat(np.float32(1.002)), splat(np.float32(-0.001))
    for s in range(0, count, LANES):
        density = softplus(load(space.raw, s) - one)
        store(space.raw, s, density)
        store(block.density, s, density * load(space.inside, s))
    for k in range(0, field.channels * STRIDE, STRIDE):
        for s in range(k, k + count, LANES):
            color = fma(sigmoid(load(space.raw, STRIDE + s)), wide, shift)
            store(block.features, s, smaller(larger(color, zero), one))


@inlined
def unshow_colors(field, block, space, count):
    """Gradients of what the network gave, from those of density and color, in its place."""
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    wide, shift = splat(np.float32(1.002)), splat(np.float32(0.001))
    for s in range(0, count, LANES):
        slope = slope_of_softplus(load(space.raw, s)) * load(space.inside, s)
        store(space.raw, s, slope * load(block.density_gradient, s))
    for k in range(0, field.channels * STRIDE, STRIDE):
        for s in range(k, k + count, LANES):
            color = load(block.features, s)
            share = (color + shift) / wide
            slope = wide * share * (one - share)
            slope = where_less(zero, color, where_less(color, one, slope, zero), zero)
            store(space.raw, STRIDE + s, slope * load(block.feature_gradient, s))
    _clear_padding(field, space, count)


@inlined
def show_choices(field, block, space, count):
    """`unflat.fields.DistanceTriplaneField`: Laplace density of a distance, softmax of the rest."""
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    per_alpha = one / splat(peek(field.laplace, 0))
    for s in range(0, count, LANES):
        distance = load(space.raw, s)
        tail = _tail(field, distance)
        share = where_less(zero, distance, tail, one - tail)
        store(block.density, s, share * per_alpha * load(space.inside, s))
    last = field.channels * STRIDE
    for s in range(0, count, LANES):
        most = load(space.raw, STRIDE + s)
        for k in range(2 * STRIDE + s, STRIDE + last, STRIDE):
            most = larger(most, load(space.raw, k))
        total = zero
        for k in range(s, last, STRIDE):
            share = exponential(load(space.raw, STRIDE + k) - most)
            total = total + share
            store(block.features, k, share)
        scale = one / total
        for k in range(s, last, STRIDE):
            store(block.features, k, scale * load(block.features, k))


@inlined
def unshow_choices(field, gradients, block, space, count):
    """The way back through `show_choices`, also to alpha and beta.

    With Psi's tail t = e^(-|d| / beta) / 2 the density 1 / alpha Psi(-d) changes by
    -t / (alpha beta) with d, by t d / (alpha beta^2) with beta, by -density / alpha with alpha.
    """
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    per_alpha = one / splat(peek(field.laplace, 0))
    per_beta = one / splat(peek(field.laplace, 1))
    of_alpha = of_beta = zero
    for s in range(0, count, LANES):
        distance, wish = load(space.raw, s), load(block.density_gradient, s)
        of_alpha = of_alpha - wish * per_alpha * load(block.density, s)
        slope = _tail(field, distance) * per_alpha * per_beta * load(space.inside, s)
        of_beta = fma(wish * slope, distance * per_beta, of_beta)
        # On the surface itself the slope of |d| is PyTorch's: 0.
        slope = where_less(zero, magnitude(distance), slope, zero)
        store(space.raw, s, zero - wish * slope)
    if gradients.laplace.size:
        store(gradients.laplace, 0, load(gradients.laplace, 0) + of_alpha)
        store(gradients.laplace, LANES, load(gradients.laplace, LANES) + of_beta)
    last = field.channels * STRIDE
    for s in range(0, count, LANES):
        mean = zero
        for k in range(s, last, STRIDE):
            mean = fma(load(block.features, k), load(block.feature_gradient, k), mean)
        for k in range(s, last, STRIDE):
            slope = load(block.features, k) * (load(block.feature_gradient, k) - mean)
            store(space.raw, STRIDE + k, slope)
    _clear_padding(field, space, count)


@inlined
def _tail(field, distance):
    """Half of e^(-|d| / beta)."""
    zero, per_beta = splat(np.float32(0)), splat(np.float32(1)) / splat(peek(field.laplace, 1))
    return splat(np.float32(0.5)) * exponential(zero - magnitude(distance) * per_beta)


@inlined
def _clear_padding(field, space, count):
    zero = splat(np.float32(0))
    for k in range((1 + field.channels) * STRIDE, field.raw * STRIDE, STRIDE):
        for s in range(k, k + count, LANES):
            store(space.raw, s, zero)
