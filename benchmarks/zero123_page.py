"""Fills docs/models/zero123.md from the results of `unflat evaluate` and benchmarks.zero123_speed.

python -m benchmarks.zero123_page
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.page import fill, markdown

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "models" / "zero123.md"
VIEWS = {
    "psnr": ("PSNR dB", "{:.2f}"),
    "psnr_masked": ("object", "{:.2f}"),
    "outline_iou": ("outline IoU", "{:.3f}"),
    "perceptual-unflat": ("perceptual", "{:.3f}"),
    "kid-unflat": ("KID", "{:.3f}"),
    "hull_agreement": ("one solid", "{:.3f}"),
}
POSES = {
    "pose_outline": "all",
    "pose_outline_45": "0 to 45°",
    "pose_outline_90": "45 to 90°",
    "pose_outline_135": "90 to 135°",
    "pose_outline_180": "135 to 180°",
}
LIFT = {
    "iou": ("volume IoU", "{:.3f}"),
    "chamfer": ("Chamfer", "{:.4f}"),
    "f_0.05": ("F 0.05", "{:.3f}"),
    "outline_iou": ("outline IoU", "{:.3f}"),
}


def main() -> None:
    blocks = {"views": views(_read("views-objects")), "lift": lift(_read("lift-objects"))}
    speed = _read("zero123-speed")
    if "cpu" in speed:
        blocks["speed"] = speed_lines(speed)
    fill(PAGE, blocks)


def views(report: dict[str, Any]) -> str:
    """What views are like, and whether they follow the pose."""
    rows = report["figures"]
    first = _table("", rows, VIEWS)
    head = ["pose following by outlines", *POSES.values()]
    body = []
    for name, row in rows.items():
        if "pose_outline" not in row:
            continue
        cells = [f"{row[key]:.2f} ± {row.get(f'{key}_error', 0.0):.2f}" for key in POSES]
        body.append([name, *cells])
    about = (
        "Pose following: of the other true views of the object, the share that fits the made view "
        "worse than the one that was asked for; chance is 0.5. By azimuth from the picture, with "
        "95 % intervals."
    )
    return "\n\n".join([first, markdown([head, *body]), about])


def lift(report: dict[str, Any]) -> str:
    """Surfaces."""
    count = report["protocol"]["objects"]
    about = (
        f"{count} held-out objects, lengths in shares of the longest side, nothing aligned. "
        "`hull-1-mask` is what the picture's own mask leaves of the unit box; the hull of eight "
        "true masks sees more than any method."
    )
    return f"{_table('', report['figures'], LIFT)}\n\n{about}"


def speed_lines(report: dict[str, Any]) -> str:
    """Full size, seeded weights."""
    found = report["cpu"]
    step, off = found["seconds_a_step"], found["largest_difference"]
    rows = [
        ["", "plain loop of diffusers", "unflat"],
        [
            "s a guided step, median (fastest)",
            *(f"{step[k]['median']:.1f} ({step[k]['min']:.1f})" for k in ("plain", "unflat")),
        ],
    ]
    about = (
        f"Full size, float32, seeded weights, {found['steps']} steps, {report['threads']} thread "
        f"of a machine that had other work (load {report['load_before']:.0f}). Largest difference: "
        f"{off['latent']:.1e} of latents whose spread is {off['latent_std']:.1f}, "
        f"{off['picture']:.1e} of pictures. Peak memory of both together "
        f"{found['peak_rss_gb']:.1f} GB. On a GPU: {report['cuda']}."
    )
    return f"{markdown(rows)}\n\n{about}"


def _table(first: str, rows: dict[str, Any], columns: dict[str, tuple[str, str]]) -> str:
    head = [first, *(label for label, _ in columns.values())]
    body = [
        [
            name,
            *(form.format(row[key]) if key in row else "-" for key, (_, form) in columns.items()),
        ]
        for name, row in rows.items()
    ]
    return markdown([head, *body])


def _read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
