"""What metrics refuse, said so that the wrong picture can be found."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_NAMED = 8  # pictures that an error names before it counts the rest


def refuse_pictures(wrong: Bool[Tensor, " batch"], sentence: str, first: int = 0) -> None:
    """Raises an error that names the pictures that are wrong, if there are any.

    Args:
        wrong: of each picture, whether it is.
        sentence: what is wrong with them; their numbers follow it.
        first: number of the batch's first picture in its stream.

    Raises:
        ValueError: a picture is wrong.
    """
    if not wrong.any():
        return
    numbers = (torch.nonzero(wrong).flatten() + first).tolist()
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    raise ValueError(f"{sentence} {', '.join(str(i) for i in numbers[:_NAMED])}{more}")


def refuse_nan(images: Float[Tensor, "batch ..."], name: str) -> None:
    """Refuses pictures with a value that is no number.

    Args:
        images: first axis counts pictures.
        name: what they are called in the message.

    Raises:
        ValueError: NaN or infinity in pictures that are named.
    """
    wrong = ~images.flatten(1).isfinite().all(1)
    refuse_pictures(wrong, f"{name} holds NaN or infinity in picture")


def check_features(
    features: Float[Tensor, "n dim"], name: str, *, dim: int | None = None, first: int = 0
) -> None:
    """Refuses features that no figure can be made of.

    Args:
        features: to look at.
        name: what they are called in the message.
        dim: how many numbers a vector must have; any if None.
        first: number of the first row in its stream.

    Raises:
        ValueError: another number of features, or NaN or infinity in rows that are named.
    """
    if dim is not None and features.shape[1] != dim:
        raise ValueError(f"{name} have {features.shape[1]} numbers a picture, not {dim}")
    wrong = ~features.isfinite().all(1)
    refuse_pictures(wrong, f"{name} hold NaN or infinity in picture", first)
