"""What each part of inversion is worth: every row trained alone, for as many steps.

    python -m benchmarks.inversion_ablation                   # some two hours on one CPU thread
    python -m benchmarks.inversion_ablation --only encoders   # or generators
    python -m benchmarks.inversion_ablation --page            # fills docs/models/inversion.md again

Wants planes-srn.tar and cars-srn.tar in $UNFLAT_DATA. Encoders are taught for the bundled
sdf-planes; generators are trained on cars by the preset ``tiny``. Runs are kept in
``runs/inversion-ablation``, gone on with, and left when finished. All are measured on the same
held-out views of their category, four of each object, drawn by seed: encoders by their guess
(N = 0) and 10 steps from it, generators by fits from the mean code with the true camera.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.inversion_inputs import (
    Inputs,
    compared,
    feature_distance,
    held_out,
    refined,
    rotation_figures,
    seen_of,
)
from benchmarks.inversion_variants import (
    ENCODERS,
    GENERATORS,
    EncoderVariant,
    RotationRecipe,
    changed_parts,
)
from benchmarks.page import fill, markdown
from unflat.data import PosedBatches, PosedViews
from unflat.geometry.published_pose import pose_from_camera
from unflat.hub import find
from unflat.metrics import rotation_error
from unflat.report import versions
from unflat.systems.gan import sdf_triplane
from unflat.systems.gan.pipeline import ObjectModel, load
from unflat.systems.gan.recipe import GanRecipe
from unflat.systems.inversion.code_metric import code_metric
from unflat.systems.inversion.compare import look
from unflat.systems.inversion.encoder import build, small
from unflat.systems.inversion.fit import Unknowns, steps_of
from unflat.systems.inversion.pipeline import InversionModel, Start
from unflat.systems.inversion.pose import PoseSearch, search_of
from unflat.systems.inversion.recipe import CameraBatches, EncoderRecipe, Objective
from unflat.training import TrainConfig, train

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "inversion-ablation"
RESULT = ROOT / "benchmarks" / "results" / "inversion-ablation.json"
PAGE = ROOT / "docs" / "models" / "inversion.md"
SIDE, FINER = 32, 128  # of the pictures an encoder sees, and of the known ones it is cut from
BATCH = 16
_VIEWS = 4  # held-out ones of each object, in a row
_MEAN_OF = 1024  # codes


def main() -> None:
    parser = argparse.ArgumentParser(description="What each part of inversion is worth.")
    parser.add_argument("--steps", type=int, default=800, help="of each encoder")
    parser.add_argument("--generator-steps", type=int, default=600, help="of each generator")
    parser.add_argument("--only", choices=["encoders", "generators"], default=None)
    parser.add_argument("--page", action="store_true", help="fill the page and do nothing else")
    options = parser.parse_args()
    if not options.page:
        if "UNFLAT_DATA" not in os.environ:
            sys.exit("UNFLAT_DATA: is not set; it names the folder of the renders.")
        measure_all(options.steps, options.generator_steps, options.only)
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    fill(PAGE, {"inversion-ablation": page(result)})


def measure_all(steps: int, generator_steps: int, only: str | None) -> None:
    """Every row, written down as soon as it is known."""
    torch.set_num_threads(1)
    data = Path(os.environ["UNFLAT_DATA"]) / "planes-srn.tar"
    result: dict[str, Any] = {"encoders": {}, "generators": {}}
    if RESULT.is_file():
        result |= json.loads(RESULT.read_text(encoding="utf-8"))
    result |= {
        "command": "python -m benchmarks.inversion_ablation",
        "data": data.name,
        "steps": steps,
        "generator_steps": generator_steps,
        "batch": BATCH,
        "versions": versions(),
    }
    inputs = held_out(data)
    result["inputs"] = len(inputs.image)
    views = PosedViews(data, "train", resolution=FINER)

    def keep(kind: str, name: str, figures: dict[str, Any]) -> None:
        result[kind][name] = figures
        print(f"{kind} {name}: {json.dumps(figures)}", flush=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    if only != "generators":
        objects = load(find("sdf-planes"))
        for name, variant in ENCODERS.items():
            recipe = taught(name, variant, objects, views, steps)
            if isinstance(recipe, RotationRecipe):
                keep("encoders", name, told_directly(recipe, inputs))
                continue
            model = InversionModel(recipe.encoder, objects, SIDE, {})
            keep("encoders", name, figures_of(model, inputs))
            if name == "whole":
                for part, found in without(model, inputs).items():
                    keep("encoders", part, found)
    if only != "encoders":
        cars = data.with_name("cars-srn.tar")
        small_views = PosedViews(cars, "train", resolution=SIDE)
        inputs = held_out(cars)
        result["car_inputs"] = len(inputs.image)
        for name in GENERATORS:
            keep(
                "generators", name, from_the_mean(made(name, small_views, generator_steps), inputs)
            )


def taught(
    name: str, variant: EncoderVariant, objects: ObjectModel, views: PosedViews, steps: int
) -> EncoderRecipe:
    """An encoder after so many steps, its averaged weights in place."""
    torch.manual_seed(0)
    cameras = objects.camera[1:]
    generator = objects.generator.requires_grad_(False)
    style_dim = objects.codes(objects.latents([0])).shape[-1]
    kind = RotationRecipe if variant.is_regression else EncoderRecipe
    recipe = kind(
        replace(small(), style_dim=style_dim),
        generator,
        SIDE,
        objective=Objective(**variant.objective),
        metric=None if variant.is_regression else code_metric(generator, cameras),
    )
    known = PosedBatches(views, BATCH, together=recipe.objective.views)
    batches = CameraBatches(cameras, BATCH, known=known if variant.knows_pictures else None)
    config = TrainConfig(
        steps=steps, batch_size=BATCH, lr=1e-3, ema_decay=0.99, sample_every=0, threads=1
    )
    finished(recipe, batches, config, RUNS / name)
    return recipe


def made(name: str, views: PosedViews, steps: int) -> ObjectModel:
    """A generator of the preset ``tiny`` after so many steps, without what its name says."""
    torch.manual_seed(0)
    colors = 8 if name == "no-colour-mapping" else 10
    config = replace(sdf_triplane.tiny(), colors=colors)
    parts = changed_parts(sdf_triplane.build(config), name)
    recipe = GanRecipe("sdf_triplane", config, parts, objects=len(views.names))
    settings = sdf_triplane.training(config)
    settings = replace(settings, steps=steps, sample_every=0, threads=1)
    batches = PosedBatches(views, settings.batch_size, together=parts.start.views)
    finished(recipe, batches, settings, RUNS / name)
    assert views.camera is not None
    draws = torch.randperm(len(views), generator=torch.Generator().manual_seed(0))[:256]
    return ObjectModel(
        recipe.generator,
        system="sdf_triplane",
        config=config,
        camera=views.camera[draws],
        header={},
    )


def finished(recipe: Any, batches: Any, config: TrainConfig, out: Path) -> None:
    """Train, or read what an earlier call has trained; averaged weights in the end."""
    from unflat.training import read_checkpoint

    result = train(recipe, batches, config, out, resume=(out / "run.json").is_file())
    recipe.networks.load_state_dict(read_checkpoint(result.checkpoint).averaged(), strict=False)


def figures_of(
    model: InversionModel,
    inputs: Inputs,
    search: PoseSearch | None = None,
    change: Callable[[Start], Start] = lambda start: start,
) -> dict[str, Any]:
    """Of the guess and of 10 steps from it."""
    seen = seen_of(model, inputs)
    start = change(model.start(seen, search))
    distance = feature_distance()
    found: dict[str, Any] = {}
    for steps in (0, 10):
        unknowns = start.unknowns
        if steps:
            unknowns = refined(model, unknowns, seen, distance, steps_of(steps))
        for key, value in compared(model, unknowns, inputs, distance).items():
            found[f"{key}_{steps}"] = value
    return found


def from_the_mean(objects: ObjectModel, inputs: Inputs) -> dict[str, float]:
    """Fits that start from the mean code with the true camera; no encoder, no closed-form palette.

    Also how the next view of the same object looks, which the fit has not seen.
    """
    model = InversionModel(build(small()), objects, SIDE, {})
    seen, distance, count = seen_of(model, inputs), feature_distance(), len(inputs.image)
    maker = objects.generator
    with torch.no_grad():
        latents = objects.latents(range(_MEAN_OF))
        code = objects.codes(latents)[:, 0].mean(0)
    codes = code.expand(count, maker.body.codes, -1)
    start = Unknowns(codes, pose_from_camera(inputs.camera))
    others = torch.arange(count).unflatten(0, (-1, _VIEWS)).roll(-1, dims=1).flatten()
    beside = Inputs(inputs.image[others], inputs.mask[others], inputs.camera[others])
    found: dict[str, float] = {}
    for steps in (0, 10, 30):
        config = replace(steps_of(steps), fits_pose=False)
        end = refined(model, start, seen, distance, config) if steps else start
        own = compared(model, end, inputs, distance)
        other = end._replace(pose=pose_from_camera(beside.camera))
        found |= {f"{key}_{steps}": own[key] for key in ("iou", "psnr", "perceptual")}
        found[f"other_{steps}"] = compared(model, other, beside, distance)["psnr"]
    return found


def without(model: InversionModel, inputs: Inputs) -> dict[str, dict[str, Any]]:
    """The same encoder without some parts of what follows it."""
    search = search_of(model.objects.camera[1:])
    alone = replace(search, flips=False, pnp=replace(search.pnp, keep=1))
    plain = model.objects.generator

    def no_palette(start: Start) -> Start:
        palette = plain.form(start.unknowns.codes).palette
        return start._replace(unknowns=start.unknowns._replace(palette=palette))

    return {
        "one-hypothesis": figures_of(model, inputs, alone),
        "picture-judges-alone": figures_of(model, inputs, replace(search, map_weight=0.0)),
        "no-closed-form-palette": figures_of(model, inputs, change=no_palette),
    }


@torch.no_grad()
def told_directly(recipe: RotationRecipe, inputs: Inputs) -> dict[str, float]:
    """Rotations of the same windows."""
    seen = look(inputs.image, inputs.mask, SIDE, recipe.generator.background)
    found = recipe.rotations.eval()(seen.image)
    errors = rotation_figures(rotation_error(found, inputs.camera.rotation))
    return {f"{name}_0": value for name, value in errors.items()}


def page(result: dict[str, Any]) -> str:
    """Both tables."""
    heads = ["", "median °", "mean °", "within 30°", "IoU, N=0", "N=10", "perceptual, N=0", "N=10"]
    says = {name: variant.says for name, variant in ENCODERS.items()} | {
        "one-hypothesis": "map and PnP, one hypothesis",
        "picture-judges-alone": "hypotheses judged by the picture alone",
        "no-closed-form-palette": "no closed-form palette",
    }

    def row(label: str, found: dict[str, float]) -> list[str]:
        def told(key: str, form: str) -> str:
            return "" if key not in found else format(found[key], form)

        return [
            label,
            told("rotation_0", ".1f"),
            told("rotation_mean_0", ".1f"),
            told("within_30_0", ".0%"),
            told("iou_0", ".2f"),
            told("iou_10", ".2f"),
            told("perceptual_0", ".3f"),
            told("perceptual_10", ".3f"),
        ]

    encoders = [row(says[name], found) for name, found in result["encoders"].items()]
    steps = (0, 10, 30)
    generator_heads = [
        "",
        *(f"IoU, N={n}" for n in steps),
        *(f"perceptual, N={n}" for n in steps),
        *(f"other view dB, N={n}" for n in steps),
    ]
    generators = [
        [
            GENERATORS[name],
            *(f"{found[f'iou_{n}']:.2f}" for n in steps),
            *(f"{found[f'perceptual_{n}']:.3f}" for n in steps),
            *(f"{found[f'other_{n}']:.2f}" for n in steps),
        ]
        for name, found in result["generators"].items()
    ]
    text = (
        f"`{result['command']}`: {result['inputs']} views of held-out aeroplanes; each encoder "
        f"{result['steps']} steps of {result['batch']} made and {result['batch']} known pictures, "
        "one seed.\n\n" + markdown([heads, *encoders])
    )
    if generators:
        text += (
            f"\n\nGenerators of cars, preset `tiny`, {result['generator_steps']} steps each, one "
            f"seed; {result['car_inputs']} held-out views, fits from the mean code with the true "
            "camera:\n\n" + markdown([generator_heads, *generators])
        )
    return text


if __name__ == "__main__":
    main()
