"""The fused CPU backend: which fields it takes, how work is split, what autograd sees."""

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numba.core import event
from torch import Tensor

from unflat.fields.behind import BehindField
from unflat.fields.detail import DetailField
from unflat.fields.distance import DistanceTriplaneField
from unflat.fields.distance_voxels import DistanceVoxelField
from unflat.fields.field import Field, FieldOutput
from unflat.fields.triplane import TriplaneField
from unflat.fields.viewspace import CanonicalField, ViewSpaceField
from unflat.fields.voxels import VoxelField
from unflat.rendering.backends.contract import Marched, Marching, Rays
from unflat.rendering.backends.cpu import march, patience, threads
from unflat.rendering.backends.cpu.adapter import Adapter, flat
from unflat.rendering.backends.cpu.detail import BehindAdapter, DetailAdapter
from unflat.rendering.backends.cpu.distance import DistanceAdapter
from unflat.rendering.backends.cpu.simd import LANES
from unflat.rendering.backends.cpu.triplane import TriplaneAdapter
from unflat.rendering.backends.cpu.viewspace import ViewSpaceAdapter
from unflat.rendering.backends.cpu.voxels import VoxelAdapter
from unflat.rendering.occupancy import OccupancyGrid

ADAPTERS: dict[type, Adapter] = {
    TriplaneField: TriplaneAdapter(),
    DistanceTriplaneField: DistanceAdapter(),
    VoxelField: VoxelAdapter(),
    DistanceVoxelField: VoxelAdapter(),
    ViewSpaceField: ViewSpaceAdapter(),
    CanonicalField: ViewSpaceAdapter(),
    DetailField: DetailAdapter(),
    BehindField: BehindAdapter(),
}
"""By the exact type: a subclass may ask differently."""

LEAST_LIGHT = 1e-6
"""Every ray ends where less light is left; a sum in float32 can hardly tell."""

_LOG = logging.getLogger("unflat.rendering")

_RAYS_OF_TASK = 256
_POINTS_OF_TASK = 8192
_SPARE_BYTES = 256 * 2**20  # for gradients of planes that several cores make at once


class _Compiling(event.Listener):
    """Says, once, why the first picture takes longer."""

    said = False

    def on_start(self, event: event.Event) -> None:
        """A function begins to be compiled; those that are found on disk are not."""
        kernels = march.forward, march.backward, march.query
        if not _Compiling.said and event.data and event.data["dispatcher"] in kernels:
            _Compiling.said = True
            _LOG.info("compiling the fused renderer for this processor: once, some fifteen seconds")

    def on_end(self, event: event.Event) -> None:
        """Nothing more is said."""


event.register("numba:compile", _Compiling())


class Cpu:
    """Float32 rays on the CPU, planes in float32 or bfloat16.

    The picture differs from the reference's by rounding, and by at most ``LEAST_LIGHT`` of the
    light where rays end early. Derivatives are of the first order only. Results do not depend on
    the number of threads, except that gradients of fewer scenes than threads are sums of as many
    parts as there are threads, and round accordingly.
    """

    name = "cpu"

    def refuses(self, field: Field, rays: Rays) -> str | None:
        """Other kinds of fields, other precisions, gradients that it does not make."""
        if any(part is not None and part.dtype != torch.float32 for part in rays):
            return "rays must be float32"
        adapter = ADAPTERS.get(type(field))
        if adapter is None:
            return f"it does not know {type(field).__name__}"
        reason = adapter.refuses(field)
        if reason is not None or not torch.is_grad_enabled():
            return reason
        if rays.edges.requires_grad:
            return "edges get no gradients"
        if not adapter.cameras and (rays.origins.requires_grad or rays.directions.requires_grad):
            return f"cameras get no gradients through {type(field).__name__}"
        return None

    def pays(self, field: Field, rays: Rays) -> bool:
        """Whether the kernel is compiled, or so much is asked of it that compiling pays."""
        samples = rays.edges.shape[0] * rays.edges.shape[1] * (rays.edges.shape[2] - 1)
        return torch.is_grad_enabled() or patience.pays(_kernel(field, "forward"), samples)

    def march(self, field: Field, rays: Rays, how: Marching) -> Marched:
        """Light along the rays."""
        adapter = ADAPTERS[type(field)]
        tensors = adapter.tensors(field)
        call = _Call(adapter, field, how, tuple(tensors))
        marched = Marched(*_March.apply(call, *rays, *tensors.values()))
        patience.is_ready(_kernel(field, "forward"))
        return marched

    def pays_to_ask(self, field: Field, points: Tensor) -> bool:
        """The same for asking at points."""
        return patience.pays(_kernel(field, "query"), points.numel() // 3)

    def ask(self, field: Field, points: Tensor) -> FieldOutput | None:
        """The field's answer, without gradients; None if it does not know the field."""
        adapter = ADAPTERS.get(type(field))
        if adapter is None or points.dtype != torch.float32 or adapter.refuses(field):
            return None
        batch, shape = points.shape[0], points.shape[:-1]
        count, channels = points[0].numel() // 3, adapter.channels(field)
        density, features = points.new_empty(batch, count), points.new_empty(batch, count, channels)
        arrays, places = adapter.arrays(field, adapter.tensors(field)), flat(points)
        out = density.view(-1).numpy(), features.view(-1).numpy()

        def work(scene: int, first: int, last: int) -> None:
            march.query(arrays, places, scene, first, last, channels, *out)

        threads.run(work, _parts(batch, count, max(1, count // _POINTS_OF_TASK)))
        patience.is_ready(_kernel(field, "query"))
        return FieldOutput(density.view(shape), features.view(*shape, channels))


class _Call(NamedTuple):
    """What a march is told beside tensors."""

    adapter: Adapter
    field: Field
    how: Marching
    names: tuple[str, ...]


class _March(torch.autograd.Function):
    """Rays and learned tensors to features and weights."""

    @staticmethod
    def forward(
        ctx: Any,
        call: _Call,
        origins: Tensor,
        directions: Tensor,
        edges: Tensor,
        lengths: Tensor | None,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        batch, count, n = edges.shape[0], edges.shape[1], edges.shape[2] - 1
        if n < 1:
            raise ValueError("rays need at least one interval")
        channels = call.adapter.channels(call.field)
        features, weights = (
            edges.new_zeros(batch, count, channels),
            edges.new_zeros(batch, count, n),
        )
        arrays = call.adapter.arrays(call.field, dict(zip(call.names, tensors, strict=True)))
        rays, grid = _rays(origins, directions, edges, lengths), _grid(call.how.occupancy, batch)
        out = features.view(-1).numpy(), weights.view(-1).numpy()

        def work(scene: int, first: int, last: int) -> None:
            march.forward(arrays, rays, grid, scene, first, last, channels, *_how(call.how), *out)

        threads.run(work, _parts(batch, count, max(1, count // _RAYS_OF_TASK)))
        ctx.call = call
        ctx.save_for_backward(origins, directions, edges, lengths, features, weights, *tensors)
        return features, weights

    @staticmethod
    def backward(ctx: Any, *asked: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "fused marching has first derivatives only; for create_graph=True march with"
                ' unflat.rendering.backends.use("reference")'
            )
        origins, directions, edges, lengths, features, weights, *tensors = ctx.saved_tensors
        call: _Call = ctx.call
        _, wants_origins, wants_directions, _, wants_lengths, *wants = ctx.needs_input_grad
        cameras = wants_origins or wants_directions
        learned = dict(zip(call.names, tensors, strict=True))
        wanted = [name for name, is_wanted in zip(call.names, wants, strict=True) if is_wanted]
        arrays = call.adapter.arrays(call.field, learned)
        rays = _rays(origins, directions, edges, lengths)
        grid = _grid(call.how.occupancy, len(features))
        given = march.Given(
            features=flat(features),
            weights=flat(weights),
            feature_gradient=flat(asked[0]),
            weight_gradient=flat(asked[1]),
            origins=np.zeros(origins.numel() if cameras else 0, np.float32),
            directions=np.zeros(directions.numel() if cameras else 0, np.float32),
            lengths=np.zeros(weights.numel() if wants_lengths else 0, np.float32),
        )
        batch, count, channels = features.shape
        sums = _Gradients(call.adapter, arrays, wanted, batch)

        def work(scene: int, first: int, last: int, part: int) -> None:
            told = rays, grid, scene, first, last, channels, *_how(call.how), given, cameras
            march.backward(arrays, sums.of(part), *told)

        parts = enumerate(_parts(batch, count, sums.copies))
        threads.run(work, ((*rays_of_part, part) for part, rays_of_part in parts))
        made = sums.total()
        of_tensors = (
            call.adapter.gradient(name, made[name], call.field, learned[name])
            if name in made
            else None
            for name in call.names
        )
        return (
            None,
            torch.from_numpy(given.origins).view_as(origins) if cameras else None,
            torch.from_numpy(given.directions).view_as(directions) if cameras else None,
            None,
            torch.from_numpy(given.lengths).view_as(weights) if wants_lengths else None,
            *of_tensors,
        )


class _Gradients:
    """Room for what every part of the work adds up, and its sum in the order of the parts.

    Scenes have a stretch of a table each, so that parts of different scenes can share one. Where
    there are fewer scenes than threads, scenes are cut into as many parts, with a table for each.
    """

    def __init__(self, adapter: Adapter, arrays: Any, wanted: list[str], batch: int):
        self.kind = adapter.gradients
        sizes = {name: getattr(arrays, name).size for name in self.kind._fields if name in wanted}
        tables = {name: sizes.pop(name) for name in adapter.tables if name in sizes}
        most = max(1, _SPARE_BYTES // max(1, 4 * sum(tables.values())))
        threads_here = torch.get_num_threads()
        self.copies = 1 if batch >= threads_here else min(threads_here, most)
        self.tables = {
            name: [np.zeros(size, np.float32) for _ in range(self.copies)]
            for name, size in tables.items()
        }
        self.layers = {
            name: [np.zeros(size * LANES, np.float32) for _ in range(batch * self.copies)]
            for name, size in sizes.items()
        }

    def of(self, part: int) -> Any:
        """The named tuple that a part adds to."""
        nothing = np.zeros(0, np.float32)
        found = {name: copies[part % self.copies] for name, copies in self.tables.items()}
        found |= {name: parts[part] for name, parts in self.layers.items()}
        return self.kind(*(found.get(name, nothing) for name in self.kind._fields))

    def total(self) -> dict[str, np.ndarray]:
        """Everything added up, by name."""
        sums: dict[str, np.ndarray] = {}
        for name, copies in self.tables.items():
            sums[name] = copies[0]
            for copy in copies[1:]:
                sums[name] += copy
        for name, parts in self.layers.items():
            lanes = np.sum([part.reshape(-1, LANES).sum(1, np.float64) for part in parts], axis=0)
            sums[name] = lanes.astype(np.float32)
        return sums


def _kernel(field: Field, way: str) -> str:
    return f"{type(field).__name__}-{way}"


def _rays(
    origins: Tensor, directions: Tensor, edges: Tensor, lengths: Tensor | None
) -> march.RayArrays:
    of_intervals = np.zeros(0, np.float32) if lengths is None else flat(lengths)
    lines = flat(origins), flat(directions), flat(edges)
    return march.RayArrays(*lines, of_intervals, edges.shape[-1] - 1)


def _grid(occupancy: OccupancyGrid | None, batch: int) -> march.Grid:
    """An occupancy grid as arrays; without one, samples are asked everywhere."""
    if occupancy is None:
        three = np.ones(3, np.float32)
        cells = np.zeros(0, np.uint8)
        return march.Grid(cells, three, three, np.ones(3, np.int64), 1, True)
    scenes, nz, ny, nx = occupancy.cells.shape
    if scenes not in (1, batch):
        raise ValueError(f"a grid of {scenes} scenes for {batch} scenes")
    low, high = occupancy.bounds.detach().float()
    shape = torch.tensor([nx, ny, nz])
    return march.Grid(
        cells=flat(occupancy.cells),
        low=flat(low),
        scale=flat(shape / (high - low)),
        shape=flat(shape),
        scenes=scenes,
        outside=not occupancy.empty_outside,
    )


def _how(how: Marching) -> tuple[bool, float]:
    return how.opaque_last, max(how.least_light, LEAST_LIGHT)


def _parts(batch: int, count: int, pieces: int) -> Iterator[tuple[int, int, int]]:
    """Scene, first ray and the one after the last: each scene's rays in at most so many pieces."""
    step = -(-count // pieces)
    step = -(-step // march.RAYS) * march.RAYS
    for scene in range(batch):
        for piece in range(pieces):
            first, last = min(count, piece * step), min(count, (piece + 1) * step)
            yield scene, scene * count + first, scene * count + last
