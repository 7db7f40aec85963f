"""Tensors of a large file, found without reading them; each is read when it is wanted.

    found = stored_tensors(Path("105000.ckpt"), "give a checkpoint of Zero-1-to-3")
    found["cc_projection.weight"].shape         # nothing of the weights is read for that
    found["cc_projection.weight"].read()        # this tensor, and no others

Files are safetensors, or what torch has saved. A torch file is a pickle, which is a program: the
reader here knows tensors and plain containers, and puts a thing that does nothing in the place of
everything else, so that what training has left beside the weights (callbacks, states of loops)
neither runs nor hinders.
"""

import json
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unflat.errors import UserError
from unflat.torch_file import read_torch_file

_SAFE_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_TORCH_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LONGEST_HEADER = 100_000_000  # bytes; as safetensors' own reader has it
_LOCAL_HEADER = 30  # bytes before the name in a zip archive's member
_DAMAGED = "is not a whole file of weights; copy or download it again"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]
    """Gives the tensor, on the CPU, in memory of its own."""


def stored_tensors(path: Path, expected: str) -> dict[str, StoredTensor]:
    """The tensors of a file by name; those in a ``state_dict`` where it has one.

    Args:
        path: of a ``.safetensors`` file, or one that torch has saved.
        expected: what to give instead, for messages.

    Raises:
        UserError: there is no such file, or it is damaged or holds no named tensors.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; {expected}.")
    if path.suffix == ".safetensors":
        found = _of_safetensors(path)
    elif zipfile.is_zipfile(path):
        found = _named(_of_archive(path, expected))
    else:  # torch's older files have no parts that could be read alone
        content = _named(read_torch_file(path, expected))
        found = {name: _held(value) for name, value in content.items() if torch.is_tensor(value)}
    found = {name: value for name, value in found.items() if isinstance(value, StoredTensor)}
    if not found:
        raise UserError(f"{path}: holds no named weights; {expected}.")
    return found


def _named(content: Any) -> Mapping[str, Any]:
    """What a checkpoint holds by name, the weights alone where it has them apart."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        return {}
    return {name: value for name, value in content.items() if isinstance(name, str)}


def _held(value: Tensor) -> StoredTensor:
    return StoredTensor(tuple(value.shape), value.dtype, lambda: value)


def _of_safetensors(path: Path) -> dict[str, StoredTensor]:
    """From the header: its length in 8 bytes, then JSON with places counted from its end."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, _LONGEST_HEADER):
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        found = {}
        for name, entry in header.items():
            dtype, shape = _SAFE_TYPES[entry["dtype"]], tuple(map(int, entry["shape"]))
            start, end = (8 + length + int(place) for place in entry["data_offsets"])
            if end > size or end - start != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{name} does not lie in the file")
            found[name] = _placed(_Storage(path, start, end - start, dtype), 0, shape, None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise UserError(f"{path}: {_DAMAGED}.") from error
    return found


class _Storage(NamedTuple):
    """Numbers in a row, somewhere in a file."""

    path: Path
    start: int
    length: int
    dtype: torch.dtype


def _placed(
    storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...] | None
) -> StoredTensor:
    """A tensor in a storage; rows follow each other where no stride is given.

    Raises:
        ValueError: it reaches beyond the storage.
    """
    path, start, length, dtype = storage
    steps = stride if stride is not None else torch.empty(shape, device="meta").stride()
    reach = 1 + sum((side - 1) * step for side, step in zip(shape, steps, strict=True))
    reach = reach if math.prod(shape) else 0
    if min(offset, 0, *steps) < 0 or (offset + reach) * dtype.itemsize > length:
        raise ValueError("a tensor reaches beyond what is stored of it")

    def read() -> Tensor:
        if not reach:
            return torch.empty(shape, dtype=dtype)
        held = bytearray(reach * dtype.itemsize)
        with path.open("rb") as file:
            file.seek(start + offset * dtype.itemsize)
            if file.readinto(held) != len(held):
                raise UserError(f"{path}: {_DAMAGED}.")
        return torch.frombuffer(held, dtype=dtype).as_strided(shape, steps)

    return StoredTensor(shape, dtype, read)


def _of_archive(path: Path, expected: str) -> Any:
    """What a file in torch's format since 1.6 holds: an archive of a pickle and of storages."""
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            members = {info.filename: info for info in archive.infolist()}
            folder = next((n[: -len("data.pkl")] for n in members if n.endswith("/data.pkl")), None)
            if any("/code/" in name for name in members):
                raise UserError(f"{path}: holds code (TorchScript), not run; {expected}.")
            if folder is None:
                raise UserError(f"{path}: holds no weights that torch has saved; {expected}.")
            order = members.get(f"{folder}byteorder")
            if order is not None and archive.read(order) != b"little":
                raise UserError(f"{path}: was saved by a big-endian machine; {expected}.")

            def storage(dtype: torch.dtype, key: str) -> _Storage:
                member = members[f"{folder}data/{key}"]
                if member.compress_type != zipfile.ZIP_STORED:
                    raise ValueError("storages are compressed")
                # the name and the padding of a member are in its own header alone
                file.seek(member.header_offset + _LOCAL_HEADER - 4)
                named, padded = struct.unpack("<HH", file.read(4))
                start = member.header_offset + _LOCAL_HEADER + named + padded
                return _Storage(path, start, member.file_size, dtype)

            with archive.open(members[f"{folder}data.pkl"]) as program:
                return _Reader(program, storage).load()
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle can fail in any way; the cause is kept
        raise UserError(f"{path}: {_DAMAGED}.") from error


class _Ignored:
    """In the place of what is neither a tensor nor a plain container; takes all, does nothing."""

    def __init__(self, *args: object, **words: object) -> None: ...

    def __call__(self, *args: object, **words: object) -> "_Ignored":
        return _Ignored()

    def __setitem__(self, key: object, value: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def append(self, value: object) -> None:
        """Do nothing."""

    def extend(self, values: object) -> None:
        """Do nothing."""

    def add(self, value: object) -> None:
        """Do nothing."""


class _Reader(pickle.Unpickler):
    """Runs no function but the few below, whatever the file names."""

    def __init__(self, file: Any, storage: Callable[[torch.dtype, str], _Storage]) -> None:
        """A reader of a program.

        Args:
            file: with the program.
            storage: finds one by type and key.
        """
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for here."""
        if module == "torch" and name in _TORCH_TYPES:
            return _TORCH_TYPES[name]
        return _KNOWN.get((module, name), _Ignored)

    def persistent_load(self, told: Any) -> Any:
        """A storage: ("storage", type, key, device, count)."""
        if told[0] == "storage" and isinstance(told[1], torch.dtype):
            return self._storage(told[1], str(told[2]))
        return _Ignored()


def _rebuilt(storage: Any, offset: int, shape: Any, stride: Any, *_: object) -> Any:
    if not isinstance(storage, _Storage):
        return _Ignored()
    return _placed(storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))


def _first(value: Any, *_: object) -> Any:
    return value


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuilt,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
}
