"""How far the generator can go, and whether confidence tells right from wrong.

    python -m benchmarks.inversion_limits            # some fifteen minutes on two cores
    python -m benchmarks.inversion_limits --confidence    # that half alone, anew
    python -m benchmarks.inversion_limits --page     # fills docs/models/inversion.md again

Wants cars-srn.tar and planes-srn.tar in $UNFLAT_DATA. **Ceiling**: the true camera, the encoder's
code, 300 steps: what is missing then, no better pose and no longer fit brings. **Confidence**: as
`unflat invert` tells it after 10 steps, of held-out objects of the model's category and of the
other one; right is a rotation within 30 degrees.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from benchmarks.inversion_inputs import (
    Inputs,
    compared,
    feature_distance,
    held_out,
    refined,
    seen_of,
)
from benchmarks.page import fill, markdown
from unflat.geometry.published_pose import pose_from_camera
from unflat.hub import find
from unflat.metrics import rotation_error
from unflat.report import versions
from unflat.result import LEAST_CONFIDENCE
from unflat.systems.inversion.fit import FitConfig, Unknowns, steps_of
from unflat.systems.inversion.invert import invert
from unflat.systems.inversion.pipeline import InversionModel, load

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "inversion-limits.json"
PAGE = ROOT / "docs" / "models" / "inversion.md"
MODELS = {"cars": "find-cars", "planes": "find-planes"}
CEILING = FitConfig(steps=300, gain=5.0, fits_pose=False)
RIGHT = 30.0  # degrees


def main() -> None:
    parser = argparse.ArgumentParser(description="How far the generator can go.")
    parser.add_argument("--page", action="store_true", help="fill the page and do nothing else")
    parser.add_argument("--confidence", action="store_true", help="keep the ceilings")
    parser.add_argument("--views", type=int, default=2, help="of each object")
    options = parser.parse_args()
    if not options.page:
        if "UNFLAT_DATA" not in os.environ:
            sys.exit("UNFLAT_DATA: is not set; it names the folder of the renders.")
        result = measured(Path(os.environ["UNFLAT_DATA"]), options.views, options.confidence)
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    fill(PAGE, {"inversion-ceiling": ceilings(result), "inversion-confidence": told(result)})


def measured(data: Path, views: int, only_confidence: bool) -> dict[str, Any]:
    """Of both categories, everything, or confidences beside the ceilings that are there."""
    known = json.loads(RESULT.read_text(encoding="utf-8"))["categories"] if only_confidence else {}
    sets = {name: held_out(data / f"{name}-srn.tar", views) for name in MODELS}
    result: dict[str, Any] = {
        "command": "python -m benchmarks.inversion_limits",
        "versions": versions(),
        "categories": {},
    }
    for name, model_name in MODELS.items():
        model = load(find(model_name))
        other = next(one for one in MODELS if one != name)
        result["categories"][name] = {
            "model": model_name,
            "inputs": len(sets[name].image),
            **(known[name] if only_confidence else ceiling(model, sets[name])),
            "own": confidences(model, sets[name]),
            "other": confidences(model, sets[other])["confidence"],
        }
        print(name, json.dumps(result["categories"][name]), flush=True)
    return result


def ceiling(model: InversionModel, inputs: Inputs) -> dict[str, Any]:
    """Figures of the guess with the true camera, and of 300 steps from there."""
    seen, distance = seen_of(model, inputs), feature_distance()
    start = model.start(seen).unknowns
    known = Unknowns(start.codes, pose_from_camera(inputs.camera), start.palette)
    end = refined(model, known, seen, distance, CEILING)
    return {
        "true_pose": compared(model, known, inputs, distance),
        "ceiling": compared(model, end, inputs, distance),
    }


def confidences(model: InversionModel, inputs: Inputs) -> dict[str, list[float]]:
    """Of each picture: what `invert` says, and by how many degrees it is wrong."""
    distance, found = feature_distance(), {"confidence": [], "rotation": []}
    for place in range(len(inputs.image)):
        one = invert(model, inputs.image[place], inputs.mask[place], distance, steps_of(10))
        error = rotation_error(one.camera.rotation, inputs.camera.rotation[place])
        found["confidence"].append(round(one.confidence, 4))
        found["rotation"].append(round(float(error), 2))
    return found


def ceilings(result: dict[str, Any]) -> str:
    """A row for each category and stage."""
    rows = [["", "pictures", "IoU", "PSNR dB", "perceptual"]]
    labels = {"true_pose": "true camera, the encoder's code", "ceiling": "and 300 steps"}
    for name, found in result["categories"].items():
        for key, label in labels.items():
            value = found[key]
            rows.append(
                [
                    f"{name}, {label}",
                    str(found["inputs"]),
                    f"{value['iou']:.3f}",
                    f"{value['psnr']:.1f}",
                    f"{value['perceptual']:.3f}",
                ]
            )
    return markdown(rows)


def told(result: dict[str, Any]) -> str:
    """Confidence of right ones, wrong ones, and of another category."""
    heads = ["", "median of right ones", "of wrong ones", "of the other category"]
    flags = f"flagged (below {LEAST_CONFIDENCE:g}): right, wrong, other"
    rows = [[*heads, flags, "AUC right / wrong", "own / other"]]
    for name, found in result["categories"].items():
        pairs = list(zip(found["own"]["confidence"], found["own"]["rotation"], strict=True))
        right = [value for value, error in pairs if error < RIGHT]
        wrong = [value for value, error in pairs if error >= RIGHT]
        own, other = found["own"]["confidence"], found["other"]
        groups = (right, wrong, other)
        rows.append(
            [
                f"{found['model']}, {name}",
                *(f"{median(group):.2f}" if group else "none" for group in groups),
                ", ".join(f"{share_below(group):.0%}" if group else "-" for group in groups),
                f"{auc(right, wrong):.2f}" if right and wrong else "-",
                f"{auc(own, other):.2f}",
            ]
        )
    return markdown(rows)


def share_below(values: list[float]) -> float:
    """Share that is flagged."""
    return mean(value < LEAST_CONFIDENCE for value in values)


def auc(high: list[float], low: list[float]) -> float:
    """How often one of the first is above one of the second; ties count half."""
    one, two = torch.tensor(high)[:, None], torch.tensor(low)[None]
    return float((one > two).float().mean() + 0.5 * (one == two).float().mean())


if __name__ == "__main__":
    main()
