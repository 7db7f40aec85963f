"""Writes the tables of docs/systems.md from reports of ``unflat evaluate objects``.

    python benchmarks/systems_page.py

Reports are ``benchmarks/results/objects-SET-SYSTEM.json``; between ``<!-- objects-SET -->`` and
``<!-- end -->`` the page holds one table of all systems on a set, with the baselines that every
report measures anew. Reports of one set must share one protocol: other counts, pictures or true
objects give other figures. Without the page the tables are printed.
"""

import json
import sys
from pathlib import Path

from page import fill, markdown

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "systems.md"
RESULTS = ROOT / "benchmarks" / "results"

COLUMNS = (
    ("kid-{features}", "kid", "{:.3f}"),
    ("depth_agreement_15", "depths agree, 15°", "{:.1%}"),
    ("depth_agreement_45", "45°", "{:.1%}"),
    ("reprojection_error_15", "reprojection, 15°", "{:.3f}"),
    ("reprojection_validity_15", "valid", "{:.0%}"),
    ("silhouette_iou", "outline IoU", "{:.3f}"),
    ("azimuth_median", "azimuth, median", "{:.0f}°"),
    ("azimuth_within_30", "within 30°", "{:.0%}"),
    ("gradient_median", "\\|∇d\\| (10 to 90 %)", "{:.2f}"),
    ("watertight", "watertight", "{:.0%}"),
    ("main_share", "main part", "{:.0%}"),
)
"""Key in a report, head, and form; columns that no row has a figure for are left out."""
SHARED = ("features", "resolution", "held_out", "training", "objects", "truth", "seed")
"""What must be equal in the protocols of one table."""


def main():
    blocks = {}
    for name, reports in sets().items():
        require_one_protocol(name, reports)
        parts = [table(reports), legend(reports), *shown(name, reports)]
        blocks[f"objects-{name}"] = "\n\n".join(parts)
    if not PAGE.is_file():
        for name, block in blocks.items():
            print(f"{name}\n\n{block}\n")
        return
    fill(PAGE, blocks)
    text = PAGE.read_text(encoding="utf-8")
    for name in blocks:
        if f"<!-- {name} -->" not in text:
            print(f"{PAGE.name}: has no <!-- {name} -->; its table is left out", file=sys.stderr)


def shown(name, reports):
    """Pictures of a set's systems, as benchmarks/systems.py has written them."""
    for system in reports:
        path = f"pictures/systems-{name}-{system}.png"
        if (PAGE.parent / path).is_file():
            yield f"`{system}`:\n\n![objects of {system} from four sides, and depth]({path})"


def sets():
    """Reports by set and system: ``objects-SET-SYSTEM.json``."""
    found: dict[str, dict[str, dict]] = {}
    for path in sorted(RESULTS.glob("objects-*-*.json")):
        _, name, system = path.stem.split("-", 2)
        report = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault(name, {})[system] = report
    return found


def require_one_protocol(name, reports):
    first, *others = reports
    for other in others:
        for key in SHARED:
            one, two = (reports[system]["protocol"].get(key) for system in (first, other))
            if one != two:
                sys.exit(f"objects-{name}: {first} and {other} differ in {key}; measure one anew.")
        counts = {rendered(reports[system]) for system in (first, other)}
        if len(counts) > 1:
            sys.exit(f"objects-{name}: {first} and {other} differ in --count; measure one anew.")


def rendered(report):
    return next(iter(report["protocol"]["made"].values()))["rendered"]


def table(reports):
    """Systems first, under their names, then the baselines of the first report."""
    rows = {}
    for system, report in reports.items():
        rows[f"`{system}`"] = next(iter(report["figures"].values()))
    first = next(iter(reports.values()))
    rows |= dict(list(first["figures"].items())[1:])
    features = first["protocol"]["features"]["name"]
    columns = [(key.format(features=features), head, form) for key, head, form in COLUMNS]
    columns = [c for c in columns if any(row.get(c[0]) is not None for row in rows.values())]
    heads = [f"{head}-{features}" if head == "kid" else head for _, head, _ in columns]
    body = [
        [name, *(cell(figures, key, form) for key, _, form in columns)]
        for name, figures in rows.items()
    ]
    return markdown([["", *heads], *body])


def cell(figures, key, form):
    value = figures.get(key)
    if value is None:
        return ""
    text, error = form.format(value), figures.get(f"{key}_error")
    if key == "gradient_median":
        low, high = (form.format(figures[f"gradient_p{share}"]) for share in (10, 90))
        return f"{text} ({low} to {high})"
    return text if error is None else f"{text} ± {form.format(error)}"


def legend(reports):
    """Counts and sizes, without which the figures mean nothing."""
    report = next(iter(reports.values()))
    protocol = report["protocol"]
    held = protocol["held_out"]
    words = (
        f"{rendered(report)} pictures of {protocol['resolution']} px a method against "
        f"{held['pictures']} of {held['objects']} held-out objects; {protocol['objects']} objects "
        "of each for the rest"
    )
    truth = protocol.get("truth")
    return words + (f", held against {truth['objects']} true ones." if truth else ".")


if __name__ == "__main__":
    main()
