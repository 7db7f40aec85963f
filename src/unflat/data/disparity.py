"""Disparity files: PNG or NPZ bytes into an array, cut and reduced like the picture.

Disparity is larger where the surface is nearer. Its scale and offset mean nothing here:
every map is normalised to [0, 1] on its own.
"""

import io
import warnings
import zipfile

import numpy as np
from jaxtyping import Float
from PIL import Image

from unflat.data.pictures import DECODE_ERRORS, MAX_PIXELS, center_square_box, resize_square
from unflat.errors import UserError

_ASPECT_SLACK = 0.02  # relative; a map at 1/16 of a picture is rounded to whole pixels


def read_disparity(content: bytes, name: str) -> Float[np.ndarray, "height width"]:
    """A disparity map as stored, at least 0 and finite.

    An NPZ holds ``disparity``, ``inverse_depth`` or ``depth`` (turned into 1/depth; depths that are
    not above 0 or not finite become 0, as the sky has).

    Raises:
        UserError: neither PNG nor NPZ, damaged, or without any of these arrays.
    """
    values = _read_npz(content, name) if content[:2] == b"PK" else read_png_map(content, name)
    values = np.squeeze(values)
    if values.ndim != 2 or values.size == 0:
        raise UserError(f"{name}: its disparity has shape {values.shape}, not height x width.")
    return np.maximum(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0), 0.0)


def cut_map(
    values: Float[np.ndarray, "height width"],
    picture_size: tuple[int, int],
    name: str,
    box: tuple[int, int, int, int] | None = None,
) -> Float[np.ndarray, "rows columns"]:
    """The part of a map that belongs to a square of its picture.

    Args:
        values: the whole map, of any size.
        picture_size: width and height of the whole picture, pixels.
        name: for messages.
        box: left, top, right, bottom of the square in the picture's pixels; the centred one of the
            shorter side if not given.

    Raises:
        UserError: another aspect ratio than the picture's.
    """
    height, width = values.shape
    ratio = (width / height) / (picture_size[0] / picture_size[1])
    slack = max(_ASPECT_SLACK, 1.0 / min(width, height))
    if abs(ratio - 1.0) > slack:
        raise UserError(
            f"{name}: its disparity is {width}x{height} but the picture "
            f"{picture_size[0]}x{picture_size[1]}; they must have the same aspect ratio."
        )
    if box is None:
        left, top, right, bottom = center_square_box(width, height)
    else:
        side = max(1, round((box[2] - box[0]) * width / picture_size[0]))
        side = min(side, width, height)
        left = min(round(box[0] * width / picture_size[0]), width - side)
        top = min(round(box[1] * height / picture_size[1]), height - side)
        right, bottom = left + side, top + side
    return values[top:bottom, left:right]


def square_disparity(
    values: Float[np.ndarray, "height width"],
    side: int,
    picture_size: tuple[int, int],
    name: str,
    box: tuple[int, int, int, int] | None = None,
) -> Float[np.ndarray, "side side"]:
    """A square of a map at a new side, area-averaged, then normalised to [0, 1].

    Args:
        values: the whole map.
        side: pixels of the result.
        picture_size: width and height of the picture it belongs to.
        name: for messages.
        box: the square, as `cut_map` takes it.

    Raises:
        UserError: another aspect ratio than the picture's, or the same value everywhere.
    """
    square = Image.fromarray(cut_map(values, picture_size, name, box).astype(np.float32))
    resized = np.asarray(resize_square(square, side), dtype=np.float32)
    low, high = float(resized.min()), float(resized.max())
    if high - low <= 1e-6 * max(abs(high), 1e-12):
        raise UserError(f"{name}: its disparity is the same everywhere.")
    return (resized - low) / (high - low)


def _read_npz(content: bytes, name: str) -> np.ndarray:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            for key in ("disparity", "inverse_depth"):
                if key in arrays:
                    return np.asarray(arrays[key], dtype=np.float64)
            if "depth" in arrays:
                depth = np.asarray(arrays["depth"], dtype=np.float64)
                usable = np.isfinite(depth) & (depth > 0)
                return np.where(usable, 1.0 / np.where(usable, depth, 1.0), 0.0)
    except (*DECODE_ERRORS, zipfile.BadZipFile) as error:
        raise UserError(f"{name}: its disparity NPZ is damaged; write it again.") from error
    raise UserError(f"{name}: its NPZ holds none of disparity, inverse_depth, depth.")


def read_png_map(content: bytes, name: str) -> np.ndarray:
    """Values of a grey PNG of 8 or 16 bit as stored; of several channels the first.

    Raises:
        UserError: damaged, or above `MAX_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(content), formats=["PNG"])
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError("too large")
            if picture.mode == "P":  # a grey map saved with a palette
                picture = picture.convert("L")
            values = np.asarray(picture)
    except (*DECODE_ERRORS, Image.DecompressionBombError) as error:
        raise UserError(f"{name}: its disparity PNG is damaged; write it again.") from error
    if values.ndim == 3:  # a grey map saved as RGB
        values = values[..., 0]
    return values.astype(np.float64)
