"""Elementary functions of vectors, to float32 rounding, from polynomials.

Each is some ten to thirty instructions for LANES numbers, with no branch and no table.
"""

from unflat.rendering.backends.cpu.simd import (
    bits,
    fma,
    from_bits,
    inlined,
    larger,
    magnitude,
    smaller,
    splat,
    to_exponent,
)


@inlined
def exponential(x):
    """e^x to 2e-7 relative, for x in [-87, 88]; what lies beyond is held there.

    x = n ln 2 + r with |r| <= ln 2 / 2; e^r is a polynomial (Cephes), 2^n an exponent. Adding
    1.5 2^23 rounds to the whole number n, which then stands in the sum's lowest bits.
    """
    x = larger(smaller(x, splat(88.0)), splat(-87.0))
    shifted = fma(x, splat(1.44269504), splat(12582912.0))
    n = shifted - splat(12582912.0)
    r = fma(n, splat(2.12194440e-4), fma(n, splat(-0.693359375), x))
    p = fma(splat(1.9875691500e-4), r, splat(1.3981999507e-3))
    p = fma(p, r, splat(8.3334519073e-3))
    p = fma(p, r, splat(4.1665795894e-2))
    p = fma(p, r, splat(1.6666665459e-1))
    p = fma(p, r, splat(5.0000001201e-1))
    p = fma(p, r * r, r + splat(1.0))
    return from_bits(bits(p) + to_exponent(bits(shifted)))


@inlined
def sigmoid(x):
    """1 / (1 + e^-x)."""
    one = splat(1.0)
    return one / (one + exponential(splat(0.0) - x))


@inlined
def softplus(x):
    """log(1 + e^x) = max(x, 0) + log(1 + u) with u = e^-|x|, to 2e-7.

    log(1 + u) / u on [0, 1] is a polynomial fitted at Chebyshev points.
    """
    u = exponential(splat(0.0) - magnitude(x))
    p = fma(splat(0.0052534578), u, splat(-0.0295885074))
    p = fma(p, u, splat(0.0783616680))
    p = fma(p, u, splat(-0.1367476970))
    p = fma(p, u, splat(0.1911143110))
    p = fma(p, u, splat(-0.2484436990))
    p = fma(p, u, splat(0.3331927130))
    p = fma(p, u, splat(-0.4999950150))
    p = fma(p, u, splat(0.9999999710))
    return fma(p, u, larger(x, splat(0.0)))


@inlined
def slope_of_softplus(y):
    """The derivative of softplus where its value is y: sigmoid(x) = 1 - e^-y."""
    return splat(1.0) - exponential(splat(0.0) - y)


@inlined
def silu(x):
    """X / (1 + e^-x), and its derivative."""
    one = splat(1.0)
    share = sigmoid(x)
    y = x * share
    return y, fma(y, one - share, share)


@inlined
def half_turn(h):
    """Sine and cosine of pi h for h in [-1/2, 1/2], to 2e-7: polynomials in h^2."""
    z = h * h
    s = fma(splat(0.0776576603), z, splat(-0.598291286))
    s = fma(s, z, splat(2.55007752))
    s = fma(s, z, splat(-5.16771008))
    s = fma(s, z, splat(3.14159264))
    c = fma(splat(-0.0243963244), z, splat(0.234937314))
    c = fma(c, z, splat(-1.335212))
    c = fma(c, z, splat(4.05870916))
    c = fma(c, z, splat(-4.93480214))
    return s * h, fma(c, z, splat(1.0))
