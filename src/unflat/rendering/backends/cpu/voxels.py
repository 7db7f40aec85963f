"""A box of voxels (`unflat.fields.VoxelField`) for the march."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unflat.fields.voxels import VoxelField
from unflat.rendering.backends.cpu import march
from unflat.rendering.backends.cpu.adapter import flat, multiple, padded
from unflat.rendering.backends.cpu.dense import STRIDE
from unflat.rendering.backends.cpu.planes import (
    CORNERS,
    gather,
    inside_border,
    scatter,
    to_channels,
    to_samples,
)
from unflat.rendering.backends.cpu.simd import (
    LANES,
    converted,
    fma,
    inlined,
    larger,
    load,
    magnitude,
    peek,
    smaller,
    splat,
    splat_int,
    store,
    total,
    truncated,
    where_less,
)


class Voxels(NamedTuple):
    """The field as arrays; a voxel is its density, its features and padding, side by side."""

    table: Any
    """Batch * deep * height * width * size."""
    box: Any
    """Lowest corner and 2 / side of the box, six numbers."""
    deep: int
    height: int
    width: int
    size: int
    channels: int


class VoxelGradients(NamedTuple):
    """Added to."""

    table: Any


class Space(NamedTuple):
    """What a block keeps between `ask` and `pull`."""

    inside: Any
    parts: Any
    """How far samples are between two voxels along each axis, 3 * STRIDE."""
    slopes: Any
    """Voxels for a world unit along each axis, 0 beyond the outermost centers; 3 * STRIDE."""
    corners: Any
    """Of the eight voxels around: first x, then y, then z varies."""
    shares: Any
    texels: Any
    x: Any


class VoxelAdapter:
    """`VoxelField`, learned or not."""

    gradients: ClassVar[type] = VoxelGradients
    tables: ClassVar[tuple[str, ...]] = ("table",)
    cameras: ClassVar[bool] = True

    def refuses(self, field: VoxelField) -> str | None:
        """Other precisions."""
        if field.density.dtype != torch.float32 or field.features.dtype != torch.float32:
            return f"voxels are {field.density.dtype}; it takes float32"
        return None

    def tensors(self, field: VoxelField) -> dict[str, Tensor]:
        """Density and features side by side."""
        values = [field.density[:, None].clamp_min(0), field.features]
        return {"table": torch.cat(values, dim=1)}

    def channels(self, field: VoxelField) -> int:
        """Of the features."""
        return field.features.shape[1]

    def arrays(self, field: VoxelField, tensors: Mapping[str, Tensor]) -> Voxels:
        """Voxels padded to whole vectors."""
        table = tensors["table"].detach().permute(0, 2, 3, 4, 1)
        size = multiple(table.shape[-1], LANES)
        low, high = field.bounds.detach().float()
        return Voxels(
            table=flat(padded(table, *table.shape[:-1], size)),
            box=flat(torch.cat([low, 2 / (high - low)])),
            deep=table.shape[1],
            height=table.shape[2],
            width=table.shape[3],
            size=size,
            channels=table.shape[4] - 1,
        )

    def gradient(self, name: str, array: np.ndarray, field: VoxelField, tensor: Tensor) -> Tensor:
        """Without the padding, in the order of the tensor."""
        size = multiple(tensor.shape[1], LANES)
        values = torch.from_numpy(array).reshape(len(tensor), *tensor.shape[2:], size)
        return values[..., : tensor.shape[1]].permute(0, 4, 1, 2, 3)


@march.implements(march.workspace, Voxels)
def _workspace(field):
    return Space(
        np.zeros(STRIDE, np.float32),
        np.zeros(3 * STRIDE, np.float32),
        np.zeros(3 * STRIDE, np.float32),
        np.zeros(2 * CORNERS * STRIDE, np.int32),
        np.zeros(2 * CORNERS * STRIDE, np.float32),
        np.zeros(field.size * STRIDE, np.float32),
        np.zeros(field.size * STRIDE, np.float32),
    )


@march.implements(march.measure, Voxels)
def _measure(field, line, near, far):
    return far - near


@march.implements(march.ask, Voxels)
def _ask(field, scene, block, space, count):
    _place(field, block, space, count)
    base = scene * field.deep * field.height * field.width * field.size
    gather(field.table, base, space.corners, space.shares, 0, 2, field.size, space.texels, count)
    to_channels(space.texels, field.size, space.x, 0, count)
    for s in range(0, count, LANES):
        store(block.density, s, load(space.x, s) * load(space.inside, s))
        for k in range(0, field.channels * STRIDE, STRIDE):
            store(block.features, k + s, load(space.x, STRIDE + k + s))


@march.implements(march.pull, Voxels)
def _pull(field, gradients, scene, block, space, count, cameras):
    for s in range(0, count, LANES):
        store(space.x, s, load(block.density_gradient, s) * load(space.inside, s))
        for k in range(0, field.channels * STRIDE, STRIDE):
            store(space.x, STRIDE + k + s, load(block.feature_gradient, k + s))
        for k in range((1 + field.channels) * STRIDE, field.size * STRIDE, STRIDE):  # padding
            store(space.x, k + s, splat(np.float32(0)))
    to_samples(space.x, 0, space.texels, field.size, count)
    base = scene * field.deep * field.height * field.width * field.size
    if gradients.table.size:
        scatter(
            gradients.table,
            base,
            space.corners,
            space.shares,
            0,
            2,
            field.size,
            space.texels,
            count,
        )
    if cameras:
        _pull_places(field, base, block, space, count)


@inlined
def _place(field, block, space, count):
    """Which samples are inside, the eight voxels around each, and how much these count."""
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    for s in range(0, count, LANES):
        x = (load(block.x, s) - splat(peek(field.box, 0))) * splat(peek(field.box, 3)) - one
        y = (load(block.y, s) - splat(peek(field.box, 1))) * splat(peek(field.box, 4)) - one
        z = (load(block.z, s) - splat(peek(field.box, 2))) * splat(peek(field.box, 5)) - one
        farthest = larger(magnitude(x), larger(magnitude(y), magnitude(z)))
        store(space.inside, s, where_less(one, farthest, zero, one))
        left, right, across = _between(x, field.width, peek(field.box, 3), space.slopes, s)
        top, below, down = _between(y, field.height, peek(field.box, 4), space.slopes, STRIDE + s)
        front, behind, in_ = _between(
            z, field.deep, peek(field.box, 5), space.slopes, 2 * STRIDE + s
        )
        store(space.parts, s, across)
        store(space.parts, STRIDE + s, down)
        store(space.parts, 2 * STRIDE + s, in_)
        step = splat_int(np.int32(field.size))
        line = splat_int(np.int32(field.size * field.width))
        sheet = splat_int(np.int32(field.size * field.width * field.height))
        first = left * step + top * line + front * sheet
        right, below, behind = right * step, below * line, behind * sheet
        at = s
        for corner in range(8):
            place, share = first, one
            if corner & 1:
                place, share = place + right, share * across
            else:
                share = share * (one - across)
            if corner & 2:
                place, share = place + below, share * down
            else:
                share = share * (one - down)
            if corner & 4:
                place, share = place + behind, share * in_
            else:
                share = share * (one - in_)
            store(space.corners, at, place)
            store(space.shares, at, share)
            at += STRIDE


@inlined
def _between(place, cells, world, slopes, at):
    """The voxel before, whether there is one after it (1, else 0), and the way between them."""
    zero, one, half = splat(np.float32(0)), splat(np.float32(1)), splat(np.float32(0.5))
    many = np.float32(cells)
    last, scale = splat(many - np.float32(1)), splat(np.float32(0.5) * many)
    x = fma(place + one, scale, zero - half)
    held = smaller(larger(x, zero), last)
    before = truncated(held)
    after = truncated(where_less(converted(before), last, one, zero))
    store(slopes, at, inside_border(x, last, scale * splat(world)))
    return before, after, held - converted(before)


@inlined
def _pull_places(field, base, block, space, count):
    """From gradients of voxels to those of world points."""
    one = np.float32(1)
    for s in range(count):
        fx, fy, fz = space.parts[s], space.parts[STRIDE + s], space.parts[2 * STRIDE + s]
        x = y = z = splat(np.float32(0))
        for c in range(0, field.size, LANES):
            wish = load(space.texels, s * field.size + c)
            for corner in range(8):
                value = (
                    load(field.table, base + peek(space.corners, corner * STRIDE + s) + c) * wish
                )
                wx = fx if corner & 1 else one - fx
                wy = fy if corner & 2 else one - fy
                wz = fz if corner & 4 else one - fz
                sx = one if corner & 1 else -one
                sy = one if corner & 2 else -one
                sz = one if corner & 4 else -one
                x = fma(value, splat(sx * wy * wz), x)
                y = fma(value, splat(sy * wx * wz), y)
                z = fma(value, splat(sz * wx * wy), z)
        block.x_gradient[s] = total(x) * space.slopes[s]
        block.y_gradient[s] = total(y) * space.slopes[STRIDE + s]
        block.z_gradient[s] = total(z) * space.slopes[2 * STRIDE + s]
