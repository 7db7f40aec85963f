"""Depth or disparity that other programs wrote, made into our disparity: 1 nearest, 0 farthest.

::

    values = read_map(Path("tom.pfm"), "disparity")        # larger is nearer, scale of its own
    png = encode_disparity(normalized_disparity(values))   # a 16-bit file beside the picture

Read are PNG of 8 or 16 bit, NPY, NPZ and PFM. Whether larger values are nearer (disparity) or
farther (depth) is not written in most of them, so it has to be said.
"""

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unflat.data.disparity import read_png_map
from unflat.data.pictures import DECODE_ERRORS
from unflat.data.prepare import Prepared
from unflat.errors import UserError

Meaning = Literal["depth", "disparity"]
"""What a map's values are: larger is farther, or larger is nearer."""

MAP_SUFFIXES = (".png", ".npy", ".npz", ".pfm")
"""Endings of maps that can be read."""

TAIL = 0.02
"""Share of pixels at either end that `normalized_disparity` clips: outliers lie there."""

_ARRAYS: dict[Meaning, tuple[str, ...]] = {
    "disparity": ("disparity", "inverse_depth"),
    "depth": ("depth",),
}
_PFM_HEADER = re.compile(rb"(P[Ff])\s+(\d+)\s+(\d+)\s+(-?[\d.eE+-]+)\s")
_PNG_FULL = 65535


class DepthSource(NamedTuple):
    """Where the visible surface of a photo comes from."""

    name: str
    """Of the file or the model, for reports."""
    sha256: str
    """Of the file of the map or of the weights; empty if it is not known."""
    of: Callable[[Prepared], Float[Tensor, "1 1 height width"]]
    """The photo's square to its disparity: in [0, 1], 1 nearest, of any resolution."""


def read_map(
    path: Path, meaning: Meaning, *, name: str | None = None
) -> Float[np.ndarray, "height width"]:
    """Disparity of a map file: larger is nearer, at least 0, in a scale of its own.

    Depth becomes 1 / depth; where it is infinite or not above 0 there is no surface (sky), which
    becomes 0. An NPZ may hold an array named ``depth``, ``disparity`` or ``inverse_depth``, or one
    array of any name. Of several channels of a PNG the first counts.

    Args:
        path: ``.png``, ``.npy``, ``.npz`` or ``.pfm``.
        meaning: of the values.
        name: what error sentences call the file; the path unless given.

    Raises:
        UserError: no such file, of another kind, damaged, no map of one channel, with NaN or
            (as disparity) infinite values, or the same everywhere.
    """
    label = name or str(path)
    suffix = path.suffix.lower()
    if suffix not in MAP_SUFFIXES:
        raise UserError(
            f"{label}: is no depth map unflat can read; give {', '.join(MAP_SUFFIXES)}."
        )
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{label}: there is no such file; check the spelling.") from error
    except OSError as error:
        raise UserError(f"{label}: cannot be read ({error.strerror}).") from error
    try:
        if suffix == ".png":
            values = read_png_map(content, label)
        elif suffix == ".pfm":
            values = _read_pfm(content)
        else:
            values = _read_numpy(content, meaning, label)
    except (*DECODE_ERRORS, zipfile.BadZipFile) as error:
        raise UserError(
            f"{label}: the map is damaged ({_short(error)}); write it again."
        ) from error
    return as_disparity(values, meaning, label)


def as_disparity(
    values: np.ndarray, meaning: Meaning, name: str
) -> Float[np.ndarray, "height width"]:
    """Depth or disparity of any make as disparity, as in `read_map`.

    Args:
        values: numbers with two axes longer than 1.
        meaning: of the values.
        name: for messages.

    Raises:
        UserError: see `read_map`.
    """
    values = np.squeeze(values)
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "uif":
        raise UserError(
            f"{name}: holds {values.dtype} of shape {values.shape}, not a map of height x width."
        )
    values = values.astype(np.float64)
    if np.isnan(values).any():
        raise UserError(f"{name}: holds NaN; fill its holes first, or leave it out.")
    if meaning == "depth":
        usable = np.isfinite(values) & (values > 0)
        disparity = np.where(usable, 1.0 / np.where(usable, values, 1.0), 0.0)
    elif np.isinf(values).any():
        raise UserError(f"{name}: its disparity holds infinity; if it is depth, say so.")
    else:
        disparity = values - min(0.0, float(values.min()))
    if float(np.ptp(disparity)) <= 1e-9 * float(np.abs(disparity).max()):
        raise UserError(f"{name}: the map is the same everywhere; it tells no depth.")
    return disparity


def normalized_disparity(
    disparity: Float[np.ndarray, "height width"], tail: float = TAIL
) -> Float[np.ndarray, "height width"]:
    """Disparity in [0, 1], 1 nearest: quantiles become 0 and 1, what is beyond them is clipped.

    Where the two quantiles are one value (a small thing before a flat ground), the least and the
    greatest value take their place.

    Args:
        disparity: larger is nearer, not the same everywhere.
        tail: share of pixels beyond either quantile.
    """
    low, high = np.quantile(disparity, [tail, 1.0 - tail])
    if high - low <= 1e-6 * float(np.ptp(disparity)):
        low, high = disparity.min(), disparity.max()
    return np.clip((disparity - low) / (high - low), 0.0, 1.0)


def encode_disparity(disparity: Float[np.ndarray, "height width"]) -> bytes:
    """A 16-bit PNG: 65535 nearest, 0 farthest.

    Args:
        disparity: in [0, 1].
    """
    stream = io.BytesIO()
    Image.fromarray(np.rint(disparity * _PNG_FULL).astype(np.uint16)).save(stream, "PNG")
    return stream.getvalue()


def _read_numpy(content: bytes, meaning: Meaning, label: str) -> np.ndarray:
    loaded = np.load(io.BytesIO(content), allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded as arrays:
        names = list(arrays)
        for key in _ARRAYS[meaning]:
            if key in names:
                return arrays[key]
        known = [key for keys in _ARRAYS.values() for key in keys if key in names]
        if known:
            raise UserError(f"{label}: holds {known[0]}, but was said to hold {meaning}.")
        if len(names) != 1:
            raise UserError(
                f"{label}: holds {', '.join(names) or 'nothing'}; name one array {meaning}."
            )
        return arrays[names[0]]


def _read_pfm(content: bytes) -> np.ndarray:
    """Portable float map: rows from below; a negative scale means little-endian."""
    found = _PFM_HEADER.match(content)
    if found is None:
        raise ValueError("no PFM header")
    kind, width, height, scale = found.groups()
    channels = 3 if kind == b"PF" else 1
    order = "<f4" if float(scale) < 0 else ">f4"
    count = int(width) * int(height) * channels
    values = np.frombuffer(content, order, count, offset=found.end())
    return values.reshape(int(height), int(width), channels)[::-1, :, 0]


def _short(error: BaseException) -> str:
    return (str(error).split("\n")[0] or type(error).__name__)[:80]
