"""How many pictures a second GANs of objects learn from, beside EG3D's way in plain PyTorch.

    python -m benchmarks.gan_training               # some minutes: writes results and page
    python -m benchmarks.gan_training --quick       # one small call of each: writes nothing
    python -m benchmarks.gan_training --only lazy   # cases whose name starts so
    python -m benchmarks.gan_training --page        # fills docs/performance.md again
    python -m benchmarks.gan_training --clock cpu --threads 1     # where other programs run, too

Each case is a process of its own in which the ways to do the same thing take turns; the fastest
call of each is kept, and the median. Networks and their weights are the same in all ways, and were
found to make the same before anything is timed.
"""

import argparse
import json
import os
from typing import Any

from benchmarks.page import fill, markdown
from benchmarks.process import ROOT, run_child

RESULT = ROOT / "benchmarks" / "results" / "gan-training.json"
PAGE = ROOT / "docs" / "performance.md"
MODULE = "benchmarks.gan_training"
CASES = ("eg3d:32", "eg3d:64", "lazy:32")
QUICK = ("eg3d:tiny", "lazy:tiny")
WAYS = {
    "grouped": "plain, a kernel for each picture",
    "plain": "plain, scaled maps",
    "both": "unflat, both passes make the picture",
    "fine": "unflat, as its preset `small`",
}
SIZES = {"32": "32 px of 16 rendered", "64": "64 px of 32 rendered", "tiny": "`tiny`"}
Cases = dict[str, Any]


def in_child(name: str, threads: int, options: argparse.Namespace) -> Any:
    """A case's figures, from a fresh process."""
    words = ["--case", name, "--threads", str(threads), "--clock", options.clock]
    return run_child(MODULE, [*words, "--quick"] if options.quick else words, threads)


def run(chosen: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Measures cases one after the other; written down after each, unless for a quick look."""
    words = " --clock cpu" if options.clock == "cpu" else ""
    words += " --threads 1" if options.threads == 1 else ""
    result: dict[str, Any] = load() if options.only else {"cases": {}}
    result |= in_child("facts:32", 1, options)
    result |= {"command": f"python -m {MODULE}{words}", "clock": options.clock}
    for name in chosen:
        for threads in range(1, min(options.threads, os.cpu_count() or 1) + 1):
            print(f"{name}, {threads} threads", end="  ", flush=True)
            case = in_child(name, threads, options)
            print(", ".join(f"{way} {t['whole']:.2f} s" for way, t in case["times"].items()))
            result["cases"].setdefault(name, {})[str(threads)] = case
            if not options.quick:
                RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def load() -> dict[str, Any]:
    """What was measured before."""
    return json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {"cases": {}}


# -------------------------------------------------------------------------------------------- page


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Markdown by the names of its marks."""
    return {
        "performance-gan-facts": _facts(result),
        "performance-gan": _steps(result["cases"]),
        "performance-gan-lazy": _laziness(result["cases"]),
    }


def _facts(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    clock = "the wall's clock" if result["clock"] == "wall" else "the process's CPU time"
    return (
        f"`{result['command']}`, {result['date']}, {result['machine']}, {versions}. Times are of "
        f"{clock}. The load was {result['load_before']} before it began."
    )


def _steps(cases: Cases) -> str:
    """Parts of a step, without R1 and with R1 in every step, and what a lazy run makes of it."""
    head = ["pictures", "threads", "way", "R1", "forward", "backward", "update", "whole"]
    lines = [[*head, "pictures a second", "gain"]]
    for name, threads, case in _cases(cases, "eg3d"):
        times, count, every = case["times"], case["batch"], case["every"]
        for suffix, words in (("", "none"), (", R1", "every step")):
            plain = min(times[way + suffix]["whole"] for way in ("plain", "grouped"))
            for way, label in WAYS.items():
                found = times[way + suffix]
                parts = [_ms(found[part]) for part in ("forward", "backward", "update")]
                whole = f"{_ms(found['whole'])} / {_ms(found['median'])}"
                gain = f"{plain / found['whole']:.1f} x"
                speed = f"{count / found['whole']:.1f}"
                lines.append([SIZES[name], threads, label, words, *parts, whole, speed, gain])
        lazy = {way: _lazily(times[way], times[f"{way}, R1"], 1 / every) for way in WAYS}
        plain = min(lazy["plain"], lazy["grouped"])
        for way, label in WAYS.items():
            words = [f"every {every}th", "-", "-", "-", _ms(lazy[way])]
            speed, gain = f"{count / lazy[way]:.1f}", f"{plain / lazy[way]:.1f} x"
            lines.append([SIZES[name], threads, label, *words, speed, gain])
    return markdown(lines)


def _laziness(cases: Cases) -> str:
    """What R1 and path lengths cost in every step, and as presets have them."""
    head = ["`sdf_triplane`, `small`", "step", "more than with neither", "pictures a second"]
    lines = [["threads", *head]]
    for _, threads, case in _cases(cases, "lazy"):
        times, count = {way: each["whole"] for way, each in case["times"].items()}, case["batch"]
        shares = case["shares"]
        lazy = times["neither"]
        lazy += shares["R1"] * (times["R1"] - times["neither"])
        lazy += shares["path"] * (times["path"] - times["neither"])
        often = f"R1 in every {1 / shares['R1']:.0f}th, path lengths in every "
        rows = {
            "neither": times["neither"],
            "R1 in every step": times["R1"],
            "path lengths in every step": times["path"],
            "both in every step": times["both"],
            f"{often}{1 / shares['path']:.0f}th, as its preset": lazy,
        }
        for label, seconds in rows.items():
            more = f"{seconds / times['neither'] - 1:.0%}"
            lines.append([threads, label, _ms(seconds), more, f"{count / seconds:.1f}"])
    return markdown(lines)


def _cases(cases: Cases, kind: str) -> list[tuple[str, str, Any]]:
    return [
        (name.split(":")[1], threads, case)
        for name, by_threads in cases.items()
        if name.startswith(f"{kind}:")
        for threads, case in by_threads.items()
    ]


def _lazily(without: dict[str, float], with_it: dict[str, float], share: float) -> float:
    """Mean seconds of a step in a run where a share of the steps has more to do."""
    return without["whole"] + share * (with_it["whole"] - without["whole"])


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="", help="cases whose name starts so")
    parser.add_argument("--quick", action="store_true", help="small cases once, nothing written")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="to time by")
    parser.add_argument("--threads", type=int, choices=(1, 2), default=2, help="up to so many")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        from benchmarks.gan_training_cases import measure

        kind, size = options.case.split(":")
        print(json.dumps(measure(kind, size, options)))
        return
    result = load()
    if not options.page:
        names = QUICK if options.quick else CASES
        chosen = [name for name in names if name.startswith(options.only)]
        if not chosen:
            raise SystemExit(f"--only {options.only}: no case starts so; there are {names}")
        result = run(chosen, options)
    if options.quick:
        print("\n\n".join(tables(result).values()))
        return
    if "command" not in result:
        raise SystemExit(f"{RESULT}: nothing was measured yet; leave out --page.")
    fill(PAGE, tables(result))
    print("written: docs/performance.md")


if __name__ == "__main__":
    main()
