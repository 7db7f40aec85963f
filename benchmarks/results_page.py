"""Measures what docs/results.md shows, and writes its tables.

    python benchmarks/results_page.py            # writes the pages from benchmarks/results
    python benchmarks/results_page.py DATA       # first measures what is not there yet
    python benchmarks/results_page.py DATA inversion-cars depth-64      # or these, anew

DATA is the folder with scenes-val.tar and the others. Every run is one ``unflat evaluate`` command,
whose words stand under its table. Between ``<!-- NAME -->`` and ``<!-- end -->`` a page holds what
this script puts there. All runs together take some two hours on one core.
"""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import degradations

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / name for name in ("results.md", "metrics.md", "models/inversion.md")]
RESULTS = ROOT / "benchmarks" / "results"
RUNS = {
    "reconstruction-64": "reconstruction --model vq3d-small --data scenes-val.tar "
    "--photos photos-val.tar",
    "reconstruction-128": "reconstruction --model vq3d-small --data scenes-val.tar "
    "--resolution 128 --limit 12",
    "depth-64": "depth --model vq3d-small --data scenes-val.tar",
    "tokens-scenes": "generation --model vq3d-small --mode tokens --data scenes-val.tar --count 75",
    "tokens-photos": "generation --model vq3d-small --mode tokens --data photos-val.tar "
    "--classes fruit,vegetable,carton,clothing,glass,metal,plastic --count 75",
    "prior": "generation --model vq3d-prior --data scenes-val.tar photos-val.tar "
    "--train scenes-train.tar photos-train.tar --count 128",
    "generation-photos": "generation --model vq3d-small --data photos-val.tar --count 200",
    "generation-wild": "generation --model vq3d-small --data photos-wild.tar --count 60",
    "inversion-cars": "inversion --model find-cars --data cars-srn.tar --split val",
    "inversion-planes": "inversion --model find-planes --data planes-srn.tar --split val",
    "inversion-cars-test": "inversion --model find-cars --data cars-srn.tar --split test",
    "inversion-planes-test": "inversion --model find-planes --data planes-srn.tar --split test",
    "views-objects": "views --model unflat-views --data objects-zero123.tar --resolution 64 "
    "--limit 16",
    "views-turntable": "views --model unflat-views --data turntable.tar --split all "
    "--resolution 64",
    "lift-objects": "lift --model unflat-views --data objects-zero123.tar "
    "--meshes objects-val-meshes.tar --limit 10",
}
"""Name of the table, and the words after ``unflat evaluate``; files are those of DATA."""


def main():
    if len(sys.argv) > 1:
        data, names = Path(sys.argv[1]), sys.argv[2:]
        for name in names or [n for n in RUNS if not (RESULTS / f"{n}.json").is_file()]:
            measure(name, data)
    write()


def measure(name, data):
    words = [
        str(data / word) if word.endswith(".tar") else word for word in shlex.split(RUNS[name])
    ]
    report = RESULTS / f"{name}.json"
    command = [sys.executable, "-m", "unflat", "evaluate", *words]
    print(f"unflat evaluate {RUNS[name]}", flush=True)
    subprocess.run([*command, "--report", str(report), "--force"], check=False)


def write():
    pages = {path: path.read_text(encoding="utf-8") for path in PAGES}
    for path in sorted(RESULTS.glob("*.json")):
        block = block_of(path.stem, json.loads(path.read_text(encoding="utf-8")))
        if block is None:
            continue
        marks = re.compile(rf"(<!-- {re.escape(path.stem)} -->\n).*?(<!-- end -->)", re.DOTALL)
        for page, text in pages.items():
            pages[page] = marks.sub(lambda found, b=block: f"{found[1]}{b}\n{found[2]}", text)
    sets = ("cars", "planes", "cars-test", "planes-test")
    inversions = {name: RESULTS / f"inversion-{name}.json" for name in sets}
    block = inversion_lines(
        {
            name: json.loads(path.read_text(encoding="utf-8"))
            for name, path in inversions.items()
            if path.is_file()
        }
    )
    marks = re.compile(r"(<!-- inversion-figures -->\n).*?(<!-- end -->)", re.DOTALL)
    for page, text in pages.items():
        text = marks.sub(lambda found: f"{found[1]}{block}\n{found[2]}", text)
        page.write_text(text, encoding="utf-8")


def block_of(name, report):
    """What a page shows of a report."""
    if name in RUNS and "table" in report:
        command = f"unflat evaluate {RUNS[name]}"
        return "\n".join(["```text", *report["table"], "```", "", "```", command, "```"])
    if name == "degradations":
        return "\n".join(degradations.lines(report))
    if name == "metrics-speed":
        return speed_lines(report)
    if name == "streaming":
        head = ["pictures", "pictures a second", "peak memory, MiB"]
        rows = [
            [f"{row['pictures']:,}", *map(str, list(row.values())[1:])]
            for row in report["runs"].values()
        ]
        return markdown(head, rows) + f"\n\nCPU threads: {report['threads']}."
    if name == "mixing":
        names = list(next(iter(report.values())))
        rows = [[row, *map(str, figures.values())] for row, figures in report.items()]
        return markdown(["trained on", *(n.replace("_", " ") for n in names)], rows)
    if all(isinstance(value, int | float | list) for value in report.values()):
        return markdown(["figure", "value"], [[key, str(value)] for key, value in report.items()])
    return None


INVERSION = {
    "front_iou": ("IoU", ".3f"),
    "front_psnr": ("PSNR dB", ".1f"),
    "front_perceptual-unflat": ("perceptual", ".3f"),
    "novel_psnr": ("other view dB", ".1f"),
    "novel_ssim": ("SSIM", ".3f"),
    "kid-unflat": ("KID", ".2f"),
    "rotation_median": ("median deg", ".1f"),
    "rotation_error": ("mean deg", ".1f"),
    "within_15": ("in 15", ".0%"),
    "within_30": ("in 30", ".0%"),
    "seconds": ("s", ".2f"),
}
"""Figures of inversion, what they are called in the short table, and how they are written."""


def inversion_lines(reports):
    """A short table of all steps of both models beside retrieval."""
    rows, words = [], []
    for name, report in reports.items():
        for method, found in report["figures"].items():
            if "N=" in method or method == "retrieval":
                cells = [
                    format(found[key], form) if key in found else ""
                    for key, (_, form) in INVERSION.items()
                ]
                rows.append([f"{name}, {method.split()[-1]}", *cells])
        protocol = report["protocol"]
        words.append(f"{protocol['inputs']} pictures of {protocol['objects']} {name}")
    commands = "\n".join(f"unflat evaluate {RUNS[f'inversion-{name}']}" for name in reports)
    table = markdown(["", *(label for label, _ in INVERSION.values())], rows)
    said = f"{', '.join(words)}, drawn by seed; other views at their true cameras."
    return "\n".join([table, "", said, "", "```", commands, "```"])


def speed_lines(report):
    """Pictures a second of every metric, by size of picture or length of feature."""
    rows: dict[str, dict[str, str]] = {}
    memory: dict[str, list[str]] = {}
    for name, case in report["cases"].items():
        kind, size = name.split(":")
        if kind.startswith("stream_"):
            memory.setdefault(kind, []).append(f"{int(size):,}: {case['peak_mib']:.0f} MiB")
        else:
            rows.setdefault(kind, {})[size] = f"{case['items_per_second']:,.0f}"
    tables = []
    for title, sizes in (
        ("pictures a second", ("64", "128")),
        ("vectors a second", ("256", "2048")),
    ):
        head = [title, *(f"{size} px" if title[0] == "p" else f"{size} numbers" for size in sizes)]
        body = [
            [kind, *(cells.get(size, "") for size in sizes)]
            for kind, cells in rows.items()
            if set(cells) & set(sizes)
        ]
        tables += [markdown(head, body), ""]
    words = "; ".join(f"{kind.split('_')[1]} {', '.join(sizes)}" for kind, sizes in memory.items())
    threads = report.get("threads", report.get("facts", {}).get("threads", "?"))
    return "\n".join([*tables, f"Peak memory over streams of {words}. CPU threads: {threads}."])


def markdown(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
