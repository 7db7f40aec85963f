"""``unflat train zero123``: objects seen from several sides become a model of new views."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from unflat.cli.training_run import TrainingOptions
from unflat.errors import UserError
from unflat.report import Report
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.data import PosedBatches, PosedViews
    from unflat.systems.zero123.recipe import ViewRecipe
    from unflat.training import TrainConfig, TrainResult


@dataclass(frozen=True, kw_only=True)
class Options(TrainingOptions):
    """Objects seen from several sides become a model that turns an object in one picture.

    unflat train zero123 --data objects.tar --out runs/views. Pictures come with cameras, as
    unflat data from-meshes writes them. Ctrl-C saves; the same command with --resume goes on.
    """

    preset: Literal["tiny", "small", "paper"] | None = None
    """Size: tiny for a CPU, small for one GPU; tiny if not given. paper: Zero-1-to-3's own
    networks, which begin with the weights of --init."""
    lora: int | None = None
    """Of paper: rank of adapters that learn in place of the whole denoiser, for small GPUs; 0 for
    none."""
    split: str | None = None
    """Which part of --data, as train; all objects if not given."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of training."""
    import torch

    from unflat.cli.train_zero123_paper import run_paper
    from unflat.cli.training_run import (
        carry_out,
        changed,
        earlier,
        named_settings,
        new_report,
        require_rows,
    )
    from unflat.systems.zero123.compact import PRESETS, CompactViews, build
    from unflat.systems.zero123.recipe import SYSTEM, Objective, ViewRecipe
    from unflat.training import TrainConfig, process_rank

    before = earlier(options.out, options.resume, options.config)
    about = _about(options, before.get("about", {}))
    if about["preset"] == "paper":
        return run_paper(options, terminal, about, before)
    if options.lora is not None:
        raise UserError("--lora: belongs to --preset paper; leave it out, or add that.")
    model = changed(PRESETS[about["preset"]](), before.get("config", {}), '"config"')
    objective = changed(Objective(), before.get("loss", {}), '"loss"')
    config = changed(
        TrainConfig(batch_size=32, lr=6e-4, weight_decay=0.01, warmup_steps=200),
        {**before.get("train", {}), **named_settings(options, {"per_batch": None})},
        "training",
    )
    report = new_report(terminal, SYSTEM, about, config)
    rank, world_size = process_rank()
    require_rows(config, objective.views, world_size)
    with report.stage("data") as stage:
        views = views_of(about, model.side)
        stage.note = views.summary
    for note in views.notes:
        report.warn(note, about=views.name)
    batches = batches_of(views, config, objective.views, rank, world_size)
    torch.manual_seed(config.seed)  # the first weights are drawn from it
    network = build(model)
    recipe = ViewRecipe(
        CompactViews(network), objective, {"config": model.to_json(), "side": model.side}
    )
    parameters = sum(weight.numel() for weight in recipe.networks.parameters())
    terminal.line(
        f"views {model.side} px, {parameters / 1e6:.2f} M parameters, {config.batch_size} pictures "
        f"a step, to {options.out}"
    )
    return carry_out(
        options,
        terminal,
        recipe,
        batches,
        config,
        report,
        about,
        parameters,
        write=lambda result: _write(options, recipe, result, report, views.summary),
        hint=f"unflat views PICTURE --model {options.out}/model.safetensors",
    )


def _about(options: Options, before: dict[str, Any]) -> dict[str, Any]:
    """Data and sizes: what is named, else what the resumed run had."""
    if options.per_batch or options.classes or len(options.data) > 1:
        raise UserError("--data: one data set may be given; leave out others and --classes.")
    named = {
        "preset": options.preset,
        "data": list(options.data),
        "split": options.split,
        "init": options.init,
    }
    chosen = {key: value for key, value in named.items() if value}
    about = {**named, "preset": "tiny", **before, **chosen}
    if not about["data"]:
        raise UserError(
            "--data: names no data set; give pictures with cameras, as unflat data from-meshes "
            "writes them."
        )
    return about


def views_of(about: dict[str, Any], side: int) -> "PosedViews":
    """All pictures of a data set with cameras and masks.

    Args:
        about: ``data`` and ``split``.
        side: of the pictures, pixels.

    Raises:
        UserError: it lacks cameras or masks, or cannot be read.
    """
    from unflat.data import open_views

    views = open_views(about["data"][0], side, about["split"])
    if not views.has_cameras or not views.has_masks:
        lacking = "masks" if views.has_cameras else "cameras"
        raise UserError(
            f"{views.name}: its pictures have no {lacking}, which views are learned from; give "
            "posed pictures with alpha (unflat data check tells the layouts)."
        )
    return views


def batches_of(
    views: "PosedViews", config: "TrainConfig", together: int, rank: int, world_size: int
) -> "PosedBatches":
    """Batches in which some in a row show one object.

    Args:
        views: of objects.
        config: of the loop.
        together: pictures in a row of an object.
        rank: of this process.
        world_size: processes.

    Raises:
        UserError: no object has so many pictures.
    """
    from unflat.data import PosedBatches

    try:
        return PosedBatches(
            views,
            config.batch_size,
            seed=config.seed,
            rank=rank,
            world_size=world_size,
            together=together,
        )
    except ValueError as error:
        raise UserError(
            f'--data: {error}; give objects seen oftener, or --config with "loss": {{"views": 2}}.'
        ) from error


def _write(
    options: Options, recipe: "ViewRecipe", result: "TrainResult", report: Report, counts: str
) -> None:
    """The model, its card and the report."""
    from unflat.cli.written_model import write_model
    from unflat.training import read_checkpoint

    out = options.out
    weights = read_checkpoint(result.checkpoint).averaged()
    sections = {
        "What it is": f"{out.name}: turns an object in one picture to other sides.",
        "Use": f"`unflat views PICTURE --model {out.name}/model.safetensors`",
        "Inputs": f"One picture of one object, brought to {recipe.model.side} px before white.",
        "Numbers": "Not measured. `unflat evaluate views --model ... --data ...`",
        "How to cite": "Name unflat and its version, and arXiv 2303.11328.",
    }
    write_model(out, weights, recipe.config_json(), sections, report, counts)
