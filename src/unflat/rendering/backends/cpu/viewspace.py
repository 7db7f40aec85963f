"""View-space planes with their decoder (`unflat.fields.ViewSpaceField`) for the march.

Also asked at (u, v, delta) itself, where canonical rays are straight lines (`CanonicalField`).
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unflat.fields.viewspace import (
    SURFACE_CHANNELS,
    CanonicalField,
    ViewSpaceDecoder,
    ViewSpaceField,
)
from unflat.rendering.backends.cpu import march
from unflat.rendering.backends.cpu.adapter import flat, multiple
from unflat.rendering.backends.cpu.decoder import (
    SEEN,
    SOFTNESS,
    WAVES,
    activate,
    hide,
    see,
    show,
    times,
    unhide,
    unsee,
    unshow,
)
from unflat.rendering.backends.cpu.dense import STRIDE, add_products, add_rows, layer
from unflat.rendering.backends.cpu.planes import (
    CORNERS,
    gather,
    place_corners,
    scatter,
    to_channels,
    to_samples,
)
from unflat.rendering.backends.cpu.simd import LANES, inlined, load, splat, store
from unflat.rendering.backends.cpu.view import assumed_length, numbers, place, to_view


class ViewSpace(NamedTuple):
    """The field as arrays; sizes are padded as `dense` and `planes` want them."""

    picture: Any
    """Batch * height * width * wide: color, surface, thickness, then features."""
    sides: Any
    """Batch * (deep * across + deep * down) * size: the (u, delta) and (v, delta) planes."""
    modulate: Any
    """2 size * SEEN: rows of scale, then of shift; the surface's features act on the latter."""
    modulate_bias: Any
    modulate_back: Any
    """Surface's features from shift: 4 * size."""
    into: Any
    """Weight of the hidden layer, size * size."""
    into_bias: Any
    into_back: Any
    out: Any
    """Density and color, 4 * size."""
    out_bias: Any
    out_back: Any
    zeros: Any
    """A bias of nothing, for the ways back."""
    frame: Any
    """`view.numbers`."""
    height: int
    width: int
    deep: int
    across: int
    down: int
    size: int
    """Channels."""
    wide: int
    """Numbers of a texel of the picture's plane."""
    surface: int
    """1 where a slab stands behind the surface, else 0."""
    canonical: int
    """1 where points are (u, v, delta) and the answer is of them, else 0."""


class ViewSpaceGradients(NamedTuple):
    """Added to; layers with one sum for every lane."""

    picture: Any
    sides: Any
    modulate: Any
    modulate_bias: Any
    into: Any
    into_bias: Any
    out: Any
    out_bias: Any


class Space(NamedTuple):
    """What a block keeps between `ask` and `pull`."""

    places: Any
    """u, v, the row of a depth, u and v in the sides' planes: 5 * STRIDE."""
    delta: Any
    factor: Any
    """From density per delta to density per length."""
    corners: Any
    shares: Any
    slopes: Any
    texels: Any
    picture: Any
    """What was looked up in the picture's plane, wide * STRIDE."""
    sides: Any
    """What was looked up beside it, summed; in `pull` the gradient of the sum of all."""
    seen: Any
    """What the modulation is made from."""
    modulation: Any
    """Scale and shift, 2 size * STRIDE; in `pull` their gradients."""
    first: Any
    first_slope: Any
    second: Any
    second_slope: Any
    change: Any
    """Gradient of ``second``."""
    raw: Any
    """Logit and color; in `pull` their gradients."""
    slope: Any
    """Of density over logit."""
    behind: Any
    """The slab's two sides, 2 * STRIDE."""
    thickness: Any
    """softplus of what the plane says."""
    pulled: Any
    """Gradients of the surface's features, 4 * STRIDE."""


class ViewSpaceAdapter:
    """`ViewSpaceField` and `CanonicalField`.

    Learned tensors are padded and laid out before the march, by PyTorch, which also knows the way
    back; so gradients are of the very tensors that are marched.
    """

    gradients: ClassVar[type] = ViewSpaceGradients
    tables: ClassVar[tuple[str, ...]] = ("picture", "sides")
    cameras: ClassVar[bool] = False

    def refuses(self, field: ViewSpaceField | CanonicalField) -> str | None:
        """Other decoders, and other precisions."""
        base = field.base if isinstance(field, CanonicalField) else field
        if type(base) is not ViewSpaceField:
            return f"it does not know {type(base).__name__}"
        if type(base.decoder) is not ViewSpaceDecoder:
            return f"it does not know {type(base.decoder).__name__}"
        for part in (*base.planes, *base.decoder.parameters()):
            if part.dtype != torch.float32:
                return f"planes or decoder are {part.dtype}; it takes float32"
        return None

    def tensors(self, field: ViewSpaceField | CanonicalField) -> dict[str, Tensor]:
        """Planes texel by texel, and layers, in the sizes that are marched."""
        uv, ud, vd = (plane.permute(0, 2, 3, 1) for plane in _base(field).planes)
        channels = ud.shape[-1]
        size = multiple(channels, LANES)
        wide = multiple(SURFACE_CHANNELS + size, LANES)
        decoder = _base(field).decoder
        hidden, last = decoder.mlp[1], decoder.mlp[3]
        assert isinstance(hidden, nn.Linear)
        assert isinstance(last, nn.Linear)
        modulate = decoder.modulate.weight.unflatten(0, (2, channels))
        if decoder.surface:
            near = decoder.nearness.weight
            modulate = torch.cat([modulate, torch.stack([torch.zeros_like(near), near])], dim=-1)
        modulate = _padded(modulate, 2, size, SEEN)
        modulate_bias = _padded(decoder.modulate.bias.unflatten(0, (2, channels)), 2, size)
        sides = torch.cat([ud.flatten(1, 2), vd.flatten(1, 2)], dim=1)
        return {
            "picture": _padded(uv, *uv.shape[:-1], wide),
            "sides": _padded(sides, *sides.shape[:-1], size),
            "modulate": modulate.flatten(0, 1),
            "modulate_bias": modulate_bias.flatten(),
            "into": _padded(hidden.weight, size, size),
            "into_bias": _padded(hidden.bias, size),
            "out": _padded(last.weight, 4, size),
            "out_bias": last.bias,
        }

    def channels(self, field: ViewSpaceField | CanonicalField) -> int:
        """Red, green and blue."""
        return 3

    def arrays(
        self, field: ViewSpaceField | CanonicalField, tensors: Mapping[str, Tensor]
    ) -> ViewSpace:
        """Beside the tensors, what the ways back need."""
        base, size = _base(field), tensors["into"].shape[0]
        near = tensors["modulate"].detach()[size:, WAVES : WAVES + len(SOFTNESS)]
        return ViewSpace(
            **{name: flat(tensor) for name, tensor in tensors.items()},
            modulate_back=flat(_padded(near.T, 4, size)),
            into_back=flat(tensors["into"].T),
            out_back=flat(tensors["out"].T),
            zeros=np.zeros(size, np.float32),
            frame=numbers(base.frame),
            height=base.uv.shape[2],
            width=base.uv.shape[3],
            deep=base.ud.shape[2],
            across=base.ud.shape[3],
            down=base.vd.shape[3],
            size=size,
            wide=tensors["picture"].shape[-1],
            surface=int(base.decoder.surface),
            canonical=int(isinstance(field, CanonicalField)),
        )

    def gradient(
        self,
        name: str,
        array: np.ndarray,
        field: ViewSpaceField | CanonicalField,
        tensor: Tensor,
    ) -> Tensor:
        """As it was added up."""
        return torch.from_numpy(array).reshape(tensor.shape)


def _base(field: ViewSpaceField | CanonicalField) -> ViewSpaceField:
    base = field.base if isinstance(field, CanonicalField) else field
    assert isinstance(base, ViewSpaceField)  # others are refused
    return base


def _padded(tensor: Tensor, *sizes: int) -> Tensor:
    """The tensor in the corner of a larger one of zeros, for autograd as well."""
    rooms = [(0, size - own) for size, own in zip(sizes, tensor.shape, strict=True)]
    if not any(room for _, room in rooms):
        return tensor
    return functional.pad(tensor, [number for room in reversed(rooms) for number in room])


@march.implements(march.workspace, ViewSpace)
def _workspace(field):
    return Space(
        np.zeros(5 * STRIDE, np.float32),
        np.zeros(STRIDE, np.float32),
        np.zeros(STRIDE, np.float32),
        np.zeros(3 * CORNERS * STRIDE, np.int32),
        np.zeros(3 * CORNERS * STRIDE, np.float32),
        np.zeros(6 * STRIDE, np.float32),
        np.zeros(field.wide * STRIDE, np.float32),
        np.zeros(field.wide * STRIDE, np.float32),
        np.zeros(field.size * STRIDE, np.float32),
        np.zeros(SEEN * STRIDE, np.float32),
        np.zeros(2 * field.size * STRIDE, np.float32),
        np.zeros(field.size * STRIDE, np.float32),
        np.zeros(field.size * STRIDE, np.float32),
        np.zeros(field.size * STRIDE, np.float32),
        np.zeros(field.size * STRIDE, np.float32),
        np.zeros(field.size * STRIDE, np.float32),
        np.zeros(4 * STRIDE, np.float32),
        np.zeros(STRIDE, np.float32),
        np.zeros(2 * STRIDE, np.float32),
        np.zeros(STRIDE, np.float32),
        np.zeros(4 * STRIDE, np.float32),
    )


@march.implements(march.measure, ViewSpace)
def _measure(field, line, near, far):
    return assumed_length(field.frame, line, near, far)


@march.implements(march.ask, ViewSpace)
def _ask(field, scene, block, space, count):
    if field.canonical:
        _take(block, space, count)
    else:
        to_view(field.frame, block, space.places, space.delta, space.factor, count)
    _look_up(field, scene, space, count)
    see(field, space, count)
    layer(
        field.modulate,
        field.modulate_bias,
        space.seen,
        space.modulation,
        2 * field.size,
        SEEN,
        count,
    )
    hide(field, space, count)
    layer(field.into, field.into_bias, space.first, space.second, field.size, field.size, count)
    activate(space.second, space.second_slope, field.size, count)
    layer(field.out, field.out_bias, space.second, space.raw, 4, field.size, count)
    show(field, block, space, count)


@march.implements(march.pull, ViewSpace)
def _pull(field, gradients, scene, block, space, count, cameras):
    size = field.size
    unshow(field, block, space, count)
    _learn(gradients.out, gradients.out_bias, space.second, space.raw, 4, size, count)
    layer(field.out_back, field.zeros, space.raw, space.change, size, 4, count)
    times(space.change, space.second_slope, size, count)
    _learn(gradients.into, gradients.into_bias, space.first, space.change, size, size, count)
    layer(field.into_back, field.zeros, space.change, space.sides, size, size, count)
    times(space.sides, space.first_slope, size, count)
    unhide(field, space, count)
    change = space.modulation
    _learn(gradients.modulate, gradients.modulate_bias, space.seen, change, 2 * size, SEEN, count)
    if field.surface:
        layer(field.modulate_back, field.zeros, space.sides, space.pulled, 4, size, count)
        unsee(field, space, count)
    _spread(field, gradients, scene, space, count)


@inlined
def _learn(weight, bias, x, y, out, into, count):
    """Gradients of a layer, as far as they are asked for."""
    if weight.size:
        add_products(weight, x, y, out, into, count)
    if bias.size:
        add_rows(bias, y, out, count)


@inlined
def _take(block, space, count):
    """What `to_view` does, where points are coordinates already."""
    for s in range(0, count, LANES):
        store(space.factor, s, splat(np.float32(1)))
        place(space.places, space.delta, s, load(block.x, s), load(block.y, s), load(block.z, s))


@inlined
def _look_up(field, scene, space, count):
    """The picture's plane and, summed, the two beside it."""
    size, wide = field.size, field.wide
    sides = (
        (0, 0, STRIDE, field.height, field.width, wide),
        (0, 3 * STRIDE, 2 * STRIDE, field.deep, field.across, size),
        (field.deep * field.across * size, 4 * STRIDE, 2 * STRIDE, field.deep, field.down, size),
    )
    for slot in range(3):
        start, column, row, height, width, texel = sides[slot]
        place_corners(
            space.places,
            column,
            row,
            slot,
            space.corners,
            space.shares,
            space.slopes,
            start,
            height,
            width,
            texel,
            count,
        )
    picture = scene * field.height * field.width * wide
    gather(field.picture, picture, space.corners, space.shares, 0, 1, wide, space.texels, count)
    to_channels(space.texels, wide, space.picture, 0, count)
    beside = scene * field.deep * (field.across + field.down) * size
    gather(field.sides, beside, space.corners, space.shares, 1, 2, size, space.texels, count)
    to_channels(space.texels, size, space.sides, 0, count)


@inlined
def _spread(field, gradients, scene, space, count):
    """Gradients into the planes."""
    size, wide = field.size, field.wide
    if gradients.picture.size:
        to_samples(space.picture, 0, space.texels, wide, count)
        base = scene * field.height * field.width * wide
        scatter(
            gradients.picture, base, space.corners, space.shares, 0, 1, wide, space.texels, count
        )
    if gradients.sides.size:
        to_samples(space.sides, 0, space.texels, size, count)
        base = scene * field.deep * (field.across + field.down) * size
        scatter(gradients.sides, base, space.corners, space.shares, 1, 2, size, space.texels, count)
