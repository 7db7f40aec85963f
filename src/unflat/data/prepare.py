"""A person's photograph as the model sees it, with everything that was decided on the way.

::

    prepared = prepare_picture("cat.jpg", resolution=64)
    prepared.model_image     # 3 x 64 x 64
    prepared.image           # the same square at up to 1024 pixels, for detail
    prepared.notes           # ("the centre 800x800 of 1200x800 is used",)
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unflat.data.pictures import (
    center_square,
    center_square_box,
    exif_of,
    open_picture,
    over_color,
    picture_size,
    resize_square,
)
from unflat.errors import UserError

Ground = Literal["white", "grey"]

SMALLEST_SIDE = 64
"""Pixels; smaller pictures are refused."""
DETAIL_SIDE = 1024
"""Pixels; larger photographs are reduced to this before anything else is done with them."""

_GROUNDS: dict[Ground, tuple[int, int, int]] = {"white": (255, 255, 255), "grey": (128, 128, 128)}
_FILM_DIAGONAL = math.hypot(36.0, 24.0)  # mm; what "35 mm equivalent" refers to (CIPA DCG-001)
_MILLIMETRES = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # EXIF FocalPlaneResolutionUnit
_WIDTH, _HEIGHT, _FOCAL, _FOCAL_FILM = 0xA002, 0xA003, 0x920A, 0xA405
_PLANE_RESOLUTION, _PLANE_UNIT = 0xA20E, 0xA210
_PLAUSIBLE_FOV = (math.radians(3.0), math.radians(150.0))


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A square photograph at two sizes, and how it came about."""

    image: Float[Tensor, "3 side side"]
    """The square at its own resolution, at most `DETAIL_SIDE`; [0, 1]."""
    model_image: Float[Tensor, "3 resolution resolution"]
    """The square at the model's resolution; [0, 1]."""
    source_size: tuple[int, int]
    """Width and height of the upright file, pixels."""
    crop: tuple[int, int, int, int]
    """Left, top, right, bottom of the square in the upright file, pixels."""
    alpha: Literal["none", "opaque", "over white", "over grey"]
    """What transparency the file had, and what was put behind it."""
    fov: float | None
    """Radians across the square, from EXIF; None if the file does not tell."""
    notes: tuple[str, ...]
    """What a person should know, half a sentence each."""


def prepare_picture(
    source: str | Path | bytes | Image.Image,
    resolution: int,
    *,
    name: str | None = None,
    ground: Ground = "white",
    detail_side: int = DETAIL_SIDE,
    smallest_side: int = SMALLEST_SIDE,
) -> Prepared:
    """The centred square of a photograph, for a model of some resolution.

    Args:
        source: a file, its bytes, or a picture that is already open.
        resolution: of the model, pixels.
        name: what error sentences call the picture.
        ground: what goes behind transparent parts.
        detail_side: largest side of `Prepared.image`.
        smallest_side: pixels below which the shorter side is refused.

    Raises:
        UserError: not readable (see `open_picture`), or too small.
    """
    label = name or (str(source) if isinstance(source, str | Path) else "picture")
    if isinstance(source, Image.Image):
        picture, size, exif = source, source.size, dict(source.getexif())
        picture = picture if picture.mode in ("RGB", "RGBA") else picture.convert("RGBA")
    else:
        picture = open_picture(source, name=label, at_least=2 * max(detail_side, resolution))
        size, exif = picture_size(source), exif_of(source)
    if min(size) < smallest_side:
        raise UserError(
            f"{label}: {size[0]}x{size[1]} is below the {smallest_side} pixels "
            "this model needs; give a larger picture."
        )
    notes = []
    alpha = _alpha_of(picture, ground)
    if alpha.startswith("over"):
        notes.append(f"transparent parts are put {alpha}")
    square = center_square(over_color(picture, _GROUNDS[ground]))
    crop = center_square_box(*size)
    if size[0] != size[1]:
        side = crop[2] - crop[0]
        notes.append(f"the centre {side}x{side} of {size[0]}x{size[1]} is used")
    if crop[2] - crop[0] < resolution:
        notes.append(
            f"the picture is smaller than the model's {resolution} pixels and was enlarged"
        )
    image = square
    if square.width > detail_side:
        image = square.resize((detail_side, detail_side), Image.Resampling.LANCZOS)
        notes.append(f"detail is limited to {detail_side}x{detail_side}")
    fov, fov_note = fov_from_exif(exif, size)
    if fov_note is not None:
        notes.append(fov_note)
    return Prepared(
        image=_tensor(image),
        model_image=_tensor(resize_square(square, resolution)),
        source_size=size,
        crop=crop,
        alpha=alpha,
        fov=fov,
        notes=tuple(notes),
    )


def fov_from_exif(
    tags: dict[int, object], size: tuple[int, int]
) -> tuple[float | None, str | None]:
    """Radians across the centred square of a picture, and a note if the tags cannot be trusted.

    From the 35 mm equivalent focal length f, which compares diagonals: in pixels the focal length
    is f / 43.27 times the picture's diagonal. Else from the focal length in millimetres and the
    pixels per millimetre of the sensor. A picture whose shape is not the one the camera wrote was
    cut since, and tells nothing.

    Args:
        tags: as from `unflat.data.pictures.exif_of`.
        size: width and height of the upright picture, pixels.
    """
    written = (_number(tags.get(_WIDTH)), _number(tags.get(_HEIGHT)))
    focal_pixels = None
    film, focal = _number(tags.get(_FOCAL_FILM)), _number(tags.get(_FOCAL))
    if film:
        focal_pixels = film / _FILM_DIAGONAL * math.hypot(*size)
    elif focal and written[0] and written[1]:
        density = _number(tags.get(_PLANE_RESOLUTION))
        unit = _MILLIMETRES.get(int(_number(tags.get(_PLANE_UNIT)) or 2))
        if density and unit:
            focal_pixels = focal * density / unit * max(size) / max(written)
    if not focal_pixels:
        return None, None
    if written[0] and written[1]:
        ratio = (max(size) / min(size)) / (max(written) / min(written))
        if abs(ratio - 1.0) > 0.02:
            return None, "it was cut after it was taken, so its EXIF focal length is not used"
    fov = 2.0 * math.atan(0.5 * min(size) / focal_pixels)
    if not _PLAUSIBLE_FOV[0] < fov < _PLAUSIBLE_FOV[1]:
        return None, "its EXIF focal length is implausible and is not used"
    return fov, None


def _alpha_of(
    picture: Image.Image, ground: Ground
) -> Literal["none", "opaque", "over white", "over grey"]:
    if picture.mode != "RGBA":
        return "none"
    lowest, _ = picture.getchannel("A").getextrema()
    if lowest == 255:
        return "opaque"
    return "over white" if ground == "white" else "over grey"


def _number(value: object) -> float:
    """A tag as a positive number; 0 if it is absent, broken or not one."""
    try:
        number = float(value)  # pyright: ignore[reportArgumentType] checked by the except
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0


def _tensor(picture: Image.Image) -> Tensor:
    values = np.array(picture, dtype=np.float32) / 255.0
    return torch.from_numpy(values).permute(2, 0, 1).contiguous()
