"""Terms that compare colours pixel by pixel."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor


def pixel_loss(
    rgb: Float[Tensor, "*shape"],
    target: Float[Tensor, "*shape"],
    form: Literal["squared", "absolute"] = "squared",
) -> Float[Tensor, "*shape"]:
    """Squared or absolute difference of every value, not averaged."""
    difference = rgb - target
    return difference.square() if form == "squared" else difference.abs()
