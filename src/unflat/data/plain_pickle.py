"""Arrays of plain values that somebody has pickled, read without running what may be in the file.

numpy pickles arrays of objects; a pickle can name any function and have it called. Here nothing can
be named but what builds numpy's arrays and numbers: dictionaries, lists, texts and numbers need no
names.

    detections = read_object_array(Path("detections.npy").read_bytes(), "detections.npy")
"""

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from unflat.data.pictures import DECODE_ERRORS
from unflat.errors import UserError

_ARRAY_PLACES = ("numpy.core.multiarray", "numpy._core.multiarray")  # old name, new name
_BUFFER_PLACES = ("numpy.core.numeric", "numpy._core.numeric")
_KINDS = "biufOSU"  # truth, whole numbers, numbers, objects, texts
_VERSIONS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class _Refused(pickle.UnpicklingError):
    """A name that a file of plain values does not hold."""


def read_object_array(content: bytes, label: str) -> np.ndarray:
    """The array of an .npy file, of numbers or of dictionaries and lists of plain values.

    Args:
        content: of the file.
        label: what messages call it.

    Raises:
        UserError: it is damaged, or holds anything but numbers, texts, dictionaries, lists and
            numpy's arrays and numbers.
    """
    stream = io.BytesIO(content)
    try:
        read_header = _VERSIONS[np.lib.format.read_magic(stream)]
        shape, _, dtype = read_header(stream)
        if not dtype.hasobject:
            return np.load(io.BytesIO(content), allow_pickle=False)
        found = _resolved(_PlainUnpickler(stream).load())
    except _Refused as error:
        raise UserError(
            f"{label}: asks for {error}, which is not run; a file of plain values names nothing of "
            "that kind, so get it from a source that you trust."
        ) from error
    except (pickle.UnpicklingError, *DECODE_ERRORS) as error:
        raise UserError(f"{label}: is cut short or damaged; download it again.") from error
    if not isinstance(found, np.ndarray) or found.shape != tuple(shape):
        raise UserError(f"{label}: does not hold the array that it announces; download it again.")
    return found


class _PlainUnpickler(pickle.Unpickler):
    """Finds nothing but stand-ins for the parts of numpy's arrays and numbers."""

    def find_class(self, module: str, name: str) -> "_Part":
        part = _PARTS.get((module, name))
        if part is None:
            raise _Refused(f"{module}.{name}")
        return part

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("an object outside of it")


class _Part:
    """Something that a pickle may call; it cannot be changed by one."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *values: Any) -> Any:
        return self._call(*values)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("a change of what builds it")


# numpy's own types believe what a pickle says of their flags, so that bytes can become addresses.
class _Type:
    """An element type before numpy sees it."""

    def __init__(self, code: str) -> None:
        if np.dtype(code).kind not in _KINDS:
            raise _Refused(f"elements of type {code}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if any(part is not None for part in state[2:5]):
            raise _Refused("an array of records")
        self.order = str(state[1]).replace("|", "=")

    def dtype(self) -> np.dtype:
        return np.dtype(self.code).newbyteorder(self.order)  # pyright: ignore[reportArgumentType]


class _Array:
    """An array before numpy sees it."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.type, self.is_fortran = _Type("u1"), False
        self.content: Any = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.type, self.is_fortran, self.content = state

    def array(self) -> np.ndarray:
        dtype, order = self.type.dtype(), "F" if self.is_fortran else "C"
        if not dtype.hasobject:
            return np.frombuffer(self.content, dtype=dtype).reshape(self.shape, order=order).copy()
        values = np.empty(len(self.content), dtype=object)
        for place, value in enumerate(self.content):
            values[place] = _resolved(value)
        return values.reshape(self.shape, order=order)


def _resolved(value: Any) -> Any:
    """Plain values with numpy's arrays in place of what stood for them."""
    if isinstance(value, _Array):
        return value.array()
    if isinstance(value, dict):
        return {key: _resolved(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_resolved(inner) for inner in value)
    if isinstance(value, _Part | _Type):
        raise _Refused("a part of numpy itself")
    return value


def _number(kind: _Type, content: bytes) -> Any:
    dtype = kind.dtype()
    if dtype.hasobject:
        raise _Refused("a number that is an object")
    return np.frombuffer(content, dtype=dtype, count=1)[0]


def _bytes_of(text: str, encoding: str) -> bytes:
    """Old pickles write bytes as text in this one encoding."""
    if encoding != "latin1":
        raise _Refused(f"the encoding {encoding}")
    return text.encode(encoding)


def _array_of(
    content: bytes | bytearray, kind: _Type, shape: tuple[int, ...], order: str
) -> _Array:
    """What the newest pickles name in place of an empty array and its state."""
    made = _Array()
    made.__setstate__((1, shape, kind, order == "F", content))
    return made


_PARTS = {
    **{(place, "_reconstruct"): _Part(lambda *_: _Array()) for place in _ARRAY_PLACES},
    **{(place, "scalar"): _Part(_number) for place in _ARRAY_PLACES},
    **{(place, "_frombuffer"): _Part(_array_of) for place in _BUFFER_PLACES},
    ("numpy", "ndarray"): _Part(lambda *_: _Array()),
    ("numpy", "dtype"): _Part(lambda code, *_: _Type(code)),
    ("_codecs", "encode"): _Part(_bytes_of),
}
