"""The square window of a picture that an encoder looks at: around the object, with some room.

Training and use must agree in it. The published encoder is trained on whole pictures and used on
crops; here it sees, both times, what `window_of` cuts out around what is there, and cameras are
those of the whole picture all the while (`Camera.within` gives the window's).

    window = window_of(opacity)
    looked_at = cut(images, window, 32, outside=1.0)
    uv = window.to_picture(uv_in_window)
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unflat.geometry.camera import Camera

FILL = 0.8
"""Share of the window's side that the object's longer side takes."""

_THERE = 0.5  # opacity from which on a pixel counts


@dataclass(frozen=True, kw_only=True)
class Framing:
    """How cameras and colors are changed, so that pictures of others are nothing unheard of."""

    around_deg: float = 10.0
    """Standard deviation of a turn of the camera about the object's middle, about each axis: what
    lies between the cameras that a generator's file has kept."""
    turn_deg: float = 5.0
    """Standard deviation of roll."""
    scale: float = 0.1
    """Of the binary logarithm of the window's size, which is the object's otherwise."""
    shift: float = 0.03
    """Of its place, in its sides."""
    color: float = 0.3
    """Largest relative change of brightness, contrast and saturation."""
    hue: float = 0.05
    """Largest turn of hues, as a share of the circle."""


class Window(NamedTuple):
    """Squares in pictures, in (u, v) of the picture."""

    corner: Float[Tensor, "batch 2"]
    """Top left; may lie outside [0, 1]."""
    side: Float[Tensor, " batch"]
    """Width and height, as a share of the picture's."""

    def to_picture(self, uv: Float[Tensor, "batch n 2"]) -> Float[Tensor, "batch n 2"]:
        """(u, v) of the picture of (u, v) of the window."""
        return self.corner[:, None] + self.side[:, None, None] * uv

    def camera(self, camera: Camera) -> Camera:
        """The window's camera, given the picture's."""
        return camera.within(self.corner, self.side[:, None].expand(-1, 2))


def window_of(opacity: Float[Tensor, "batch height width"]) -> Window:
    """The windows around what is there; the whole picture where nothing is.

    Args:
        opacity: in [0, 1], of square pictures.
    """
    size = opacity.shape[-1]
    is_there = opacity > _THERE
    spans = []
    for axis in (-2, -1):  # over rows for u, over columns for v
        line = is_there.any(dim=axis)
        first = line.int().argmax(dim=-1)
        last = size - line.int().flip(-1).argmax(dim=-1)
        spans.append(torch.stack([first, last], dim=-1) / size)
    low, high = torch.stack(spans, dim=-1).unbind(dim=1)
    is_empty = ~is_there.flatten(1).any(dim=-1)
    side = (high - low).amax(dim=-1) / FILL
    side = torch.where(is_empty, 1.0, side)
    middle = torch.where(is_empty[:, None], 0.5, 0.5 * (low + high))
    return Window(middle - 0.5 * side[:, None], side)


def jittered(window: Window, framing: Framing, draws: Float[Tensor, "batch 3"]) -> Window:
    """Windows a little larger or smaller, a little beside.

    Args:
        window: around the objects.
        framing: how much.
        draws: normal numbers: of size, and of place (2).
    """
    side = window.side * torch.exp2(framing.scale * draws[:, 0])
    middle = window.corner + 0.5 * window.side[:, None]
    middle = middle + framing.shift * side[:, None] * draws[:, 1:]
    return Window(middle - 0.5 * side[:, None], side)


def cut(
    images: Float[Tensor, "batch channels height width"],
    window: Window,
    side: int,
    outside: float = 0.0,
) -> Float[Tensor, "batch channels side side"]:
    """What the windows show, every pixel the mean of what it covers.

    Args:
        images: square.
        window: one for each.
        side: of what is shown, in pixels.
        outside: what is beyond the pictures.
    """
    covered = float(window.side.max()) * images.shape[-1] / side  # pixels of one, at most
    finer = max(1, math.ceil(covered))
    zero = torch.zeros_like(window.side)
    middle = 2 * (window.corner + 0.5 * window.side[:, None]) - 1
    rows = [
        torch.stack([window.side, zero, middle[:, 0]], dim=1),
        torch.stack([zero, window.side, middle[:, 1]], dim=1),
    ]
    size = [len(images), 1, side * finer, side * finer]
    grid = functional.affine_grid(torch.stack(rows, dim=1).to(images), size, align_corners=False)
    seen = functional.grid_sample(images - outside, grid, align_corners=False) + outside
    return functional.avg_pool2d(seen, finer)
