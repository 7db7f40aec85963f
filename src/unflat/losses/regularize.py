"""Terms that know no truth."""

from jaxtyping import Float
from torch import Tensor


def total_variation(planes: Float[Tensor, "*batch height width"]) -> Float[Tensor, ""]:
    """Mean squared difference of neighbouring texels, rows and columns added (TensoRF's form).

    An axis of a single texel has no neighbours and adds nothing.
    """
    rows, columns = planes.diff(dim=-2).square(), planes.diff(dim=-1).square()
    return sum(
        (part.mean() for part in (rows, columns) if part.numel()), start=planes.new_zeros(())
    )
