"""``unflat train features``: pictures become the network that distances are measured with."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unflat.cli.training_run import TrainingOptions, named_data
from unflat.report import Report
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.data import PictureDataset
    from unflat.training import TrainResult


@dataclass(frozen=True, kw_only=True)
class Options(TrainingOptions):
    """Pictures become a small network whose features tell pictures apart.

    `unflat evaluate` measures kid-unflat and perceptual-unflat with it. Classes and disparities
    beside the pictures help where there are any. A data set with a train split gives only that.
    """


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
    from unflat.systems.features import Config, FeatureRecipe
    from unflat.training import TrainConfig

    before = earlier(options.out, options.resume, options.config)
    about = _about(options, before.get("about", {}))
    require_data(about)
    model = changed(Config(), before.get("config", {}), '"config"')
    config = changed(
        TrainConfig(batch_size=64, lr=1e-3),
        {**before.get("train", {}), **named_settings(options, about)},
        "training",
    )
    report = new_report(terminal, "features", about, config)
    with report.stage("data") as stage:
        datasets = open_datasets(about, model.resolution)
        stage.note = counts_of(datasets)
    batches = mix(about, datasets, config)
    model = changed(model, {"classes": len(batches.classes)}, '"config"')
    torch.manual_seed(config.seed)  # the first weights are drawn from it
    recipe = FeatureRecipe(model)
    parameters = sum(weight.numel() for weight in recipe.model.trunk.parameters())
    terminal.line(
        f"features, {parameters / 1e6:.2f} M parameters, {model.classes} classes, "
        f"{batches.batch_size} pictures a step, to {options.out}"
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
        write=lambda result: _write(options.out, recipe, result, report, datasets),
    )


def _about(options: Options, before: dict[str, Any]) -> dict[str, Any]:
    """Data: what is named, else what the resumed run had."""
    named = named_data(options)
    return {**named, **before, **{key: value for key, value in named.items() if value}}


def _write(
    out: Path,
    recipe: Any,
    result: "TrainResult",
    report: Report,
    datasets: list["PictureDataset"],
) -> None:
    """The calibrated trunk of the averaged weights, its card and the report."""
    from unflat.cli.training_run import counts_of
    from unflat.cli.written_model import write_model
    from unflat.systems.features import calibrated
    from unflat.training import read_checkpoint

    weights = read_checkpoint(result.checkpoint).averaged()
    network = calibrated(weights, recipe.config.widths, datasets)
    sections = {
        "What it is": f"{out.name}: a feature network for distances between pictures.",
        "Use": f"`unflat evaluate generation --features {out.name}/model.safetensors ...`",
        "Inputs": "RGB pictures of at least 16 px a side; larger than 128 px are reduced.",
        "Confidence": "It gives none.",
    }
    counts, header = counts_of(datasets), recipe.config_json()
    write_model(out, network.state_dict(), header, sections, report, counts, dtype="int8")
