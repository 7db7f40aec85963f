"""How long things take, and how much memory.

    python -m benchmarks.speed                 # all, some minutes: writes results/speed.json
    python -m benchmarks.speed --only tokens   # cases whose name starts so; prints, writes nothing
    python -m benchmarks.speed --quick         # once each, at 64 px: does it run?
    python -m benchmarks.speed --page          # fills docs/speed.md from results/speed.json again
    python -m benchmarks.speed --clock cpu --threads 1    # where other programs run, too

CPU time of one thread is what an idle machine's clock would show, but for caches and memory that
other programs share; a clock on the wall also counts the time that they ran.

Every case runs in a process of its own, so that its peak of memory is its own. This process
imports neither torch nor unflat: Linux lets a child begin with its parent's peak.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from statistics import median
from typing import Any

from benchmarks.page import fill, markdown
from benchmarks.process import ROOT, peak_mib, run_child

RESULT = ROOT / "benchmarks" / "results" / "speed.json"
PAGE = ROOT / "docs" / "speed.md"
SIZES = ("64", "128", "256")
REPETITIONS = 5
LEAST_REPETITIONS = 3
PATIENCE = 6.0  # seconds of one case; the least repetitions are made in any case
LIMIT_MIB = 2048  # that 256 x 256 rays of 96 samples must fit in
_CLOCKS = {"wall": "clock on the wall", "cpu": "process's CPU time, which one thread spends"}
SCALING = [(side * side, samples) for side in (32, 64, 128) for samples in (24, 48, 96)]


def names() -> list[str]:
    """Every case, in the order of the tables."""
    every = [f"{kind}:{size}" for kind in ("encode", "decode") for size in (*SIZES, "paper")]
    every += [f"canonical:{size}" for size in SIZES]
    for size in SIZES:
        every += [f"tokens:{size}", f"tokens:{size}:48:all", f"detail:{size}", f"layers:{size}"]
        every += [f"eg3d:{size}", f"eg3d:{size}:chunked", f"eg3d:{size}:chunked:0"]
    every += ["paper", "layers:512"]
    every += ["tokens:256:96:all", "detail:256:96:all", "canonical:256:96"]
    every += [f"scaling:{rays}:{samples}" for rays, samples in SCALING]
    return [*every, "reconstruct:detail", "reconstruct:tokens", "reconstruct_orbit:36"]


def measure(name: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """Runs in the child: seconds of one picture, and the process's peak of memory."""
    import torch

    from benchmarks.speed_cases import available, parts, prepare

    torch.set_num_threads(options.threads)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    if not available(name):
        return None
    work = prepare(name)
    before = peak_mib()
    work()
    seconds: list[float] = []
    begun = clock()
    most = 1 if options.quick else REPETITIONS
    while len(seconds) < most:
        if len(seconds) >= LEAST_REPETITIONS and clock() - begun > PATIENCE:
            break
        start = clock()
        work()
        seconds.append(clock() - start)
    return {
        "seconds_min": min(seconds) / parts(name),
        "seconds_median": median(seconds) / parts(name),
        "repetitions": len(seconds),
        "peak_mib": round(peak_mib(), 1),
        "before_mib": round(before, 1),
    }


def in_child(name: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """What `measure` gives, from a fresh process; None where the case cannot be measured here."""
    words = ["--case", name, "--clock", options.clock, "--threads", str(options.threads)]
    words += ["--quick"] if options.quick else []
    return run_child("benchmarks.speed", words, options.threads)


def facts(options: argparse.Namespace) -> dict[str, Any]:
    """What figures depend on beside the code."""
    question = "import torch, unflat.report as r, json; print(json.dumps(r.versions()))"
    said = subprocess.run(
        [sys.executable, "-c", question], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": f"python -m benchmarks.speed --clock {options.clock} "
        f"--threads {options.threads}",
        "clock": options.clock,
        "threads": options.threads,
        "cores": os.cpu_count(),
        "machine": f"{platform.system()} {platform.machine()}",
        "load_before": round(os.getloadavg()[0], 2),
        "versions": json.loads(said.stdout.splitlines()[-1]),
    }


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Markdown tables by their names on the page."""
    cases = result["cases"]
    return {
        "speed-network": _network_table(cases),
        "speed-render": _render_table(cases),
        "speed-scaling": _scaling_table(cases),
        "speed-memory": _memory_table(cases),
        "speed-reconstruct": _reconstruct_table(cases),
        "speed-facts": _facts_line(result),
    }


def _network_table(cases: dict[str, Any]) -> str:
    rows = [["picture", "encode", "decode", "canonical view, 48 samples", "peak memory"]]
    labels = {
        "64": "64 px (`small`)",
        "128": "128 px (`bundle128`)",
        "256": "256 px (`bundle128` at 256)",
        "paper": "256 px (`paper` with 2 + 2 blocks)",
    }
    for size, label in labels.items():
        kinds = [f"{kind}:{size}" for kind in ("encode", "decode", "canonical")]
        peak = max((cases[name]["peak_mib"] for name in kinds if name in cases), default=None)
        rows.append(
            [label, *(_milliseconds(cases.get(name)) for name in kinds), _mib(peak)],
        )
    return markdown(rows)


def _render_table(cases: dict[str, Any]) -> str:
    lines = [
        ("plain EG3D-style, 48 + 48 samples, as written", "eg3d:{}"),
        ("the same, 1024 rays at once", "eg3d:{}:chunked"),
        ("the same, 48 coarse samples only", "eg3d:{}:chunked:0"),
        ("tokens from the side, 48 samples, every ray to its end", "tokens:{}:48:all"),
        ("tokens from the side, 48 samples", "tokens:{}"),
        ("detail from the side, 48 samples", "detail:{}"),
        ("tokens, canonical view on a product grid, 48 samples", "canonical:{}"),
        ("detail, one frame of `Scene.orbit()` (layers)", "layers:{}"),
    ]
    rows = [["one picture", *(f"{size} px" for size in SIZES), *(f"ratio {s}" for s in SIZES)]]
    for label, pattern in lines:
        found = [cases.get(pattern.format(size)) for size in SIZES]
        ratios = [
            _ratio(case, _best_reference(cases, size))
            for case, size in zip(found, SIZES, strict=True)
        ]
        rows.append([label, *(_milliseconds(case) for case in found), *ratios])
    return markdown(rows)


def _best_reference(cases: dict[str, Any], size: str) -> float | None:
    """Seconds of the reference, in the faster of its two ways."""
    ways = [cases.get(f"eg3d:{size}"), cases.get(f"eg3d:{size}:chunked")]
    return min((way["seconds_min"] for way in ways if way), default=None)


def _scaling_table(cases: dict[str, Any]) -> str:
    counts = sorted({samples for _, samples in SCALING})
    rows = [["rays", *(f"{samples} samples" for samples in counts)]]
    for rays in sorted({rays for rays, _ in SCALING}):
        found = [(cases.get(f"scaling:{rays}:{samples}"), samples) for samples in counts]
        rows.append(
            [
                f"{rays:,}",
                *(
                    f"{_milliseconds(case)} ({rays * n / case['seconds_min'] / 1e6:.2f} M/s)"
                    if case
                    else "-"
                    for case, n in found
                ),
            ]
        )
    return markdown(rows)


def _memory_table(cases: dict[str, Any]) -> str:
    lines = {
        "tokens from the side, 96 samples": "tokens:256:96:all",
        "detail from the side, 96 samples": "detail:256:96:all",
        "tokens, canonical product grid, 96 samples": "canonical:256:96",
        "plain EG3D-style, 48 + 48 samples, as written": "eg3d:256",
        "plain EG3D-style, 48 + 48 samples, 1024 rays at once": "eg3d:256:chunked",
    }
    rows = [["256 x 256 rays", "peak of the process", "of it before rendering", "seconds"]]
    for label, name in lines.items():
        case = cases.get(name)
        if case:
            seconds = f"{case['seconds_min']:.2f}"
            rows.append([label, _mib(case["peak_mib"]), _mib(case["before_mib"]), seconds])
    return markdown(rows)


def _reconstruct_table(cases: dict[str, Any]) -> str:
    lines = {
        "`unflat.reconstruct(...)`, detail": "reconstruct:detail",
        "`unflat.reconstruct(..., detail=False)`, tokens": "reconstruct:tokens",
        "detail, with `scene.safetensors` and an orbit of 36 frames": "reconstruct_orbit:36",
    }
    rows = [["the bundled photo", "fastest", "median", "peak of the process"]]
    for label, name in lines.items():
        case = cases.get(name)
        if case:
            times = [f"{case[key]:.2f} s" for key in ("seconds_min", "seconds_median")]
            rows.append([label, *times, _mib(case["peak_mib"])])
    return markdown(rows)


def _facts_line(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    text = (
        f"`{result['command']}`, {result['date']}, {result['cores']} CPU cores "
        f"({result['machine']}), {versions}. Times are of the {_CLOCKS[result['clock']]}."
    )
    note = result.get("note")
    return f"{text} {note}" if note else text


def _milliseconds(case: dict[str, Any] | None) -> str:
    """Fastest and median, in ms."""
    if case is None:
        return "-"
    low, middle = (1e3 * case[key] for key in ("seconds_min", "seconds_median"))
    digits = 0 if low >= 100 else 1
    return f"{low:.{digits}f} / {middle:.{digits}f} ms"


def _ratio(case: dict[str, Any] | None, reference: float | None) -> str:
    return "-" if case is None or reference is None else f"{case['seconds_min'] / reference:.2g}"


def _mib(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} MiB"


def write_page(result: dict[str, Any]) -> None:
    """Fills the page between ``<!-- NAME -->`` and ``<!-- end -->``."""
    fill(PAGE, tables(result))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--only", default="", help="cases whose name starts so")
    parser.add_argument("--quick", action="store_true", help="once each, nothing above 64 px")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="what is counted")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    parser.add_argument("--note", default="", help="kept with the figures")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case, options)))
        return
    if options.page:
        write_page(json.loads(RESULT.read_text(encoding="utf-8")))
        return
    chosen = [name for name in names() if name.startswith(options.only)]
    if options.quick:
        chosen = [name for name in chosen if re.search(r":(64|1024|4096|detail)\b", name)]
    if not chosen:
        raise SystemExit(f"--only {options.only}: no case starts so; there are {names()}")
    result = facts(options) | ({"note": options.note} if options.note else {})
    result["cases"] = {}
    for number, name in enumerate(chosen, 1):
        print(f"{number}/{len(chosen)} {name}", end=" ", flush=True)
        case = in_child(name, options)
        print("not here" if case is None else f"{_milliseconds(case)}, {_mib(case['peak_mib'])}")
        if case is None:
            continue
        result["cases"][name] = case
        if not (options.only or options.quick):
            RESULT.parent.mkdir(exist_ok=True)
            RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.only or options.quick:
        return
    write_page(result)
    print(f"written: {RESULT.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")
    worst = result["cases"]["tokens:256:96:all"]["peak_mib"]
    if worst > LIMIT_MIB:
        raise SystemExit(f"256 x 256 rays of 96 samples took {worst} MiB, more than {LIMIT_MIB}")


if __name__ == "__main__":
    main()
