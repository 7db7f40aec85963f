"""What `unflat.fields.ViewSpaceDecoder` does between its layers, and the way back.

``field`` and ``space`` are those of `viewspace`: numbers of a block, channel by channel.
"""

import numpy as np

from unflat.fields.viewspace import SURFACE_CHANNELS, ViewSpaceDecoder
from unflat.rendering.backends.cpu.dense import STRIDE
from unflat.rendering.backends.cpu.functions import (
    half_turn,
    sigmoid,
    silu,
    slope_of_softplus,
    softplus,
)
from unflat.rendering.backends.cpu.simd import (
    LANES,
    floor,
    fma,
    inlined,
    larger,
    load,
    smaller,
    splat,
    store,
    where_less,
)

OCTAVES = ViewSpaceDecoder.OCTAVES
SOFTNESS = ViewSpaceDecoder.SOFTNESS
WAVES = 2 + 2 * OCTAVES
"""Numbers that stand for delta; a multiple of 2, then the surface's features follow."""
SEEN = (WAVES + len(SOFTNESS) + 3) // 4 * 4
"""All that the modulation is made from, padded."""
SURFACE, FEATURES = 3 * STRIDE, SURFACE_CHANNELS * STRIDE
"""Where the picture's channels of that name begin."""


@inlined
def see(field, space, count):
    """Waves of delta, each octave from the one below, and how near the surface is."""
    one, two, half = splat(np.float32(1)), splat(np.float32(2)), splat(np.float32(0.5))
    minus_two, seen = splat(np.float32(-2)), space.seen
    for s in range(0, count, LANES):
        delta = load(space.delta, s)
        store(seen, s, delta)
        store(seen, STRIDE + s, delta * delta)
        turn = half * delta
        sine, cosine = half_turn(turn - floor(turn + half))
        for octave in range(OCTAVES):
            sine, cosine = two * sine * cosine, fma(minus_two * sine, sine, one)
            store(seen, (2 + octave) * STRIDE + s, sine)
            store(seen, (2 + OCTAVES + octave) * STRIDE + s, cosine)
        if field.surface:
            ahead = load(space.picture, SURFACE + s) + half - delta
            for k in range(len(SOFTNESS)):
                x = ahead * splat(np.float32(2 / SOFTNESS[k]))
                store(seen, (WAVES + k) * STRIDE + s, fma(two, sigmoid(x), splat(np.float32(-1))))


@inlined
def hide(field, space, count):
    """The hidden numbers, activated: features scaled, shifted, and the sides' added."""
    shift = field.size * STRIDE
    for channel in range(0, shift, STRIDE):
        for s in range(channel, channel + count, LANES):
            x = load(space.picture, FEATURES + s)
            x = fma(x, load(space.modulation, s), x) + load(space.modulation, shift + s)
            y, slope = silu(x + load(space.sides, s))
            store(space.first, s, y)
            store(space.first_slope, s, slope)


@inlined
def activate(x, slope, channels, count):
    """SiLU in place, and its slope."""
    for at in range(0, channels * STRIDE, STRIDE):
        for s in range(at, at + count, LANES):
            value, rise = silu(load(x, s))
            store(x, s, value)
            store(slope, s, rise)


@inlined
def show(field, block, space, count):
    """Density and color."""
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    thirty = splat(np.float32(30))
    for s in range(0, count, LANES):
        logit = load(space.raw, s) - splat(np.float32(2.5))
        if field.surface:
            logit = fma(splat(np.float32(8)), _slab(space, s), logit)
            logit = logit - splat(np.float32(3.5))
        density, factor = softplus(logit), thirty * load(space.factor, s)
        store(block.density, s, factor * density)
        store(space.slope, s, factor * slope_of_softplus(density))
    for k in range(0, 3 * STRIDE, STRIDE):
        for s in range(k, k + count, LANES):
            x = load(space.raw, STRIDE + s) + load(space.picture, s)
            store(space.raw, STRIDE + s, x)
            store(block.features, s, x if field.canonical else smaller(larger(x, zero), one))


@inlined
def _slab(space, s):
    """Whether samples are in the matter behind the surface, softly: 1 inside, 0 outside."""
    soft = splat(np.float32(1 / SOFTNESS[0]))
    ahead = load(space.picture, SURFACE + s) + splat(np.float32(0.5)) - load(space.delta, s)
    thickness = softplus(load(space.picture, SURFACE + STRIDE + s) - splat(np.float32(2)))
    beyond = thickness + splat(np.float32(0.02)) - ahead
    front, back = sigmoid(ahead * soft), sigmoid(beyond * soft)
    store(space.thickness, s, thickness)
    store(space.behind, s, front)
    store(space.behind, STRIDE + s, back)
    return front * back


@inlined
def unshow(field, block, space, count):
    """Gradients of logit and color in their place, and of the plane's own five numbers."""
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    soft = splat(np.float32(8 / SOFTNESS[0]))
    for s in range(0, count, LANES):
        wish = load(space.slope, s) * load(block.density_gradient, s)
        store(space.raw, s, wish)
        if field.surface:
            front, back = load(space.behind, s), load(space.behind, STRIDE + s)
            wish = soft * wish * front * back
            thickness = slope_of_softplus(load(space.thickness, s)) * (one - back)
            store(space.picture, SURFACE + s, wish * (back - front))
            store(space.picture, SURFACE + STRIDE + s, wish * thickness)
        else:
            store(space.picture, SURFACE + s, zero)
            store(space.picture, SURFACE + STRIDE + s, zero)
    for k in range(0, 3 * STRIDE, STRIDE):
        for s in range(k, k + count, LANES):
            wish, x = load(block.feature_gradient, s), load(space.raw, STRIDE + s)
            if not field.canonical:
                wish = where_less(x, zero, zero, where_less(one, x, zero, wish))
            store(space.raw, STRIDE + s, wish)
            store(space.picture, s, wish)


@inlined
def times(x, slope, channels, count):
    """The way back through `activate`: x becomes x times the slope."""
    for at in range(0, channels * STRIDE, STRIDE):
        for s in range(at, at + count, LANES):
            store(x, s, load(x, s) * load(slope, s))


@inlined
def unhide(field, space, count):
    """Gradients of scale, shift and features from that of their sum, in their places."""
    one, shift = splat(np.float32(1)), field.size * STRIDE
    for channel in range(0, shift, STRIDE):
        for s in range(channel, channel + count, LANES):
            wish, scale = load(space.sides, s), load(space.modulation, s)
            store(space.modulation, s, wish * load(space.picture, FEATURES + s))
            store(space.modulation, shift + s, wish)
            store(space.picture, FEATURES + s, wish * (one + scale))


@inlined
def unsee(field, space, count):
    """The surface's gradient through its features."""
    one = splat(np.float32(1))
    for s in range(0, count, LANES):
        wish = load(space.picture, SURFACE + s)
        for k in range(len(SOFTNESS)):
            t = load(space.seen, (WAVES + k) * STRIDE + s)
            slope = (one - t * t) * splat(np.float32(1 / SOFTNESS[k]))
            wish = fma(slope, load(space.pulled, k * STRIDE + s), wish)
        store(space.picture, SURFACE + s, wish)
