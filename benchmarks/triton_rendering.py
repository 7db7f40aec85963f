"""The Triton kernels on this computer's CUDA device, beside plain torch: time, memory, roofline.

    python -m benchmarks.triton_rendering     # 64^2, 128^2, 256^2 rays of 48 and 96 samples
    python -m benchmarks.triton_rendering --sides 128 --samples 48 --channels 16
    python -m benchmarks.triton_rendering --output results.json

First it checks that both give the same picture and gradients. Then every case is timed after a
warm-up (which compiles), with the device's own clock; the fastest of several runs is kept.

"floor" is the least time that the device could need: additions and multiplications over the rate
of its float32 matrix products, or bytes over the rate at which it copies, both measured here,
whichever is more. "roof" is the floor's share of the time that the fused kernels took in float32.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.rendering_scenes import Case, triplane, triplane_bytes, triplane_work
from unflat.rendering.backends import REFERENCE, Backend, Marched, Marching, Rays

REPETITIONS = 7
LARGEST_ERROR = 1e-4  # of the picture
LARGEST_GRADIENT_ERROR = 1e-3  # of every gradient's norm
WAYS = ("float32", "bfloat16")


def on_device(case: Case) -> Case:
    """The same case on the CUDA device."""
    lines = (None if part is None else part.cuda() for part in case.rays)
    return Case(case.field.cuda(), Rays(*lines))


def march(backend: Backend, case: Case, way: str = "float32") -> Marched:
    """All rays at once, to their ends."""
    with torch.autocast("cuda", torch.bfloat16, enabled=way == "bfloat16"):
        return backend.march(case.field, case.rays, Marching())


def gradients(backend: Backend, case: Case, way: str = "float32") -> tuple[torch.Tensor, ...]:
    """Of a sum of squares, by all that the field learns."""
    loss = march(backend, case, way).features.square().sum()
    return torch.autograd.grad(loss, list(case.field.parameters()))


def check(fused: Backend, channels: int) -> None:
    """Stops unless both backends agree.

    Raises:
        SystemExit: they do not, or the fused one refuses.
    """
    case = on_device(triplane(32, 24, channels))
    refused = fused.refuses(case.field, case.rays)
    if refused is not None:
        raise SystemExit(f"The fused backend refuses: {refused}.")
    with torch.no_grad():
        apart = march(REFERENCE, case).features - march(fused, case).features
        half = march(REFERENCE, case).features - march(fused, case, "bfloat16").features
    pairs = zip(gradients(REFERENCE, case), gradients(fused, case), strict=True)
    worst = max(float((one - two).norm() / one.norm()) for one, two in pairs)
    error, decibels = float(apart.abs().max()), float(-10 * half.square().mean().log10())
    print(f"agreement: picture {error:.1e}, gradients {worst:.1e}, bfloat16 {decibels:.1f} dB")
    if not (error <= LARGEST_ERROR and worst <= LARGEST_GRADIENT_ERROR and decibels >= 45):
        raise SystemExit("The backends do not agree; times would mean nothing.")


def timed(work: Callable[[], Any]) -> dict[str, float] | None:
    """Milliseconds of the fastest run and the most MiB held during it; None if memory ran out."""
    try:
        work()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        times = []
        for _ in range(REPETITIONS):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            stop.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(stop))
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None
    return {
        "milliseconds": min(times),
        "mib": (torch.cuda.max_memory_allocated() - before) / 2**20,
    }


def rates() -> dict[str, float]:
    """What the device does a second: float32 operations in matrix products, bytes copied."""
    square = torch.randn(8192, 8192, device="cuda")
    target = torch.empty_like(square)
    product = timed(lambda: torch.mm(square, square, out=target))
    large = torch.randn(2**28, device="cuda")
    copy_to = torch.empty_like(large)
    copied = timed(lambda: copy_to.copy_(large))
    if product is None or copied is None:
        raise SystemExit("The device has too little free memory to measure its rates (2 GiB).")
    return {
        "operations": 2 * 8192**3 / (product["milliseconds"] / 1e3),
        "bytes": 2 * 4 * 2**28 / (copied["milliseconds"] / 1e3),
    }


def measure(fused: Backend, side: int, samples: int, channels: int, rate: dict) -> dict[str, Any]:
    """One case: forward, and forward with backward, of both backends."""
    case = on_device(triplane(side, samples, channels))
    found: dict[str, Any] = {"side": side, "samples": samples, "channels": channels}
    work = triplane_work(side * side * samples, channels)
    moved = triplane_bytes(side * side, samples, channels)

    def forward(backend: Backend, way: str) -> None:
        with torch.no_grad():
            march(backend, case, way)

    runs = {"forward": forward, "both": lambda backend, way: gradients(backend, case, way)}
    for what, run in runs.items():
        floor = 1e3 * max(work[what] / rate["operations"], moved[what] / rate["bytes"])
        found[what] = {
            "floor_milliseconds": floor,
            "reference": timed(lambda run=run: run(REFERENCE, "float32")),
            **{way: timed(lambda run=run, way=way: run(fused, way)) for way in WAYS},
        }
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """Rows of the table for one case."""

    def shown(one: dict[str, float] | None) -> str:
        return "   no memory" if one is None else f"{one['milliseconds']:8.2f} ms"

    def memory(one: dict[str, float] | None) -> str:
        return "-" if one is None else f"{one['mib']:.0f}"

    rows = []
    for what in ("forward", "both"):
        part = found[what]
        plain, fused = part["reference"], part["float32"]
        ratio = (
            ""
            if not plain or not fused
            else f"{plain['milliseconds'] / fused['milliseconds']:.1f}x"
        )
        share = (
            "" if not fused else f"{100 * part['floor_milliseconds'] / fused['milliseconds']:.0f}%"
        )
        rows.append(
            f"{found['side']:4}^2 x {found['samples']:3} {what:8} {shown(plain)} {shown(fused)}"
            f" {shown(part['bfloat16'])} {ratio:>7} {memory(plain):>7} {memory(fused):>6}"
            f" {part['floor_milliseconds']:8.2f} ms {share:>5}"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--samples", type=int, nargs="+", default=[48, 96])
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--output", type=Path, help="also write the figures there, as JSON")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("This needs a CUDA device, and torch finds none here.")
    from unflat.rendering.backends.triton.backend import Triton

    torch.backends.cuda.matmul.allow_tf32 = False
    fused = Triton()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    check(fused, options.channels)
    rate = rates()
    print(f"{rate['operations'] / 1e12:.1f} TFLOP/s in float32, {rate['bytes'] / 1e9:.0f} GB/s")
    heads = ("reference", "fused", "bfloat16", "faster", "MiB ref", "fused", "floor", "roof")
    widths = (11, 11, 11, 7, 7, 6, 11, 5)
    titles = (f"{head:>{width}}" for head, width in zip(heads, widths, strict=True))
    print(f"{'rays x samples':21} {' '.join(titles)}")
    found = []
    for side in options.sides:
        for samples in options.samples:
            found.append(measure(fused, side, samples, options.channels, rate))
            print("\n".join(lines(found[-1])), flush=True)
    if options.output:
        about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rates": rate}
        options.output.write_text(json.dumps({**about, "cases": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
