"""Pictures that hold a value which is no number."""

import torch
from jaxtyping import Float
from torch import Tensor


def refuse_nan(name: str, images: Float[Tensor, "batch ..."]) -> None:
    """Nothing, if all values are finite.

    Args:
        name: of what was asked for; begins the message.
        images: first axis counts pictures.

    Raises:
        ValueError: NaN or infinity; the message gives the places of the pictures in the batch.
    """
    bad = torch.nonzero(~images.flatten(1).isfinite().all(1)).flatten().tolist()
    if bad:
        shown = ", ".join(str(place) for place in bad[:8]) + (" and more" if bad[8:] else "")
        raise ValueError(f"{name}: NaN or infinity in {len(bad)} of {len(images)} images: {shown}")
