"""What a view model is shown of a person's picture: the object, centred, on white, at its size.

Three framings. ``centered`` scales the object, up or down, to a share of the picture. ``published``
is what the authors' demo does to a picture without background: a hard mask, shrunk if it is large
but never enlarged. ``as-is`` resizes the whole square, for pictures that are framed already.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from unflat.errors import UserError

Framing = Literal["centered", "published", "as-is"]

_SOLID = 127  # of 255: opacity above it is object, in the authors' demo
_PUBLISHED_SHARE = 200 / 256
_LANCZOS = Image.Resampling.LANCZOS  # the authors'
_HAMMING = Image.Resampling.HAMMING  # never overshoots: a cut-out's edges would get other colors


class Prepared(NamedTuple):
    """One picture as a model sees it."""

    image: Float[Tensor, "3 side side"]
    """On white, [0, 1]."""
    opacity: Float[Tensor, "side side"]
    """Share of each pixel that the object covers."""


def prepare(
    image: Float[Tensor, "3 height width"],
    opacity: Float[Tensor, "height width"],
    side: int,
    *,
    framing: Framing = "centered",
    foreground: float = _PUBLISHED_SHARE,
) -> Prepared:
    """A cut-out picture, framed for a model.

    Args:
        image: colors, [0, 1]; beside the object they mean nothing.
        opacity: share of each pixel that the object covers, [0, 1].
        side: of what the model sees, pixels.
        framing: see above.
        foreground: for ``centered``: longer side of the object's box as a share of the picture.

    Raises:
        UserError: nothing is opaque.
    """
    rgba = torch.cat([image, opacity[None]]).mul(255).round().to(torch.uint8)
    pixels = rgba.permute(1, 2, 0).numpy()
    if not bool((pixels[..., 3] > _SOLID).any()):
        raise UserError("the picture: shows no object; give one with alpha, or a --mask.")
    if framing == "as-is":
        return _of(_resized(pixels, (side, side)))
    if framing == "published":
        return _published(pixels, side)
    return _of(_centered(pixels, side, foreground))


def published_frame(
    pixels: UInt8[np.ndarray, "height width 4"], side: int = 256
) -> UInt8[np.ndarray, "side side 3"]:
    """The authors' preparation of a picture whose background was removed, in 255ths.

    Opacity above 127 is kept with its colors as they are, the rest is white; the box of what is
    kept is shrunk to at most 200 of 256 pixels and pasted in the middle.

    Args:
        pixels: RGBA.
        side: of the result; the authors' is 256.
    """
    solid = pixels[..., 3] > _SOLID
    flat = np.where(solid[..., None], pixels[..., :3], 255).astype(np.uint8)
    rows, columns = _box(solid)
    return _pasted(_shrunk(flat[rows, columns], side), side, 255)


def _published(pixels: np.ndarray, side: int) -> Prepared:
    solid = pixels[..., 3] > _SOLID
    rows, columns = _box(solid)
    matte = np.where(solid[rows, columns, None], 255, 0).astype(np.uint8).repeat(3, axis=-1)
    opacity = _pasted(_shrunk(matte, side), side, 0)[..., 0]
    return Prepared(
        torch.from_numpy(published_frame(pixels, side)).permute(2, 0, 1).float() / 255,
        torch.from_numpy(opacity.copy()).float() / 255,
    )


def _shrunk(flat: np.ndarray, side: int) -> np.ndarray:
    picture = Image.fromarray(flat)
    most = round(_PUBLISHED_SHARE * side)
    picture.thumbnail((most, most), _LANCZOS)
    return np.asarray(picture)


def _pasted(part: np.ndarray, side: int, behind: int) -> np.ndarray:
    """In the middle of a square of one value."""
    height, width = part.shape[:2]
    whole = np.full((side, side, part.shape[-1]), behind, dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    whole[top : top + height, left : left + width] = part
    return whole


def _centered(pixels: np.ndarray, side: int, foreground: float) -> np.ndarray:
    """The object's box scaled to a share of the picture, at a fraction of a pixel exactly."""
    rows, columns = _box(pixels[..., 3] > _SOLID)
    top, bottom, left, right = rows.start, rows.stop, columns.start, columns.stop
    half = 0.5 * max(bottom - top, right - left) / foreground
    middle = (0.5 * (top + bottom), 0.5 * (left + right))
    # the square around it may reach beyond the picture, where there is nothing
    margin = int(np.ceil(half)) + 1
    padded = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)))
    box = tuple(
        float(value + margin)
        for value in (
            *(middle[1] - half, middle[0] - half),
            *(middle[1] + half, middle[0] + half),
        )
    )
    return _resized(padded, (side, side), box, _HAMMING)


def _resized(
    pixels: np.ndarray,
    size: tuple[int, int],
    box: tuple[float, ...] | None = None,
    filtering: Image.Resampling = _LANCZOS,
) -> np.ndarray:
    """RGBA in [0, 1] with colors not mixed with what is beside the object.

    Pillow resizes RGBA with colors weighted by opacity, so nothing bleeds in.
    """
    picture = Image.fromarray(pixels).resize(size, filtering, box=box)  # pyright: ignore[reportArgumentType] four numbers
    return np.asarray(picture, dtype=np.float32) / 255


def _of(rgba: np.ndarray) -> Prepared:
    """On white."""
    opacity = rgba[..., 3:]
    flat = opacity * rgba[..., :3] + (1 - opacity)
    return Prepared(
        torch.from_numpy(flat.transpose(2, 0, 1).copy()), torch.from_numpy(opacity[..., 0].copy())
    )


def _box(solid: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.nonzero(solid.any(axis=1))[0], np.nonzero(solid.any(axis=0))[0]
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
