"""Trains every system's tiny preset on made-up objects, measures it, and writes docs/systems.md.

    python benchmarks/systems.py                 # some minutes of training each, one by one
    python benchmarks/systems.py --minutes 5 --only pigan eg3d

Two sets are made: objects seen from all around, and, for systems that are told no poses, from 60
degrees to each side of the front. Runs are kept in ``runs/systems`` and gone on with; reports are
``benchmarks/results/objects-SET-SYSTEM.json`` (``SYSTEM_untrained`` is the same after one step),
pictures ``docs/pictures/systems-SYSTEM.png``.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "systems"
RESULTS = ROOT / "benchmarks" / "results"

SETS = {"procedural": "180", "procedural_front": "60"}
"""How far to each side of the front the cameras of a set stand, degrees."""
SYSTEMS = {
    "sdf_triplane": "procedural",
    "eg3d": "procedural",
    "siren_sdf": "procedural",
    "pigan": "procedural_front",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=15.0, help="of training, each system")
    parser.add_argument("--only", nargs="*", default=list(SYSTEMS), choices=SYSTEMS)
    options = parser.parse_args()
    for name in options.only:
        data = made(SETS[SYSTEMS[name]], SYSTEMS[name])
        first = trained(name, data, RUNS / f"{name}-untrained", "--steps", "1")
        last = trained(name, data, RUNS / name, "--max-time", f"{round(60 * options.minutes)}s")
        for model, label in ((first, f"{name}_untrained"), (last, name)):
            report = RESULTS / f"objects-{SYSTEMS[name]}-{label}.json"
            more = ["--fit-azimuth"] if name == "pigan" else []
            unflat(
                "evaluate", "objects", "--model", model, "--data", data, "--report", report, *more
            )
        pictures(last, ROOT / "docs" / "pictures" / f"systems-{name}.png")
    subprocess.run([sys.executable, ROOT / "benchmarks" / "systems_page.py"], check=True)


def made(azimuth: str, name: str) -> Path:
    """The set, made once."""
    out = RUNS / name
    if not (out / "objects.tar").is_file():
        options = ("--count", "96", "--resolution", "32", "--views", "16")
        unflat("data", "objects", "--out", out, "--azimuth-deg", azimuth, *options)
    return out / "objects.tar"


def trained(system: str, data: Path, out: Path, *length: str) -> Path:
    """A run's model; a run that was stopped goes on, a finished one is left."""
    model = out / "model.safetensors"
    if not model.is_file():
        new = ("--system", system, "--preset", "tiny", "--data", data)
        going_on = ("--resume",) if (out / "run.json").is_file() else ()
        unflat("train", "gan", "--out", out, *new, *going_on, *length, "--threads", "1")
    return model


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
        seen = made.pictures(codes, camera, 2 * made.resolution)
        rows.append(torch.cat(list(seen.image.clamp(0, 1)), dim=2))
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
