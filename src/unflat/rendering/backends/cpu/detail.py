"""The photo over a view-space field (`DetailField`), and what is behind it (`BehindField`).

Forward only: such fields are made, never trained. Most samples end at the sheet; the field behind
is asked for the few that need it, packed into a block of their own.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unflat.fields.behind import BehindField
from unflat.fields.detail import OPTICAL_DEPTH, SHEET, DetailField
from unflat.fields.viewspace import CanonicalField
from unflat.rendering.backends.cpu import march
from unflat.rendering.backends.cpu.adapter import flat
from unflat.rendering.backends.cpu.blocks import new_block
from unflat.rendering.backends.cpu.dense import STRIDE
from unflat.rendering.backends.cpu.functions import sigmoid
from unflat.rendering.backends.cpu.simd import (
    LANES,
    inlined,
    larger,
    load,
    peek,
    smaller,
    splat,
    store,
)
from unflat.rendering.backends.cpu.view import assumed_length, numbers, to_view
from unflat.rendering.backends.cpu.viewspace import ViewSpaceAdapter

BASE = ViewSpaceAdapter()


class Detail(NamedTuple):
    """`DetailField` as arrays."""

    base: Any
    """What is hidden, asked at (u, v, delta): `viewspace.ViewSpace`."""
    frame: Any
    """`view.numbers`."""
    sheet: Any
    """Batch * height * width * 3: disparity, spread, and whether neighbors are joined."""
    photo: Any
    """Batch * height * width * 3."""
    behind: Any
    """Batch * (color, disparity, mask) * height * width, or nothing."""
    height: int
    width: int


class Behind(NamedTuple):
    """`BehindField` as arrays."""

    base: Any
    """The field, asked in the world: `viewspace.ViewSpace`."""
    frame: Any
    limit: Any
    """Batch * height * width: disparity above which nothing is."""
    height: int
    width: int


class Nothing(NamedTuple):
    """Gradients of fields that have none."""


class DetailSpace(NamedTuple):
    """What a block keeps while it is asked."""

    places: Any
    delta: Any
    factor: Any
    ahead: Any
    """How far behind the sheet a sample is, in units of its softness."""
    share: Any
    """1 / softness for samples of the sheet, else 0."""
    chosen: Any
    """Samples that need the field behind."""
    block: Any
    base: Any


class _OverViewSpace:
    """What adapters of fields over a `ViewSpaceField` share."""

    gradients: ClassVar[type] = Nothing
    tables: ClassVar[tuple[str, ...]] = ()
    cameras: ClassVar[bool] = False

    def refuses(self, field: DetailField | BehindField) -> str | None:
        """Learning, and what the field behind is refused for."""
        for name, part in field.named_buffers(recurse=False):
            if part.dtype != torch.float32 and name != "joined":
                return f"{name} is {part.dtype}; it takes float32"
        learned = (*field.buffers(), *field.parameters())
        if torch.is_grad_enabled() and any(part.requires_grad for part in learned):
            return f"{type(field).__name__} gets no gradients"
        return BASE.refuses(field.base)

    def tensors(self, field: DetailField | BehindField) -> dict[str, Tensor]:
        """Of the field behind."""
        return BASE.tensors(field.base)

    def channels(self, field: DetailField | BehindField) -> int:
        """Red, green and blue."""
        return 3

    def gradient(self, name: str, array: np.ndarray, field: Any, tensor: Tensor) -> Tensor:
        """Never asked for."""
        raise NotImplementedError(f"{type(field).__name__} gets no gradients")


class DetailAdapter(_OverViewSpace):
    """`DetailField`, without gradients."""

    def refuses(self, field: DetailField | BehindField) -> str | None:
        """Also a surface of another size, and a sheet around the photo, which few scenes have."""
        if isinstance(field, DetailField) and field.sheet.shape != field.photo.shape:
            return "the photo and its surface differ in size"
        if isinstance(field, DetailField) and field.beside is not None:
            return "something stands beside the photo"
        return super().refuses(field)

    def arrays(self, field: DetailField, tensors: Mapping[str, Tensor]) -> Detail:
        """Pictures pixel by pixel."""
        behind = np.zeros(0, np.float32)
        if field.behind is not None:
            behind = flat(field.behind)
        return Detail(
            base=BASE.arrays(CanonicalField(field.base), tensors),
            frame=numbers(field.frame),
            sheet=flat(field.sheet.permute(0, 2, 3, 1)),
            photo=flat(field.photo.permute(0, 2, 3, 1)),
            behind=behind,
            height=field.sheet.shape[2],
            width=field.sheet.shape[3],
        )


class BehindAdapter(_OverViewSpace):
    """`BehindField`, without gradients."""

    def arrays(self, field: BehindField, tensors: Mapping[str, Tensor]) -> Behind:
        """The limit pixel by pixel."""
        return Behind(
            base=BASE.arrays(field.base, tensors),
            frame=numbers(field.base.frame),
            limit=flat(field.disparity),
            height=field.disparity.shape[2],
            width=field.disparity.shape[3],
        )


@march.implements(march.measure, Detail)
def _measure(field, line, near, far):
    return assumed_length(field.frame, line, near, far)


@march.implements(march.workspace, Detail)
def _workspace(field):
    return DetailSpace(
        np.zeros(5 * STRIDE, np.float32),
        np.zeros(STRIDE, np.float32),
        np.zeros(STRIDE, np.float32),
        np.zeros(STRIDE, np.float32),
        np.zeros(STRIDE, np.float32),
        np.zeros(STRIDE, np.int64),
        new_block(3, STRIDE),
        march.workspace(field.base),
    )


@march.implements(march.ask, Detail)
def _ask(field, scene, block, space, count):
    to_view(field.frame, block, space.places, space.delta, space.factor, count)
    left = _sort(field, scene, block, space, count)
    for s in range(0, count, LANES):
        share = load(space.share, s)
        store(block.density, s, share * sigmoid(load(space.ahead, s)))
    if left:
        _fill(field, scene, block, space, left)
    _finish(block, space, count)


@march.implements(march.measure, Behind)
def _measure_behind(field, line, near, far):
    return assumed_length(field.frame, line, near, far)


@march.implements(march.workspace, Behind)
def _workspace_behind(field):
    return march.workspace(field.base)


@march.implements(march.ask, Behind)
def _ask_behind(field, scene, block, space, count):
    march.ask(field.base, scene, block, space, count)
    first = scene * field.height * field.width
    for s in range(count):
        u, v = space.places[s], space.places[STRIDE + s]
        limit = field.limit[first + _nearest(u, v, field.height, field.width)]
        if not space.delta[s] < limit:
            block.density[s] = 0


@inlined
def _sort(field, scene, block, space, count):
    """Finds samples of the sheet, with the photo's color, and those beyond; gives how many."""
    zero = splat(np.float32(0))
    for s in range(0, count, LANES):
        store(space.share, s, zero)
        store(space.ahead, s, zero)
        for k in range(s, 3 * STRIDE, STRIDE):
            store(block.features, k, zero)
    left, first = 0, 3 * scene * field.height * field.width
    for s in range(count):
        u, v = peek(space.places, s), peek(space.places, STRIDE + s)
        beyond = True
        if abs(u) <= 1 and abs(v) <= 1:
            around = _around(u, v, field.height, field.width)
            pixel = first + 3 * _nearest(u, v, field.height, field.width)
            surface, soft = peek(field.sheet, pixel), peek(field.sheet, pixel + 1)
            if peek(field.sheet, pixel + 2) > np.float32(0.5):
                surface = _blend(field.sheet, first, around)
                soft = _blend(field.sheet, first + 1, around)
            ahead = surface - peek(space.delta, s)  # above 0 behind the surface
            beyond = ahead >= np.float32(SHEET) + np.float32(OPTICAL_DEPTH) * soft
            if not beyond and ahead > np.float32(-8) * soft:
                space.share[s], space.ahead[s] = np.float32(1) / soft, ahead / soft
                for k in range(3):
                    block.features[k * STRIDE + s] = _blend(field.photo, first + k, around)
        if beyond:
            space.chosen[left] = s
            left += 1
    return left


@inlined
def _fill(field, scene, block, space, left):
    """Asks samples behind the sheet or beside the picture: the second sheet, then the base."""
    count = _hidden(field, scene, block, space, left) if field.behind.size else left
    if count == 0:
        return
    inner = space.block
    whole = (count + LANES - 1) // LANES * LANES
    for i in range(whole):
        s = space.chosen[min(i, count - 1)]
        inner.x[i], inner.y[i] = space.places[s], space.places[STRIDE + s]
        inner.z[i] = space.delta[s]
    march.ask(field.base, scene, inner, space.base, whole)
    for i in range(count):
        s = space.chosen[i]
        block.density[s] = inner.density[i]
        for k in range(3):
            block.features[k * STRIDE + s] = inner.features[k * STRIDE + i]


@inlined
def _hidden(field, scene, block, space, left):
    """Answers samples before and in the second sheet; gives how many are left beyond."""
    kept, picture = 0, field.height * field.width
    for i in range(left):
        s = space.chosen[i]
        u, v = space.places[s], space.places[STRIDE + s]
        keep = True
        if abs(u) <= 1 and abs(v) <= 1:
            pixel = 5 * scene * picture + _nearest(u, v, field.height, field.width)
            ahead = field.behind[pixel + 3 * picture] - space.delta[s]
            exists = field.behind[pixel + 4 * picture] > np.float32(0.5)
            if exists and ahead < np.float32(SHEET):
                keep = False
                if ahead >= 0:
                    block.density[s] = np.float32(OPTICAL_DEPTH / SHEET)
                    for k in range(3):
                        block.features[k * STRIDE + s] = field.behind[pixel + k * picture]
        if keep:
            space.chosen[kept] = s
            kept += 1
    return kept


@inlined
def _finish(block, space, count):
    """Density per length of the world, color in [0, 1]."""
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    for s in range(0, count, LANES):
        store(block.density, s, load(block.density, s) * load(space.factor, s))
        for k in range(s, 3 * STRIDE, STRIDE):
            store(block.features, k, smaller(larger(load(block.features, k), zero), one))


@inlined
def _nearest(u, v, height, width):
    """Number of the pixel that holds (u, v); halfway the even one, as PyTorch has it."""
    column, row = _along(u, width), _along(v, height)
    return _rounded(row) * width + _rounded(column)


@inlined
def _along(x, size):
    """Where x in [-1, 1] lies among the centers of so many texels, held inside."""
    place = ((x + np.float32(1)) * np.float32(size) - np.float32(1)) * np.float32(0.5)
    return min(max(place, np.float32(0)), np.float32(size - 1))


@inlined
def _rounded(place):
    shifted = place + np.float32(0.5)
    whole = int(shifted)
    return whole - 1 if np.float32(whole) == shifted and whole % 2 else whole


@inlined
def _around(u, v, height, width):
    """The four pixels around (u, v), and their shares."""
    column, row = _along(u, width), _along(v, height)
    left, top = int(column), int(row)
    across, down = column - np.float32(left), row - np.float32(top)
    right = 1 if left < width - 1 else 0
    below = width if top < height - 1 else 0
    first = top * width + left
    rest, upper = np.float32(1) - across, np.float32(1) - down
    return (
        (first, first + right, first + below, first + below + right),
        (rest * upper, across * upper, rest * down, across * down),
    )


@inlined
def _blend(table, channel, around):
    """One of three numbers of a pixel, between four of them."""
    (a, b, c, d), (of_a, of_b, of_c, of_d) = around
    upper = of_a * peek(table, channel + 3 * a) + of_b * peek(table, channel + 3 * b)
    return upper + of_c * peek(table, channel + 3 * c) + of_d * peek(table, channel + 3 * d)
