"""The decoder's weights and functions, as kernels take them."""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def decoder(
    into, into_bias, out, out_bias,
    CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, OUT: tl.constexpr,
    C: tl.constexpr, H: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Weights of the two layers as [C, H] and [H, K], and their biases, 0 where padded."""
    channel, unit, column = tl.arange(0, C), tl.arange(0, H), tl.arange(0, K)
    real = (channel < CHANNELS)[:, None] & (unit < HIDDEN)[None, :]
    into_w = tl.load(into + unit[None, :] * CHANNELS + channel[:, None], mask=real, other=0.0)
    into_b = tl.load(into_bias + unit, mask=unit < HIDDEN, other=0.0)
    real = (unit < HIDDEN)[:, None] & (column < OUT)[None, :]
    out_w = tl.load(out + column[None, :] * HIDDEN + unit[:, None], mask=real, other=0.0)
    out_b = tl.load(out_bias + column, mask=column < OUT, other=0.0)
    return into_w, into_b, out_w, out_b


@triton.jit
@no_type_check
def column_of(table, which: tl.constexpr):
    """One column of [R, K]."""
    column = tl.arange(0, table.shape[1])
    return tl.sum(tl.where(column[None, :] == which, table, 0.0), 1)


@triton.jit
@no_type_check
def softplus(x):
    """log(1 + exp(x)), without overflow."""
    return tl.maximum(x, 0.0) + tl.log(1 + tl.exp(-tl.abs(x)))


@triton.jit
@no_type_check
def sigmoid(x):
    """1 / (1 + exp(-x)), without overflow."""
    small = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, small) / (1 + small)


@triton.jit
@no_type_check
def color(sigmoid):
    """The decoder's stretched sigmoid, cut to [0, 1]."""
    return tl.minimum(tl.maximum(sigmoid * 1.002 - 0.001, 0.0), 1.0)


@triton.jit
@no_type_check
def color_slope(sigmoid):
    """Derivative of `_color` by what the sigmoid was of."""
    color = sigmoid * 1.002 - 0.001
    return tl.where((color >= 0) & (color <= 1), 1.002 * sigmoid * (1 - sigmoid), 0.0)
