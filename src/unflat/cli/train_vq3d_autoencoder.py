"""``unflat train vq3d-autoencoder``: pictures become a model that reconstructs from one photo."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from unflat.cli.training_run import TrainingOptions, named_data
from unflat.errors import UserError
from unflat.report import Report
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from torch.nn import Module

    from unflat.data import PictureDataset
    from unflat.systems.vq3d.config import Config
    from unflat.systems.vq3d.loss_config import LossConfig
    from unflat.systems.vq3d.paper import PaperRun
    from unflat.systems.vq3d.recipe import Vq3dRecipe
    from unflat.training import TrainConfig, TrainResult

Preset = Literal[
    "tiny", "small", "bundle128", "base", "paper", "paper-imagenet256", "paper-compcars"
]
"""Names of `unflat.systems.vq3d.PRESETS`."""

_START_PICTURES = 1024
"""Pictures from whose principal components the linear path starts."""


@dataclass(frozen=True, kw_only=True)
class Options(TrainingOptions):
    """Pictures become a model that reconstructs from one photo (VQ3D stage 1).

    A data set is a folder of pictures (sub-folders are classes) or a .tar of them; a disparity
    beside a picture teaches depth. Ctrl-C saves; the same command with --resume goes on.
    """

    preset: Preset | None = None
    """Size of the model: 32, 64, 128, 128, 256 pixels; small if not given. The last two are whole
    runs, with their losses and schedule; --dry-run tells what they cost."""
    losses: Literal["base", "critics", "no-novel-critic", "accumulated", "paper"] | None = None
    """What is minimised: base has no critics; critics has a perceptual term and critics of
    canonical and novel views; the next two are that with one thing other; paper is it at 256 px.
    base if not given."""
    lpips: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH [PATH ...]")] = ()
    """Weights of LPIPS, trunk and heads, for the perceptual term; unflat's own network if not
    given."""
    margin: int | None = None
    """Pixels more on a side, out of which random windows are cut; 0 if not given."""
    jitter: float | None = None
    """Largest relative change of brightness, contrast and saturation; 0 if not given."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of training."""
    import torch

    from unflat.cli.training_run import (
        carry_out,
        changed,
        counts_of,
        earlier,
        mix,
        named_settings,
        new_report,
        open_datasets,
        require_data,
    )
    from unflat.systems.vq3d.config import PRESETS
    from unflat.systems.vq3d.loss_config import LOSSES
    from unflat.systems.vq3d.paper import RUNS
    from unflat.systems.vq3d.recipe import Vq3dRecipe
    from unflat.training import TrainConfig

    before = earlier(options.out, options.resume, options.config)
    about = _about(options, before.get("about", {}))
    require_data(about)
    model = changed(PRESETS[about["preset"]](), before.get("config", {}), '"config"')
    loss = changed(LOSSES[about["losses"]], before.get("loss", {}), '"loss"')
    _require_start(options, model, loss)
    named = named_settings(options, about)
    schedule = RUNS[about["preset"]]().train if about["preset"] in RUNS else TrainConfig()
    config = changed(schedule, {**before.get("train", {}), **named}, "training")
    report = new_report(terminal, "vq3d", about, config)
    with report.stage("data") as stage:
        datasets = open_datasets(about, model.resolution)
        stage.note = counts_of(datasets)
    batches = mix(about, datasets, config)
    torch.manual_seed(config.seed)  # the first weights are drawn from it
    with torch.device("meta" if options.dry_run else "cpu"):
        recipe = Vq3dRecipe(model, loss, _perceptual(about, loss))
    parameters = sum(weight.numel() for weight in recipe.model.parameters())
    terminal.line(
        f"vq3d-autoencoder {model.resolution} px, {parameters / 1e6:.1f} M parameters, "
        f"{batches.batch_size} pictures a step, to {options.out}"
    )
    if options.dry_run:
        if about["preset"] in RUNS:
            _say_cost(RUNS[about["preset"]](), model, loss, config, terminal)
    elif options.init is None and not options.resume:
        _start(recipe, datasets, config)
    return carry_out(
        options,
        terminal,
        recipe,
        batches,
        config,
        report,
        about,
        parameters,
        write=lambda result: _write(options.out, recipe, result, report, datasets),
        hint=f"unflat reconstruct photo.jpg --model {options.out}/model.safetensors",
    )


def _about(options: Options, before: dict[str, Any]) -> dict[str, Any]:
    """Data, preset, losses: what is named, else what the resumed run had.

    Raises:
        UserError: other losses are named than those of the resumed run.
    """
    if options.resume and options.losses not in (None, before.get("losses", "base")):
        raise UserError(
            f"--losses {options.losses}: the run in {options.out} has "
            f"{before.get('losses', 'base')}; resume it without the option, or start another with "
            "--init."
        )
    named = {
        **named_data(options),
        "margin": options.margin,
        "jitter": options.jitter,
        "preset": options.preset,
        "losses": options.losses,
        "lpips": [str(path) for path in options.lpips],
    }
    chosen = {key: value for key, value in named.items() if value}
    about = {**named, "preset": "small", **before, **chosen}
    usual = "paper" if about["preset"].startswith("paper-") else "base"
    return {**about, "losses": about["losses"] or usual}


def _say_cost(
    run: "PaperRun", model: "Config", loss: "LossConfig", config: "TrainConfig", terminal: Terminal
) -> None:
    """What a run of the paper's size needs, with what was changed in it."""
    from dataclasses import replace

    from unflat.systems.vq3d.paper import cost

    needs = cost(replace(run, config=model, loss=loss, train=config))
    terminal.line(
        f"{needs.parameters / 1e6:.0f} M parameters and {needs.critic_parameters / 1e6:.0f} M of "
        f"critics; {needs.flop_per_picture / 1e12:.1f} TFLOP a picture, {needs.epochs:.0f} epochs "
        f"of {run.pictures:,} pictures: at least {needs.gpu_hours:.0f} H100-hours, twice or three "
        "times that in practice."
    )


def _require_start(options: Options, model: "Config", loss: "LossConfig") -> None:
    """Refuse an objective that this model or this start cannot have.

    Raises:
        UserError: tokens are to stay as they are, but of no model; or the window does not fit.
    """
    if loss.trained == "decoder" and options.init is None and not options.resume:
        raise UserError(
            '"loss": "trained" is "decoder", which leaves the encoder as it is; give --init the '
            "model whose tokens are kept."
        )
    fits = loss.crop >= 16 and loss.crop & (loss.crop - 1) == 0 and loss.crop <= model.resolution
    if loss.has_windows and not fits:
        raise UserError(
            f'"loss": "crop" is {loss.crop}; it must be a power of 2 from 16 to the picture\'s '
            f"side, {model.resolution}."
        )


def _perceptual(about: dict[str, Any], loss: "LossConfig") -> "Module | None":
    """LPIPS for the perceptual term, if its files are named.

    Raises:
        UserError: they are of no use, or not one network with its heads.
    """
    if not about["lpips"]:
        return None
    if not loss.perceptual_weight:
        raise UserError(
            "--lpips: these losses have no perceptual term; add --losses critics, or leave it out."
        )
    from unflat.evaluation.networks import open_lpips
    from unflat.losses import frozen

    opened = open_lpips([Path(path) for path in about["lpips"]])
    if len(opened) != 1:
        raise UserError(f"--lpips: names {len(opened)} networks; give one with its heads.")
    return frozen(next(iter(opened.values())))


def _start(recipe: "Vq3dRecipe", datasets: list["PictureDataset"], config: "TrainConfig") -> None:
    """Begin the linear path from pictures; the same on every process."""
    import torch

    from unflat.data import BatchSource

    whole = BatchSource(datasets, batch_size=config.batch_size, seed=config.seed)
    count = -(-_START_PICTURES // whole.batch_size)
    recipe.start(torch.cat([whole.batch(step)["image"] for step in range(count)]))


def _write(
    out: Path,
    recipe: "Vq3dRecipe",
    result: "TrainResult",
    report: Report,
    datasets: list["PictureDataset"],
) -> None:
    """The model from the averaged weights, its card and the report."""
    from unflat.cli.training_run import counts_of
    from unflat.cli.written_model import write_model
    from unflat.training import read_checkpoint

    weights = recipe.model_weights(read_checkpoint(result.checkpoint).averaged())
    # Rounded to half, an encoder that was to stay as it is would give other tokens here and there.
    dtype = "float32" if recipe.loss.trained == "decoder" else "float16"
    side = recipe.config.resolution
    sections = {
        "What it is": f"{out.name}: a VQ3D stage-1 model for {side} px pictures.",
        "Use": f"`unflat reconstruct photo.jpg --model {out.name}/model.safetensors`",
        "Inputs": f"One RGB picture, squared to {side} px; no pose needed.",
        "Numbers": "Not measured. `unflat evaluate reconstruction --model ... --data ...`",
        "How to cite": "Name unflat and its version, and VQ3D (arXiv 2302.06833).",
    }
    counts = counts_of(datasets)
    write_model(out, weights, recipe.config_json(), sections, report, counts, dtype)
