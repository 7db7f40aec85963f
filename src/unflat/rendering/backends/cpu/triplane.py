"""Three planes and a network of one hidden layer (`unflat.fields.TriplaneField`) for the march."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unflat.fields.triplane import FeatureDecoder, TriplaneField
from unflat.rendering.backends.cpu import march
from unflat.rendering.backends.cpu.adapter import cropped, flat, multiple, padded
from unflat.rendering.backends.cpu.dense import STRIDE, add_products, add_rows, layer
from unflat.rendering.backends.cpu.functions import sigmoid, slope_of_softplus, softplus
from unflat.rendering.backends.cpu.planes import (
    CORNERS,
    gather,
    place_corners,
    pull_coordinates,
    scatter,
    to_channels,
    to_samples,
)
from unflat.rendering.backends.cpu.simd import (
    LANES,
    fma,
    inlined,
    larger,
    load,
    magnitude,
    peek,
    root,
    smaller,
    splat,
    store,
    where_less,
)


class Triplane(NamedTuple):
    """The field as arrays; sizes are padded as `dense` and `planes` want them."""

    table: Any
    """Batch * 3 * height * width * size."""
    into: Any
    """Weight of the first layer, hidden * size."""
    into_bias: Any
    into_back: Any
    """The same weight transposed, size * hidden."""
    out: Any
    """Weight of the second layer, raw * hidden; row 0 is density."""
    out_bias: Any
    out_back: Any
    zeros: Any
    """A bias of nothing, for the ways back."""
    box: Any
    """Lowest corner and 2 / side of the box, six numbers; or nothing: all of space, contracted."""
    height: int
    width: int
    size: int
    """Numbers of a texel."""
    hidden: int
    raw: int
    channels: int


class TriplaneGradients(NamedTuple):
    """Added to; layers with one sum for every lane."""

    table: Any
    into: Any
    into_bias: Any
    out: Any
    out_bias: Any


class Space(NamedTuple):
    """What a block keeps between `ask` and `pull`."""

    places: Any
    """Three coordinates in the planes, 3 * STRIDE."""
    inside: Any
    corners: Any
    shares: Any
    slopes: Any
    texels: Any
    x: Any
    hidden: Any
    raw: Any
    change: Any
    """Gradient of ``hidden``."""
    pulled: Any
    """Gradient of ``places``."""


class TriplaneAdapter:
    """`TriplaneField` with a `FeatureDecoder`, in a box or over contracted space."""

    gradients: ClassVar[type] = TriplaneGradients
    tables: ClassVar[tuple[str, ...]] = ("table",)
    cameras: ClassVar[bool] = True

    def refuses(self, field: TriplaneField) -> str | None:
        """Other decoders, and other precisions."""
        if type(field.decoder) is not FeatureDecoder:
            return f"it does not know {type(field.decoder).__name__}"
        decoder = _decoder(field)
        if field.planes.dtype not in (torch.float32, torch.bfloat16):
            return f"planes are {field.planes.dtype}; it takes float32 and bfloat16"
        if decoder.into.weight.dtype != torch.float32:
            return f"the decoder is {decoder.into.weight.dtype}; it takes float32"
        return None

    def tensors(self, field: TriplaneField) -> dict[str, Tensor]:
        """Planes and the two layers."""
        decoder = _decoder(field)
        into, out = decoder.into, decoder.out
        return {
            "table": field.planes,
            "into": into.weight,
            "into_bias": into.bias,
            "out": out.weight,
            "out_bias": out.bias,
        }

    def channels(self, field: TriplaneField) -> int:
        """Of the decoder's color."""
        return _decoder(field).out.out_features - 1

    def arrays(self, field: TriplaneField, tensors: Mapping[str, Tensor]) -> Triplane:
        """Sizes padded with zeros."""
        planes, into, out = tensors["table"], tensors["into"], tensors["out"]
        size, hidden, raw = _sizes(planes, into, out)
        table = planes.detach().permute(0, 1, 3, 4, 2)
        into = padded(into, hidden, size)
        out = padded(out, raw, hidden)
        box = np.zeros(0, np.float32)
        if hasattr(field, "bounds"):
            low, high = field.bounds.detach().float()
            box = flat(torch.cat([low, 2 / (high - low)]))
        return Triplane(
            table=flat(padded(table, *table.shape[:-1], size)),
            into=flat(into),
            into_bias=flat(padded(tensors["into_bias"], hidden)),
            into_back=flat(into.T),
            out=flat(out),
            out_bias=flat(padded(tensors["out_bias"], raw)),
            out_back=flat(out.T),
            zeros=np.zeros(max(hidden, size), np.float32),
            box=box,
            height=planes.shape[-2],
            width=planes.shape[-1],
            size=size,
            hidden=hidden,
            raw=raw,
            channels=tensors["out"].shape[0] - 1,
        )

    def gradient(
        self, name: str, array: np.ndarray, field: TriplaneField, tensor: Tensor
    ) -> Tensor:
        """Without the padding, in the order of the tensor."""
        decoder = _decoder(field)
        size, hidden, raw = _sizes(field.planes, decoder.into.weight, decoder.out.weight)
        if name == "table":
            values = torch.from_numpy(array).reshape(*tensor.shape[:2], *tensor.shape[3:], size)
            return values[..., : tensor.shape[2]].permute(0, 1, 4, 2, 3).to(tensor.dtype)
        sizes = {"into": (hidden, size), "into_bias": (hidden,), "out": (raw, hidden)}
        return cropped(array, sizes.get(name, (raw,)), tensor)


def _decoder(field: TriplaneField) -> FeatureDecoder:
    assert isinstance(field.decoder, FeatureDecoder)  # others are refused
    return field.decoder


def _sizes(planes: Tensor, into: Tensor, out: Tensor) -> tuple[int, int, int]:
    """Numbers of a texel, of the hidden layer and of what comes out, with padding."""
    size = multiple(planes.shape[2], LANES)
    return size, multiple(into.shape[0], 4), multiple(out.shape[0], 4)


@march.implements(march.workspace, Triplane)
def _workspace(field):
    return Space(
        np.zeros(3 * STRIDE, np.float32),
        np.zeros(STRIDE, np.float32),
        np.zeros(3 * CORNERS * STRIDE, np.int32),
        np.zeros(3 * CORNERS * STRIDE, np.float32),
        np.zeros(6 * STRIDE, np.float32),
        np.zeros(field.size * STRIDE, np.float32),
        np.zeros(field.size * STRIDE, np.float32),
        np.zeros(field.hidden * STRIDE, np.float32),
        np.zeros(field.raw * STRIDE, np.float32),
        np.zeros(field.hidden * STRIDE, np.float32),
        np.zeros(3 * STRIDE, np.float32),
    )


@march.implements(march.measure, Triplane)
def _measure(field, line, near, far):
    return far - near


@march.implements(march.ask, Triplane)
def _ask(field, scene, block, space, count):
    _place(field, block, space, count)
    plane = field.height * field.width * field.size
    for slot in range(3):
        place_corners(
            space.places,
            (slot // 2) * STRIDE,
            (1 + (slot + 1) // 2) * STRIDE,
            slot,
            space.corners,
            space.shares,
            space.slopes,
            slot * plane,
            field.height,
            field.width,
            field.size,
            count,
        )
    base = scene * 3 * plane
    gather(field.table, base, space.corners, space.shares, 0, 3, field.size, space.texels, count)
    to_channels(space.texels, field.size, space.x, 0, count)
    layer(field.into, field.into_bias, space.x, space.hidden, field.hidden, field.size, count)
    for at in range(0, field.hidden * STRIDE, STRIDE):
        for s in range(at, at + count, LANES):
            store(space.hidden, s, softplus(load(space.hidden, s)))
    layer(field.out, field.out_bias, space.hidden, space.raw, field.raw, field.hidden, count)
    _show(field, block, space, count)


@march.implements(march.pull, Triplane)
def _pull(field, gradients, scene, block, space, count, cameras):
    _unshow(field, block, space, count)
    if gradients.out.size:
        add_products(gradients.out, space.hidden, space.raw, field.raw, field.hidden, count)
        add_rows(gradients.out_bias, space.raw, field.raw, count)
    layer(field.out_back, field.zeros, space.raw, space.change, field.hidden, field.raw, count)
    for at in range(0, field.hidden * STRIDE, STRIDE):
        for s in range(at, at + count, LANES):
            slope = slope_of_softplus(load(space.hidden, s))
            store(space.change, s, slope * load(space.change, s))
    if gradients.into.size:
        add_products(gradients.into, space.x, space.change, field.hidden, field.size, count)
        add_rows(gradients.into_bias, space.change, field.hidden, count)
    layer(field.into_back, field.zeros, space.change, space.x, field.size, field.hidden, count)
    to_samples(space.x, 0, space.texels, field.size, count)
    base = scene * 3 * field.height * field.width * field.size
    if gradients.table.size:
        scatter(
            gradients.table,
            base,
            space.corners,
            space.shares,
            0,
            3,
            field.size,
            space.texels,
            count,
        )
    if cameras:
        _pull_places(field, base, block, space, count)


@inlined
def _place(field, block, space, count):
    """Coordinates in the planes, and which samples are inside the box (1, else 0)."""
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    places, inside = space.places, space.inside
    for s in range(0, count, LANES):
        x, y, z = load(block.x, s), load(block.y, s), load(block.z, s)
        if field.box.size:
            x = (x - splat(peek(field.box, 0))) * splat(peek(field.box, 3)) - one
            y = (y - splat(peek(field.box, 1))) * splat(peek(field.box, 4)) - one
            z = (z - splat(peek(field.box, 2))) * splat(peek(field.box, 5)) - one
            farthest = larger(magnitude(x), larger(magnitude(y), magnitude(z)))
            store(inside, s, where_less(one, farthest, zero, one))
        else:
            factor = _contraction(x, y, z)
            x, y, z = x * factor, y * factor, z * factor
            store(inside, s, one)
        store(places, s, x)
        store(places, STRIDE + s, y)
        store(places, 2 * STRIDE + s, z)


@inlined
def _contraction(x, y, z):
    """What a point is multiplied by: half of 1 inside the unit ball, of (2 - 1/r) / r outside."""
    half, one, two = splat(np.float32(0.5)), splat(np.float32(1)), splat(np.float32(2))
    norm = larger(root(fma(x, x, fma(y, y, z * z))), one)
    return half * (two - one / norm) / norm


@inlined
def _show(field, block, space, count):
    """Density and color from what the network gave."""
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    wide, shift = splat(np.float32(1.002)), splat(np.float32(-0.001))
    for s in range(0, count, LANES):
        density = softplus(load(space.raw, s) - one)
        store(space.raw, s, density)
        store(block.density, s, density * load(space.inside, s))
    for k in range(field.channels):
        for s in range(k * STRIDE, k * STRIDE + count, LANES):
            color = fma(sigmoid(load(space.raw, STRIDE + s)), wide, shift)
            store(block.features, s, smaller(larger(color, zero), one))


@inlined
def _unshow(field, block, space, count):
    """Gradients of what the network gave, from those of density and color, in its place."""
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    wide, shift = splat(np.float32(1.002)), splat(np.float32(0.001))
    for s in range(0, count, LANES):
        slope = slope_of_softplus(load(space.raw, s)) * load(space.inside, s)
        store(space.raw, s, slope * load(block.density_gradient, s))
    for k in range(field.channels):
        for s in range(k * STRIDE, k * STRIDE + count, LANES):
            color = load(block.features, s)
            share = (color + shift) / wide
            slope = wide * share * (one - share)
            slope = where_less(zero, color, where_less(color, one, slope, zero), zero)
            store(space.raw, STRIDE + s, slope * load(block.feature_gradient, s))
    for k in range(1 + field.channels, field.raw):  # padding
        for s in range(k * STRIDE, k * STRIDE + count, LANES):
            store(space.raw, s, zero)


@inlined
def _pull_places(field, base, block, space, count):
    """From gradients of texels to those of world points."""
    zero, one, two = splat(np.float32(0)), splat(np.float32(1)), splat(np.float32(2))
    half = splat(np.float32(0.5))
    pulled = space.pulled
    for s in range(3 * STRIDE):
        pulled[s] = 0
    for slot in range(3):
        pull_coordinates(
            field.table,
            base,
            space.corners,
            space.shares,
            space.slopes,
            slot,
            field.size,
            space.texels,
            pulled,
            (slot // 2) * STRIDE,
            (1 + (slot + 1) // 2) * STRIDE,
            count,
        )
    for s in range(0, count, LANES):
        gx, gy, gz = load(pulled, s), load(pulled, STRIDE + s), load(pulled, 2 * STRIDE + s)
        if field.box.size:
            gx = gx * splat(peek(field.box, 3))
            gy = gy * splat(peek(field.box, 4))
            gz = gz * splat(peek(field.box, 5))
        else:
            # With f(r) = (2 - 1/r) / (2 r) the gradient is f g + f'(r) / r (x . g) x.
            x, y, z = load(block.x, s), load(block.y, s), load(block.z, s)
            norm = root(fma(x, x, fma(y, y, z * z)))
            safe = larger(norm, one)
            factor = half * (two - one / safe) / safe
            bend = (one / safe - one) / (safe * safe * safe)
            bend = where_less(one, norm, bend, zero) * fma(x, gx, fma(y, gy, z * gz))
            gx, gy, gz = (
                fma(factor, gx, bend * x),
                fma(factor, gy, bend * y),
                fma(factor, gz, bend * z),
            )
        store(block.x_gradient, s, gx)
        store(block.y_gradient, s, gy)
        store(block.z_gradient, s, gz)
