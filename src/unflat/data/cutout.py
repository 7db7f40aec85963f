"""One object out of a person's picture: whole, on a square, with what belongs to it and what not.

    cutout = cut_out("car.jpg", mask="car-mask.png")
    cutout.image, cutout.opacity     # what the model sees, before any resizing
    cutout.warnings                  # "the object is cut by the left edge; ..."

What is object is told by the picture's own transparency, by a mask, by a backdrop of one color, or
by rembg where the segment extra is installed, in this order.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from unflat.data.pictures import exif_of, open_picture, over_color, picture_size
from unflat.data.prepare import fov_from_exif
from unflat.errors import UserError, require_extra

MaskSource = Literal["alpha", "mask", "backdrop", "segmenter"]
"""What told the object from the rest."""

CUTOUT_SIDE = 512
"""Pixels on a side to which larger pictures are reduced."""

_THERE = 0.5  # opacity from which on a pixel counts
_LEAST_SHARE = 0.002  # of the picture, below which nothing was found
_OTHER_SHARE = 0.2  # of the largest part's pixels, from which another part is another object
_EVEN = 3.0  # deviation of a backdrop's color, CIELAB units
_UNLIKE = (6.0, 12.0)  # difference from the backdrop: surely backdrop, surely object
_EMPTY: dict[MaskSource, str] = {
    "alpha": "its transparency leaves next to nothing of it; give --mask",
    "mask": "the mask has next to nothing white; it has to be white where the object is",
    "backdrop": "all of it looks like its backdrop; give a picture with alpha, or a --mask",
    "segmenter": "the segmenter saw none; give a picture with alpha, or a --mask",
}
"""What to do where nothing is left, by what told so."""
_SIDES = ("top", "bottom", "left", "right")


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """A square picture of one object."""

    image: Float[Tensor, "3 side side"]
    """In [0, 1]; colors beside the object mean nothing."""
    opacity: Float[Tensor, "side side"]
    """Share of a pixel that is object."""
    source: MaskSource
    """What told so."""
    fov: float | None
    """Radians across the square, from EXIF; None if the file does not tell."""
    warnings: tuple[str, ...]
    """What a person should know, half a sentence each."""


def cut_out(
    source: str | Path | bytes,
    mask: str | Path | None = None,
    *,
    name: str | None = None,
    side: int = CUTOUT_SIDE,
) -> Cutout:
    """The object of a picture, which is padded to a square around its own middle.

    Args:
        source: a file or its bytes.
        mask: a picture of the same proportions, white where the object is; wins over transparency.
        name: what error sentences call the picture.
        side: largest side of what is returned, pixels.

    Raises:
        UserError: not readable, a mask of other proportions, no object found, or nothing there to
            find one with.
    """
    label = name or (str(source) if isinstance(source, str | Path) else "picture")
    picture = open_picture(source, name=label, at_least=2 * side)
    size = picture_size(source)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    values = np.asarray(over_color(picture), dtype=np.float32) / 255
    opacity, told_by = _opacity(picture, values, mask, label)
    warnings = _warnings(opacity > _THERE)
    if float((opacity > _THERE).mean()) < _LEAST_SHARE:
        raise UserError(f"{label}: found no object; {_EMPTY[told_by]}.")
    fov, note = fov_from_exif(exif_of(source), (max(size), max(size)))
    if note is not None:
        warnings.append(note)
    if "A" in picture.getbands():  # colors as stored, not mixed with white
        values = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    image = torch.from_numpy(_squared(values.transpose(2, 0, 1)))
    return Cutout(
        image=image,
        opacity=torch.from_numpy(_squared(opacity[None])[0]),
        source=told_by,
        fov=fov,
        warnings=tuple(warnings),
    )


def _opacity(
    picture: Image.Image, values: np.ndarray, mask: str | Path | None, label: str
) -> tuple[Float[np.ndarray, "height width"], MaskSource]:
    """What is object, and who told so."""
    if mask is not None:
        return _from_mask(mask, picture.size, label), "mask"
    if "A" in picture.getbands():
        alpha = np.asarray(picture.getchannel("A"), dtype=np.float32) / 255
        if float(alpha.min()) < 1:
            return alpha, "alpha"
    backdrop = _from_backdrop(values)
    if backdrop is not None:
        return backdrop, "backdrop"
    if importlib.util.find_spec("rembg") is None:
        raise UserError(
            f"{label}: nothing tells the object from what is behind it; give a picture with alpha "
            'or a --mask, or pip install "unflat[segment]".'
        )
    return _from_segmenter(picture, label), "segmenter"


def _from_mask(mask: str | Path, size: tuple[int, int], label: str) -> np.ndarray:
    """A picture that is white where the object is, at the picture's size."""
    opened = open_picture(mask)
    wide, high = opened.size
    if abs(wide * size[1] - high * size[0]) > max(wide, high, *size):
        raise UserError(
            f"{mask}: is {wide}x{high}, other proportions than {label}; give a mask of this one."
        )
    gray = over_color(opened, (0, 0, 0)).convert("L").resize(size, Image.Resampling.BOX)
    return np.asarray(gray, dtype=np.float32) / 255


def _from_backdrop(values: np.ndarray) -> np.ndarray | None:
    """What differs from the color of the picture's border; None if that is not of one color."""
    from skimage.color import rgb2lab

    lab = np.asarray(rgb2lab(values))  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType, reportUnknownArgumentType] skimage is untyped
    border = np.concatenate([lab[0], lab[-1], lab[:, 0], lab[:, -1]])
    middle = np.median(border, axis=0)
    off = np.linalg.norm(border - middle, axis=-1)
    if float(np.quantile(off, 0.9)) > _EVEN:
        return None
    low, high = _UNLIKE
    unlike = np.linalg.norm(lab - middle, axis=-1)
    share = np.clip((unlike - low) / (high - low), 0, 1)
    outside = _joined_to_border(share < _THERE)
    return np.where(outside, share, 1.0).astype(np.float32)


def _joined_to_border(is_backdrop: Bool[np.ndarray, "height width"]) -> np.ndarray:
    """Backdrop that reaches the border: what is closed in is part of the object."""
    parts = _parts(is_backdrop, connectivity=1)
    at_border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    return np.isin(parts, at_border[at_border > 0])


def _parts(is_there: np.ndarray, connectivity: int) -> Int[np.ndarray, "height width"]:
    """Numbers of what hangs together, from 1 on; 0 beside it."""
    from skimage.measure import label

    return np.asarray(label(is_there, connectivity=connectivity))


def _from_segmenter(picture: Image.Image, label: str) -> np.ndarray:
    """By rembg's usual network."""
    rembg = require_extra("rembg", "segment", f"cutting {label} out")
    try:
        found = rembg.remove(picture.convert("RGB"), only_mask=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{label}: rembg could not get its network ({error}); give a picture with alpha or a "
            "--mask."
        ) from error
    return np.asarray(found.convert("L"), dtype=np.float32) / 255


def _warnings(is_there: Bool[np.ndarray, "height width"]) -> list[str]:
    """What of the object may be missing, or too much."""
    edges = (is_there[0], is_there[-1], is_there[:, 0], is_there[:, -1])
    found = [
        f"the object is cut by the {side} edge; its {side} will be a guess"
        for side, edge in zip(_SIDES, edges, strict=True)
        if edge.mean() > 0.02
    ]
    parts = np.bincount(_parts(is_there, connectivity=2).ravel())[1:]
    many = int((parts > _OTHER_SHARE * parts.max()).sum()) if len(parts) else 0
    if many > 1:
        found.append(f"there are {many} separate parts; if these are several objects, cut one out")
    return found


def _squared(values: Float[np.ndarray, "channels height width"]) -> np.ndarray:
    """With as much of nothing on both sides as makes it square."""
    _, height, width = values.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    padding = ((0, 0), (top, side - height - top), (left, side - width - left))
    return np.pad(values, padding)
