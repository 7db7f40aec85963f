"""``unflat train inversion-encoder``: a generator's pictures become a model that finds objects."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from unflat.cli.training_run import TrainingOptions
from unflat.errors import UserError
from unflat.report import Report
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.data import PosedBatches, PosedViews
    from unflat.systems.gan.pipeline import ObjectModel
    from unflat.systems.inversion.recipe import EncoderRecipe
    from unflat.training import TrainConfig, TrainResult

_FINER = 4  # how many times larger known pictures are kept than an encoder sees them


@dataclass(frozen=True, kw_only=True)
class Options(TrainingOptions):
    """A generator's own pictures become a model that finds such objects in pictures.

    unflat train inversion-encoder --generator sdf-cars --out runs/find-cars. No other pictures are
    needed: of what the generator makes, everything is known. With --data, pictures of such objects
    with known cameras, it finds them better in sharp pictures. Ctrl-C saves; the same command
    with --resume goes on.
    """

    generator: str | None = None
    """What makes the pictures: a model of unflat train gan, or its name."""
    preset: Literal["tiny", "small", "paper"] | None = None
    """Size of the encoder; small if not given."""
    resolution: int | None = None
    """Side of the pictures; what the generator learned from if not given."""
    split: str | None = None
    """Which part of --data, as train; all objects if not given."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of training."""
    import torch

    from unflat.cli.training_run import (
        carry_out,
        changed,
        earlier,
        named_settings,
        new_report,
        require_rows,
    )
    from unflat.hub import find
    from unflat.systems.gan.pipeline import load
    from unflat.systems.inversion.code_metric import code_metric
    from unflat.systems.inversion.encoder import PRESETS, Config
    from unflat.systems.inversion.pipeline import header_of
    from unflat.systems.inversion.recipe import SYSTEM, CameraBatches, EncoderRecipe, Objective
    from unflat.training import TrainConfig, process_rank

    before = earlier(options.out, options.resume, options.config)
    about = _about(options, before.get("about", {}))
    objects = load(find(about["generator"], offline=options.offline))
    _require_latents(about["generator"], objects)
    side = about["resolution"] or objects.resolution
    preset: Config = PRESETS[about["preset"]]()
    named = {**before.get("config", {}), "style_dim": _style_dim(objects)}
    model = changed(preset, named, '"config"')
    objective = changed(Objective(), before.get("loss", {}), '"loss"')
    config = changed(
        TrainConfig(batch_size=32, lr=1e-3, weight_decay=0.01),
        {**before.get("train", {}), **named_settings(options, {"per_batch": None})},
        "training",
    )
    report = new_report(terminal, SYSTEM, about, config, [about["generator"]])
    torch.manual_seed(config.seed)  # the first weights are drawn from it
    cameras = objects.camera[1:] if len(objects.camera.intrinsics) > 1 else objects.camera
    metric = None
    if not options.dry_run:
        with report.stage("weigh codes"):
            metric = code_metric(objects.generator.requires_grad_(False), cameras)
    rank, world_size = process_rank()
    require_rows(config, objective.views, world_size)
    known = None
    if about["data"]:
        with report.stage("data") as stage:
            views = _views(about, side)
            stage.note = views.summary
        for note in views.notes:
            report.warn(note, about=views.name)
        known = _known(views, config, objective.views, rank, world_size)
    recipe = EncoderRecipe(
        model,
        objects.generator,
        side,
        objective=objective,
        metric=metric,
        about=header_of(objects),
    )
    batches = CameraBatches(
        cameras,
        config.batch_size,
        seed=config.seed,
        rank=rank,
        world_size=world_size,
        known=known,
    )
    parameters = sum(weight.numel() for weight in recipe.networks.parameters())
    terminal.line(
        f"encoder for {about['generator']} {side} px, {parameters / 1e6:.1f} M parameters, "
        f"{config.batch_size} pictures a step, to {options.out}"
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
        write=lambda result: _write(options, recipe, objects, result, report),
        hint=f"unflat invert PICTURE --model {options.out}/model.safetensors",
    )


def _about(options: Options, before: dict[str, Any]) -> dict[str, Any]:
    """Generator and sizes: what is named, else what the resumed run had."""
    if options.per_batch or options.classes or len(options.data) > 1:
        raise UserError("--data: one data set may be given; leave out others and --classes.")
    named = {
        "generator": options.generator,
        "preset": options.preset,
        "resolution": options.resolution,
        "data": list(options.data),
        "split": options.split,
    }
    chosen = {key: value for key, value in named.items() if value}
    about = {**named, "preset": "small", **before, **chosen}
    if not about["generator"]:
        raise UserError(
            "--generator: names none; give sdf-cars, sdf-planes, or a model of unflat train gan."
        )
    if about["resolution"] and not 16 <= about["resolution"] <= 1024:
        raise UserError(f"--resolution {about['resolution']}: must be between 16 and 1024 pixels.")
    return about


def _views(about: dict[str, Any], side: int) -> "PosedViews":
    """All known pictures, larger than the encoder sees them."""
    from unflat.data import open_views

    views = open_views(about["data"][0], _FINER * side, about["split"])
    if not views.has_cameras or not views.has_masks:
        lacking = "masks" if views.has_cameras else "cameras"
        raise UserError(
            f"{views.name}: its pictures have no {lacking}, which an encoder learns from; give "
            "posed pictures with alpha or on white (unflat data check tells the layouts), or no "
            "--data."
        )
    return views


def _known(
    views: "PosedViews", config: "TrainConfig", together: int, rank: int, world_size: int
) -> "PosedBatches":
    """Batches of them, in which some in a row show one object."""
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
            f'--data: {error}; give objects seen oftener, or --config with "loss": {{"views": 1}}.'
        ) from error


def _require_latents(name: str, objects: "ObjectModel") -> None:
    """Refuses generators whose objects are not told by one code alone."""
    from unflat.nn.stylegan import MappingNetwork

    mapping = objects.generator.mapping
    if not isinstance(mapping, MappingNetwork) or mapping.condition_dim:
        raise UserError(
            f"--generator {name}: is of {objects.system}, whose objects are not told by one code "
            "alone; give one of sdf_triplane."
        )


def _style_dim(objects: "ObjectModel") -> int:
    """Numbers of a code."""
    return objects.codes(objects.latents([0])).shape[-1]


def _write(
    options: Options,
    recipe: "EncoderRecipe",
    objects: "ObjectModel",
    result: "TrainResult",
    report: Report,
) -> None:
    """Encoder and generator in one file, the card and the report."""
    from unflat.cli.written_model import write_model
    from unflat.systems.inversion.pipeline import weights_of
    from unflat.training import read_checkpoint

    out, side = options.out, recipe.side
    weights = weights_of(read_checkpoint(result.checkpoint).averaged(), objects)
    sections = {
        "What it is": f"{out.name}: finds objects of {objects.system} in single pictures.",
        "Use": f"`unflat invert PICTURE --model {out.name}/model.safetensors`",
        "Inputs": f"One picture of one object, brought to {side} px before white.",
        "Numbers": "Not measured. `unflat evaluate inversion --model ... --data ...`",
        "How to cite": "Name unflat and its version, and arXiv 2211.11674.",
    }
    write_model(out, weights, recipe.config_json(), sections, report, "its own pictures")
