"""What lies behind the visible surface of a field."""

from jaxtyping import Float
from torch import Tensor, nn

from unflat.fields.field import FieldOutput
from unflat.fields.planes import sample_plane
from unflat.fields.viewspace import ViewSpaceField, assumed_points, view_coordinates


class BehindField(nn.Module):
    """A view-space field without everything nearer than a depth picture of its canonical view."""

    def __init__(self, base: ViewSpaceField, disparity: Float[Tensor, "batch 1 height width"]):
        """Keeps what has normalised disparity below the given one, pixel by pixel."""
        super().__init__()
        self.base = base
        self.disparity: Tensor
        self.register_buffer("disparity", disparity, persistent=False)

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """Density per unit of length in the assumed space, and colour in [0, 1]."""
        q, to_world = view_coordinates(points, self.base.frame)
        density, rgb = self.base.at(q)
        limit = sample_plane(self.disparity, q[..., :2], mode="nearest")[..., 0]
        return FieldOutput(density * to_world * (q[..., 2] < limit), rgb.clamp(0, 1))

    def warp(self, points: Float[Tensor, "batch *points 3"]) -> Float[Tensor, "batch *points 3"]:
        """Points in the frame's assumed space, where lengths are measured."""
        return assumed_points(points, self.base.frame)
