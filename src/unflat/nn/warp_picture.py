"""Pictures seen through another window: turned, scaled, moved."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def warp_picture(
    images: Float[Tensor, "batch channels height width"],
    turn: Float[Tensor, " batch"],
    scale: Float[Tensor, " batch"],
    shift: Float[Tensor, "batch 2"],
    *,
    outside: float = 0.0,
    side: int | None = None,
    mode: Literal["bilinear", "bicubic"] = "bilinear",
) -> Float[Tensor, "batch channels _ _"]:
    """What a window sees that is turned about the picture's middle, made larger, then moved.

    Its camera is that of `unflat.geometry.camera_augment.augment_camera`. nerf-from-image
    warps pictures of twice the side and averages 2 x 2 pixels afterwards, so that nothing aliases.

    Args:
        images: square.
        turn: radians, clockwise as seen on the picture.
        scale: how many times larger the window is.
        shift: of the window, right and up along its own turned sides, in half sides.
        outside: what is where no picture is: 1 for white pictures of [0, 1], 0 for masks.
        side: of what is seen, in pixels; that of the pictures if not given.
        mode: between pixels; bicubic keeps more detail and may leave the pictures' range.
    """
    cosine, sine = scale * turn.cos(), scale * turn.sin()
    right, down = shift[:, 0], -shift[:, 1]
    rows = [
        torch.stack([cosine, -sine, cosine * right - sine * down], dim=1),
        torch.stack([sine, cosine, sine * right + cosine * down], dim=1),
    ]
    height, width = images.shape[-2:] if side is None else (side, side)
    grid = functional.affine_grid(
        torch.stack(rows, dim=1).to(images), [len(images), 1, height, width], align_corners=False
    )
    return functional.grid_sample(images - outside, grid, mode, align_corners=False) + outside
