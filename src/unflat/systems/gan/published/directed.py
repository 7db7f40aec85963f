"""What nerf-from-image's generators may have beyond `DistanceTriplaneField` (arXiv 2211.11674).

Colours that depend on the direction of view (its CARLA model), colours without a palette, and
densities without a distance (its ablations).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.fields.distance import DistanceDecoder, LaplaceDensity
from unflat.fields.field import FieldOutput
from unflat.fields.planes import sample_triplane
from unflat.fields.voxels import box_coordinates, checked_bounds
from unflat.nn.equalized import EqualizedLinear, EqualizedMatrix

_SLOPE = 0.2


class ViewDirectionNetwork(nn.Module):
    """Features of points and a direction of view to logits: out(leaky ReLU(v(direction) + h)).

    So the direction changes which colours are mixed, never the colours or the shape.
    """

    def __init__(self, features: int, out: int, width: int = 64):
        """A network whose last layer begins at zero, with all choices alike.

        Args:
            features: of a point, and as many numbers for a direction; 32 in nerf-from-image.
            out: logits.
            width: of the direction's layers.
        """
        super().__init__()
        self.into = EqualizedLinear(3, width)
        self.linear = nn.ModuleList(EqualizedMatrix(width, width) for _ in range(4))
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.last = EqualizedLinear(width, width)
        self.to_features = EqualizedLinear(width, features)
        self.out = EqualizedLinear(features, out)
        nn.init.zeros_(self.out.weight)

    def forward(
        self,
        features: Float[Tensor, "batch *points features"],
        directions: Float[Tensor, "batch *some 3"] | None,
    ) -> Float[Tensor, "batch *points out"]:
        """Logits.

        Args:
            features: of points.
            directions: unit vectors of travel, for as many points or for all along an axis of
                length 1; without them v is left away, as if all directions had been averaged.
        """
        if directions is not None:
            features = features + self.direction(directions)
        return self.out(functional.leaky_relu(features, _SLOPE))

    def direction(
        self, directions: Float[Tensor, "*points 3"]
    ) -> Float[Tensor, "*points features"]:
        """What a direction adds to the features of points seen along it."""
        hidden = functional.leaky_relu(self.into(directions), _SLOPE)
        for number in (0, 2):
            inner = self._layer(number + 1, self._layer(number, hidden))
            hidden = (inner + hidden) * math.sqrt(0.5)
        return self.to_features(functional.leaky_relu(self.last(hidden), _SLOPE))

    def _layer(self, number: int, hidden: Tensor) -> Tensor:
        return functional.leaky_relu(self.norm[number](self.linear[number](hidden)), _SLOPE)


class DirectedTriplaneField(nn.Module):
    """Planes XY, XZ and YZ whose corners lie on the box, decoded in one of four ways.

    With a density of distances the decoder's first number is a signed distance, else the density
    before softplus. With a palette the features are soft choices, else colours.
    """

    def __init__(
        self,
        planes: Float[Tensor, "batch 3 channels side side"],
        decoder: DistanceDecoder,
        bounds: Float[Tensor, "2 3"],
        *,
        density: LaplaceDensity | None,
        view: ViewDirectionNetwork | None,
        has_palette: bool,
    ):
        """Planes of a batch of objects, with the parts they share.

        Args:
            planes: order and orientation as in `sample_triplane`.
            decoder: features of points to a first number and others.
            bounds: lowest and highest corner of the box outside of which nothing is, world units.
            density: what a distance is as a density; none if the first number is no distance.
            view: makes logits of the decoder's others and of directions; none if they are logits.
            has_palette: whether logits are of choices, or of colours.
        """
        super().__init__()
        self.planes: Tensor
        self.register_buffer("planes", planes)
        self.bounds: Tensor
        self.register_buffer("bounds", checked_bounds(bounds))
        self.decoder, self.density, self.view = decoder, density, view
        self.has_palette = has_palette

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """Density per world unit, 0 outside the box, and choices or colours.

        Directions that were expanded along a ray's points are looked at once for each ray.
        """
        inside, coordinates = box_coordinates(points, self.bounds)
        first, features = self._decoded(coordinates)
        density = functional.softplus(first - 1) if self.density is None else self.density(first)
        if self.view is not None:
            if directions is not None and directions.stride(-2) == 0:
                directions = directions[..., :1, :]
            features = self.view(features, directions)
        wide = features.sigmoid() * 1.002 - 0.001  # as a palette's colours
        features = features.softmax(-1) if self.has_palette else wide
        return FieldOutput(torch.where(inside, density, 0.0), features)

    def distance(self, points: Float[Tensor, "batch *points 3"]) -> Float[Tensor, " batch *points"]:
        """Signed distance in world units, negative inside; goes on beyond the box.

        Raises:
            ValueError: the decoder's first number is no distance.
        """
        if self.density is None:
            raise ValueError("this generator has a density and no distance")
        return self._decoded(box_coordinates(points, self.bounds)[1])[0]

    def first(self, count: int) -> "DirectedTriplaneField":
        """The field itself: without a palette it has three features, its colour.

        Raises:
            ValueError: the field has a palette's choices, or another number is asked for.
        """
        if self.has_palette or count != 3:
            raise ValueError(f"the field's features are not its first {count} colours")
        return self

    def _decoded(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        side = self.planes.shape[-1]
        return self.decoder(sample_triplane(self.planes, coordinates * ((side - 1) / side)))
