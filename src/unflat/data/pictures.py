"""Pictures of any make, decoded to upright 8-bit RGB or RGBA, and errors in one sentence.

A person's files are rotated by EXIF, grey, CMYK, 16 bit, palettes, animations, cut short, or no
pictures at all. `open_picture` is the only door through which unflat reads them::

    picture = open_picture("cat.jpg", at_least=512)
"""

import difflib
import functools
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt
from PIL import ExifTags, Image, ImageOps

from unflat.data.sample import reason_of
from unflat.errors import UserError

MAX_PIXELS = 178_000_000
"""Pictures above this many pixels are refused: just below the size at which Pillow itself gives up
(2**30 bytes / 3 channels / 2), so that a small file cannot ask for gigabytes of memory."""

PICTURE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".avif", ".gif",
)  # fmt: skip
"""File endings that count as pictures in a folder."""

READABLE_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "AVIF", "GIF")
"""Decoders that are tried. Others are left out on purpose: EPS would start Ghostscript."""

_HEIF_SUFFIXES = (".heic", ".heif", ".hif")

DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError,
    ZeroDivisionError, OverflowError, MemoryError, NotImplementedError, RuntimeError,
    struct.error, zlib.error,
)  # fmt: skip
"""What decoders raise on damaged files: Pillow lets many kinds through."""


@contextmanager
def told(label: str, thing: str) -> Iterator[None]:
    """Turns what decoders raise on damaged files into a sentence that begins with a label.

    Args:
        label: of what is read.
        thing: what it is, in that sentence.

    Raises:
        UserError: instead of what a decoder raised, a missing file, or a sentence without label.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{label}: {reason_of(str(error), label)}.") from error
    except FileNotFoundError as error:
        lost = error.filename or str(error).removesuffix(" is missing")
        raise UserError(f"{label}: {Path(lost).name} is missing.") from error
    except DECODE_ERRORS as error:
        detail = f"{type(error).__name__}: {error}".split("\n")[0][:80]
        raise UserError(f"{label}: {thing} cannot be read ({detail}).") from error


def open_picture(
    source: str | Path | bytes, *, name: str | None = None, at_least: int | None = None
) -> Image.Image:
    """An upright picture of mode RGB, or RGBA where the file has transparency.

    Animations give their first frame. 16-bit grey is scaled to 8 bit by 65535; values of float
    pictures are taken as [0, 1] if none exceeds 1, else as [0, 255].

    Args:
        source: a file, or its bytes.
        name: what the error sentence calls the picture; the path unless given.
        at_least: the shorter side may be reduced while decoding as long as it stays at or above
            this many pixels, which saves time and memory on large photographs.

    Raises:
        UserError: no such file, empty, no picture, cut short or damaged, or above `MAX_PIXELS`.
    """
    label = name if name is not None else ("picture" if isinstance(source, bytes) else str(source))
    if not isinstance(source, bytes):
        _require_file(Path(source), label)
    elif not source:
        raise UserError(f"{label}: the file is empty; copy or download it again.")
    with _stream(source) as stream, warnings.catch_warnings():
        # Pillow warns of large pictures and odd metadata; both are judged here instead.
        warnings.simplefilter("ignore")
        picture = _identify(stream, label)
        pixels = picture.width * picture.height
        if pixels > MAX_PIXELS:
            raise UserError(_too_many_pixels(label, f"{picture.width}x{picture.height} is"))
        try:
            return _decode(picture, at_least)
        except DECODE_ERRORS as error:
            raise UserError(
                f"{label}: the picture is cut short or damaged ({_reason(error)}); "
                "copy or download it again."
            ) from error


def picture_size(source: str | Path | bytes) -> tuple[int, int]:
    """Width and height in pixels as stored and upright, without decoding.

    Raises:
        UserError: not a picture.
    """
    with _stream(source) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = _identify(stream, "picture" if isinstance(source, bytes) else str(source))
        try:
            turned = int(picture.getexif().get(ExifTags.Base.Orientation, 1)) >= 5
        except DECODE_ERRORS:
            turned = False
        width, height = picture.size
        return (height, width) if turned else (width, height)


def exif_of(source: str | Path | bytes) -> dict[int, object]:
    """EXIF tags of a picture by number, the camera's own block included; empty if none."""
    with _stream(source) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tags = _identify(stream, "picture").getexif()
            return {**dict(tags), **dict(tags.get_ifd(ExifTags.IFD.Exif))}
        except (UserError, *DECODE_ERRORS):
            return {}


def center_square(picture: Image.Image) -> Image.Image:
    """The centred square whose side is the picture's shorter side."""
    return picture.crop(center_square_box(*picture.size))


def center_square_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom (pixels) of the centred square of the shorter side."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def square_around(
    box: tuple[int, int, int, int], width: int, height: int
) -> tuple[int, int, int, int]:
    """Left, top, right, bottom (pixels) of the smallest square around a box, moved into a picture.

    Where the box is longer than the picture's shorter side, the square has that side and the box's
    middle.

    Args:
        box: left, top, right, bottom; right and bottom are beyond the last pixel.
        width: of the picture, pixels.
        height: of the picture, pixels.
    """
    side = min(max(box[2] - box[0], box[3] - box[1]), width, height)
    left = min(max(0, (box[0] + box[2] - side) // 2), width - side)
    top = min(max(0, (box[1] + box[3] - side) // 2), height - side)
    return left, top, left + side, top + side


def resize_square(picture: Image.Image, side: int) -> Image.Image:
    """A square picture at another size: area-averaged when reduced, bilinear when enlarged.

    Every pixel counts by the area that falls into a new pixel, and values are rounded once.
    (Pillow's own box filter counts whole pixels only, which dislocates edges at odd ratios.)
    """
    if picture.width < side:
        return picture.resize((side, side), Image.Resampling.BILINEAR)
    factor = picture.width // (4 * side)
    if factor > 1 and picture.width % side:  # large: first merge whole pixels, for speed
        whole = picture.width - picture.width % factor
        picture = picture.crop((0, 0, whole, whole)).reduce(factor)
    if picture.width == side:
        return picture
    if picture.width % side == 0:
        return picture.reduce(picture.width // side)
    values = np.asarray(picture)
    weights = _area_weights(picture.width, side)
    rows = np.tensordot(weights, values.astype(np.float32), axes=(1, 0))
    averaged = np.swapaxes(np.tensordot(weights, rows, axes=(1, 1)), 0, 1)
    if values.dtype == np.uint8:
        averaged = np.clip(np.rint(averaged), 0, 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(averaged))


@functools.lru_cache(maxsize=64)
def _area_weights(count: int, side: int) -> np.ndarray:
    """Row i: the share of new pixel i that each of `count` old pixels covers."""
    edges = np.arange(side + 1) * (count / side)
    starts = np.arange(count)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return (np.maximum(overlap, 0.0) * (side / count)).astype(np.float32)


def over_color(picture: Image.Image, color: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """An RGB picture: transparency composited over a colour (white unless given)."""
    if picture.mode == "RGB":
        return picture
    ground = Image.new("RGBA", picture.size, (*color, 255))
    return Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")


def picture_bytes(
    values: UInt[np.ndarray, "height width *channels"], kind: str = "PNG", **options: int
) -> bytes:
    """The content of a picture file.

    Args:
        values: 8 bit gray, RGB or RGBA, or 16 bit gray.
        kind: Pillow's name of the format.
        options: of Pillow's writer.
    """
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind, **options)
    return stream.getvalue()


def _require_file(path: Path, label: str) -> None:
    if path.is_dir():
        raise UserError(f"{label}: is a folder, not a picture; name a picture inside it.")
    if not path.exists():
        near = []
        if path.parent.is_dir():
            near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], 1)
        advice = f"did you mean {path.with_name(near[0])}?" if near else "check the spelling."
        raise UserError(f"{label}: there is no such file; {advice}")
    if path.stat().st_size == 0:
        raise UserError(f"{label}: the file is empty; copy or download it again.")
    if path.suffix.lower() in _HEIF_SUFFIXES:
        raise UserError(f"{label}: this file type is not readable; convert it to PNG or JPEG.")


def _stream(source: str | Path | bytes) -> io.BytesIO | io.BufferedReader:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        return Path(source).open("rb")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{source}: cannot be read ({reason}); check its permissions.") from error


def _identify(stream: io.BytesIO | io.BufferedReader, label: str) -> Image.Image:
    Image.init()
    formats = [name for name in READABLE_FORMATS if name in Image.OPEN]
    try:
        return Image.open(stream, formats=formats)
    except Image.DecompressionBombError as error:
        raise UserError(_too_many_pixels(label, "it has")) from error
    except DECODE_ERRORS as error:
        raise UserError(
            f"{label}: not a picture unflat can read (png, jpg, webp, tif, bmp, avif)."
        ) from error


def _too_many_pixels(label: str, subject: str) -> str:
    return (
        f"{label}: {subject} more than {MAX_PIXELS // 1_000_000} megapixels; "
        "give a smaller copy of the picture."
    )


def _decode(picture: Image.Image, at_least: int | None) -> Image.Image:
    if at_least is not None:
        factor = max(1, min(picture.size) // max(1, at_least))
        # Only JPEG can decode at 1/2, 1/4, 1/8; draft picks the nearest that is not smaller.
        picture.draft(None, (picture.width // factor, picture.height // factor))
        picture.load()
        factor = min(picture.size) // max(1, at_least)
        reducible = picture.mode in ("RGB", "L", "CMYK") and "transparency" not in picture.info
        if factor > 1 and reducible:
            exif = picture.getexif()
            picture = picture.reduce(factor)
            picture.info["exif"] = exif.tobytes()
    picture.load()
    return _eight_bit(_upright(picture))


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture) or picture
    except DECODE_ERRORS:
        return picture  # the EXIF block is damaged, the pixels are not


def _eight_bit(picture: Image.Image) -> Image.Image:
    mode = picture.mode
    if mode.startswith(("I", "F")):
        values = np.asarray(picture, dtype=np.float64)
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        highest = float(values.max(initial=0.0))
        if mode.startswith("I"):
            full = 65535.0 if mode.startswith("I;16") or highest > 255 else 255.0
        else:
            full = 1.0 if highest <= 1 else 255.0
        grey = np.clip(np.rint(values * (255.0 / full)), 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        if mode in ("La", "RGBa"):  # premultiplied alpha, which Pillow converts in one step only
            picture = picture.convert("LA" if mode == "La" else "RGBA")
        return picture.convert("RGBA")
    return picture if mode == "RGB" else picture.convert("RGB")


def _reason(error: BaseException) -> str:
    text = str(error).strip().rstrip(".").split("\n")[0]
    return text[:80] if text else type(error).__name__
