"""Three axis-aligned feature planes and a small network (EG3D, arXiv 2112.07945).

field = TriplaneField(planes, FeatureDecoder(channels=32), bounds=box)   # an object in a box
field = TriplaneField(planes, FeatureDecoder(channels=32))               # all of space
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.fields.contraction import contract
from unflat.fields.field import FieldOutput
from unflat.fields.planes import sample_triplane
from unflat.fields.voxels import box_coordinates, checked_bounds


class FeatureDecoder(nn.Module):
    """Density and colour from the features of a point: one hidden layer, softplus throughout."""

    def __init__(self, channels: int, hidden: int = 64, out: int = 3):
        """Sizes of the layers.

        Args:
            channels: features of a plane; EG3D has 32.
            hidden: width of the hidden layer; EG3D has 64.
            out: 3 for colours.
        """
        super().__init__()
        self.into = nn.Linear(channels, hidden)
        self.out = nn.Linear(hidden, 1 + out)

    def forward(
        self, features: Float[Tensor, "*points channels"]
    ) -> tuple[Float[Tensor, "*points"], Float[Tensor, "*points out"]]:
        """Density, at least 0, and colour in [0, 1].

        Density is softplus(x - 1), so that an untrained field lets light pass. The sigmoid is
        stretched by 0.001 at both ends, as EG3D does, so that black and white can be reached; what
        lies beyond them is cut.
        """
        raw = self.out(functional.softplus(self.into(features)))
        color = torch.sigmoid(raw[..., 1:]) * 1.002 - 0.001
        return functional.softplus(raw[..., 0] - 1), color.clamp(0, 1)

    @torch.no_grad()
    def first(self, count: int) -> "FeatureDecoder":
        """A decoder of its own that gives the first so many features alone."""
        hidden, channels = self.into.weight.shape
        decoder = FeatureDecoder(channels, hidden, count).to(self.into.weight.device)
        pairs = (decoder.into, self.into, hidden), (decoder.out, self.out, 1 + count)
        for mine, whole, rows in pairs:
            mine.weight.copy_(whole.weight[:rows])
            mine.bias.copy_(whole.bias[:rows])
        return decoder


class TriplaneField(nn.Module):
    """Planes XY, XZ and YZ, their lookups added and decoded, in a box or over all of space.

    Without a box space is contracted into the ball of radius 2 (mip-NeRF 360), which the planes
    span; density stays per world unit there.
    """

    def __init__(
        self,
        planes: Float[Tensor, "batch 3 channels height width"],
        decoder: nn.Module,
        bounds: Float[Tensor, "2 3"] | None = None,
    ):
        """Planes of a batch of scenes, with one decoder for all.

        Args:
            planes: order and orientation as in `sample_triplane`; learned where they are an
                ``nn.Parameter``.
            decoder: features of points to (density, colour), like `FeatureDecoder`.
            bounds: lowest and highest corner of the box outside of which nothing is.
        """
        super().__init__()
        self.planes: Tensor
        if isinstance(planes, nn.Parameter):
            self.planes = planes
        else:
            self.register_buffer("planes", planes)
        self.decoder = decoder
        self.bounds: Tensor
        if bounds is not None:  # its presence declares the ability
            self.register_buffer("bounds", checked_bounds(bounds))

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """Density per world unit and colour; the direction does not matter."""
        if not hasattr(self, "bounds"):
            density, color = self.decoder(sample_triplane(self.planes, contract(points) / 2))
            return FieldOutput(density, color)
        inside, coordinates = box_coordinates(points, self.bounds)
        density, color = self.decoder(sample_triplane(self.planes, coordinates))
        return FieldOutput(torch.where(inside, density, 0.0), color)
