"""Tri-planes that hold a signed distance, and colours as mixtures of a palette.

After Pavllo et al., "Shape, Pose, and Appearance from a Single Image via Bootstrapped Radiance
Field Inversion" (arXiv 2211.11674): density is a Laplace distribution's share inside the surface
(as in VolSDF, arXiv 2106.12052), and a point's colour is a soft choice among a few colours that
belong to the whole object. Rendering is linear in colour, so the choices can be rendered as
features, and the picture is what was rendered times the palette.

    field = DistanceTriplaneField(planes, decoder, density, bounds)      # choices
    scene = PaletteField(field, palette)                                 # colours
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.fields.field import Field, FieldOutput
from unflat.fields.planes import sample_triplane
from unflat.fields.voxels import box_coordinates, checked_bounds
from unflat.nn.equalized import EqualizedLinear

LEAST = 1e-3
"""Below which neither of a Laplace density's two numbers is taken."""


class LaplaceDensity(nn.Module):
    """Density of a signed distance: (1 / alpha) Psi(-d), both numbers learned.

    Psi is the distribution function of a Laplace distribution of scale beta: 1/2 at the surface,
    nearly 1 a few beta inside, nearly 0 a few beta outside. So matter is 1 / alpha dense, and the
    surface beta thick.

    Nothing but habit holds an alpha that is learned to the distance: where it gets far smaller than
    beta, light ends some beta outside of distance 0, which then is no surface that anybody sees.
    With alpha = beta, as in VolSDF, the light that comes from outside reaches distance 0 by
    exp(-1/2), however thick the surface is.
    """

    def __init__(self, alpha: float | None = 1.0, beta: float = 0.1):
        """First numbers, in world units; without an alpha it is beta."""
        super().__init__()
        self.alpha = None if alpha is None else nn.Parameter(torch.tensor(alpha))
        self.beta = nn.Parameter(torch.tensor(beta))

    @property
    def thinness(self) -> Float[Tensor, ""]:
        """Alpha, or the beta that stands for it: 1 / density of matter."""
        return self.beta if self.alpha is None else self.alpha

    def forward(self, distance: Float[Tensor, "*points"]) -> Float[Tensor, "*points"]:
        """Density per world unit; at least 0."""
        return self.share(distance) / self.thinness.clamp_min(LEAST)

    def share(self, distance: Float[Tensor, "*points"]) -> Float[Tensor, "*points"]:
        """Psi(-d): how much of a point is inside, in [0, 1]."""
        beta = self.beta.clamp_min(LEAST)
        tail = 0.5 * torch.exp(-distance.abs() / beta)
        return torch.where(distance > 0, tail, 1 - tail)

    def sharpness(self, distance: Float[Tensor, "*points"]) -> Float[Tensor, "*points"]:
        """The Laplace distribution's density at d: largest on the surface."""
        beta = self.beta.clamp_min(LEAST)
        return torch.exp(-distance.abs() / beta) / (2 * beta)

    @torch.no_grad()
    def hold(self) -> None:
        """Brings both numbers back to where they mean something; after an optimizer's step."""
        self.thinness.clamp_(min=LEAST)
        self.beta.clamp_(min=LEAST)


class DistanceDecoder(nn.Module):
    """Distance and choices from the features of a point: one hidden layer of softplus.

    Weights are equalised: one learning rate serves this network and StyleGAN2's.
    """

    def __init__(self, channels: int, hidden: int = 64, out: int = 10):
        """Sizes of the layers.

        Args:
            channels: features of a plane.
            hidden: width of the hidden layer.
            out: colours of the palette.
        """
        super().__init__()
        self.into = EqualizedLinear(channels, hidden)
        self.out = EqualizedLinear(hidden, 1 + out)

    def forward(
        self, features: Float[Tensor, "*points channels"]
    ) -> tuple[Float[Tensor, "*points"], Float[Tensor, "*points out"]]:
        """Signed distance in world units, negative inside, and logits of the choices."""
        raw = self.out(functional.softplus(self.into(features)))
        return raw[..., 0], raw[..., 1:]

    def layers(
        self,
    ) -> tuple[
        Float[Tensor, "hidden channels"],
        Float[Tensor, " hidden"],
        Float[Tensor, "raw hidden"],
        Float[Tensor, " raw"],
    ]:
        """Weight and bias of both layers as they are used, the gains multiplied in."""
        into, out = self.into, self.out
        return into.weight * into.gain, into.bias, out.weight * out.gain, out.bias


class DistanceTriplaneField(nn.Module):
    """Planes XY, XZ and YZ, added and decoded to a signed distance, in a box.

    Its features are soft choices among the colours of a palette; they sum to 1.
    """

    def __init__(
        self,
        planes: Float[Tensor, "batch 3 channels height width"],
        decoder: DistanceDecoder,
        density: LaplaceDensity,
        bounds: Float[Tensor, "2 3"],
        *,
        align_corners: bool = False,
    ):
        """Planes of a batch of objects, with one decoder for all.

        Args:
            planes: order and orientation as in `sample_triplane`; learned where they are an
                ``nn.Parameter``.
            decoder: features of points to distance and logits.
            density: what a distance is as a density.
            bounds: lowest and highest corner of the box outside of which nothing is, world units.
            align_corners: the outermost texels' centres lie on the faces of the box, as
                nerf-from-image has it, and not half a texel inside.
        """
        super().__init__()
        self.planes: Tensor
        if isinstance(planes, nn.Parameter):
            self.planes = planes
        else:
            self.register_buffer("planes", planes)
        self.decoder, self.density = decoder, density
        self.bounds: Tensor
        self.register_buffer("bounds", checked_bounds(bounds))
        self.align_corners = align_corners

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """Density per world unit, 0 outside the box, and choices; directions do not matter."""
        inside, coordinates = box_coordinates(points, self.bounds)
        distance, logits = self._decoded(coordinates)
        density = torch.where(inside, self.density(distance), 0.0)
        return FieldOutput(density, logits.softmax(-1))

    def distance(self, points: Float[Tensor, "batch *points 3"]) -> Float[Tensor, " batch *points"]:
        """Signed distance in world units, negative inside; goes on beyond the box."""
        return self._decoded(box_coordinates(points, self.bounds)[1])[0]

    def _decoded(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        if self.align_corners:
            sides = coordinates.new_tensor([self.planes.shape[-1], self.planes.shape[-2]])
            if sides[0] != sides[1]:
                raise ValueError(f"align_corners wants square planes, got {self.planes.shape}")
            coordinates = coordinates * ((sides[0] - 1) / sides[0])
        return self.decoder(sample_triplane(self.planes, coordinates))


class PaletteField(nn.Module):
    """A field of choices, with the colours that are chosen among."""

    def __init__(self, field: Field, palette: Float[Tensor, "batch choices 3"]):
        """A palette for each scene.

        Args:
            field: its features are shares of the choices.
            palette: colours in [0, 1].
        """
        super().__init__()
        self.field = field
        self.palette: Tensor
        self.register_buffer("palette", palette)

    @property
    def bounds(self) -> Float[Tensor, "2 3"]:
        """Lowest and highest corner of the field's box, world units."""
        return self.field.bounds  # pyright: ignore[reportAttributeAccessIssue]  (fields of objects)

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """Density and colour."""
        density, choices = self.field(points, directions)
        return FieldOutput(density, mix(choices, self.palette))

    def distance(self, points: Float[Tensor, "batch *points 3"]) -> Float[Tensor, " batch *points"]:
        """Signed distance in world units."""
        return self.field.distance(points)  # pyright: ignore[reportAttributeAccessIssue]


def mix(
    choices: Float[Tensor, "batch *points k"], palette: Float[Tensor, "batch k channels"]
) -> Float[Tensor, "batch *points channels"]:
    """Choices times the colours of the palette, point by point."""
    return (choices.flatten(1, -2) @ palette).unflatten(1, choices.shape[1:-1])
