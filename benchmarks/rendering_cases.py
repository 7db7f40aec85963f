"""The cases of `benchmarks.rendering`; each is measured in a process of its own.

A case is its words: ``measure("triplane", "64", "48", "32", "forward")``. What it gives goes into
``results/rendering.json`` as it is; None where there is nothing to measure in this checkout.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import rendering_scenes as scenes
from benchmarks.machine import CLOCKS, Work, alternate, machine_facts, rates, summary
from benchmarks.plain_rendering import assert_same_picture, plain_rays
from benchmarks.process import memory_of
from unflat.errors import UserError
from unflat.fields.field import Field
from unflat.metrics import psnr
from unflat.rendering import backends
from unflat.rendering.backends import Rays
from unflat.rendering.occupancy import OccupancyGrid
from unflat.rendering.render import RenderOptions, render, render_rays

CHUNK = 1024  # rays at once, of plain rendering that is not asked all at once
PICTURE_TOLERANCE = 1e-4  # of colours in [0, 1]
GRADIENT_TOLERANCE = 1e-3  # of the largest gradient
LARGE = 64 * 64 * 96  # samples from which a case is repeated less
GUIDE_SAMPLES, GUIDED_SAMPLES = 48, 12  # of the picture of a quarter of the side, and of the last
FRAMES, FRAME_SIDE = 60, 128
NOVEL = (16, 96, 24)  # pictures, rays and samples of a training step's novel views
_QUICK = bool(os.environ.get("UNFLAT_BENCH_QUICK"))
SECONDS = (
    0.0 if _QUICK else 2.0
)  # of a case and a number of threads, if a few calls of each way take no longer
_CLOCK = os.environ.get("UNFLAT_BENCH_CLOCK", "wall")  # of one thread; more have only the wall's
ASKED = ("reference", "fused")


def measure(kind: str, *words: str) -> dict[str, Any] | None:
    """The figures of a case."""
    return _KINDS[kind](*words)


def thread_counts() -> list[int]:
    """1 and, where there are more cores and they are wanted, 2."""
    most = int(os.environ.get("UNFLAT_BENCH_THREADS", "2"))
    return list(range(1, min(most, os.cpu_count() or 1) + 1))


# --------------------------------------------------------------------------------- one and another


def timed(works: dict[str, Work], points: int = 0) -> dict[str, Any]:
    """Fastest and median of every work by threads: ``{"1": {"plain": {"min": ...}}}``."""
    times: dict[str, Any] = {}
    large = points > LARGE or _QUICK
    for threads in thread_counts():
        torch.set_num_threads(threads)
        clock = _CLOCK if threads == 1 else "wall"
        found = alternate(works, SECONDS, clock, 2 if large else 3, warm_up=not large)
        times[str(threads)] = {name: summary(every) for name, every in found.items()}
    return times


def refused(field: Field, rays: Rays) -> str | None:
    """Why no fused backend takes them, in words; None if one does."""
    try:
        with backends.use("fused"):
            backends.pick(field, rays)
    except UserError as error:
        return str(error)
    return None


def marching(field: Field, rays: Rays, backend: backends.Choice, both: bool) -> Work:
    """Rays through a field by a backend; with gradients to all that is learned."""

    def work() -> Tensor:
        with backends.use(backend), torch.set_grad_enabled(both):
            out = render_rays(field, rays.origins, rays.directions, rays.edges, opaque_last=False)
            return backward(field, out.features) if both else out.features

    return work


def backward(field: Field, features: Tensor) -> Tensor:
    """The features, after the gradients of the sum of their squares were computed."""
    assert isinstance(field, nn.Module)
    field.zero_grad(set_to_none=True)
    features.square().sum().backward()
    return features.detach()


def agreement(field: Field, one: Work, other: Work, both: bool) -> dict[str, float]:
    """Largest differences of two works' pictures and gradients; these relative to their largest.

    Raises:
        AssertionError: they are too large: times would compare different things.
    """
    assert isinstance(field, nn.Module)
    first = one()
    wanted = [_gradient(value) for value in field.parameters()] if both else []
    figures = {"picture": float((first - other()).abs().max())}
    assert figures["picture"] <= PICTURE_TOLERANCE, figures
    if both:
        found = [_gradient(value) for value in field.parameters()]
        pairs = zip(wanted, found, strict=True)
        figures["gradient"] = max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)
        assert figures["gradient"] <= GRADIENT_TOLERANCE, figures
    return figures


def _gradient(value: nn.Parameter) -> Tensor:
    assert value.grad is not None
    return value.grad.clone()


# --------------------------------------------------------------------------- tri-planes and voxels


def _triplane(side: str, samples: str, channels: str, which: str) -> dict[str, Any]:
    """Plain PyTorch as written and in chunks, the reference backend, the fused one."""
    case = scenes.triplane(int(side), int(samples), int(channels))
    with backends.use("reference"):
        assert_same_picture(case.field, case.rays)
    points = int(side) ** 2 * int(samples)
    works = {
        "plain": _plain(case, None, which == "both"),
        "plain in chunks": _plain(case, CHUNK, which == "both"),
    }
    if points <= LARGE:
        works["reference"] = marching(*case, "reference", which == "both")
    figures = _with_fused(case, works, which == "both", points)
    figures["flops"] = scenes.triplane_work(points, int(channels))[which]
    figures["bytes"] = scenes.triplane_bytes(int(side) ** 2, int(samples), int(channels))[which]
    return figures


def _plain(case: scenes.TriplaneCase, chunk: int | None, both: bool) -> Work:
    field, rays = case
    lines = rays.origins[0], rays.directions[0], rays.edges[0]

    def work() -> Tensor:
        with torch.set_grad_enabled(both):
            features = plain_rays(field, *lines, chunk)
            return backward(field, features) if both else features

    return work


def _with_fused(
    case: tuple[Field, Rays], works: dict[str, Work], both: bool, points: int
) -> dict[str, Any]:
    """Times of all works and of the fused backend, once that was found to agree with the last."""
    field, rays = case
    figures: dict[str, Any] = {"refused": refused(field, rays)}
    if figures["refused"] is None:
        fused = marching(field, rays, "fused", both)
        figures["difference"] = agreement(field, list(works.values())[-1], fused, both)
        works = {**works, "fused": fused}
    return figures | {"times": timed(works, points)}


def _voxels(side: str, samples: str, which: str) -> dict[str, Any]:
    """The reference backend and the fused one."""
    case = scenes.voxels(int(side), int(samples))
    works = {"reference": marching(*case, "reference", which == "both")}
    return _with_fused(case, works, which == "both", int(side) ** 2 * int(samples))


def _distances(hidden: str, which: str) -> dict[str, Any]:
    """The same for tri-planes of signed distances, as many as a training step has."""
    case = scenes.distances(int(hidden))
    works = {"reference": marching(*case, "reference", which == "both")}
    samples = scenes.OBJECTS * scenes.OBJECT_SIDE**2 * scenes.OBJECT_SAMPLES
    return _with_fused(case, works, which == "both", samples)


# ------------------------------------------------------------------------------- view-space fields


def _viewspace(mode: str, side: str, samples: str) -> dict[str, Any]:
    """`render` from the side, untrained, every ray to its end."""
    from benchmarks.speed_cases import prepare

    torch.manual_seed(0)
    work = prepare(f"{mode}:{side}:{samples}:all")

    def by(backend: backends.Choice) -> Work:
        def asked() -> Tensor:
            with backends.use(backend):
                return work().features

        return asked

    return _both_ways({name: by(name) for name in ASKED})


def _both_ways(works: dict[str, Work]) -> dict[str, Any]:
    """Times of reference and fused, once their pictures were found to agree."""
    wanted = works["reference"]()
    try:
        found = works["fused"]()
    except UserError as error:
        works = {"reference": works["reference"]}
        return {"refused": str(error), "times": timed(works)}
    difference = float((wanted - found).abs().max())
    assert difference <= PICTURE_TOLERANCE, f"fused differs from the reference by {difference}"
    return {"difference": {"picture": difference}, "times": timed(works)}


def _novel() -> dict[str, Any]:
    """Random rays as in a training step, with gradients to planes and network."""
    from unflat.fields.viewspace import ViewSpaceField, ViewSpacePlanes
    from unflat.rendering.sampling import even_edges, to_distance
    from unflat.systems.vq3d import PRESETS, build

    torch.manual_seed(0)
    model = build(PRESETS["small"]())
    batch, count, n = NOVEL
    with torch.no_grad():
        made = model.decode(model.encode(torch.rand(batch, 3, 64, 64)).quantized.tokens)
    assert isinstance(made, ViewSpacePlanes)
    planes = ViewSpacePlanes(*(plane.clone().requires_grad_() for plane in made))
    field = model.field(planes)
    assert isinstance(field, ViewSpaceField)
    shift = 0.1 * torch.randn(batch, 1, 3).expand(-1, count, -1)
    ways = torch.cat([0.4 * torch.randn(batch, count, 2), torch.ones(batch, count, 1)], -1)
    edges = to_distance(even_edges(n), 0.6, 14.0, "disparity").expand(batch, count, -1)
    rays = Rays(shift, nn.functional.normalize(ways, dim=-1), edges.contiguous())
    learned = nn.ParameterList([*field.parameters()])

    def by(backend: backends.Choice) -> Work:
        def work() -> Tensor:
            with backends.use(backend):
                out = render_rays(field, rays.origins, rays.directions, rays.edges)
            learned.zero_grad()
            for plane in planes:
                plane.grad = None
            out.features.square().sum().backward()
            return out.features.detach()

        return work

    return _both_ways({name: by(name) for name in ASKED})


# ----------------------------------------------------------------------------------- fewer samples


@torch.no_grad()
def _skipping(side: str, samples: str) -> dict[str, Any]:
    """A ball in empty space: what can be left out, and how near the picture stays."""
    size, count = int(side), int(samples)
    case = scenes.ball(size, count)
    even = RenderOptions(
        samples=count,
        near=scenes.NEAR,
        far=scenes.FAR,
        spacing="distance",
        opaque_last=False,
        least_light=0.0,
    )
    ends = replace(even, least_light=1e-3)
    start = CLOCKS[_CLOCK]()
    grid = OccupancyGrid.of(case.field, resolution=64)
    figures: dict[str, Any] = {
        "grid_seconds": CLOCKS[_CLOCK]() - start,
        "occupied": float(grid.cells.float().mean()),
    }
    options = {
        "every sample": even,
        "early end": ends,
        "occupancy": replace(ends, occupancy=grid),
        "guided": replace(ends, coarse=4, samples=GUIDE_SAMPLES, fine_samples=GUIDED_SAMPLES),
        "occupancy, guided": replace(
            ends, occupancy=grid, coarse=4, samples=GUIDE_SAMPLES, fine_samples=GUIDED_SAMPLES
        ),
    }

    def by(chosen: RenderOptions) -> Work:
        def work() -> Tensor:
            with torch.no_grad(), backends.use("fused"):
                return render(case.field, scenes.camera(), size, size, chosen).features

        return work

    works = {"plain": _plain(case, None, False), "plain in chunks": _plain(case, CHUNK, False)}
    figures["refused"] = refused(*case)
    if figures["refused"] is None:
        fused = {name: by(chosen) for name, chosen in options.items()}
        wanted = works["plain in chunks"]().mT.reshape(1, 3, size, size)
        figures["psnr"] = {
            name: float(psnr(work(), wanted).mean().clamp_max(99)) for name, work in fused.items()
        }
        works |= fused
    return figures | {"times": timed(works, size**2 * count)}


# ------------------------------------------------------------------------------- growth and memory


def _growth(way: str, side: str, samples: str) -> dict[str, Any]:
    """Seconds and MiB, forward and with gradients, of one way alone; 32 channels."""
    torch.set_num_threads(1)
    small, case = scenes.triplane(8, 8, 32), scenes.triplane(int(side), int(samples), 32)
    if way == "fused" and refused(*case) is not None:
        return {"refused": refused(*case)}
    figures: dict[str, Any] = {}
    for which in ("forward", "both"):
        _work_of(way, small, which == "both")()  # whatever is loaded or compiled once
        work = _work_of(way, case, which == "both")
        grown = memory_of(work)
        times = alternate({way: work}, SECONDS / 2, _CLOCK, least=2, warm_up=False)
        figures[which] = {"mib": grown, **summary(times[way])}
    return figures


def _work_of(way: str, case: scenes.TriplaneCase, both: bool) -> Work:
    if way in ASKED:
        return marching(*case, "reference" if way == "reference" else "fused", both)
    return _plain(case, CHUNK if way == "plain in chunks" else None, both)


# ------------------------------------------------------------------------------------ first call


def _first_call() -> dict[str, Any]:
    """Seconds of the first fused call of each kind, and of the second."""
    case = scenes.triplane(16, 16, 32)
    if (why := refused(*case)) is not None:
        return {"refused": why}
    figures: dict[str, Any] = {}
    for which in ("forward", "both"):
        work = marching(*case, "fused", which == "both")
        start = time.perf_counter()
        work()
        first = time.perf_counter()
        work()
        figures[which] = {"first": first - start, "second": time.perf_counter() - first}
    return figures


# --------------------------------------------------------------------------------- end to end, step


def _photo(quality: str, backend: str) -> dict[str, Any] | None:
    """Wall-clock seconds from the photo to the frames, Python's own start included.

    The first run of two or more is left out: kernels are compiled in it.
    """
    from unflat.hub import example_picture, is_here

    if not is_here("vq3d-small"):
        return None
    size = ["--frames", str(FRAMES), "--size", str(FRAME_SIDE)]
    script = (
        "import sys, unflat; scene = unflat.reconstruct(sys.argv[1]); "
        f"frames = scene.orbit(frames={FRAMES}, size=({FRAME_SIDE}, {FRAME_SIDE}), "
        "quality='field'); frames.save('orbit.webp')"
    )
    command = [sys.executable, "-m", "unflat", "reconstruct", "photo.jpg", *size, "--out", "made"]
    if quality == "field":
        command = [sys.executable, "-c", script, "photo.jpg"]
    seconds = []
    for _ in range(1 if backend == "reference" else 3):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "photo.jpg").write_bytes(Path(example_picture()).read_bytes())
            start = time.perf_counter()
            subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, "UNFLAT_BACKEND": backend},
                check=True,
                capture_output=True,
            )
            seconds.append(time.perf_counter() - start)
    return summary(seconds[1:] or seconds)


def _step() -> dict[str, Any]:
    """A training step of VQ3D stage 1, `small`, 16 pictures, reference against auto."""
    from benchmarks.training_step import TrainingStep

    step = TrainingStep()

    def by(backend: backends.Choice) -> Work:
        def work() -> None:
            with backends.use(backend):
                step.whole()

        return work

    return {"times": timed({"reference": by("reference"), "auto": by("auto")})}


# ------------------------------------------------------------------------------------------- facts


def _rates() -> dict[str, Any]:
    """What the machine can do, by threads, and what else figures depend on."""
    found = {}
    for threads in thread_counts():
        torch.set_num_threads(threads)
        found[str(threads)] = list(rates(_CLOCK if threads == 1 else "wall"))
    extra = {}
    with contextlib.suppress(ImportError):
        import numba

        extra["numba"] = numba.__version__
    facts = machine_facts()
    facts["versions"] |= extra
    return {**facts, "rates": found, "cuda": torch.cuda.is_available()}


_KINDS: dict[str, Callable[..., dict[str, Any] | None]] = {
    "facts": _rates,
    "triplane": _triplane,
    "voxels": _voxels,
    "distances": _distances,
    "viewspace": _viewspace,
    "novel": _novel,
    "skipping": _skipping,
    "growth": _growth,
    "first": _first_call,
    "photo": _photo,
    "step": _step,
}
