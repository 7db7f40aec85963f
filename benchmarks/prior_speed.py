"""Samples per second of the second stage: masked decoding beside raster order, equal width.

    python benchmarks/prior_speed.py --device cpu --threads 1

Seeded, untrained weights (speed does not depend on them), 1024 tokens of one code each, batch 1.
Raster order is timed over whole samples with a cache. Without one, a sample of width 256 takes
minutes; its passes are timed at evenly spaced lengths, and their mean times 1024 is the sample.
Writes a table, and --report FILE as JSON.
"""

import argparse
import dataclasses
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from unflat.systems.vq3d.prior import Prior
from unflat.systems.vq3d.prior_config import PRESETS, PriorConfig

LENGTHS = 16  # at which passes without a cache are timed


def main() -> None:
    """Time, print, write."""
    parser = argparse.ArgumentParser(description="Samples per second of the second stage.")
    parser.add_argument("--preset", default="small", choices=sorted(PRESETS))
    parser.add_argument("--grid", type=int, default=32, help="tokens along a side")
    parser.add_argument("--codebook", type=int, default=8192)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts")
    parser.add_argument("--report", type=Path, default=None)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    config = dataclasses.replace(
        PRESETS[options.preset](),
        grid=options.grid,
        codebook_sizes=(options.codebook,),
        levels=(),
        classes=10,
    )
    seconds = measured(config, options.device, options.repeats)
    slowest = seconds["raster, no cache"]
    print(f"{options.preset}, {config.tokens} tokens, batch 1, {options.device}")
    print(f"{'order':<20}{'passes':>8}{'s/sample':>12}{'samples/s':>12}{'times':>9}")
    for name, value in seconds.items():
        passes = int(name.split()[1]) if name.startswith("masked") else config.tokens
        print(f"{name:<20}{passes:>8}{value:>12.4f}{1 / value:>12.3f}{slowest / value:>9.1f}")
    if options.report is not None:
        machine = {"machine": platform.processor(), "threads": torch.get_num_threads()}
        if options.device == "cuda":
            machine["gpu"] = torch.cuda.get_device_name()
        values = {
            "config": dataclasses.asdict(config),
            "device": options.device,
            "torch": torch.__version__,
            "seconds_per_sample": seconds,
            **machine,
        }
        options.report.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def measured(config: PriorConfig, device: str, repeats: int) -> dict[str, float]:
    """Seconds of a sample, by the way of decoding."""
    seconds: dict[str, float] = {}
    masked, raster = (_made(config, order, device) for order in ("masked", "raster"))
    labels = torch.zeros(1, dtype=torch.long, device=device)

    def drawn(prior: Prior, steps: int) -> Callable[[], object]:
        generator = torch.Generator(device=device).manual_seed(0)
        return lambda: prior.sample(labels, generator, steps=steps)

    for steps in (8, 16):
        seconds[f"masked {steps}"] = fastest(drawn(masked, steps), device, repeats)
    seconds["raster, cache"] = fastest(drawn(raster, 1), device, repeats)
    codes = torch.zeros(1, config.tokens, 1, dtype=torch.long, device=device)
    passes = []
    for number in range(LENGTHS):
        length = round((number + 0.5) * config.tokens / LENGTHS)
        passes.append(
            fastest(lambda n=length: _whole_pass(raster, codes, labels, n), device, repeats)
        )
    seconds["raster, no cache"] = sum(passes) / len(passes) * config.tokens
    return seconds


def fastest(work: Callable[[], object], device: str, repeats: int) -> float:
    """Seconds of the fastest of some runs, after one that does not count."""
    found = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return min(found[1:])


def _made(config: PriorConfig, order: str, device: str) -> Prior:
    torch.manual_seed(0)
    return Prior(dataclasses.replace(config, order=order)).to(device).eval()


@torch.no_grad()
def _whole_pass(prior: Prior, codes: torch.Tensor, labels: torch.Tensor, length: int) -> None:
    """One step of raster order without a cache: all codes so far, logits of the next."""
    table = prior.embedding()
    hidden = prior.trunk(prior._raster_inputs(table, codes.flatten(1)[:, : length - 1], labels))
    prior.logits(hidden[:, -1], 0, table).softmax(-1)


if __name__ == "__main__":
    main()
