"""What each choice in VQ3D stage 1 brings, at an equal short budget.

    python -m benchmarks.ablation --data DIR      # DIR holds scenes-train.tar and scenes-val.tar

Trains 32-pixel models that differ in one choice, measures each on pictures that it has not seen,
writes ``benchmarks/results/ablation.json`` after every run (a broken-off benchmark goes on where
it was), prints the tables of docs/ablations.md and draws its pictures. What the figures mean is
told there.
"""

import json
import os
import re
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import tyro
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.ablation_variants import (
    BUDGET,
    CODE_COLUMNS,
    COLUMNS,
    TABLES,
    VARIANTS,
    Variant,
    recipe_of,
)
from unflat.data import BatchSource, PictureDataset, PosedScene, PosedScenes
from unflat.errors import UserError
from unflat.evaluation.reconstructor import align
from unflat.evaluation.views import novel_of
from unflat.evaluation.vq3d import Vq3dScenes
from unflat.files import atomic_path
from unflat.metrics import CodeCounts, disparity_correlation, psnr
from unflat.nn.quantize import VectorQuantizer
from unflat.report import versions
from unflat.systems.vq3d import PRESETS, Autoencoder, Vq3dRecipe, render_canonical
from unflat.training import lr_factor
from unflat.training.randomness import step_generator

HELD = 99  # last pictures of scenes-train.tar, 11 of each class, kept out of training
NOVEL_SCENES = 18  # of scenes-val.tar: two of each class, as they cycle
FAR_DEG = 25.0  # the set turns its views by 4 to 20 degrees, and by 30
SAMPLES = 32  # intervals of a ray in all measurements
AT_ONCE = 33
SCENES = 99  # of scenes-val.tar


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train, measure and draw the variants of VQ3D stage 1."""

    data: Path | None = None
    """Folder with scenes-train.tar and scenes-val.tar; $UNFLAT_DATA if not given."""
    out: Path = Path("benchmarks/results/ablation.json")
    """Where figures go; runs that it already holds under equal settings are kept."""
    models: Path = Path("runs/ablation")
    """Where the models that are drawn are kept."""
    pictures: Path = Path("docs/pictures")
    """Where pictures go."""
    page: Path | None = None
    """The page whose tables are filled, docs/ablations.md; only printed if not given."""
    only: tuple[str, ...] = ()
    """Names of variants; all if not given."""
    steps: int = 250
    """Optimizer steps of a run."""
    lr: float = 2e-3
    """Peak learning rate."""
    batch_size: int = 16
    """Pictures of a step."""
    limit: int | None = None
    """Measure on so many pictures and scenes only: for a quick look."""
    draw: bool = True
    """Draw the pictures at the end."""


def train_variant(
    variant: Variant, seed: int, dataset: PictureDataset, options: Options
) -> tuple[Vq3dRecipe, dict[str, float]]:
    """A trained model, and the seconds it took."""
    begun, begun_cpu = time.perf_counter(), time.process_time()
    torch.manual_seed(seed)
    recipe = recipe_of(variant)
    start(recipe, dataset, seed)
    source = BatchSource(dataset, batch_size=options.batch_size, seed=seed)
    optimizer = torch.optim.AdamW(
        recipe.parameter_groups(), lr=options.lr, betas=(0.9, 0.99), weight_decay=0.01
    )
    for step in range(options.steps):
        progress = step / options.steps
        factor = lr_factor(step, progress, warmup_steps=40, final_fraction=0.02)
        for group in optimizer.param_groups:
            group["lr"] = options.lr * factor * group.get("lr_scale", 1.0)
        terms = recipe.step(source.batch(step), progress, step_generator(seed, step))
        optimizer.zero_grad()
        terms["loss"].backward()
        torch.nn.utils.clip_grad_norm_(recipe.model.parameters(), 1.0)
        optimizer.step()
        recipe.after_step(step + 1)
    recipe.model.eval()
    seconds = {
        "cpu_seconds": time.process_time() - begun_cpu,
        "wall_seconds": time.perf_counter() - begun,
    }
    return recipe, seconds


def start(recipe: Vq3dRecipe, dataset: PictureDataset, seed: int) -> None:
    """The linear start, and a codebook filled with what the linear code gives it."""
    images = dataset.batch(range(0, len(dataset), 8))["image"]
    recipe.start(images)
    quantizer = recipe.model.quantizer
    if isinstance(quantizer, VectorQuantizer) and recipe.config.linear_skip:
        quantizer.recent_use.zero_()
        quantizer.restart_dead(torch.Generator().manual_seed(seed))
        recipe.start(images)  # the way back, fitted to the codebook that there is now


@torch.no_grad()
def measure(
    model: Autoencoder, held: dict[str, Tensor], scenes: list[PosedScene]
) -> dict[str, float]:
    """Figures on the held-out training pictures and on the posed scenes."""
    counts = CodeCounts(model.codebook_sizes) if model.codebook_sizes else None
    own = canonical(model, held["image"], counts)
    photos = torch.stack([scene.images[0] for scene in scenes])
    true = torch.stack([scene.inverse_depth[0] for scene in scenes])
    val = canonical(model, photos, counts)
    teacher = held["disparity"][:, 0]
    correlation = disparity_correlation(own["disparity"], teacher)
    val_correlation = disparity_correlation(val["disparity"], true)
    figures = {
        "termination_variance": own["variance"].mean().item(),
        "termination_std": own["variance"].sqrt().mean().item(),
        "canonical_psnr": psnr(own["image"], held["image"]).mean().item(),
        "disparity_error": (own["disparity"] - teacher).abs().mean().item(),
        "held_correlation": correlation.mean().item(),
        "held_correlation_median": correlation.median().item(),
        "val_termination_variance": val["variance"].mean().item(),
        "val_canonical_psnr": psnr(val["image"], photos).mean().item(),
        "val_correlation": val_correlation.mean().item(),
        "val_correlation_median": val_correlation.median().item(),
    }
    if counts is not None:
        figures |= {"code_usage": counts.usage, "code_perplexity": counts.perplexity}
    return figures | novel_figures(model, scenes[:NOVEL_SCENES])


def canonical(model: Autoencoder, images: Tensor, counts: CodeCounts | None) -> dict[str, Tensor]:
    """Picture, disparity and termination variance of every pixel, some pictures at a time."""
    parts = []
    for some in images.split(AT_ONCE):
        quantized = model.encode(some).quantized
        if counts is not None:
            counts.add(quantized.indices)
        field_ = model.field(model.decode(quantized.tokens))
        parts.append(render_canonical(field_, some.shape[-1], SAMPLES))
    image, disparity, variance = (torch.cat(values) for values in zip(*parts, strict=True))
    return {
        "image": image.clamp(0, 1),
        "disparity": disparity[:, 0],
        "variance": variance[:, 0],
    }


def novel_figures(model: Autoencoder, scenes: list[PosedScene]) -> dict[str, float]:
    """PSNR of the true cameras' views, scale and shift fitted on the canonical one."""
    novel, far = [], []
    frame = model.frame
    for scene in scenes:
        quantized = model.encode(scene.images[:1]).quantized
        field_ = model.field(model.decode(quantized.tokens))
        image, normalised, variance = render_canonical(field_, scene.images.shape[-1], SAMPLES)
        made = Vq3dScenes(
            image=image,
            disparity=frame.d_far + (frame.d_near - frame.d_far) * normalised[:, 0],
            termination_variance=variance.mean(dim=(1, 2, 3)),
            indices=None,
            fields=[field_],
            frame=frame,
            samples=SAMPLES,
        )
        focal = scene.camera.intrinsics[0, 0].item()
        alignment, _ = align(made.disparity[0], scene.inverse_depth[0], focal)
        views = made.render(0, alignment, novel_of(scene.camera))
        values = psnr(views.clamp(0, 1), scene.images[1:])
        is_far = scene.angle_deg[1:] > FAR_DEG
        novel += values[~is_far].tolist()
        far += values[is_far].tolist()
    return {"novel_psnr": statistics.mean(novel), "far_psnr": statistics.mean(far)}


def data_folder(options: Options) -> Path:
    """Where the two tars are."""
    folder = options.data or os.environ.get("UNFLAT_DATA")
    if not folder:
        raise UserError("--data: give the folder with scenes-train.tar and scenes-val.tar.")
    return Path(folder)


def read_pictures(
    folder: Path, options: Options
) -> tuple[dict[str, Tensor], list[PosedScene], PictureDataset]:
    """Held-out pictures, posed scenes in their canonical frame, and what is left to train on."""
    side = PRESETS["tiny"]().resolution
    dataset = PictureDataset(folder / "scenes-train.tar", side)
    held = {name: values[: options.limit] for name, values in cut_off(dataset, HELD).items()}
    posed = PosedScenes(folder / "scenes-val.tar", side, limit=options.limit or SCENES)
    return held, [scene.in_canonical_frame() for scene in posed], dataset


def cut_off(dataset: PictureDataset, count: int) -> dict[str, Tensor]:
    """The last pictures as one batch; the data set forgets them."""
    keep = len(dataset) - count
    held = dataset.batch(range(keep, len(dataset)))
    for name in ("images", "disparities", "has_disparity", "labels", "names", "class_keys"):
        setattr(dataset, name, getattr(dataset, name)[:keep])
    return held


def protocol(options: Options) -> dict[str, Any]:
    """All that must be equal for two files' runs to be comparable."""
    return {
        "preset": "tiny",
        "resolution": PRESETS["tiny"]().resolution,
        "steps": options.steps,
        "batch_size": options.batch_size,
        "lr": options.lr,
        "held_out": options.limit or HELD,
        "samples": SAMPLES,
        "novel_scenes": min(options.limit or NOVEL_SCENES, NOVEL_SCENES),
        "budget": BUDGET,
        "variants": {name: asdict(variant) for name, variant in VARIANTS.items()},
    }


def summarize(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Mean, lowest and highest of every figure over a variant's seeds."""
    summary = {}
    for name, seeds in runs.items():
        figures = list(seeds.values())
        summary[name] = {
            key: {
                "mean": statistics.mean(run[key] for run in figures),
                "low": min(run[key] for run in figures),
                "high": max(run[key] for run in figures),
            }
            for key in figures[0]
        }
    return summary


def fog_ratios(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Termination variance of accumulated over pointwise, of the means and seed by seed."""
    ratios: dict[str, Any] = {}
    for label, suffix in (("slab", ""), ("no_slab", "-bare")):
        fog, sharp = runs.get(f"accumulated{suffix}"), runs.get(f"pointwise{suffix}")
        if not fog or not sharp:
            continue
        key = "termination_variance"
        both = sorted(fog.keys() & sharp.keys())
        each = [fog[seed][key] / sharp[seed][key] for seed in both]
        total = sum(fog[s][key] for s in both) / sum(sharp[s][key] for s in both)
        ratios[label] = {"of_means": total, "by_seed": each, "at_least_halved": min(each) >= 2}
    return ratios


def tables(runs: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Markdown by title: the mean, and beside it the range over seeds."""
    summary = summarize(runs)
    made = {}
    for title, members in TABLES.items():
        columns = COLUMNS | (CODE_COLUMNS if title == "Quantiser" else {})
        head = ["", "seeds", *(name for name, _ in columns.values())]
        rows = [head, ["---"] * len(head)]
        for name, says in members.items():
            if name in summary:
                cells = [_cell(summary[name].get(key), d) for key, (_, d) in columns.items()]
                rows.append([says, str(len(runs[name])), *cells])
        made[title] = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return made


def fill_page(page: Path, made: dict[str, str]) -> None:
    """Puts each table between ``<!-- TITLE -->`` and ``<!-- end -->``."""
    text = page.read_text(encoding="utf-8")
    for title, table in made.items():
        marks = re.compile(rf"(<!-- {re.escape(title)} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = marks.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)
    with atomic_path(page) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _cell(values: dict[str, float] | None, digits: int) -> str:
    if values is None:
        return "—"
    mean, low, high = (f"{values[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low}…{high})"


def write_results(options: Options, runs: dict[str, dict[str, Any]]) -> None:
    """Everything so far, whole or not at all."""
    result = {
        "benchmark": "ablation",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} CPU cores, 1 thread",
        "versions": versions(),
        "command": "python -m benchmarks.ablation --data DIR",
        "protocol": protocol(options),
        "fog_ratios": fog_ratios(runs),
        "summary": summarize(runs),
        "runs": runs,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(options.out) as temporary:
        temporary.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def earlier_runs(options: Options) -> dict[str, dict[str, Any]]:
    """Runs that the file holds, if they were made under the same settings."""
    if not options.out.is_file():
        return {}
    found, ours = json.loads(options.out.read_text()), json.loads(json.dumps(protocol(options)))
    theirs, variants = found["protocol"].pop("variants"), ours.pop("variants")
    if found["protocol"] != ours:
        return {}
    alike = {
        name
        for name in variants.keys() & theirs.keys()
        if all(variants[name][part] == theirs[name][part] for part in ("config", "loss"))
    }
    return {name: runs for name, runs in found["runs"].items() if name in alike}


def main(options: Options) -> None:
    """Every run that is missing, then tables and pictures."""
    torch.set_num_threads(1)
    held, scenes, dataset = read_pictures(data_folder(options), options)
    runs = earlier_runs(options)
    for name, variant in VARIANTS.items():
        if options.only and name not in options.only:
            continue
        for seed in range(variant.seeds):
            if str(seed) in runs.get(name, {}):
                continue
            recipe, seconds = train_variant(variant, seed, dataset, options)
            figures = measure(recipe.model, held, scenes) | seconds
            if seed == 0 and name in list(TABLES["Depth term"]):
                options.models.mkdir(parents=True, exist_ok=True)
                save_file(recipe.model.state_dict(), options.models / f"{name}.safetensors")
            runs.setdefault(name, {})[str(seed)] = figures
            write_results(options, runs)
            shown = {key: round(value, 4) for key, value in figures.items()}
            print(f"{name} seed {seed}: {shown}", flush=True)
    made = tables(runs)
    print("\n\n".join(f"{title}\n\n{table}" for title, table in made.items()))
    print(json.dumps(fog_ratios(runs)))
    if options.page is not None:
        fill_page(options.page, made)
    if options.draw:
        from benchmarks.ablation_pictures import draw

        draw(options.models, options.pictures, held)


def load_drawn(models: Path, name: str) -> Autoencoder:
    """A model that an earlier run kept for drawing."""
    model = recipe_of(VARIANTS[name]).model
    model.load_state_dict(load_file(models / f"{name}.safetensors"))
    return model.eval()


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except UserError as error:
        sys.exit(str(error))
