"""``unflat train vq3d-prior``: tokens of pictures become a model that makes up new ones."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unflat.cli.training_run import TrainingOptions
from unflat.errors import UserError
from unflat.report import Report
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from torch import Tensor

    from unflat.systems.vq3d.prior_recipe import PriorRecipe
    from unflat.systems.vq3d.tokens import TokenDataset
    from unflat.training import TrainResult


@dataclass(frozen=True, kw_only=True)
class Options(TrainingOptions):
    """Tokens of pictures become a model that makes up new scenes of a class (VQ3D stage 2).

    Give --tokens, a folder that unflat data tokens has written; or pictures with --data, whose
    tokens are then written beside the run first, into OUT-tokens. Ctrl-C saves; the same command
    with --resume goes on.
    """

    tokens: Path | None = None
    """A folder of tokens to learn from."""
    val: Path | None = None
    """A folder of tokens to measure on, of pictures that are not learned from."""
    preset: Literal["tiny", "small", "base", "paper"] | None = None
    """Size of the model; small if not given."""
    order: Literal["masked", "raster"] | None = None
    """masked: many codes at once, in some passes; raster: one after the other, as in the paper.
    The preset's if not given: raster for paper, else masked."""
    model: str | None = None
    """With --data: the stage-1 model that makes the tokens; vq3d-small if not given."""
    margin: int | None = None
    """With --data: pixels more on a side, out of which windows are cut; 0 if not given."""
    crops: int | None = None
    """With --data: windows of each picture; 1 if not given."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of training."""
    import torch

    from unflat.cli.training_run import (
        carry_out,
        changed,
        earlier,
        named_settings,
        new_report,
    )
    from unflat.systems.vq3d.prior_config import PRESETS
    from unflat.systems.vq3d.prior_recipe import PriorRecipe, TokenBatches
    from unflat.systems.vq3d.tokens import TokenDataset
    from unflat.training import TrainConfig, process_rank
    from unflat.training.run_folder import refuse_used

    before = earlier(options.out, options.resume, options.config)
    about = _about(options, before.get("about", {}))
    if not options.resume:
        refuse_used(options.out)
    config = changed(
        TrainConfig(batch_size=64, lr=1e-3, weight_decay=0.05),
        {**before.get("train", {}), **named_settings(options, {"per_batch": None})},
        "training",
    )
    report = new_report(terminal, "vq3d-prior", about, config, about["data"] or [about["tokens"]])
    if about["tokens"] is None:
        if options.dry_run:
            raise UserError("--dry-run: needs --tokens; unflat data tokens writes them.")
        about["tokens"] = str(_extract(options, about, terminal))
    tokens = TokenDataset(about["tokens"])
    validation = _validation(about["val"], tokens)
    facts = {
        "grid": tokens.grid,
        "codebook_sizes": tokens.codebook_sizes,
        "levels": tokens.levels,
        "classes": len(tokens.classes),
    }
    order = {"order": about["order"]} if about["order"] else {}
    named = {**before.get("config", {}), **order, **facts}
    model = changed(PRESETS[about["preset"]](), named, '"config"')
    rank, world_size = process_rank()
    try:
        batches = TokenBatches(tokens, config.batch_size, config.seed, rank, world_size)
    except ValueError as error:
        raise UserError(f"--batch-size: {error}.") from error
    torch.manual_seed(config.seed)  # the first weights are drawn from it
    recipe = PriorRecipe(
        model,
        classes=tokens.classes,
        fingerprint=tokens.fingerprint,
        autoencoder=tokens.autoencoder,
        decode=_decoder(tokens, options.offline, report) if config.sample_every else None,
        validation=validation,
        validate_every=config.log_every,
    )
    recipe.model.start_from_counts(torch.from_numpy(tokens.indices.astype("int64")))
    parameters = sum(weight.numel() for weight in recipe.networks.parameters())
    terminal.line(
        f"vq3d-prior {model.order}, {parameters / 1e6:.1f} M parameters, {len(tokens)} sequences "
        f"of {model.tokens} x {model.codes} codes, {model.classes} classes, to {options.out}"
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
        write=lambda result: _write(options.out, recipe, result, report, tokens),
        hint=f"unflat generate --model {options.out}/model.safetensors",
    )


def _about(options: Options, before: dict[str, Any]) -> dict[str, Any]:
    """Tokens, data and size: what is named, else what the resumed run had.

    Raises:
        UserError: neither tokens nor data, or both, or options that would do nothing.
    """
    named = {
        "tokens": str(options.tokens) if options.tokens else None,
        "val": str(options.val) if options.val else None,
        "data": list(options.data),
        "classes": options.classes.split(",") if options.classes else None,
        "model": options.model,
        "margin": options.margin,
        "crops": options.crops,
        "preset": options.preset,
        "order": options.order,
    }
    if options.per_batch:
        raise UserError("--per-batch: tokens are mixed by their numbers; leave it out.")
    if options.tokens and options.data:
        raise UserError("--tokens: is given beside --data; give one of them.")
    if not options.data:
        for name in ("model", "margin", "crops", "classes"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name}: is for --data; tokens are made already.")
    chosen = {key: value for key, value in named.items() if value}
    about = {**named, "preset": "small", **before, **chosen}
    if not about["tokens"] and not about["data"]:
        raise UserError(
            "--tokens: names no tokens; give a folder that unflat data tokens has written, or "
            "pictures with --data."
        )
    return about


def _extract(options: Options, about: dict[str, Any], terminal: Terminal) -> Path:
    """The tokens of ``--data``, written beside the run."""
    from unflat.cli import data_tokens
    from unflat.training import process_rank

    if process_rank()[1] > 1:
        raise UserError(
            "--data: several processes cannot share the work of making tokens; run unflat data "
            "tokens first and give --tokens."
        )
    out = options.out.with_name(f"{options.out.name}-tokens")
    data_tokens.run(
        data_tokens.Options(
            data=tuple(about["data"]),
            out=out,
            model=about["model"] or "vq3d-small",
            classes=",".join(about["classes"]) if about["classes"] else None,
            margin=about["margin"] or 0,
            crops=about["crops"] or 1,
            offline=options.offline,
            device=options.device or "auto",
            quiet=options.quiet,
        ),
        terminal,
    )
    return out


def _validation(folder: str | None, tokens: "TokenDataset") -> "TokenDataset | None":
    """Tokens to measure on, their labels numbered as those that are learned from."""
    from unflat.systems.vq3d.tokens import TokenDataset

    if folder is None:
        return None
    validation = TokenDataset(folder)
    validation.require_like(tokens)
    return validation


def _decoder(
    tokens: "TokenDataset", is_offline: bool, report: Report
) -> "Callable[[Tensor], Tensor] | None":
    """Stage 1, for sample sheets; None, said aloud, where it is not at hand."""
    from unflat.systems.vq3d import load
    from unflat.systems.vq3d.tokens import canonical_pictures, require_same_tokenizer

    try:
        model = load(tokens.autoencoder, offline=is_offline)
        require_same_tokenizer(tokens.fingerprint, model, str(tokens.folder), tokens.autoencoder)
    except UserError as error:
        report.warn(f"sample sheets show codes instead of pictures: {error}")
        return None
    return lambda indices: canonical_pictures(model, indices.cpu())


def _write(
    out: Path,
    recipe: "PriorRecipe",
    result: "TrainResult",
    report: Report,
    tokens: "TokenDataset",
) -> None:
    """The averaged weights, their card and the report."""
    from unflat.cli.written_model import write_model
    from unflat.systems.vq3d.prior_recipe import bits_per_code
    from unflat.training import read_checkpoint

    weights = read_checkpoint(result.checkpoint).averaged()
    numbers = "Not measured. `unflat evaluate generation --model ... --data ...`"
    if recipe.validation is not None:
        recipe.model.load_state_dict(weights)
        report.figures["val_bits"] = bits_per_code(recipe.model, recipe.validation)
        numbers = f"{report.figures['val_bits']:.3f} bits for a code of unseen pictures."
    sections = {
        "What it is": f"{out.name}: a VQ3D stage-2 model, a prior over tokens.",
        "Use": f"`unflat generate --model {out.name}/model.safetensors`",
        "Inputs": f"A class, one of {', '.join(tokens.classes) or 'none'}; or none.",
        "Confidence": "It gives none.",
        "Numbers": numbers,
        "How to cite": "Name unflat and its version, and VQ3D (arXiv 2302.06833).",
    }
    counts = f"{len(tokens)} sequences of tokens"
    write_model(out, weights, recipe.config_json(), sections, report, counts)
