"""One picture of a data set as training gets it: square, over white, with its mask.

image, mask = square_view(open_picture("bird.jpg"), mask, side=128)
camera = padded_camera(camera, *size)
"""

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor

from unflat.data.pictures import over_color, resize_square
from unflat.errors import UserError
from unflat.geometry import Camera

Box = tuple[int, int, int]
"""Left, top and side of a square in pixels; it may reach beyond the picture."""


def padded_box(width: int, height: int) -> Box:
    """The smallest square that holds a picture in its middle."""
    side = max(width, height)
    return -((side - width) // 2), -((side - height) // 2), side


def padded_camera(camera: Camera, width: int, height: int) -> Camera:
    """The camera of a picture padded to `padded_box`.

    Args:
        camera: of the picture.
        width: of the picture, pixels.
        height: of the picture, pixels.
    """
    left, top, side = padded_box(width, height)
    like = camera.intrinsics
    corner = like.new_tensor([left / width, top / height]).expand(*camera.batch_shape, 2)
    return camera.within(corner, like.new_tensor([side / width, side / height]).expand_as(corner))


def square_view(
    picture: Image.Image,
    mask: Bool[np.ndarray, "height width"] | None,
    side: int,
    box: Box | None = None,
) -> tuple[UInt8[Tensor, "3 side side"], UInt8[Tensor, "side side"] | None]:
    """A square of a picture over white at another size, and its mask, both in 255ths.

    Args:
        picture: RGB, or RGBA, whose alpha is the mask if no other is given.
        mask: where the object is; the rest becomes white.
        side: of the result in pixels.
        box: the square; `padded_box` if not given.

    Raises:
        UserError: picture and mask differ in size; the sentence does not name the picture.
    """
    if mask is not None:
        if mask.shape != (picture.height, picture.width):
            sizes = f"{mask.shape[1]}x{mask.shape[0]}", f"{picture.width}x{picture.height}"
            raise UserError(f"its mask is {sizes[0]}, its picture {sizes[1]}")
        picture = picture.convert("RGB")
        picture.putalpha(Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)))
    left, top, size = padded_box(*picture.size) if box is None else box
    color = Image.new("RGB", (size, size), (255, 255, 255))
    color.paste(over_color(picture), (-left, -top))
    values = np.array(resize_square(color, side))
    image = torch.from_numpy(values).permute(2, 0, 1).contiguous()
    if picture.mode != "RGBA":
        return image, None
    alpha = Image.new("L", (size, size), 0)
    alpha.paste(picture.getchannel("A"), (-left, -top))
    return image, torch.from_numpy(np.array(resize_square(alpha, side)))


def off_white(picture: Image.Image) -> Bool[np.ndarray, "height width"]:
    """Where a render on white shows its object: any channel below white (2211.11674's code)."""
    return (np.asarray(picture.convert("RGB")) != 255).any(axis=2)
