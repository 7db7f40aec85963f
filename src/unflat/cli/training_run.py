"""What a training run is made of: options first, else what the resumed run had, else defaults."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

import tyro

from unflat.cli.options import Device, Planned, Rendered, Speech, Switch, seconds_of
from unflat.errors import UserError
from unflat.report import Report
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.data import BatchSource, PictureDataset
    from unflat.training import BatchSource as Batches
    from unflat.training import Event, Recipe, TrainConfig, TrainResult

EXAMPLE = "example"
"""The data set that needs no files: made-up scenes, made when asked for."""

_EXAMPLE_SCENES = 96
_EXAMPLE_SIDE = 64

_STATE_COPIES = 4
"""Float32 numbers kept for each weight: itself, its average, and AdamW's two moments."""

Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Speech, Planned, Rendered):
    """What every training verb asks for."""

    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATH [PATH ...]")] = ()
    """Folders or .tar files. PATH:CLASS,CLASS keeps some classes of one; the word example is a
    small made-up set."""
    out: Path
    """The run's folder."""
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


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a finished run hands to the verb that writes the model."""

    recipe: "Recipe"
    """As it was trained."""
    weights: dict[str, Any]
    """The averaged weights of the recipe's networks."""
    report: Report
    """With the run's figures."""
    counts: str
    """What it learned from, in words."""


def run_training(
    options: TrainingOptions,
    terminal: Terminal,
    *,
    system: str,
    about: dict[str, Any],
    config: "TrainConfig",
    resolution: int,
    recipe: Callable[[], "Recipe"],
    write: Callable[[Trained], None],
) -> int:
    """Train a recipe on pictures, as every training verb does; the exit code.

    Args:
        options: as given.
        terminal: where to speak.
        system: for the report and the first line.
        about: data, classes, numbers of a batch, margin, as `open_datasets` and `mix` read them.
        config: of the loop.
        resolution: side of the pictures in pixels.
        recipe: makes the recipe; called once the seed is set.
        write: writes the model, its card and the report into ``options.out``.
    """
    import torch

    from unflat.training import read_checkpoint

    report = new_report(terminal, system, about, config)
    with report.stage("data") as stage:
        datasets = open_datasets(about, resolution)
        stage.note = counts_of(datasets)
    batches = mix(about, datasets, config)
    torch.manual_seed(config.seed)  # the first weights are drawn from it
    made = recipe()
    parameters = sum(weight.numel() for weight in made.networks.parameters())
    terminal.line(
        f"{system} {resolution} px, {parameters / 1e6:.2f} M parameters to learn, "
        f"{batches.batch_size} pictures a step, to {options.out}"
    )

    def finish(result: "TrainResult") -> None:
        weights = read_checkpoint(result.checkpoint).averaged()
        write(Trained(recipe=made, weights=weights, report=report, counts=counts_of(datasets)))

    return carry_out(options, terminal, made, batches, config, report, about, parameters, finish)


def new_report(
    terminal: Terminal,
    system: str,
    about: Mapping[str, Any],
    config: "TrainConfig",
    inputs: Sequence[str] | None = None,
) -> Report:
    """The report of a training run; inputs are the data if not given."""
    return Report(
        "train",
        inputs=list(about["data"] if inputs is None else inputs),
        seed=config.seed,
        device=config.device,
        settings={"system": system, **about, **config.to_json()},
        listener=terminal,
    )


def carry_out(
    options: TrainingOptions,
    terminal: Terminal,
    recipe: "Recipe",
    batches: "Batches",
    config: "TrainConfig",
    report: Report,
    about: dict[str, Any],
    parameters: int,
    write: "Callable[[TrainResult], None]",
    hint: str | None = None,
) -> int:
    """Train, then write the model on the first process; or only say the plan. The exit code.

    Args:
        options: as given.
        terminal: where to speak.
        recipe: what learns.
        batches: what it learns from.
        config: of the loop.
        report: gets the figures.
        about: kept in the run's folder, to go on from.
        parameters: of what is trained.
        write: writes the model, its card and the report into ``options.out``.
        hint: what to do with the model.
    """
    from unflat.training import train

    if options.dry_run:
        return say_plan(options, terminal, config, parameters)
    with report.stage("train"):
        result = train(
            recipe,
            batches,
            config,
            options.out,
            resume=options.resume,
            init=init_path(options),
            on_event=teller(terminal),
            about=about,
        )
    if int(os.environ.get("RANK", "0")) == 0:
        report.figures = {"parameters": parameters, "steps": result.step, **result.metrics}
        write(result)
        terminal.line(f"wrote {options.out}/  model.safetensors  card.md  report.json")
        if hint is not None:
            terminal.line(f"next: {hint}")
        terminal.object("report", report.json())
    return 0


def earlier(out: Path, is_resumed: bool, config_file: Path | None) -> dict[str, Any]:
    """``config``, ``loss``, ``train`` and ``about`` of the run that is resumed, and of a file.

    Args:
        out: the run's folder.
        is_resumed: whether to read it.
        config_file: JSON with any of ``config``, ``loss``, ``train``, or a ``run.json``; wins.

    Raises:
        UserError: there is no run to resume, or the file is not readable as that.
    """
    from unflat.training import read_run

    found: dict[str, Any] = _parts(read_run(out)) if is_resumed else {}
    if config_file is None:
        return found
    try:
        named = _parts(json.loads(config_file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"--config {config_file}: there is no such file.") from error
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f'--config {config_file}: is not JSON with "config", "loss" or "train"; '
            "give a run's run.json, or a part of one."
        ) from error
    named.pop("about", None)
    return _merged(found, named)


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Old values with new ones over them, at every depth."""
    found = dict(old)
    for key, value in new.items():
        inner = found.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            value = _merged(cast("Mapping[str, Any]", inner), cast("Mapping[str, Any]", value))
        found[key] = value
    return found


def changed(config: Config, values: Mapping[str, Any], where: str) -> Config:
    """A config dataclass with some fields replaced; lists of JSON become tuples.

    Raises:
        UserError: a field is not known, or a value does not fit.
    """
    known = {field.name: getattr(config, field.name) for field in fields(config)}  # pyright: ignore[reportArgumentType] any dataclass
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"{where}: there is no {unknown[0]}; choose from {', '.join(known)}.")
    try:
        own = {
            key: changed(known[key], value, f"{where}, {key}")
            if is_dataclass(known[key]) and isinstance(value, Mapping)
            else _tuples(value)
            for key, value in values.items()
        }
        return type(config)(**{**known, **own})
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}.") from error


def named_data(options: TrainingOptions) -> dict[str, Any]:
    """What of the data the person named, for ``about``; empty where nothing was."""
    return {
        "data": list(options.data),
        "classes": options.classes.split(",") if options.classes else None,
        "per_batch": list(options.per_batch),
    }


def require_data(about: Mapping[str, Any]) -> None:
    """Refuse a run without data before anything is loaded.

    Raises:
        UserError: no data is named.
    """
    if not about.get("data"):
        raise UserError(
            "--data: names no data set; give a folder of pictures, a .tar, or the word example."
        )


def require_rows(config: "TrainConfig", views: int, world_size: int) -> None:
    """Refuse batches that tear apart pictures of one object, which stand in a row.

    Args:
        config: of the loop.
        views: of an object in a row.
        world_size: how many processes share a batch.

    Raises:
        UserError: the batch is no multiple of what it has to be.
    """
    share = config.accumulate * world_size * views
    if config.batch_size % share:
        raise UserError(
            f"--batch-size {config.batch_size}: must be a multiple of {share}, as {views} "
            "pictures in a row show the same object, in each accumulated part."
        )


def open_datasets(about: Mapping[str, Any], resolution: int) -> list["PictureDataset"]:
    """One data set for each path of ``about["data"]``, whole in memory.

    Args:
        about: ``data`` (paths, each with an optional ``:class,class``), ``classes``, ``margin``.
        resolution: side of the model's picture in pixels.

    Raises:
        UserError: one of it is unusable.
    """
    from unflat.data import PictureDataset

    datasets = []
    with tempfile.TemporaryDirectory(prefix="unflat-") as folder:
        for text in about["data"]:
            path, classes = _path_and_classes(text)
            if path == EXAMPLE and not Path(path).exists():
                path = str(_example(Path(folder), resolution))
            chosen = classes or about.get("classes")
            datasets.append(
                PictureDataset(path, resolution, classes=chosen, margin=about.get("margin") or 0)
            )
    return datasets


def mix(
    about: Mapping[str, Any], datasets: Sequence["PictureDataset"], config: "TrainConfig"
) -> "BatchSource":
    """This process's batches (its part is told by RANK and WORLD_SIZE).

    Raises:
        UserError: the numbers do not fit together.
    """
    from unflat.data import BatchSource

    per_batch = about.get("per_batch")
    if per_batch and len(per_batch) != len(datasets):
        raise UserError(
            f"--per-batch: names {len(per_batch)} numbers for {len(datasets)} data sets; "
            "give one for each."
        )
    try:
        return BatchSource(
            datasets,
            per_batch=per_batch or None,
            batch_size=config.batch_size,
            seed=config.seed,
            rank=int(os.environ.get("RANK", "0")),
            world_size=int(os.environ.get("WORLD_SIZE", "1")),
            jitter=about.get("jitter") or 0.0,
        )
    except ValueError as error:
        raise UserError(f"--batch-size: {error}.") from error


def named_settings(options: TrainingOptions, about: dict[str, Any]) -> dict[str, Any]:
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


def counts_of(datasets: list["PictureDataset"]) -> str:
    """How many pictures were found, in words."""
    pictures = sum(len(dataset) for dataset in datasets)
    with_depth = sum(int(dataset.has_disparity.sum()) for dataset in datasets)
    rejected = sum(len(dataset.rejects) for dataset in datasets)
    text = f"{pictures} pictures, {with_depth} with disparity"
    return f"{text}, {rejected} unusable" if rejected else text


def say_plan(
    options: TrainingOptions, terminal: Terminal, config: "TrainConfig", parameters: int
) -> int:
    """What a run would do and need, and the exit code of having said so."""
    memory = _STATE_COPIES * 4 * parameters / 2**20
    limit = f", at most {config.max_seconds / 60:.0f} minutes" if config.max_seconds else ""
    terminal.line(
        f"would train {config.steps} steps{limit} on {config.device} into {options.out}; "
        f"{memory:.0f} MiB for weights, average and optimizer, activations not counted."
    )
    plan = {"steps": config.steps, "max_seconds": config.max_seconds, "parameters": parameters}
    terminal.object("plan", {**plan, "out": str(options.out), "state_mib": round(memory, 1)})
    return 0


def init_path(options: TrainingOptions) -> Path | None:
    """The weights to start from: a path as it is, a name through the registry."""
    from unflat.hub import find

    if options.init is None or Path(options.init).exists():
        return None if options.init is None else Path(options.init)
    return find(options.init, offline=options.offline)


def teller(terminal: Terminal) -> Any:
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


def _parts(values: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a ``run.json`` or of a hand-written config, by one set of names."""
    recipe = values.get("recipe", values)
    parts = {key: recipe.get(key) for key in ("config", "loss")}
    parts |= {key: values.get(key) for key in ("train", "about")}
    return {key: dict(part) for key, part in parts.items() if part}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _path_and_classes(text: str) -> tuple[str, list[str] | None]:
    """``a.tar:cat,dog`` is ("a.tar", ["cat", "dog"]); a path that exists is only a path."""
    path, colon, names = text.rpartition(":")
    if not colon or Path(text).exists() or not (path == EXAMPLE or Path(path).exists()):
        return text, None
    return path, [name.strip() for name in names.split(",")]


def _example(folder: Path, resolution: int) -> Path:
    from unflat.data.procedural import write_procedural

    side = max(_EXAMPLE_SIDE, resolution)
    return write_procedural(folder / EXAMPLE, count=_EXAMPLE_SCENES, resolution=side).train
