"""Terms that know no truth."""

from jaxtyping import Float
from torch import Tensor


def total_variation(planes: Float[Tensor, "*batch height width"]) -> Float[Tensor, ""]:
    """Mean squared difference of neighbouring texels, rows and columns added (TensoRF's form)."""
    rows = planes.diff(dim=-2).square().mean()
    columns = planes.diff(dim=-1).square().mean()
    return rows + columns
