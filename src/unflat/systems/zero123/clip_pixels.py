"""What CLIP sees of a picture: 224 pixels, in one of two ways that give other numbers.

The authors resize on the tensor, corners on corners and without smoothing; ports that use
transformers' image processor resize with Pillow. They differ by 0.00075 of the range on average and
by 0.19 at edges, so a model is given what it is given elsewhere.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

ClipPixels = Literal["authors", "processor"]
"""``authors``: bicubic, corners on corners, no smoothing. ``processor``: Pillow's bicubic."""

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(
    image: Float[Tensor, "batch 3 side side"], size: int, way: ClipPixels
) -> Float[Tensor, "batch 3 size size"]:
    """Pictures in [0, 1], resized and normalised; with ``processor`` no gradient comes back.

    Args:
        image: squares.
        size: of CLIP's pictures, pixels.
        way: of resizing.
    """
    if way == "authors":
        # as the authors have it, in [-1, 1]: bicubic weights overshoot, and nothing clips them
        resized = functional.interpolate(
            image * 2 - 1, (size, size), mode="bicubic", align_corners=True
        )
        resized = (resized + 1) / 2
    else:
        resized = torch.stack([_by_pillow(each, size) for each in image.detach()]).to(image)
    mean, std = resized.new_tensor(_MEAN), resized.new_tensor(_STD)
    return (resized - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)


def _by_pillow(image: Tensor, size: int) -> Tensor:
    levels = (image.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    resized = Image.fromarray(levels).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(resized, np.float32) / 255).permute(2, 0, 1)
