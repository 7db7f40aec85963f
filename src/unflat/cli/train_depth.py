"""``unflat train depth``: pictures with a disparity become a teacher of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unflat.cli.training_run import Trained, TrainingOptions, named_data
from unflat.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(TrainingOptions):
    """Pictures with a disparity become a small teacher of it.

    `unflat data depth --model` then writes disparities beside pictures that have none. It learns
    from changed windows of the pictures, so that photographs are less of a surprise than they
    would be.
    """


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of training."""
    from unflat.cli.training_run import (
        changed,
        earlier,
        named_settings,
        require_data,
        run_training,
    )
    from unflat.systems.depth.recipe import SYSTEM, Config, DepthRecipe
    from unflat.training import TrainConfig

    before = earlier(options.out, options.resume, options.config)
    about = _about(options, before.get("about", {}))
    require_data(about)
    model = changed(Config(), before.get("config", {}), '"config"')
    config = changed(
        TrainConfig(batch_size=16, lr=1.5e-3),
        {**before.get("train", {}), **named_settings(options, about)},
        "training",
    )
    return run_training(
        options,
        terminal,
        system=SYSTEM,
        about=about,
        config=config,
        resolution=model.source,
        recipe=lambda: DepthRecipe(model),
        write=lambda trained: _write(options.out, trained),
    )


def _about(options: Options, before: dict[str, Any]) -> dict[str, Any]:
    """Data: what is named, else what the resumed run had."""
    named = named_data(options)
    return {**named, **before, **{key: value for key, value in named.items() if value}}


def _write(out: Path, trained: Trained) -> None:
    """The network, its card and the report."""
    from unflat.cli.written_model import write_model

    name = out.name
    sections = {
        "What it is": f"{name}: sees the disparity of single pictures.",
        "Use": f"`unflat data depth FOLDER --model {name}/model.safetensors`",
        "Inputs": "RGB pictures of any size; it looks at them at the side it learned from.",
        "Numbers": "Not measured. `unflat evaluate depth --depth ... --data ...`",
        "Confidence": "It gives none.",
    }
    header = trained.recipe.config_json()
    write_model(out, trained.weights, header, sections, trained.report, trained.counts)
