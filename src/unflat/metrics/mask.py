"""How well the outline of an object is met."""

from jaxtyping import Float
from torch import Tensor


def mask_iou(
    predicted: Float[Tensor, "batch height width"],
    true: Float[Tensor, "batch height width"],
    threshold: float = 0.5,
) -> Float[Tensor, " batch"]:
    """Intersection over union of two masks, [0, 1], of each picture; higher is better.

    A pixel belongs to the object where its matte is above the threshold. Two empty masks agree:
    their value is 1; one empty mask gives 0. (nerf-from-image, arXiv 2211.11674, adds 1e-6
    to the counts instead, which changes no value that is printed.)

    Args:
        predicted: matte, [0, 1].
        true: matte, [0, 1].
        threshold: inside [0, 1).

    Raises:
        ValueError: a mask holds NaN.
    """
    for name, values in {"predicted": predicted, "true": true}.items():
        if bool(values.isnan().any()):
            raise ValueError(f"{name} {tuple(values.shape)}: holds NaN")
    ours, theirs = (values.flatten(1) > threshold for values in (predicted, true))
    intersection = (ours & theirs).sum(dim=1).to(true.dtype)
    union = (ours | theirs).sum(dim=1).to(true.dtype)
    return (intersection / union.clamp_min(1)).where(union > 0, 1.0)
