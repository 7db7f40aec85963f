"""Trains systems, measures them, and writes docs/systems.md.

    python benchmarks/systems.py                       # tiny presets on made-up objects
    python benchmarks/systems.py --sets cars planes    # small ones on renders, in two halves
    python benchmarks/systems.py --minutes 5 --only pigan eg3d

Made-up objects are seen from all around, or, for systems that are told no poses, from 60 degrees to
each side of the front. Renders of cars and aeroplanes lie in $UNFLAT_DATA. Runs are kept in
``runs/systems/SET-SYSTEM`` and gone on with; finished ones are left. Reports are
``benchmarks/results/objects-SET-SYSTEM.json``, beside them ``SYSTEM_untrained`` (the same after one
step) or ``SYSTEM_start`` (the first half); pictures are ``docs/pictures/systems-SET-SYSTEM.png``.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "systems"
RESULTS = ROOT / "benchmarks" / "results"

MADE_UP = {"procedural": "180", "procedural_front": "60"}
"""How far to each side of the front the cameras of a set stand, degrees."""
RENDERS = {"cars": "cars-srn.tar", "planes": "planes-srn.tar"}
"""Files of $UNFLAT_DATA."""


class Case(NamedTuple):
    """What is trained on what."""

    set: str
    system: str


CASES = (
    Case("procedural", "sdf_triplane"),
    Case("procedural", "eg3d"),
    Case("procedural", "siren_sdf"),
    Case("procedural_front", "pigan"),
    *(Case(name, system) for name in RENDERS for system in ("sdf_triplane", "eg3d")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=15.0, help="of training, each run")
    parser.add_argument("--sets", nargs="*", default=list(MADE_UP), choices=[*MADE_UP, *RENDERS])
    parser.add_argument("--only", nargs="*", default=None, help="systems")
    options = parser.parse_args()
    length = ("--max-time", f"{round(60 * options.minutes)}s")
    for case in CASES:
        if case.set not in options.sets or case.system not in (options.only or case.system):
            continue
        data, run = data_of(case.set), RUNS / f"{case.set}-{case.system}"
        if case.set in MADE_UP:
            other, label = RUNS / f"{run.name}-untrained", "untrained"
            trained(case.system, "tiny", data, other, "--steps", "1")
            trained(case.system, "tiny", data, run, *length)
        else:
            other, label = RUNS / f"{run.name}-start", "start"
            trained(case.system, "start", data, other, *length)
            trained(case.system, "play", data, run, *length, "--init", other)
        evaluate(case, other, data, f"{case.system}_{label}")
        evaluate(case, run, data, case.system)
        pictures(run / "model.safetensors", ROOT / f"docs/pictures/systems-{run.name}.png")
    subprocess.run([sys.executable, ROOT / "benchmarks" / "systems_page.py"], check=True)


def data_of(name: str) -> Path:
    """A set's file; made once if it is a made-up one."""
    if name in RENDERS:
        if "UNFLAT_DATA" not in os.environ:
            sys.exit("UNFLAT_DATA: is not set; it names the folder of the renders.")
        return Path(os.environ["UNFLAT_DATA"]) / RENDERS[name]
    out = RUNS / name
    if not (out / "objects.tar").is_file():
        options = ("--count", "96", "--resolution", "32", "--views", "16")
        unflat("data", "objects", "--out", out, "--azimuth-deg", MADE_UP[name], *options)
    return out / "objects.tar"


def trained(system: str, preset: str, data: Path, out: Path, *options: object) -> None:
    """A run; one that was stopped goes on, a finished one is left."""
    if (out / "model.safetensors").is_file():
        return
    new = ("--system", system, "--preset", preset, "--data", data, *options)
    going_on = ("--resume",) if (out / "run.json").is_file() else ()
    unflat("train", "gan", "--out", out, *new, *going_on, "--threads", "1")


def evaluate(case: Case, run: Path, data: Path, label: str) -> None:
    """The report of a run."""
    report = RESULTS / f"objects-{case.set}-{label}.json"
    more = ["--fit-azimuth"] if case.set == "procedural_front" else []
    unflat(
        "evaluate", "objects", "--model", run, "--data", data, "--report", report, "--force", *more
    )


def pictures(model: Path, path: Path) -> None:
    """Eight objects from four sides, then their depth."""
    import torch

    from unflat.export import write_png
    from unflat.geometry import Camera, orbit_pose
    from unflat.systems.gan.pipeline import load

    made, count = load(model), 8
    codes = made.codes(made.latents(range(count)))
    canonical = made.camera[:1]
    radius = canonical.position.norm(dim=1)
    rows, depth = [], None
    for azimuth in (0.6, -0.6, 2.2, 3.9):
        pose = orbit_pose(torch.tensor([0.35]), torch.tensor([azimuth]), radius)
        camera = Camera(
            camera_to_world=pose.expand(count, 4, 4),
            intrinsics=canonical.intrinsics.expand(count, 4),
        )
        seen = made.pictures(codes, camera, made.shown_side)
        image = torch.nn.functional.interpolate(seen.image, (2 * made.resolution,) * 2)
        rows.append(torch.cat(list(image.clamp(0, 1)), dim=2))
        depth = seen.depth if depth is None else depth
    assert depth is not None
    near, far = float(radius) - 0.5, float(radius) + 0.5
    shades = ((far - depth) / (far - near)).clamp(0, 1)
    shades = torch.nn.functional.interpolate(shades[:, None], rows[0].shape[1])
    rows.append(torch.cat(list(shades.expand(-1, 3, -1, -1)), dim=2))
    write_png(torch.cat(rows, dim=1), path)


def unflat(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "unflat", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
