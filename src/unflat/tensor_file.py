"""Safetensors files with a JSON header under the key ``unflat``: written whole, read with care."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unflat.errors import UserError
from unflat.files import atomic_path


def write_tensor_file(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Tensors and header in one file, or no file.

    Args:
        path: where to; an older file is replaced.
        tensors: any layout and device.
        header: JSON values, with ``format`` (an integer) and ``kind``.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata={"unflat": json.dumps(header)})


def tensor_file_kind(path: Path) -> str | None:
    """What a file says it is, as in "scene"; None if it says nothing, or is no whole file."""
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {}).get("unflat", "{}")).get("kind")
    except (SafetensorError, OSError, ValueError):
        return None


def read_tensor_file(
    path: Path, kind: str, newest: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a file.

    Args:
        path: of the file.
        kind: what it must be, as in "scene".
        newest: format that this version writes.

    Raises:
        UserError: no such file, cut in half, of another kind, or of a newer format.
    """
    wanted = f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; give {wanted} file.")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("unflat", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: is not a whole safetensors file (cut in half, or of another kind); "
            f"make the {kind} again."
        ) from error
    if header.get("kind") != kind or "format" not in header:
        raise UserError(f"{path}: holds no {kind} of unflat's; give {wanted} file.")
    if int(header["format"]) > newest:
        raise UserError(
            f"{path}: written by a newer unflat (format {header['format']}, this reads up to "
            f"{newest}); upgrade unflat."
        )
    return header, tensors
