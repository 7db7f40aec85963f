"""Where time goes in plain volume rendering and in a training step, with the floor of each part.

    python -m benchmarks.profile_parts                 # one thread, some two minutes
    python -m benchmarks.profile_parts --page          # fills benchmarks/PROFILE.md again

Everything runs on the reference backend. A part is timed alone on what the part before it gave;
its floor is explained in benchmarks/machine.py.
"""

import argparse
import contextlib
import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import rendering_scenes as scenes
from benchmarks.machine import CLOCKS, Rates, Work, fastest, machine_facts, rates
from benchmarks.page import fill, markdown
from benchmarks.plain_rendering import composite, look_up
from benchmarks.training_step import BATCH, TrainingStep
from unflat.fields.triplane import FeatureDecoder
from unflat.rendering import backends

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "profile.json"
PAGE = ROOT / "benchmarks" / "PROFILE.md"
SIDE, SAMPLES, CHANNELS = 64, 48, 32  # of the tri-plane picture
SECONDS = 1.0  # of every part


class Part(NamedTuple):
    """A piece of a computation."""

    name: str
    work: Callable[..., Tensor | tuple[Tensor, ...]]
    flops: float  # of the forward pass; with gradients `back` times as many on the way back
    back: float


# ---------------------------------------------------------------------- plain tri-plane rendering


def plain_parts() -> list[dict[str, Any]]:
    """Plain rendering cut in five, each forward alone and backward alone."""
    field, rays = scenes.triplane(SIDE, SAMPLES, CHANNELS)
    decoder = field.decoder
    planes = field.planes
    assert isinstance(decoder, FeatureDecoder)
    assert isinstance(planes, Tensor)
    points = SIDE**2 * SAMPLES
    lengths = rays.edges[0].diff(dim=1)

    def places(origins: Tensor, directions: Tensor) -> Tensor:
        middles = (rays.edges[0, :, 1:] + rays.edges[0, :, :-1]) / 2
        return (
            (origins[:, None] + middles[..., None] * directions[:, None]) / scenes.HALF
        ).reshape(-1, 3)

    def heads(raw: Tensor) -> tuple[Tensor, Tensor]:
        color = torch.sigmoid(raw[:, 1:]) * 1.002 - 0.001
        return functional.softplus(raw[:, 0] - 1), color.clamp(0, 1)

    def light(density: Tensor, color: Tensor) -> Tensor:
        alpha = 1 - torch.exp(-density.reshape(lengths.shape) * lengths)
        return composite(alpha, color.reshape(*lengths.shape, -1))[0]

    width = 2 * scenes.HIDDEN
    parts = [
        Part("points on rays", places, 0, 0),
        Part("three lookups", lambda at, planes: look_up(planes[0], at), points * 24 * CHANNELS, 1),
        Part("their sum", lambda found: found.sum(0), 0, 0),
        Part("first layer", decoder.into, points * width * CHANNELS, 2),
        Part("softplus", functional.softplus, 0, 0),
        Part("last layer", decoder.out, points * width * 4, 2),
        Part("density and color", heads, 0, 0),
        Part("light along rays", light, 0, 0),
    ]
    given: tuple[Tensor, ...] = (rays.origins[0], rays.directions[0])
    rows = []
    for part in parts:
        inputs = (*given, planes) if part.name == "three lookups" else given
        row, given = _timed(part, inputs)
        rows.append(row)
    return rows


def _timed(part: Part, inputs: tuple[Tensor, ...]) -> tuple[dict[str, Any], tuple[Tensor, ...]]:
    """Seconds forward and backward of a part, and what it gives."""
    with torch.no_grad():
        forward = fastest(lambda: part.work(*inputs), SECONDS, "cpu")
    leaves = [value.detach().requires_grad_(part.name != "points on rays") for value in inputs]
    if part.name == "three lookups":
        leaves[0].requires_grad_(False)  # the camera is not learned
    outputs = part.work(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    learned = [leaf for leaf in leaves if leaf.requires_grad]
    if isinstance(part.work, torch.nn.Module):
        learned += list(part.work.parameters())
    backward = 0.0
    if learned:
        above = [torch.ones_like(value) for value in outputs]
        backward = fastest(
            lambda: torch.autograd.grad(outputs, learned, above, retain_graph=True), SECONDS, "cpu"
        )
    given = tuple(value.detach() for value in outputs)
    moved = 4.0 * sum(value.numel() for value in (*inputs, *given))
    return {
        "part": part.name,
        "forward": forward,
        "backward": backward,
        "flops": part.flops,
        "flops_back": part.flops * part.back,
        "bytes": moved,
    }, given


# --------------------------------------------------------------------------- our view-space fields

_WATCHED = {
    "coordinates of points": (
        "unflat.fields.viewspace.view_coordinates",
        "unflat.fields.detail.view_coordinates",
    ),
    "lengths of intervals": ("unflat.rendering.backends.reference.interval_lengths",),
    "lookups of planes": ("unflat.fields.viewspace.sample_plane",),
    "lookups of the sheet and the photo": ("unflat.fields.detail.sample_plane",),
    "network and slab": ("unflat.fields.viewspace.ViewSpaceDecoder.forward",),
    "which points lie where": ("unflat.fields.detail.DetailField.at",),
    "behind the sheet": ("unflat.fields.detail.DetailField._beyond",),
    "light along rays": (
        "unflat.rendering.backends.reference.weights",
        "unflat.rendering.backends.reference.integrate",
    ),
}
REST = "all else: points, blocks, rays that go on"


@contextlib.contextmanager
def stopwatch(clock: str = "cpu") -> Iterator[dict[str, float]]:
    """Seconds by name that calls of the watched functions take, without those watched inside."""
    now = CLOCKS[clock]
    spent: dict[str, float] = defaultdict(float)
    inner = [0.0]  # seconds of watched calls inside the one that runs, outermost first

    def watched(label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            inner.append(0.0)
            start = now()
            try:
                return function(*args, **named)
            finally:
                whole = now() - start
                spent[label] += whole - inner.pop()
                inner[-1] += whole

        return call

    with contextlib.ExitStack() as stack:
        for label, targets in _WATCHED.items():
            for target in targets:
                patch = mock.patch(target, autospec=False)
                original = patch.get_original()[0]
                stack.enter_context(mock.patch(target, watched(label, original)))
        yield spent


def viewspace_parts(mode: str) -> list[dict[str, Any]]:
    """A picture from the side out of tokens or detail: untrained, every ray to its end."""
    from benchmarks.speed_cases import prepare

    work = prepare(f"{mode}:{SIDE}:{SAMPLES}:all")
    work()
    best: dict[str, float] = {}
    for _ in range(5):
        with stopwatch() as spent:
            start = time.process_time()
            work()
            whole = time.process_time() - start
        if not best or whole < sum(best.values()):
            best = {**spent, REST: whole - sum(spent.values())}
    channels = 32
    points = SIDE**2 * SAMPLES
    network = 2 * (channels * channels + 4 * channels + 3 * channels + 14 * 2 * channels)
    flops = {"lookups of planes": points * 2 * 4 * (3 * channels + 5)}
    flops["network and slab"] = points * network
    if mode == "detail":
        flops = {}  # how many points ask the base depends on the scene
    return [
        {"part": part, "forward": seconds, "flops": flops.get(part, 0.0)}
        for part, seconds in best.items()
    ]


# -------------------------------------------------------------------------- a VQ3D training step


def step_parts() -> list[dict[str, Any]]:
    """Stage 1, configuration `small`: every part forward and backward to what it got."""
    from unflat.nn.depth_net import laplace_loss
    from unflat.rendering.forward_warp import fill_holes, forward_warp
    from unflat.systems.vq3d.views import novel_cameras

    step = TrainingStep()
    recipe, model, batch, generator = step.recipe, step.model, step.batch, step.generator
    frame, image, taught = model.frame, batch["image"], torch.arange(BATCH)

    def network() -> tuple[Any, Any]:
        encoded = model.encode(image)
        return encoded, model.decode(encoded.quantized.tokens)

    encoded, planes = network()
    leaves = type(planes)(*(plane.detach().requires_grad_() for plane in planes))
    above = [torch.ones_like(plane) for plane in planes]

    def canonical() -> None:
        terms = recipe._canonical(model.field(leaves), batch, 0.5, generator())
        torch.stack(list(terms.values())).sum().backward()

    def novel() -> None:
        terms = recipe._novel(model.field(leaves), batch, taught, generator())
        torch.stack(list(terms.values())).sum().backward()

    near = frame.d_far + (frame.d_near - frame.d_far) * batch["disparity"][:, 0]
    turns = recipe.loss.novel_angle * torch.randn(BATCH, 3)
    cameras = novel_cameras(frame.focal_assumed, near, turns)

    def warp() -> None:
        with torch.no_grad():
            fill_holes(forward_warp(image, near, *cameras))

    def refiner() -> None:
        assert model.refiner is not None
        surface = leaves.uv[:, 3:4].detach() + 0.5
        refined = model.refiner(image, surface, encoded.features.detach())
        laplace_loss(refined, batch["disparity"]).mean().backward()

    def network_back() -> None:
        torch.autograd.backward(list(network()[1]), above)

    seconds = {
        name: fastest(work, SECONDS, "cpu")
        for name, work in {
            "encoder and decoder": network_back,
            "canonical rays": canonical,
            "novel rays, with the warp": novel,
            "of it the warp and its holes": warp,
            "refiner": refiner,
            "clipping and AdamW": step.update,
            "the whole step": step.whole,
        }.items()
    }
    flops = {
        "encoder and decoder": _flops(network_back),
        "canonical rays": _flops(canonical),
        "novel rays, with the warp": _flops(novel),
        "refiner": _flops(refiner),
        "the whole step": _flops(step.whole),
    }
    weights = sum(value.numel() for value in model.parameters())
    moved = {"clipping and AdamW": 4.0 * 9 * weights}  # read 4, written 3, and clipping's 2
    return [
        {
            "part": part,
            "forward": value,
            "flops": flops.get(part, 0.0),
            "bytes": moved.get(part, 0.0),
        }
        for part, value in seconds.items()
    ]


def _flops(work: Work) -> float:
    """Of matrix products, convolutions and attention, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


_GROUPS = {
    "optimizer": "_foreach|_fused|AdamW|Optimizer",
    "lookups (grid_sampler)": "grid_sampler",
    "convolutions": "conv",
    "attention": "scaled_dot|flash",
    "norms": "norm",
    "matrix products": "::(mm|addmm|bmm|baddbmm|linear|matmul)$",
    "GELU, SiLU, softplus, exp, tanh": "gelu|silu|softplus|exp(m1)?(_backward)?$|tanh|sigmoid|"
    "sin|cos",
    "copies, layouts, cat, fill": "copy_|fill_|zero_|::cat|contiguous|clone|index|gather|scatter|"
    "pixel|slice|select|stack|zeros|empty|pad|im2col|::to$|narrow|split",
    "sums": "::sum|mean|cumsum",
    "sums and products, element by element": "::(add|sub|mul|div|neg|rsub|addcmul)_?$",
}


def step_operators() -> list[dict[str, Any]]:
    """A whole step's seconds by kind of operator, by torch's own profiler."""
    from torch.profiler import ProfilerActivity, profile

    step = TrainingStep()
    step.whole()
    best: dict[str, float] = {}
    for _ in range(5):
        with profile(activities=[ProfilerActivity.CPU]) as told:
            step.whole()
        spent: dict[str, float] = defaultdict(float)
        for event in told.key_averages():
            spent[_group(event.key)] += event.self_cpu_time_total * 1e-6
        if not best or sum(spent.values()) < sum(best.values()):
            best = spent
    return [
        {"part": name, "forward": seconds}
        for name, seconds in sorted(best.items(), key=lambda item: -item[1])
    ]


def _group(operator: str) -> str:
    if "::" not in operator:
        return "optimizer" if "Optimizer" in operator else "all else"
    found = (name for name, pattern in _GROUPS.items() if re.search(pattern, operator))
    return next(found, "all else")


# ------------------------------------------------------------------------------------------- page


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Markdown tables by their names on the page."""
    machine = Rates(*result["rates"])
    return {
        "profile-facts": _facts(result, machine),
        "profile-plain": _plain_table(result["plain"], machine),
        "profile-tokens": _table(result["tokens"], machine),
        "profile-detail": _table(result["detail"], machine),
        "profile-step": _table(result["step"], machine, total=False),
        "profile-operators": _table(result["operators"], machine),
    }


def _facts(result: dict[str, Any], machine: Rates) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    return (
        f"`python -m benchmarks.profile_parts`, {result['date']}, {result['machine']}, one thread, "
        f"{versions}. CPU time of the process, the fastest of several calls. Measured rates of one "
        f"thread: {machine.flops / 1e9:.0f} GFLOP/s (float32 matrix product), "
        f"{machine.bytes / 1e9:.1f} GB/s (copy, bytes read and written)."
    )


def _plain_table(rows: list[dict[str, Any]], machine: Rates) -> str:
    head = [
        "part",
        "forward",
        "backward",
        "its arithmetic, forward",
        "backward",
        "its bytes, forward",
    ]
    lines = [head]
    for row in rows:
        figures = [row["forward"], row["backward"], row["flops"] / machine.flops]
        figures += [row["flops_back"] / machine.flops, row["bytes"] / machine.bytes]
        lines.append([row["part"], *(f"{1e3 * value:.1f} ms" for value in figures)])
    sums = [sum(row[key] for row in rows) for key in ("forward", "backward", "flops", "flops_back")]
    sums = [sums[0], sums[1], sums[2] / machine.flops, sums[3] / machine.flops]
    together = [f"{1e3 * value:.1f} ms" for value in sums]
    rays = SIDE**2
    moved = scenes.triplane_bytes(rays, SAMPLES, CHANNELS)["forward"] / machine.bytes
    lines.append(["**all**", *together, f"{1e3 * moved:.1f} ms if nothing between is written"])
    return markdown(lines)


def _table(rows: list[dict[str, Any]], machine: Rates, total: bool = True) -> str:
    floors = any(row.get("flops") or row.get("bytes") for row in rows)
    lines = [["part", "time", "share", *(["floor"] if floors else [])]]
    whole = sum(row["forward"] for row in rows) if total else rows[-1]["forward"]
    for row in rows:
        floor = machine.floor(row.get("flops", 0.0), row.get("bytes", 0.0))
        cells = [f"{1e3 * row['forward']:.1f} ms", f"{row['forward'] / whole:.0%}"]
        if floors:
            cells.append(f"{1e3 * floor:.1f} ms" if floor else "-")
        lines.append([row["part"], *cells])
    if total:
        lines.append(["**all**", f"{1e3 * whole:.1f} ms", "100%", *([""] if floors else [])])
    return markdown(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_parts", description=__doc__)
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    options = parser.parse_args()
    if not options.page:
        torch.set_num_threads(1)
        with backends.use("reference"):
            result = {
                **machine_facts(),
                "rates": list(rates("cpu")),
                "plain": plain_parts(),
                "tokens": viewspace_parts("tokens"),
                "detail": viewspace_parts("detail"),
                "step": step_parts(),
                "operators": step_operators(),
            }
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    for name, table in tables(result).items():
        print(f"\n{name}\n{table}")
    fill(PAGE, tables(result))


if __name__ == "__main__":
    main()
