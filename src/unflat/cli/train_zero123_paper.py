"""``unflat train zero123 --preset paper``: the published networks learn, whole or by adapters."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unflat.errors import UserError
from unflat.report import Report
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.cli.train_zero123 import Options
    from unflat.data import PosedViews
    from unflat.systems.zero123.latents import Latents
    from unflat.systems.zero123.published import PublishedViews
    from unflat.systems.zero123.recipe import Objective, ViewRecipe
    from unflat.training import TrainConfig, TrainResult

_START = "sd-image-conditioned-v2.ckpt"


def run_paper(
    options: "Options", terminal: Terminal, about: dict[str, Any], before: dict[str, Any]
) -> int:
    """Exit code of training.

    Args:
        options: as given.
        terminal: where to speak.
        about: data, split, preset and ``init``.
        before: what the resumed run and the file of settings say.
    """
    import torch

    from unflat.cli.train_zero123 import batches_of, views_of
    from unflat.cli.training_run import carry_out, new_report, require_rows, say_plan
    from unflat.hub.view_models import find_views
    from unflat.systems.zero123.latents import FromLatents, LatentBatches
    from unflat.systems.zero123.learning import PublishedLearning, learned_parameters
    from unflat.systems.zero123.pipeline import told_numbers
    from unflat.systems.zero123.published import SIDE
    from unflat.systems.zero123.published_loading import open_training_start
    from unflat.systems.zero123.recipe import SYSTEM, ViewRecipe
    from unflat.systems.zero123.trained import header_of
    from unflat.training import process_rank

    config, objective, learning_config = _settings(options, before)
    start = find_views(_start(about), offline=options.offline)
    report = new_report(terminal, SYSTEM, about, config)
    rank, world_size = process_rank()
    require_rows(config, objective.views, world_size)
    model = open_training_start(
        start.path,
        torch.Generator().manual_seed(config.seed),
        pose_numbers=told_numbers(start, about["init"]),
        device="meta" if options.dry_run else _device(config.device),
    )
    torch.manual_seed(config.seed)  # the adapters are drawn from it
    learning = PublishedLearning(model, learning_config)
    learned = learned_parameters(learning.network)
    terminal.line(_summary(model, learned, learning_config.lora))
    if options.dry_run:
        return say_plan(options, terminal, config, sum(learned.values()))
    with report.stage("data") as stage:
        views = views_of(about, SIDE)
        stage.note = views.summary
    for note in views.notes:
        report.warn(note, about=views.name)
    chosen = batches_of(views, config, objective.views, rank, world_size)
    with report.stage("latents"):
        latents = _latents(model, views, about, start.path)
    model.drop_encoders()
    model.offload()  # what is left of the autoencoder makes sheets of samples alone
    recipe = ViewRecipe(
        model,
        objective,
        header_of(model, learning_config, about["init"]),
        learning=learning,
        showing=FromLatents(model),
    )
    return carry_out(
        replace(options, init=None),  # it is no file of the loop's, and has been read
        terminal,
        recipe,
        LatentBatches(chosen, latents),
        config,
        report,
        about,
        sum(learned.values()),
        write=lambda result: _write(options, recipe, result, report, views.summary, start.path),
        hint=f"unflat views PICTURE --model {options.out}/model.safetensors",
    )


def _settings(options: "Options", before: dict[str, Any]) -> tuple["TrainConfig", "Objective", Any]:
    """As published, but for what is named."""
    from unflat.cli.training_run import changed, named_settings
    from unflat.device import choose_device
    from unflat.systems.zero123.learning import LearningConfig
    from unflat.systems.zero123.recipe import Objective
    from unflat.training import TrainConfig

    named = {} if options.lora is None else {"lora": options.lora}
    learning = changed(LearningConfig(), {**before.get("config", {}), **named}, '"config"')
    published = Objective(views=2, drop_height=0.0, mirror=False, recolor=0.0)
    objective = changed(published, before.get("loss", {}), '"loss"')
    if objective.mirror or objective.recolor:
        raise UserError(
            '"loss": mirror and recolor change pictures, of which --preset paper keeps latents; '
            "leave them out."
        )
    config = changed(
        TrainConfig(
            steps=105_000,
            batch_size=1536,
            accumulate=16,
            lr=1e-4,
            warmup_steps=100,
            schedule="constant",
            betas=(0.9, 0.999),
            weight_decay=0.01,
            clip_norm=0.0,
            ema_decay=0.9999,
        ),
        {**before.get("train", {}), **named_settings(options, {"per_batch": None})},
        "training",
    )
    return replace(config, device=choose_device(config.device)), objective, learning


def _start(about: dict[str, Any]) -> str:
    """Path or name of the weights to begin with."""
    if not about.get("init"):
        raise UserError(
            f"--preset paper: begins with published weights; add --init {_START} (Stable Diffusion "
            "image variations, of Lambda Labs), or a model of Zero-1-to-3 to learn on."
        )
    return str(about["init"])


def _device(name: str) -> str:
    """This process's, where the loop will compute: what does not learn has to be there too."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" else name


def _summary(model: "PublishedViews", learned: dict[str, int], lora: int) -> str:
    """What learns and what does not, in millions and gigabytes."""
    from unflat.systems.zero123.learning import PROJECTION, UNET

    whole = sum(weight.numel() for weight in model.unet.parameters())
    kept = whole - learned[UNET]
    frozen = kept + sum(
        weight.numel() for part in (model.clip, model.vae) for weight in part.parameters()
    )
    what = f"adapters of rank {lora} and first convolution" if lora else "denoiser"
    return (
        f"{model.name}: {what} {learned[UNET] / 1e6:.2f} M parameters, projection "
        f"{learned[PROJECTION] / 1e6:.2f} M; {frozen / 1e6:.2f} M do not learn "
        f"({4 * kept / 2**20:.0f} MiB of them beside what learns)"
    )


def _latents(
    model: "PublishedViews", views: "PosedViews", about: dict[str, Any], start: Path
) -> "Latents":
    """Of all pictures; the first process of a machine makes them, the others wait for it."""
    from unflat.systems.zero123.latents import find_latents, latents_of, latents_slot

    slot = latents_slot(Path(about["data"][0]), about["split"], start, model.pixels)
    while int(os.environ.get("LOCAL_RANK", "0")):
        found = find_latents(slot, len(views))
        if found is not None:
            return found
        time.sleep(1.0)
    return latents_of(model, views, slot)


def _write(
    options: "Options",
    recipe: "ViewRecipe",
    result: "TrainResult",
    report: Report,
    counts: str,
    start: Path,
) -> None:
    """The model, its card and the report."""
    from unflat.cli.written_model import write_model
    from unflat.systems.zero123.learning import to_keep
    from unflat.systems.zero123.trained import whole
    from unflat.training import read_checkpoint

    checkpoint, header = read_checkpoint(result.checkpoint), recipe.config_json()
    learned = to_keep(checkpoint.averaged(), checkpoint.weights())
    has_adapters = bool(header["config"]["lora"])
    out = options.out
    extra = f" Needs {header['base']}, or that file beside it." if has_adapters else ""
    sections = {
        "What it is": f"{out.name}: Zero-1-to-3's networks, trained from {start.name}.{extra}",
        "Use": f"`unflat views PICTURE --model {out.name}/model.safetensors`",
        "Inputs": f"One picture of one object, brought to {recipe.model.side} px before white.",
        "Numbers": "Not measured. `unflat evaluate views --model ... --data ...`",
        "How to cite": "Name unflat and its version, and arXiv 2303.11328.",
    }
    weights = learned if has_adapters else whole(learned, start)
    card = {"name": out.name, "licence": f"that of {start.name}, with which its training began"}
    write_model(out, weights, {**header, "card": card}, sections, report, counts)
