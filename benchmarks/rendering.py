"""How much faster the fused backends are, how near to what the machine can do, and in what memory.

    python -m benchmarks.rendering                # all, some minutes: writes results and page
    python -m benchmarks.rendering --quick        # few small cases: does it run? writes nothing
    python -m benchmarks.rendering --only step    # cases whose name starts so; written among others
    python -m benchmarks.rendering --page         # fills docs/performance.md again, draws its plots
    python -m benchmarks.rendering --clock cpu --threads 1    # where other programs run, too

Each case is a process of its own in which the ways to do the same thing take turns, so that what
disturbs the machine disturbs all of them; the fastest call of each is kept, and the median. Before
they are timed, all ways must have made the same picture.
"""

import argparse
import json
import os
import tempfile
import time
from typing import Any

from benchmarks.process import ROOT, run_child
from benchmarks.rendering_page import SAMPLE_COUNTS, SIDES, draw, write_page

RESULT = ROOT / "benchmarks" / "results" / "rendering.json"
MODULE = "benchmarks.rendering"
FORWARD = [(32, 48, 16), (32, 48, 32), (64, 48, 16), (64, 48, 32), (64, 96, 32), (64, 128, 32)]
FORWARD += [(128, 48, 16), (128, 48, 32), (128, 96, 32), (128, 128, 32)]
BOTH = [(32, 48, 16), (32, 48, 32), (64, 48, 16), (64, 48, 32), (64, 96, 32), (128, 48, 32)]
QUICK = ("triplane:32:48:32", "voxels:64:48:forward", "viewspace:tokens:64", "growth:fused:32:48")


def names() -> list[str]:
    """Every case, in the order of the tables."""
    every = [f"triplane:{side}:{n}:{channels}:forward" for side, n, channels in FORWARD]
    every += [f"triplane:{side}:{n}:{channels}:both" for side, n, channels in BOTH]
    every += ["voxels:64:48:forward", "voxels:64:48:both", "voxels:128:96:forward"]
    every += ["distances:32:forward", "distances:32:both", "distances:64:both"]
    every += [f"viewspace:{mode}:{side}:48" for mode in ("tokens", "detail") for side in (64, 128)]
    every += ["novel", "skipping:128:48", "skipping:128:96"]
    for way in ("plain", "fused"):
        every += [f"growth:{way}:{side}:48" for side in SIDES]
        every += [f"growth:{way}:64:{n}" for n in SAMPLE_COUNTS if n != 48]
    every += ["growth:reference:64:48", "growth:reference:64:192", "growth:reference:128:48"]
    every += ["first:cold", "first:warm"]
    every += ["photo:layers:auto", "photo:field:auto", "photo:field:reference"]
    return [*every, "step"]


def in_child(name: str, options: argparse.Namespace, caches: str) -> dict[str, Any] | None:
    """A case's figures, from a fresh process."""
    more = {"UNFLAT_BENCH_CLOCK": options.clock, "UNFLAT_BENCH_THREADS": str(options.threads)}
    more |= {"UNFLAT_BENCH_QUICK": "1"} if options.quick else {}
    if name.startswith("first:"):  # the second of them finds what the first left there
        more["NUMBA_CACHE_DIR"] = caches
        name = "first"
    return run_child(MODULE, ["--case", name], os.cpu_count() or 1, more)


def said(case: dict[str, Any] | None) -> str:
    """A case in a line, for whoever waits."""
    if case is None:
        return "not here"
    if case.get("refused"):
        return f"fused is not available: {case['refused']}"
    if "times" in case:
        parts = [
            f"{threads} thread: "
            + ", ".join(f"{way} {1e3 * found['min']:.1f} ms" for way, found in ways.items())
            for threads, ways in case["times"].items()
        ]
        return "; ".join(parts)
    return json.dumps(case)[:150]


def load() -> dict[str, Any]:
    """What was measured before."""
    return json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {"cases": {}}


def save(result: dict[str, Any]) -> None:
    """Kept after every case: a broken-off run leaves what it has."""
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def run(chosen: list[str], options: argparse.Namespace) -> None:
    """Measures cases one after the other, and writes them down unless they are a quick look."""
    words = " --clock cpu" if options.clock == "cpu" else ""
    words += " --threads 1" if options.threads == 1 else ""
    result = load() if options.only else {"cases": {}}
    facts = in_child("facts", options, "")
    assert facts is not None
    result |= {**facts, "command": f"python -m {MODULE}{words}", "clock": options.clock}
    result |= {"note": options.note} if options.note else {}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as caches:
        for number, name in enumerate(chosen, 1):
            print(f"{number}/{len(chosen)} {name}", end="  ", flush=True)
            case = in_child(name, options, caches)
            print(said(case), flush=True)
            if case is not None:
                result["cases"][name] = case
            cases = result["cases"]
            result["cases"] = {each: cases[each] for each in names() if each in cases}
            if not options.quick:
                save(result)
    print(f"{time.monotonic() - begun:.0f} seconds")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="", help="cases whose name starts so")
    parser.add_argument("--quick", action="store_true", help="few small cases, nothing written")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="of one thread")
    parser.add_argument("--threads", type=int, choices=(1, 2), default=2, help="up to so many")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    parser.add_argument("--note", default="", help="kept with the figures")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        from benchmarks.rendering_cases import measure

        print(json.dumps(measure(*options.case.split(":"))))
        return
    if not options.page:
        starts = QUICK if options.quick else (options.only,)
        chosen = [name for name in names() if name.startswith(starts)]
        if not chosen:
            raise SystemExit(f"--only {options.only}: no case starts so; there are {names()}")
        run(chosen, options)
    if not options.quick:
        write_page(load())
        draw(load())
        print("written: docs/performance.md and its plots")


if __name__ == "__main__":
    main()
