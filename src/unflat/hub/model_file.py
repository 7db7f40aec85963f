"""What a file of a model holds, whoever has written it; no code in it is run."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from unflat.errors import UserError
from unflat.torch_file import read_torch_file
from unflat.training.model_file import load_weights

_PICKLE = b"\x80"
_TORCH_OLD = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the number that torch's own old files begin with


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """What a file holds; NaN or infinity among the weights is a `UserError`."""

    path: Path
    """Where it is."""
    system: str
    """Which system reads it; for a model of ours the one that trained it."""
    licence: str
    """What the weights may be used for."""
    sha256: str
    """Of the file."""
    config: dict[str, Any] = field(default_factory=dict)
    """What the file tells of the network beside its weights."""
    state: dict[str, Tensor]
    """Weights (of a generator, the averaged ones), on the CPU, under the names of the file."""

    def __post_init__(self) -> None:
        bad = sorted(name for name, value in self.state.items() if not value.isfinite().all())
        if bad:
            raise UserError(
                f"{self.path}: {bad[0]} holds NaN or infinity; download the file again."
            )


def read_content(path: Path, expected: str) -> ModelFile | Mapping[str, Any]:
    """A model of ours, or all that another's file holds.

    Args:
        path: of a `.safetensors` file, or of one that torch has saved.
        expected: what to give instead, for messages.

    Raises:
        UserError: no such file, damaged, a pickle, of no named values, or of ours with NaN.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; {expected}.")
    _refuse_pickle(path)
    if path.suffix == ".safetensors":
        if not _is_ours(path):
            return load_file(path)
        state, header = load_weights(path)
        return ModelFile(
            path=path,
            system=str(header.get("system")),
            licence=str(header.get("card", {}).get("licence", "not stated")),
            sha256=sha256_of(path),
            config=header.get("config", {}),
            state=state,
        )
    content = read_torch_file(path, expected)
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds no named weights; {expected}.")
    return content


def sha256_of(path: Path) -> str:
    """Of all bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain_state(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors, without the prefix that training on several GPUs leaves."""
    return {
        str(name).removeprefix("module."): value
        for name, value in content.items()
        if isinstance(value, Tensor)
    }


def _refuse_pickle(path: Path) -> None:
    """A pickle is a program; only torch's own files are read, by a reader that runs none of it."""
    with path.open("rb") as file:
        start = file.read(len(_TORCH_OLD) + 2)
    if path.suffix == ".pkl" or (start[:1] == _PICKLE and start[2:] != _TORCH_OLD):
        raise UserError(
            f"{path}: is a pickle, which runs code when it is opened; convert it where it was "
            'trained (docs/formats.md, "Weights of others") and give the .pth file.'
        )


def _is_ours(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return "unflat" in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: is not a whole safetensors file; copy or download it again."
        ) from error
