"""``unflat train vq3d-detail``: a stage-1 model learns to see the surface of the photo itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unflat.cli.training_run import Trained, TrainingOptions, named_data
from unflat.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(TrainingOptions):
    """A VQ3D stage-1 model learns the detail mode: where the photo's surface lies, and how soft.

    Tokens and what is rendered from them stay as they are; only the refiner learns.
    """

    model: str | None = None
    """The stage-1 model: a name, a file or a training folder; vq3d-small if not given."""
    margin: int | None = None
    """Pixels more on a side, out of which random windows are cut; 0 if not given."""
    jitter: float | None = None
    """Largest relative change of brightness, contrast and saturation; 0 if not given."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of training."""
    from unflat.cli.training_run import (
        changed,
        earlier,
        named_settings,
        require_data,
        run_training,
    )
    from unflat.errors import UserError
    from unflat.systems.vq3d.detail_recipe import DetailLoss, DetailRecipe
    from unflat.systems.vq3d.pipeline import has_detail, load
    from unflat.training import TrainConfig

    before = earlier(options.out, options.resume, options.config)
    about = _about(options, before.get("about", {}))
    require_data(about)
    model = load(about["model"], offline=options.offline)
    if not has_detail(model):
        raise UserError(f"--model {about['model']}: has no refiner that could learn; use another.")
    loss = changed(DetailLoss(), before.get("loss", {}), '"loss"')
    config = changed(
        TrainConfig(batch_size=16, lr=1e-3),
        {**before.get("train", {}), **named_settings(options, about)},
        "training",
    )
    return run_training(
        options,
        terminal,
        system="vq3d-detail",
        about=about,
        config=config,
        resolution=model.config.resolution,
        recipe=lambda: DetailRecipe(model, loss),
        write=lambda trained: _write(options.out, trained),
    )


def _about(options: Options, before: dict[str, Any]) -> dict[str, Any]:
    """Data and model: what is named, else what the resumed run had."""
    named = {
        **named_data(options),
        "margin": options.margin,
        "jitter": options.jitter,
        "model": options.model,
    }
    chosen = {key: value for key, value in named.items() if value}
    return {**named, "model": "vq3d-small", **before, **chosen}


def _write(out: Path, trained: Trained) -> None:
    """The whole model with the refiner that was learned, its card and the report."""
    from unflat.cli.written_model import write_model
    from unflat.systems.vq3d.detail_recipe import DetailRecipe

    recipe, name = trained.recipe, out.name
    assert isinstance(recipe, DetailRecipe)  # made by this verb
    recipe.refiner.load_state_dict(trained.weights)
    sections = {
        "What it is": f"{name}: a VQ3D stage-1 model whose detail mode was trained further.",
        "Use": f"`unflat reconstruct photo.jpg --model {name}/model.safetensors`",
        "Inputs": f"One RGB picture, squared to {recipe.model.config.resolution} px.",
        "Numbers": "Not measured. `unflat evaluate reconstruction --model ... --data ...`",
        "How to cite": "Name unflat and its version, and VQ3D (arXiv 2302.06833).",
    }
    write_model(
        out,
        recipe.model.state_dict(),
        {**recipe.config_json(), "system": "vq3d"},
        sections,
        trained.report,
        trained.counts,
        dtype="float32",  # everything but the refiner must stay as it was, tokens above all
    )
