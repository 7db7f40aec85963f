"""How the bundled view model is best asked: guidance, steps, told of each other, how high.

    python -m benchmarks.zero123_sampling             # some fifteen minutes on one CPU thread
    python -m benchmarks.zero123_sampling --page      # fills docs/models/zero123.md again
    python -m benchmarks.zero123_sampling --only elevation     # one part anew

Wants objects-zero123.tar in $UNFLAT_DATA. **Guidance**: 20 steps of DPM-Solver++. **Steps**: the
distance is that of latents from 500 steps of DDIM out of the same noise, at the model's own
guidance, of 8 views. **Together**: views made alone, with noise of their own or of all; told of
each other; the best of four sets. **Elevation**: of pictures from -30 to 70 degrees, by the views'
outlines, and by the model's own guess. Parts have 6, 1, 2 and 12 objects: rows compare with each
other.
"""

import argparse
import json
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.page import fill, markdown
from benchmarks.zero123_views import Object, figures, objects, sampled
from unflat.geometry.hull import agreement
from unflat.geometry.pose import orbit_coordinates
from unflat.report import versions
from unflat.systems.zero123.compact import CompactViews
from unflat.systems.zero123.elevation import estimate_elevation
from unflat.systems.zero123.make import Known, clipped, joined, no_move, opacity_of
from unflat.systems.zero123.model import Views, denoise
from unflat.systems.zero123.order import Order, carry_out
from unflat.systems.zero123.pipeline import load_view_model
from unflat.systems.zero123.prepare import Prepared
from unflat.systems.zero123.sampler import Sampler, sample
from unflat.systems.zero123.schedule import timesteps

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "zero123-sampling.json"
PAGE = ROOT / "docs" / "models" / "zero123.md"
SCALES = (1.0, 1.5, 2.0, 3.0, 5.0)
STEPS = {
    ("ddim", "trailing"): (5, 10, 20, 50, 100),
    ("dpm++", "trailing"): (1, 2, 4, 8, 10, 20, 50),
    ("dpm++", "hourglass"): (10, 20),
}
REFERENCE_STEPS = 500
_STEP_VIEWS = 8  # of each object, for steps
TOGETHER = {
    "alone, noise of its own": {"shared_noise": False},
    "alone, one noise for all": {},
    "told of each other": {"consistent": True},
    "best of 4 sets": {"best_of": 4},
}
NEAR_DEG = 15.0
COUNTS = {"guidance": 6, "steps": 1, "together": 2, "elevation": 12}
"""Objects of each part."""
COLUMNS = {
    "psnr": ("PSNR dB", "{:.2f}"),
    "psnr_object": ("object", "{:.2f}"),
    "outline_iou": ("outline IoU", "{:.3f}"),
    "pose_outline": ("pose by outlines", "{:.2f}"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="How the bundled view model is best asked.")
    parser.add_argument("--page", action="store_true", help="fill the page and do nothing else")
    parser.add_argument("--only", choices=sorted(PARTS), help="this part alone, anew")
    parser.add_argument("--model", default="unflat-views")
    options = parser.parse_args()
    if not options.page:
        if "UNFLAT_DATA" not in os.environ:
            sys.exit("UNFLAT_DATA: is not set; it names the folder of the renders.")
        model = load_view_model(options.model)
        if not isinstance(model, CompactViews):
            sys.exit(f"{options.model}: is not one of ours.")
        data = Path(os.environ["UNFLAT_DATA"])
        result = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
        for name in [options.only] if options.only else PARTS:
            result[name] = PARTS[name](model, data)
            print(name, json.dumps(result[name]), flush=True)
            result["versions"] = versions()
            RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    fill(PAGE, {name: TABLES[name](result[name]) for name in TABLES if name in result})


def guidance(model: CompactViews, data: Path) -> dict[str, Any]:
    """By scale."""
    many = objects(data, model.side, COUNTS["guidance"])
    return {
        str(scale): figures(many, sampled(model, Sampler(guidance_scale=scale))) for scale in SCALES
    }


def steps(model: CompactViews, data: Path) -> dict[str, Any]:
    """By method and number of steps."""
    many = [one.some(_STEP_VIEWS) for one in objects(data, model.side, COUNTS["steps"])]
    base = Sampler(guidance_scale=model.guidance_scale)
    far = replace(base, method="ddim", steps=REFERENCE_STEPS)
    references = [_latents(model, one, far, seed) for seed, one in enumerate(many)]
    rows: dict[str, Any] = {}
    for (method, spacing), counts in STEPS.items():
        for count in counts:
            sampler = replace(base, method=method, spacing=spacing, steps=count)
            start = time.perf_counter()
            found = [_latents(model, one, sampler, seed) for seed, one in enumerate(many)]
            seconds = time.perf_counter() - start
            off = [
                float((a - b).square().mean().sqrt())
                for a, b in zip(found, references, strict=True)
            ]
            rows[f"{method} {count}, {spacing}"] = {
                "off": sum(off) / len(off),
                "seconds_a_view": seconds / sum(len(one.image) - 1 for one in many),
                **figures(many, lambda _, seed, found=found: clipped(model.decode(found[seed]))),
            }
    return rows


@torch.no_grad()
def _latents(model: CompactViews, one: Object, sampler: Sampler, seed: int) -> torch.Tensor:
    """Where noise goes, for all views of an object."""
    condition = model.condition(one.reference(model), one.poses())
    noise = torch.randn(model.latent_shape, generator=torch.Generator().manual_seed(seed))
    *_, last = sample(
        lambda x, t: denoise(model, x, t, condition, sampler.guidance_scale),
        model.schedule,
        noise.expand(len(condition), -1, -1, -1),
        timesteps(sampler.steps, sampler.spacing),
        sampler,
    )
    return last.clean


def together(model: CompactViews, data: Path) -> dict[str, Any]:
    """By how views of a set are made."""
    many = objects(data, model.side, COUNTS["together"])
    sampler = Sampler(guidance_scale=model.guidance_scale)
    rows: dict[str, Any] = {}
    for name, settings in TOGETHER.items():
        agreeing: list[float] = []
        start = time.perf_counter()

        def make(
            one: Object, seed: int, settings: Any = settings, agreeing: list[float] = agreeing
        ) -> Views:
            elevation, _, _ = orbit_coordinates(one.camera.position[0])
            poses = one.poses()
            count = len(poses.polar)
            order = Order(
                pictures=[Known(image=one.image[0], opacity=one.opacity[0], pose=no_move())],
                poses=poses,
                samples=[0] * count,
                height=float(elevation),
                sampler=sampler,
                seed=seed,
                **settings,
            )
            made: dict[int, Views] = {}

            def finished(places: list[int], views: Views) -> None:
                for index, place in enumerate(places):
                    told = None if views.opacity is None else views.opacity[index : index + 1]
                    made[place] = Views(views.image[index : index + 1], told)

            carry_out(model, order, range(count), finished)
            views = joined([made[place] for place in range(count)])
            agreeing.append(float(agreement(opacity_of(views), one.camera[1:]).mean()))
            return views

        found = figures(many, make)
        rows[name] = {
            **found,
            "agreement": sum(agreeing) / len(agreeing),
            "seconds_a_set": (time.perf_counter() - start) / len(many),
        }
    return rows


def elevation(model: CompactViews, data: Path) -> dict[str, Any]:
    """Errors of the estimate, and of the model's own guess."""
    off: dict[str, list[float]] = {"outlines": [], "guess": [], "always 15": []}
    sure: list[float] = []
    for one in objects(data, model.side, COUNTS["elevation"]):
        height, _, _ = orbit_coordinates(one.camera.position)
        degrees = torch.rad2deg(height)
        chosen = ((degrees > -30) & (degrees < 70)).nonzero()[:2, 0].tolist()
        for view in chosen:
            true = float(degrees[view])
            shown = Prepared(one.image[view], one.opacity[view])
            found = estimate_elevation(model, shown)
            with torch.no_grad():
                reference = model.reference(shown.image[None], shown.opacity[None])
            guess = math.degrees(float(reference.parts["guess"][0]))
            off["outlines"].append(abs(found.degrees - true))
            off["guess"].append(abs(guess - true))
            off["always 15"].append(abs(15 - true))
            sure.append(found.confidence)
    right = [error <= NEAR_DEG for error in off["outlines"]]
    return {
        "pictures": len(sure),
        "rows": {
            name: {
                "median": float(torch.tensor(errors).median()),
                "mean": sum(errors) / len(errors),
                "near": sum(error <= NEAR_DEG for error in errors) / len(errors),
            }
            for name, errors in off.items()
        },
        "confidence_right": _mean([c for c, is_right in zip(sure, right, strict=True) if is_right]),
        "confidence_wrong": _mean(
            [c for c, is_right in zip(sure, right, strict=True) if not is_right]
        ),
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _figures_table(first: str, rows: dict[str, Any], more: dict[str, tuple[str, str]]) -> str:
    columns = {**COLUMNS, **more}
    head = [first, *(label for label, _ in columns.values())]
    body = [
        [name, *(form.format(row[key]) for key, (_, form) in columns.items())]
        for name, row in rows.items()
    ]
    return markdown([head, *body])


def _elevation_table(result: dict[str, Any]) -> str:
    head = ["told by", "median error, degrees", "mean", f"within {NEAR_DEG:.0f} degrees"]
    body = [
        [name, f"{row['median']:.1f}", f"{row['mean']:.1f}", f"{100 * row['near']:.0f} %"]
        for name, row in result["rows"].items()
    ]
    about = (
        f"{result['pictures']} held-out pictures from -30 to 70 degrees. Confidence of the first "
        f"is {result['confidence_right']:.2f} in the mean where it is right within "
        f"{NEAR_DEG:.0f} degrees, {result['confidence_wrong']:.2f} where it is not."
    )
    return f"{markdown([head, *body])}\n\n{about}"


PARTS = {"guidance": guidance, "steps": steps, "together": together, "elevation": elevation}
TABLES = {
    "guidance": lambda rows: _figures_table("guidance", rows, {}),
    "steps": lambda rows: _figures_table(
        "steps",
        rows,
        {
            "off": (f"off {REFERENCE_STEPS} steps", "{:.3f}"),
            "seconds_a_view": ("s a view", "{:.3f}"),
        },
    ),
    "together": lambda rows: _figures_table(
        "views are made",
        rows,
        {"agreement": ("agreement", "{:.3f}"), "seconds_a_set": ("s for 23 views", "{:.1f}")},
    ),
    "elevation": _elevation_table,
}


if __name__ == "__main__":
    main()
