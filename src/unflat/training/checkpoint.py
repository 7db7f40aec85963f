"""Checkpoints of a run: folders that are whole or absent.

    runs/a/checkpoints/001000/
        weights.safetensors     the networks
        ema.safetensors         their average (absent if none is taken)
        optimizer.safetensors   AdamW's moments, named after the parameters
        state.json              step, elapsed seconds, seed, versions, configs, sizes of the files

A checkpoint is written to ``001000.partial`` and moved when whole; one whose files are missing or
shorter than ``state.json`` says is passed over.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unflat.errors import UserError
from unflat.files import atomic_folder
from unflat.training.model_file import load_weights, read_header
from unflat.training.run_folder import read_run

CHECKPOINT_FORMAT = 1
_LISTED = 6  # tensors that are named where many are meant


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk."""

    path: Path
    state: dict[str, Any]
    """What ``state.json`` holds."""

    @property
    def step(self) -> int:
        """Optimizer steps that were done when it was written."""
        return int(self.state["step"])

    def weights(self) -> dict[str, Tensor]:
        """The networks' tensors, as trained."""
        return _read(self.path / "weights.safetensors")

    def ema(self) -> dict[str, Tensor] | None:
        """The averaged tensors, if the run took an average."""
        path = self.path / "ema.safetensors"
        return _read(path) if path.exists() else None

    def averaged(self) -> dict[str, Tensor]:
        """The averaged tensors, or those as trained where no average was taken."""
        return self.ema() or self.weights()

    def optimizer(self) -> dict[str, Tensor]:
        """The optimizer's tensors, as ``optimizer_tensors`` names them."""
        return _read(self.path / "optimizer.safetensors")


def save_checkpoint(
    out: Path,
    *,
    networks: nn.Module,
    ema: dict[str, Tensor] | None,
    optimizer: dict[str, Tensor],
    state: dict[str, Any],
    keep: int,
) -> Path:
    """Write ``out/checkpoints/<step>`` and delete all but the newest ``keep``.

    Args:
        out: the run's folder.
        networks: what is trained.
        ema: averaged state, or None.
        optimizer: from ``optimizer_tensors``.
        state: must hold ``step``; ``format``, ``kind`` and ``files`` are added.
        keep: checkpoints that stay, at least 1.
    """
    step = state["step"]
    target = out / "checkpoints" / f"{step:06d}"
    for folder in _folders(out):
        # newer than what is saved now: not whole, or the run would have gone on from there
        if int(folder.name) > step or not (folder / "state.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
    with atomic_folder(target, force=True, shown_by="state.json") as partial:
        _write(networks.state_dict(), partial / "weights.safetensors")
        if ema is not None:
            _write(ema, partial / "ema.safetensors")
        _write(optimizer, partial / "optimizer.safetensors")
        sizes = {path.name: path.stat().st_size for path in sorted(partial.iterdir())}
        full = {"format": CHECKPOINT_FORMAT, "kind": "checkpoint", **state, "files": sizes}
        (partial / "state.json").write_text(json.dumps(full, indent=1) + "\n")
    for older in _folders(out)[:-keep]:
        shutil.rmtree(older, ignore_errors=True)
    return target


def newest_checkpoint(out: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint of a run, and a sentence for each newer one that is not whole.

    Raises:
        UserError: the newest was written by a newer unflat.
    """
    passed: list[str] = []
    for folder in reversed(_folders(out)):
        try:
            return read_checkpoint(folder), passed
        except BrokenCheckpointError as error:
            passed.append(str(error))
    return None, passed


class BrokenCheckpointError(UserError):
    """A checkpoint folder that is not whole."""


def read_checkpoint(folder: Path | str) -> Checkpoint:
    """A checkpoint, its files compared with the sizes that its state names.

    Raises:
        BrokenCheckpointError: not whole.
        UserError: written by a newer unflat.
    """
    folder = Path(folder)
    try:
        state = json.loads((folder / "state.json").read_text())
        version = int(state["format"])
        if version > CHECKPOINT_FORMAT:
            raise UserError(
                f"{folder}: written by a newer unflat (format {version}, this reads up to "
                f"{CHECKPOINT_FORMAT}); upgrade unflat."
            )
        for name, size in state["files"].items():
            if (folder / name).stat().st_size != size:
                raise ValueError(f"{name} is cut short")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BrokenCheckpointError(
            f"{folder}: is not a whole checkpoint; use an older one or begin anew."
        ) from error
    return Checkpoint(folder, state)


def load_init(path: Path | str) -> dict[str, Tensor]:
    """Weights to start from: of a model file, a checkpoint, or a run's newest checkpoint.

    The average is taken where there is one.

    Raises:
        UserError: nothing readable is there.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "state.json").exists():
            checkpoint = read_checkpoint(path)
        else:
            checkpoint, _ = newest_checkpoint(path)
        if checkpoint is None:
            raise UserError(f"{path}: holds no whole checkpoint; give a model file or a run.")
        return checkpoint.averaged()
    return load_weights(path)[0]


def start_from(networks: nn.Module, init: Path | str) -> tuple[str, str]:
    """Give the networks the weights of a model file, a checkpoint or a run.

    Returns:
        What was taken, and what was not: a sentence each, the second empty if all was.

    Raises:
        UserError: nothing readable is there, or nothing of it fits.
    """
    left = copy_matching(networks, load_init(init))
    total = len(networks.state_dict())
    if len(left) == total:
        raise UserError(f"--init {init}: none of its tensors fits this model; give another.")
    taken = f"{init}: took {total - len(left)} of {total} tensors."
    more = f"; and {len(left) - _LISTED} more" if len(left) > _LISTED else ""
    return taken, f"{init}: not taken: {'; '.join(left[:_LISTED])}{more}." if left else ""


def recipe_of_init(init: Path | str) -> dict[str, Any]:
    """``system`` and ``config`` of a model file, a checkpoint or a run; empty if nobody knows.

    Raises:
        UserError: a file that is not unflat's.
    """
    path = Path(init)
    if path.is_file():
        header = read_header(path)
        return {key: header[key] for key in ("system", "config") if key in header}
    for folder in (path, *path.parents[:2]):
        if (folder / "run.json").is_file():
            return read_run(folder).get("recipe", {})
    return {}


def copy_matching(networks: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """Copy tensors of equal name and shape into the networks.

    Weights of one of several networks find it, as those of a model file find the model among its
    critics; so do weights of several where there is only one of them.

    Returns:
        A line for each tensor of the networks that keeps its own value, and why.
    """
    left: list[str] = []
    weights = _named_alike(weights, set(networks.state_dict()))
    with torch.no_grad():
        for name, value in networks.state_dict().items():
            if name not in weights:
                left.append(f"{name}: not in the file")
            elif weights[name].shape != value.shape:
                left.append(f"{name}: {tuple(weights[name].shape)} is not {tuple(value.shape)}")
            else:
                value.copy_(weights[name])
    return left


def _named_alike(weights: dict[str, Tensor], names: set[str]) -> dict[str, Tensor]:
    """The weights, the first part of their names added or dropped if more of them fit then."""
    adding = sorted({name.partition(".")[0] + "." for name in names})
    dropping = sorted({name.partition(".")[0] + "." for name in weights})
    ways = [
        weights,
        *({part + name: value for name, value in weights.items()} for part in adding),
        *(
            {name.removeprefix(part): weights[name] for name in weights if name.startswith(part)}
            for part in dropping
        ),
    ]
    return max(ways, key=lambda way: len(names & way.keys()))


def optimizer_tensors(optimizer: torch.optim.Optimizer, networks: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as named tensors: ``<parameter>.<moment>``."""
    names = _parameter_names(optimizer, networks)
    tensors: dict[str, Tensor] = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            tensors[f"{names[id(parameter)]}.{key}"] = torch.as_tensor(value)
    return tensors


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, networks: nn.Module, tensors: dict[str, Tensor]
) -> None:
    """Put back what ``optimizer_tensors`` named; parameters without an entry start anew."""
    names = _parameter_names(optimizer, networks)
    found: dict[str, dict[str, Tensor]] = {}
    for full, value in tensors.items():
        name, _, key = full.rpartition(".")
        found.setdefault(name, {})[key] = value
    state: dict[int, dict[str, Tensor]] = {}
    index = 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if names[id(parameter)] in found:
                state[index] = found[names[id(parameter)]]
            index += 1
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _parameter_names(optimizer: torch.optim.Optimizer, networks: nn.Module) -> dict[int, str]:
    names = {id(parameter): name for name, parameter in networks.named_parameters()}
    for i, group in enumerate(optimizer.param_groups):
        for j, parameter in enumerate(group["params"]):
            names.setdefault(id(parameter), f"group{i}.{j}")
    return names


def _folders(out: Path) -> list[Path]:
    folder = out / "checkpoints"
    if not folder.is_dir():
        return []
    numbered = [path for path in folder.iterdir() if path.is_dir() and path.name.isdigit()]
    return sorted(numbered, key=lambda path: int(path.name))


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    # own copies: safetensors refuses tensors that share memory
    save_file(
        {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}, path
    )


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BrokenCheckpointError(
            f"{path}: is not a whole file; use an older checkpoint or begin anew."
        ) from error
