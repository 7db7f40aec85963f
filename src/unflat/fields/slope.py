"""Which way is out: a field's slope, rendered like a colour to see its normals.

picture = render(SlopeField(field), camera, 64, 64, options)   # features point outwards
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unflat.fields.field import Bounded, Distanced, Field, FieldOutput

_STEPS = 256
"""Differences are taken over two such parts of the box's longest side."""


class SlopeField(nn.Module):
    """A field with the same density whose features point out of it, in world axes.

    They are the gradient of the signed distance where the field has one, else that of the density
    turned around, by central differences: these see steps as well, and the kinks of interpolation
    do not show. Their length is the slope, so that the steep surface outvotes the even inside when
    they are summed along a ray; give the sum unit length to have a normal.
    """

    def __init__(self, field: Field, step: float | None = None):
        """The slope of a field.

        Args:
            field: one in a box.
            step: half the way over which differences are taken, world units; 1/256 of the box's
                longest side if not given.

        Raises:
            ValueError: the field has no bounds.
        """
        super().__init__()
        if not isinstance(field, Bounded):
            raise ValueError(f"{type(field).__name__} has no bounds: nothing says where it ends")
        self.field = field
        self.bounds: Tensor
        self.register_buffer("bounds", field.bounds)
        longest = float((field.bounds[1] - field.bounds[0]).max())
        self.step = longest / _STEPS if step is None else step

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """Density per world unit, and the way out."""
        density = self.field(points, directions).density
        aside = self.step * torch.eye(3, dtype=points.dtype, device=points.device)
        around = points[..., None, :] + torch.cat([aside, -aside])  # batch *points 6 3
        if isinstance(self.field, Distanced):
            heights = self.field.distance(around)
        else:
            heights = -self.field(around).density
        return FieldOutput(density, (heights[..., :3] - heights[..., 3:]) / (2 * self.step))
