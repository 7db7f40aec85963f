"""What photographs without depth add to scenes with it, at an equal short budget.

    python benchmarks/mixing.py DATA --out runs/mixing

Trains the ``tiny`` preset (32 px) on different mixtures for as many steps each, by the commands a
person would give, evaluates each on posed scenes and photographs it has not seen, and writes
benchmarks/results/mixing.json. DATA holds scenes-train.tar, scenes-val.tar, photos-*.tar.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

FREE = "fruit,vegetable,carton,clothing,glass,metal,plastic"
MIXTURES = {
    "scenes only": (["scenes-train.tar"], [12]),
    "8 scenes, 4 photos of the free classes": (
        ["scenes-train.tar", f"photos-train.tar:{FREE}"],
        [8, 4],
    ),
    "8 scenes, 4 photos of all classes": (["scenes-train.tar", "photos-train.tar"], [8, 4]),
    "6 scenes, 6 photos of all classes": (["scenes-train.tar", "photos-train.tar"], [6, 6]),
}
FIGURES = ("canonical_psnr", "novel_psnr", "far_psnr", "disparity_correlation")
PHOTOS = ("photos_canonical_psnr", "photos_free_canonical_psnr")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--limit", type=int, default=40)
    options = parser.parse_args()
    unflat = [sys.executable, "-m", "unflat"]
    table = {}
    for number, (name, (data, per_batch)) in enumerate(MIXTURES.items()):
        run = options.out / str(number)
        report = options.out / f"{number}.json"
        if not report.exists():
            train = [*unflat, "train", "vq3d-autoencoder", "--preset", "tiny", "--out", str(run)]
            train += ["--data", *(str(options.data / part) for part in data)]
            train += ["--per-batch", *map(str, per_batch), "--steps", str(options.steps)]
            subprocess.run([*train, "--lr", "1e-3", "--threads", "1", "--quiet"], check=True)
            test = [*unflat, "evaluate", "reconstruction", "--model", str(run), "--quiet"]
            test += ["--data", str(options.data / "scenes-val.tar")]
            test += ["--photos", str(options.data / "photos-val.tar")]
            test += ["--limit", str(options.limit), "--report", str(report)]
            subprocess.run(test, check=True)
        figures = json.loads(report.read_text())["figures"]["tokens"]
        table[name] = {key: round(figures[key], 3) for key in (*FIGURES, *PHOTOS)}
        print(name, table[name], flush=True)
    path = Path(__file__).parent / "results" / "mixing.json"
    path.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
