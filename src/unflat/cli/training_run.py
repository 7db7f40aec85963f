"""What a training run is made of: options first, else what the resumed run had, else defaults."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from unflat.errors import UserError

if TYPE_CHECKING:
    from unflat.data import BatchSource, PictureDataset
    from unflat.training import TrainConfig

EXAMPLE = "example"
"""The data set that needs no files: made-up scenes, made when asked for."""

_EXAMPLE_SCENES = 96
_EXAMPLE_SIDE = 64

Config = TypeVar("Config")


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
    return {key: {**found.get(key, {}), **named.get(key, {})} for key in {*found, *named}}


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
        return type(config)(**{**known, **{key: _tuples(value) for key, value in values.items()}})
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}.") from error


def require_data(about: Mapping[str, Any]) -> None:
    """Refuse a run without data before anything is loaded.

    Raises:
        UserError: no data is named.
    """
    if not about.get("data"):
        raise UserError(
            "--data: names no data set; give a folder of pictures, a .tar, or the word example."
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
