"""Ten steps of inversion: the published settings beside unflat's, speed and quality in one run.

    python -m benchmarks.inversion_speed --model MODEL --data cars-srn.tar   # ten minutes or more
    python -m benchmarks.inversion_speed --model MODEL --data DATA --quick   # writes nothing
    python -m benchmarks.inversion_speed --page        # fills docs/models/inversion.md again

MODEL is a file or a name of `unflat train inversion-encoder`, DATA the set that holds its category.
All ways begin at the same guesses of the encoder (see `benchmarks.inversion_ways`). Some pictures
are inverted together, the others one by one; the ways take turns, so that what disturbs the machine
disturbs both. Guesses are timed in neither.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.inversion_ways import (
    FIGURES,
    LONGER,
    WAYS,
    Pictures,
    Setup,
    figures_of,
    mean,
    pictures_of,
    starts_of,
)
from benchmarks.machine import machine_facts
from benchmarks.page import fill, markdown
from benchmarks.process import ROOT, memory_of
from unflat.hub import find
from unflat.training.model_file import model_hash

RESULT = ROOT / "benchmarks" / "results" / "inversion-speed.json"
PAGE = ROOT / "docs" / "models" / "inversion.md"
MARK = "inversion-speed"
STEPS = 10
TOGETHER, ALONE = 16, 4  # pictures
QUICK_TOGETHER, QUICK_ALONE = 2, 2
HEADS = {
    "iou": "mask IoU",
    "psnr": "PSNR dB",
    "perceptual": "perceptual",
    "other": "other view PSNR dB",
}
FORMS = {"iou": "{:.3f}", "psnr": "{:.2f}", "perceptual": "{:.3f}", "other": "{:.2f}"}
NAMES = {
    "start": "the encoder's guess",
    "published": "as published",
    "unflat": "`unflat invert`",
    "longer": f"the same, gain {LONGER:g}",
}
REPEATS = 3  # of the quick way, around one run of the slow one


class Runs:
    """What is known of each way after some runs."""

    def __init__(self, setup: Setup, steps: int) -> None:
        self.setup, self.steps = setup, steps
        self.items: dict[str, list[dict[str, float]]] = {name: [] for name in ("start", *WAYS)}
        self.times: dict[str, dict[str, list[float]]] = {}
        self.memory: dict[str, dict[str, float]] = {}

    def take(self, pictures: Pictures, seed: int, repeats: int = 1) -> None:
        """All ways, from the same guesses; the quick ones so often."""
        batch = len(pictures.image)
        start = starts_of(self.setup, pictures)
        self.items["start"] += figures_of(self.setup, start, pictures)
        times = self.times.setdefault(str(batch), {name: [] for name in WAYS})
        memory = self.memory.setdefault(str(batch), dict.fromkeys(WAYS, 0.0))
        for name, way in WAYS.items():
            found = []

            def work(way: Callable[..., Any] = way, found: list[Any] = found) -> None:
                begun = time.perf_counter()
                found.append(way(self.setup, start, pictures, self.steps, seed))
                found.append((time.perf_counter() - begun) / batch)

            for _ in range(1 if name == "published" else repeats):
                grown = memory_of(work)
                times[name].append(found[-1])
                memory[name] = max(memory[name], grown)
            fitted = found[-2]
            self.items[name] += figures_of(self.setup, fitted.unknowns, pictures)
        own = ", ".join(f"{name} {median(values):.2f}" for name, values in times.items())
        print(f"{batch} at once: {own} seconds a picture", flush=True)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All measurements."""
    torch.set_num_threads(options.threads)
    facts = machine_facts()
    together, alone = (QUICK_TOGETHER, QUICK_ALONE) if options.quick else (TOGETHER, ALONE)
    setup = Setup.of(options.model)
    pictures = pictures_of(options.data, options.split, together + alone)
    runs = Runs(setup, STEPS)
    # Kernels are compiled, or read from the disk, and convolutions chosen, before anything counts.
    first = pictures.part(slice(0, 1))
    for way in WAYS.values():
        way(setup, starts_of(setup, first), first, 1, 0)
    for number in range(together, together + alone):
        runs.take(pictures.part(slice(number, number + 1)), number)
    runs.take(pictures.part(slice(0, together)), 0, REPEATS)
    return {
        **facts,
        "command": f"python -m benchmarks.inversion_speed --model {Path(options.model).name} "
        f"--data {options.data.name} --split {options.split} --threads {options.threads}",
        "model_sha256": model_hash(find(options.model)),
        "threads": options.threads,
        "pictures": together + alone,
        "steps": STEPS,
        "quality": {name: mean(rows) for name, rows in runs.items.items()},
        "items": runs.items,
        "seconds_per_picture": runs.times,
        "memory_mib": runs.memory,
    }


def table(result: dict[str, Any]) -> str:
    """Markdown: what was measured, and how it was."""
    times, memory = result["seconds_per_picture"], result["memory_mib"]
    batches = sorted(times, key=int)
    head = [f"{result['steps']} steps", *HEADS.values()]
    for batch in batches:
        head += [f"s a picture, batch {batch}", "ratio", "MiB"]
    rows = [head]
    for name in ("start", *WAYS):
        row = [NAMES[name], *(FORMS[key].format(result["quality"][name][key]) for key in FIGURES)]
        for batch in batches:
            if name == "start":
                row += ["", "", ""]
                continue
            own, slow = median(times[batch][name]), median(times[batch]["published"])
            row += [f"{own:.2f}", f"{slow / own:.1f}", f"{memory[batch][name]:.0f}"]
        rows.append(row)
    facts = (
        f"{result['pictures']} pictures, whole at 128 px; medians; memory is what the process "
        f"grows by. {result['machine']}, {result['threads']} thread"
        f"{'s' if result['threads'] > 1 else ''}, torch {result['versions']['torch']}, load before "
        f"{result['load_before']}, {result['date']}."
    )
    return f"{markdown(rows)}\n\n{facts}"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Ten steps of inversion beside the published way.")
    parser.add_argument("--model", help="of unflat train inversion-encoder")
    parser.add_argument("--data", type=Path, help="a set of its category, as cars-srn.tar")
    parser.add_argument("--split", default="val")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="four pictures; writes nothing")
    parser.add_argument("--page", action="store_true", help="only fill the page")
    options = parser.parse_args()
    if options.page:
        fill(PAGE, {MARK: table(json.loads(RESULT.read_text(encoding="utf-8")))})
        return
    if not options.model or not options.data:
        parser.error("--model and --data say what is measured")
    result = run(options)
    print(table(result))
    if not options.quick:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        fill(PAGE, {MARK: table(result)})


if __name__ == "__main__":
    main()
