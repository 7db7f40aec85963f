"""Three planes and a network of one hidden layer for the march.

The march is that of every field of this kind; what its network gives is read by `heads`. The
adapter of `unflat.fields.TriplaneField` is here, that of fields of signed distances in `distance`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unflat.fields.triplane import FeatureDecoder, TriplaneField
from unflat.rendering.backends.cpu import march
from unflat.rendering.backends.cpu.adapter import cropped, flat, multiple, padded
from unflat.rendering.backends.cpu.dense import STRIDE, add_products, add_rows, layer
from unflat.rendering.backends.cpu.functions import slope_of_softplus, softplus
from unflat.rendering.backends.cpu.heads import (
    show_choices,
    show_colors,
    unshow_choices,
    unshow_colors,
)
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
    """Weight of the second layer, raw * hidden; row 0 is density or distance."""
    out_bias: Any
    out_back: Any
    zeros: Any
    """A bias of nothing, for the ways back."""
    box: Any
    """Lowest corner and 2 / side of the box, and what a plane's coordinates are then multiplied by:
    seven numbers; or nothing: all of space, contracted."""
    laplace: Any
    """Alpha and beta of a distance's density; or nothing: the network gives density and color."""
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
    laplace: Any


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
        return arrays(tensors, getattr(field, "bounds", None))

    def gradient(
        self, name: str, array: np.ndarray, field: TriplaneField, tensor: Tensor
    ) -> Tensor:
        """Without the padding, in the order of the tensor."""
        return gradient(name, array, tensor)


def _decoder(field: TriplaneField) -> FeatureDecoder:
    assert isinstance(field.decoder, FeatureDecoder)  # others are refused
    return field.decoder


def arrays(tensors: Mapping[str, Tensor], bounds: Tensor | None, stretch: float = 1.0) -> Triplane:
    """A field's arrays.

    Args:
        tensors: by the names of `TriplaneGradients`; without ``laplace``, the network gives colors.
        bounds: of the box; None: all of space, contracted.
        stretch: what coordinates in the box are multiplied by before planes are looked up.
    """
    planes, into, out = tensors["table"], tensors["into"], tensors["out"]
    size = multiple(planes.shape[2], LANES)
    hidden, raw = multiple(into.shape[0], 4), multiple(out.shape[0], 4)
    table = planes.detach().permute(0, 1, 3, 4, 2)
    into, out = padded(into, hidden, size), padded(out, raw, hidden)
    nothing = np.zeros(0, np.float32)
    box = nothing
    if bounds is not None:
        low, high = bounds.detach().float()
        box = flat(torch.cat([low, 2 / (high - low), low.new_tensor([stretch])]))
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
        laplace=flat(tensors["laplace"]) if "laplace" in tensors else nothing,
        height=planes.shape[-2],
        width=planes.shape[-1],
        size=size,
        hidden=hidden,
        raw=raw,
        channels=tensors["out"].shape[0] - 1,
    )


def gradient(name: str, array: np.ndarray, tensor: Tensor) -> Tensor:
    """Of one of a field's tensors: without the padding, in its order."""
    if name == "table":
        values = torch.from_numpy(array).reshape(*tensor.shape[:2], *tensor.shape[3:], -1)
        return values[..., : tensor.shape[2]].permute(0, 1, 4, 2, 3).to(tensor.dtype)
    sizes = (multiple(len(tensor), 4), -1) if tensor.dim() == 2 else (-1,)
    return cropped(array, sizes, tensor)


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
    if field.laplace.size:
        show_choices(field, block, space, count)
    else:
        show_colors(field, block, space, count)


@march.implements(march.pull, Triplane)
def _pull(field, gradients, scene, block, space, count, cameras):
    if field.laplace.size:
        unshow_choices(field, gradients, block, space, count)
    else:
        unshow_colors(field, block, space, count)
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
            stretch = splat(peek(field.box, 6))
            x, y, z = x * stretch, y * stretch, z * stretch
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
            stretch = peek(field.box, 6)
            gx = gx * splat(stretch * peek(field.box, 3))
            gy = gy * splat(stretch * peek(field.box, 4))
            gz = gz * splat(stretch * peek(field.box, 5))
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
