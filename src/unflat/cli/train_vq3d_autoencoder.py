"""``unflat train vq3d-autoencoder``: pictures become a model that reconstructs from one photo."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from unflat.cli.options import Device, Planned, Speech, Switch, seconds_of
from unflat.report import Report
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.data import PictureDataset
    from unflat.systems.vq3d.recipe import Vq3dRecipe
    from unflat.training import Event, TrainConfig, TrainResult

_START_PICTURES = 1024
"""Pictures from whose principal components the linear path starts."""

_STATE_COPIES = 4
"""Float32 numbers kept for each weight: itself, its average, and AdamW's two moments."""


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Planned):
    """Pictures become a model that reconstructs from one photo (VQ3D stage 1).

    A data set is a folder of pictures (sub-folders are classes) or a .tar of them; a disparity
    beside a picture teaches depth. Ctrl-C saves; the same command with --resume goes on.
    """

    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATH [PATH ...]")] = ()
    """Folders or .tar files. PATH:CLASS,CLASS keeps some classes of one; the word example is a
    small made-up set."""
    out: Path
    """The run's folder."""
    preset: Literal["tiny", "small", "bundle128", "base", "paper"] | None = None
    """Size of the model: 32, 64, 128, 128, 256 pixels; small if not given."""
    config: Path | None = None
    """JSON with "config", "loss" and "train", as in a run's run.json; changes the preset."""
    init: str | None = None
    """Start from the weights of a model, a run or a checkpoint; the optimizer starts fresh."""
    resume: Switch = False
    """Go on where the run in --out stopped; what is not named is as it was."""
    offline: Switch = False
    """Use no network: a model for --init that is not on this computer is an error."""
    classes: str | None = None
    """Keep only these classes of every data set, as in fruit,vegetable."""
    per_batch: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N [N ...]")] = ()
    """Pictures of each data set in a batch, in the order of --data; by size if not given."""
    margin: int | None = None
    """Pixels more on a side, out of which random windows are cut; 0 if not given."""
    jitter: float | None = None
    """Largest relative change of brightness, contrast and saturation; 0 if not given."""
    steps: int | None = None
    """Steps of the whole run."""
    batch_size: int | None = None
    """Pictures of a step, over all processes."""
    max_time: str | None = None
    """End after this long, the learning rate decayed in time: 90s, 30m, 2h."""
    lr: float | None = None
    """Peak learning rate."""
    accumulate: int | None = None
    """Parts in which a batch is computed, to save memory."""
    checkpoint_every: int | None = None
    """Steps between checkpoints."""
    sample_every: int | None = None
    """Steps between sheets of sample pictures."""
    log_every: int | None = None
    """Steps between logged figures."""
    threads: int | None = None
    """CPU threads; measured once at the start if not given."""
    device: Device | None = None
    """Where to compute; auto takes a CUDA GPU if there is one."""
    precision: Literal["fp32", "bf16"] | None = None
    """bf16 computes in half precision, for GPUs."""
    seed: int | None = None
    """Of everything random in the run; 0 if not given."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of training."""
    import torch

    from unflat.cli.training_run import changed, earlier, mix, open_datasets, require_data
    from unflat.systems.vq3d.config import PRESETS
    from unflat.systems.vq3d.recipe import LossConfig, Vq3dRecipe
    from unflat.training import TrainConfig, train

    before = earlier(options.out, options.resume, options.config)
    about = _about(options, before.get("about", {}))
    require_data(about)
    model = changed(PRESETS[about["preset"]](), before.get("config", {}), '"config"')
    loss = changed(LossConfig(), before.get("loss", {}), '"loss"')
    named = _named(options, about)
    config = changed(TrainConfig(), {**before.get("train", {}), **named}, "training")
    report = Report(
        "train",
        inputs=about["data"],
        seed=config.seed,
        device=config.device,
        settings={"system": "vq3d", **about, **config.to_json()},
        listener=terminal,
    )
    with report.stage("data") as stage:
        datasets = open_datasets(about, model.resolution)
        stage.note = _counts(datasets)
    batches = mix(about, datasets, config)
    torch.manual_seed(config.seed)  # the first weights are drawn from it
    recipe = Vq3dRecipe(model, loss)
    parameters = sum(weight.numel() for weight in recipe.networks.parameters())
    terminal.line(
        f"vq3d-autoencoder {model.resolution} px, {parameters / 1e6:.1f} M parameters, "
        f"{batches.batch_size} pictures a step, to {options.out}"
    )
    if options.dry_run:
        return _say_plan(options, terminal, config, parameters)
    if options.init is None and not options.resume:
        _start(recipe, datasets, config)
    with report.stage("train"):
        result = train(
            recipe,
            batches,
            config,
            options.out,
            resume=options.resume,
            init=_init(options),
            on_event=_teller(terminal),
            about=about,
        )
    if int(os.environ.get("RANK", "0")) == 0:
        report.figures = {"parameters": parameters, "steps": result.step, **result.metrics}
        _write(options.out, recipe, result, report, datasets)
        terminal.line(f"wrote {options.out}/  model.safetensors  card.md  report.json")
        terminal.line(f"next: unflat reconstruct photo.jpg --model {options.out}/model.safetensors")
        terminal.object("report", report.json())
    return 0


def _about(options: Options, before: dict[str, Any]) -> dict[str, Any]:
    """Data and preset: what is named, else what the resumed run had."""
    named = {
        "data": list(options.data),
        "classes": options.classes.split(",") if options.classes else None,
        "per_batch": list(options.per_batch),
        "margin": options.margin,
        "jitter": options.jitter,
        "preset": options.preset,
    }
    chosen = {key: value for key, value in named.items() if value}
    return {**named, "preset": "small", **before, **chosen}


def _named(options: Options, about: dict[str, Any]) -> dict[str, Any]:
    """Fields of the training config that the person named."""
    same = (
        *("steps", "batch_size", "lr", "accumulate", "checkpoint_every", "sample_every"),
        *("log_every", "threads", "device", "precision", "seed"),
    )
    named = {name: value for name in same if (value := getattr(options, name)) is not None}
    if options.max_time is not None:
        named["max_seconds"] = seconds_of(options.max_time, "--max-time")
    if about["per_batch"] and "batch_size" not in named:
        named["batch_size"] = sum(about["per_batch"])
    return named


def _counts(datasets: list["PictureDataset"]) -> str:
    pictures = sum(len(dataset) for dataset in datasets)
    with_depth = sum(int(dataset.has_disparity.sum()) for dataset in datasets)
    rejected = sum(len(dataset.rejects) for dataset in datasets)
    text = f"{pictures} pictures, {with_depth} with disparity"
    return f"{text}, {rejected} unusable" if rejected else text


def _say_plan(options: Options, terminal: Terminal, config: "TrainConfig", parameters: int) -> int:
    memory = _STATE_COPIES * 4 * parameters / 2**20
    limit = f", at most {config.max_seconds / 60:.0f} minutes" if config.max_seconds else ""
    terminal.line(
        f"would train {config.steps} steps{limit} on {config.device} into {options.out}; "
        f"{memory:.0f} MiB for weights, average and optimizer, activations not counted."
    )
    plan = {"steps": config.steps, "max_seconds": config.max_seconds, "parameters": parameters}
    terminal.object("plan", {**plan, "out": str(options.out), "state_mib": round(memory, 1)})
    return 0


def _start(recipe: "Vq3dRecipe", datasets: list["PictureDataset"], config: "TrainConfig") -> None:
    """Begin the linear path from pictures; the same on every process."""
    import torch

    from unflat.data import BatchSource

    whole = BatchSource(datasets, batch_size=config.batch_size, seed=config.seed)
    count = -(-_START_PICTURES // whole.batch_size)
    recipe.start(torch.cat([whole.batch(step)["image"] for step in range(count)]))


def _init(options: Options) -> Path | None:
    """The weights to start from: a path as it is, a name through the registry."""
    from unflat.hub import find

    if options.init is None or Path(options.init).exists():
        return None if options.init is None else Path(options.init)
    return find(options.init, offline=options.offline)


def _teller(terminal: Terminal) -> Any:
    """Who is told what happens: the loop's own bar, or objects, or nobody."""
    if not terminal.quiet and not terminal.json_lines:
        return None

    def tell(event: "Event") -> None:
        if event.kind == "step":
            return
        values = {"kind": event.kind, "step": event.step, "progress": round(event.progress, 5)}
        terminal.object("train", {**values, "message": event.message, "values": event.values})
        if event.message and terminal.json_lines:
            terminal.line(event.message)

    return tell


def _write(
    out: Path,
    recipe: "Vq3dRecipe",
    result: "TrainResult",
    report: Report,
    datasets: list["PictureDataset"],
) -> None:
    """The model file from the averaged weights, its card with the blanks marked, the report."""
    from unflat.hub import draft_card
    from unflat.training import read_checkpoint, save_model

    checkpoint = read_checkpoint(result.checkpoint)
    header = {**recipe.config_json(), "card": {"name": out.name, "licence": "not stated"}}
    save_model(out / "model.safetensors", checkpoint.ema() or checkpoint.weights(), header)
    card = draft_card(out.name, header["config"], report.json(), _counts(datasets))
    (out / "card.md").write_text(card, encoding="utf-8")
    report.files = ["model.safetensors", "card.md", "run.json", "metrics.jsonl"]
    report.write(out / "report.json")
