"""Figures of views that were made of an object: over the frame, over the object, by angle."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.data.posed_objects import PosedObject
from unflat.evaluation.networks import Distance
from unflat.evaluation.view_following import outlines
from unflat.metrics import mask_iou, psnr, ssim, ssim_uniform

ANGLES = (30, 90, 180)
"""Upper ends of the ranges of angles from the input, degrees."""
LEAST_CROP = 32
"""Pixels a side of the crop in which similarity of the object is measured."""

_EMPTY = 1e-6  # sum of a mask that shows nothing


def compare(
    made: Float[Tensor, "views 3 height width"],
    item: PosedObject,
    distances: Mapping[str, Distance],
) -> dict[str, list[float]]:
    """Every figure of every target, over the frame and over the object.

    Args:
        made: for the cameras of all views but the first.
        item: the input first.
        distances: by name, lower is better.
    """
    true = item.images[1:]
    measures: dict[str, Distance] = {"ssim": ssim, "ssim_uniform": ssim_uniform, **distances}
    found = {"psnr": psnr(made, true).tolist()}
    found |= {name: one(made, true).tolist() for name, one in measures.items()}
    if item.masks is None:
        return found | {"psnr_masked": found["psnr"]}
    masks = item.masks[1:]
    outline = outlines(made).to(masks)
    found["outline_iou"] = mask_iou(outline, masks).tolist()
    found["psnr_masked"] = psnr(made, true, masks[:, None]).tolist()
    for name in measures:
        found[f"{name}_masked"] = []
    for view, mask in enumerate(masks):
        if float(mask.sum()) <= _EMPTY:
            for name in measures:
                found[f"{name}_masked"].append(float("nan"))
            continue
        rows, columns = _box(mask)
        pair = [
            (image * mask + (1 - mask))[None, :, rows, columns]
            for image in (made[view], true[view])
        ]
        for name, one in measures.items():
            found[f"{name}_masked"].append(one(*pair).item())
    return found


def _box(mask: Float[Tensor, "height width"]) -> tuple[slice, slice]:
    """The mask's box made square and not too small, moved into the picture."""
    places = torch.nonzero(mask > 0)
    low, high = places.amin(0), places.amax(0) + 1
    side = max(int((high - low).max()), LEAST_CROP)
    found = []
    for axis, size in enumerate(mask.shape):
        length = min(side, size)
        middle = int(low[axis] + high[axis]) // 2
        start = max(0, min(middle - length // 2, size - length))
        found.append(slice(start, start + length))
    return found[0], found[1]


def by_angle(values: dict[str, list[float]], angles: Tensor) -> dict[str, list[float]]:
    """PSNR of the targets in each range of angles."""
    found: dict[str, list[float]] = {}
    below = 0
    for above in ANGLES:
        # an angle of 180 belongs to the last range even if rounding puts it beyond
        within = (angles > below) & (angles <= above) if below else angles <= above
        for key in ("psnr", "psnr_masked"):
            kept = [v for v, is_in in zip(values[key], within.tolist(), strict=True) if is_in]
            found[f"{key}_{above}"] = kept
        below = above
    return found
