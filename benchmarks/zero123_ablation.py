"""What each way in for the picture is worth: small models, each trained alone for as many steps.

    python -m benchmarks.zero123_ablation             # some half hour on one CPU thread
    python -m benchmarks.zero123_ablation --page      # fills docs/models/zero123.md again

Wants objects-zero123.tar in $UNFLAT_DATA. Pictures have 32 pixels and models a million and a half
parameters, so the figures compare rows with each other and with nothing else. Runs are kept in
``runs/zero123-ablation``, gone on with, and left when finished.
"""

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.page import fill, markdown
from benchmarks.zero123_views import SET, figures, objects, sampled
from unflat.data import PosedBatches, open_views
from unflat.report import versions
from unflat.systems.zero123.compact import CompactViews, Config, build
from unflat.systems.zero123.recipe import Objective, ViewRecipe
from unflat.systems.zero123.sampler import Sampler
from unflat.training import TrainConfig, read_checkpoint, train

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "zero123-ablation"
RESULT = ROOT / "benchmarks" / "results" / "zero123-ablation.json"
PAGE = ROOT / "docs" / "models" / "zero123.md"
BASE = Config(side=32, widths=(64, 112), encoder=(48, 96), embedding=192, volume=0)
VARIANTS = {
    "one token of the picture": replace(BASE, tokens="one", concat=False),
    "picture beside the noise": replace(BASE, tokens="none", concat=True),
    "both, as published": replace(BASE, tokens="one", concat=True),
    "tokens of its parts, and beside the noise": replace(BASE, tokens="all", concat=True),
    "and turned as a volume (ours)": replace(BASE, tokens="all", concat=True, volume=12),
}
SAMPLER = Sampler(steps=20, guidance_scale=1.5)
COLUMNS = {
    "psnr": ("PSNR dB", "{:.2f}"),
    "psnr_object": ("object", "{:.2f}"),
    "outline_iou": ("outline IoU", "{:.3f}"),
    "pose_outline": ("pose by outlines", "{:.2f}"),
    "pose_color": ("by colors", "{:.2f}"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="What each way in for the picture is worth.")
    parser.add_argument("--page", action="store_true", help="fill the page and do nothing else")
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    if not options.page:
        if "UNFLAT_DATA" not in os.environ:
            sys.exit("UNFLAT_DATA: is not set; it names the folder of the renders.")
        result = measured(Path(os.environ["UNFLAT_DATA"]), options.steps)
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    fill(PAGE, {"ablation": table(result)})


def measured(data: Path, steps: int) -> dict[str, Any]:
    """Figures of every variant, trained where it is not."""
    views = open_views(data / SET, BASE.side, "train")
    held_out = objects(data, BASE.side, 40)
    rows: dict[str, Any] = {}
    for number, (name, config) in enumerate(VARIANTS.items()):
        torch.manual_seed(0)
        model = CompactViews(build(config))
        recipe = ViewRecipe(model, Objective(), {"config": config.to_json(), "side": config.side})
        loop = TrainConfig(
            steps=steps, batch_size=32, lr=1e-3, threads=1, sample_every=0, checkpoint_every=500
        )
        batches = PosedBatches(views, loop.batch_size, together=Objective().views)
        out = RUNS / f"{number}-{steps}"
        result = train(recipe, batches, loop, out, resume=(out / "run.json").exists())
        model.network.load_state_dict(read_checkpoint(result.checkpoint).averaged())
        model.network.eval().requires_grad_(False)
        rows[name] = {
            **figures(held_out, sampled(model, SAMPLER)),
            "parameters": sum(weight.numel() for weight in model.network.parameters()),
            "seconds": result.elapsed,
        }
        print(name, rows[name], flush=True)
    return {"rows": rows, "steps": steps, "objects": len(held_out), "versions": versions()}


def table(result: dict[str, Any]) -> str:
    """As the page shows it."""
    head = ["what the network is told", *(label for label, _ in COLUMNS.values()), "M parameters"]
    rows = [
        [
            name,
            *(form.format(row[key]) for key, (_, form) in COLUMNS.items()),
            f"{row['parameters'] / 1e6:.2f}",
        ]
        for name, row in result["rows"].items()
    ]
    about = (
        f"{result['objects']} held-out objects, 23 views each, 32 px, {result['steps']} steps of "
        "32 pictures for every row, one seed."
    )
    return f"{markdown([head, *rows])}\n\n{about}"


if __name__ == "__main__":
    main()
