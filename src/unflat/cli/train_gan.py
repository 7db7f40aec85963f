"""``unflat train gan``: pictures of objects become a model that makes up new ones."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unflat.cli.training_run import TrainingOptions
from unflat.errors import UserError
from unflat.report import Report
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.data import PosedViews
    from unflat.geometry import Camera
    from unflat.systems.gan.recipe import GanRecipe, Parts
    from unflat.training import TrainResult

_KEPT_CAMERAS = 64  # in the model file, for pictures like those it learned from


@dataclass(frozen=True, kw_only=True)
class Options(TrainingOptions):
    """Pictures of objects become a model that makes up new ones, in 3D.

    unflat train gan --system eg3d --data cars.tar --out runs/cars; unflat train eg3d is the same.
    Ctrl-C saves; the same command with --resume goes on.
    """

    system: str | None = None
    """Which one, as in sdf_triplane, eg3d, pigan; unflat models list --systems tells them apart."""
    preset: Literal["tiny", "start", "play", "small", "paper"] | None = None
    """Size of the networks and of the pictures; small if not given. start and play are small's two
    halves: start reconstructs known objects, play goes on from there, with --init."""
    split: str | None = None
    """Of posed objects; train if not given."""
    resolution: int | None = None
    """Side of the pictures, a power of 2; the preset's if not given."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of training."""
    import torch

    from unflat.cli.training_run import (
        carry_out,
        changed,
        earlier,
        named_settings,
        new_report,
        require_data,
        require_rows,
    )
    from unflat.data import PosedBatches
    from unflat.systems.gan.recipe import GanRecipe
    from unflat.systems.gan.registry import build, module_of
    from unflat.training import process_rank

    before = earlier(options.out, options.resume, options.config)
    about = _about(options, before.get("about", {}))
    require_data(about)
    module = module_of(about["system"])
    named = {k: v for k, v in before.get("config", {}).items() if k != "system"}
    if options.resolution is not None:
        named["resolution"] = options.resolution
    if about["preset"] not in module.PRESETS:
        sizes = ", ".join(module.PRESETS)
        raise UserError(f"--preset {about['preset']}: {about['system']} has none; choose {sizes}.")
    model = changed(module.PRESETS[about["preset"]](), named, '"config"')
    _require_side(model.resolution)
    settings = {**before.get("train", {}), **named_settings(options, {"per_batch": None})}
    config = changed(module.training(model), settings, "training")
    _require_same_system(options, about["system"])
    report = new_report(terminal, about["system"], about, config)
    with report.stage("data") as stage:
        views = _views(about, model.resolution)
        stage.note = views.summary
    for note in views.notes:
        report.warn(note, about=views.name)
    torch.manual_seed(config.seed)  # the first weights are drawn from it
    parts: Parts = build(about["system"], model)
    _require_enough(about["system"], views, parts)
    recipe = GanRecipe(about["system"], model, parts, objects=len(views.names))
    rank, world_size = process_rank()
    require_rows(config, parts.start.views, world_size)
    try:
        batches = PosedBatches(
            views,
            config.batch_size,
            seed=config.seed,
            rank=rank,
            world_size=world_size,
            together=parts.start.views,
        )
    except ValueError as error:
        raise UserError(f"--data: {error}; give more, or another --preset.") from error
    parameters = sum(weight.numel() for weight in recipe.networks.parameters())
    terminal.line(
        f"{about['system']} {model.resolution} px, {parameters / 1e6:.1f} M parameters, "
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
        write=lambda result: _write(options.out, recipe, views, result, report),
        hint=f"unflat generate --model {options.out}/model.safetensors",
    )


def _about(options: Options, before: dict[str, Any]) -> dict[str, Any]:
    """System, size and data: what is named, else what the resumed run had."""
    if options.per_batch or options.classes or len(options.data) > 1:
        raise UserError("--data: one data set is learned from; leave out others and --classes.")
    named = {
        "system": options.system,
        "preset": options.preset,
        "data": list(options.data),
        "split": options.split,
    }
    about = {**named, "preset": "small", **before, **{k: v for k, v in named.items() if v}}
    if not about["system"]:
        from unflat.systems.gan.registry import SYSTEMS

        raise UserError(f"--system: names none; choose from {', '.join(SYSTEMS)}.")
    return about


def _require_side(side: int) -> None:
    from unflat.systems.gan.game import power_of_two

    if not power_of_two(side):
        raise UserError(f"--resolution {side}: must be a power of 2 and at least 8.")


def _require_same_system(options: Options, system: str) -> None:
    """Refuses weights of another system to start from."""
    from unflat.cli.training_run import init_path
    from unflat.training import recipe_of_init

    path = init_path(options)
    found = recipe_of_init(path) if path is not None else {}
    other = found.get("config", {}).get("system", found.get("system", system))
    if other != system:
        raise UserError(
            f"--init {options.init}: holds weights of {other}, not of {system}; give others, or "
            f"choose --system {other}."
        )


def _views(about: dict[str, Any], resolution: int) -> "PosedViews":
    """All pictures."""
    from unflat.data import open_views

    return open_views(about["data"][0], resolution, about["split"])


def _require_enough(system: str, views: "PosedViews", parts: "Parts") -> None:
    """Refuses pictures that lack what the system learns from."""
    from unflat.systems.gan.registry import SYSTEMS

    known = SYSTEMS[system]
    if known.needs_cameras and not views.has_cameras:
        free = ", ".join(name for name, other in SYSTEMS.items() if not other.needs_cameras)
        raise UserError(
            f"{views.name}: its pictures have no cameras, which {system} learns from; give posed "
            f"pictures (unflat data check tells the layouts), or choose --system {free}."
        )
    if known.needs_masks and not views.has_masks:
        raise UserError(
            f"{views.name}: its pictures have no masks, which {system} learns from; give pictures "
            "with alpha, or objects on white in the layout of SRN."
        )
    start = parts.start
    if (start.reconstruction or start.kept) and len(views.names) == len(views.images):
        raise UserError(
            f"{views.name}: nobody knows which of its pictures show the same object, so nothing "
            'can be reconstructed; set "reconstruction" and "kept" of "start" to 0 and "views" '
            "to 1 by --config."
        )


def _write(
    out: Path,
    recipe: "GanRecipe",
    views: "PosedViews",
    result: "TrainResult",
    report: Report,
) -> None:
    """The generator, its card and the report."""
    from unflat.cli.written_model import write_model
    from unflat.systems.gan.pipeline import header_of, weights_of
    from unflat.training import read_checkpoint

    weights = weights_of(read_checkpoint(result.checkpoint).averaged())
    header = header_of(recipe, _cameras(recipe.parts, views))
    sections = {
        "What it is": f"{out.name}: makes up objects like those of {views.name}, in 3D.",
        "Use": f"`unflat generate --model {out.name}/model.safetensors`",
        "Inputs": "None but a seed.",
        "Numbers": "Not measured. `unflat evaluate objects --model ... --data ...`",
        "Confidence": "It gives none.",
    }
    write_model(out, weights, header, sections, report, views.summary)


def _cameras(parts: "Parts", views: "PosedViews") -> "Camera":
    """A canonical camera that sees front and one side, then some of those learned from."""
    import torch

    from unflat.geometry import orbit_pose

    draws = torch.Generator().manual_seed(0)
    if parts.cameras is not None:
        some = parts.cameras.sample(_KEPT_CAMERAS, draws)
    else:
        assert views.camera is not None  # such systems have been refused
        chosen = torch.randperm(len(views.images), generator=draws)[:_KEPT_CAMERAS]
        some = views.camera[chosen]
    radius = some.position.norm(dim=1).median()
    pose = orbit_pose(torch.tensor([0.35]), torch.tensor([0.6]), radius[None])
    if parts.cameras is not None:  # nobody knows more than what the prior says
        return some
    return replace(
        some,
        camera_to_world=torch.cat([pose, some.camera_to_world]),
        intrinsics=torch.cat([some.intrinsics[:1], some.intrinsics]),
    )
