"""The folder of a run: may it be used, and what does it say about itself.

runs/a/
    run.json                recipe, training config, data, state of the run
    metrics.jsonl           figures
    samples/001000.png      sample sheets
    checkpoints/001000/     see unflat.training.checkpoint
    tensorboard/            if tensorboard is installed
"""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from unflat.errors import UserError
from unflat.files import atomic_path

RUN_FORMAT = 1


def read_run(out: Path | str) -> dict[str, Any]:
    """What ``run.json`` says: ``recipe``, ``train``, ``about``, ``status`` and versions.

    Raises:
        UserError: there is no run, or it was written by a newer unflat.
    """
    path = Path(out) / "run.json"
    try:
        run = json.loads(path.read_text())
        version = int(run["format"])
    except FileNotFoundError as error:
        raise UserError(
            f"{out}: holds no run; drop --resume, or give --out the folder of a run."
        ) from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: is not readable as a run; begin anew in another --out."
        ) from error
    if version > RUN_FORMAT:
        raise UserError(
            f"{path}: written by a newer unflat (format {version}, this reads up to "
            f"{RUN_FORMAT}); upgrade unflat."
        )
    return run


def write_run(out: Path, run: dict[str, Any]) -> None:
    """Write ``run.json``."""
    with atomic_path(out / "run.json") as temporary:
        temporary.write_text(json.dumps({"format": RUN_FORMAT, **run}, indent=1) + "\n")


def refuse_used(out: Path) -> None:
    """Pass if a new run may begin in this folder.

    Raises:
        UserError: it holds a run, or anything else.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out}: is a file; choose another --out.")
    if (out / "run.json").exists():
        finished = read_run(out).get("status") == "finished"
        kind = "a finished run" if finished else "an unfinished run"
        raise UserError(f"{out}: holds {kind}; give --resume to continue it or another --out.")
    if any(out.iterdir()):
        raise UserError(f"{out}: is not empty and holds no run; choose another --out.")


def make_folder(out: Path) -> None:
    """Make the run's folder, if it is not there.

    Raises:
        UserError: it can not be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{out}: can not be written to; choose another --out.") from error


def versions() -> dict[str, str]:
    """Versions of unflat and torch, as checkpoints and run.json keep them."""
    return {name: metadata.version(name) for name in ("unflat", "torch")}
