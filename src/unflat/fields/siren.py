"""Scenes held by a FiLM-SIREN: pi-GAN's density (arXiv 2012.00926), or a signed distance.

film = mapping(latents)                                              # unflat.nn.siren
field = SirenField(network, film, bounds)                            # pi-GAN
field = DistanceSirenField(network, film, LaplaceDensity(), bounds)  # a surface
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.fields.distance import LaplaceDensity
from unflat.fields.field import FieldOutput
from unflat.fields.voxels import box_coordinates, checked_bounds
from unflat.nn.siren import FilmSiren


class SirenField(nn.Module):
    """A network of sines in a box, its number as a density: relu(x), empty outside the box."""

    film: Tensor
    bounds: Tensor

    def __init__(
        self,
        network: FilmSiren,
        film: Float[Tensor, "batch layers 2 width"],
        bounds: Float[Tensor, "2 3"],
        *,
        noise: Callable[[tuple[int, ...]], Tensor] | None = None,
    ):
        """Scenes of one network.

        Args:
            network: sees the box as [-1, 1]^3.
            film: frequencies and phases of each scene, as of a `FilmMapping`.
            bounds: lowest and highest corner of the box, world units; pi-GAN's faces lie in a cube
                of side 0.24.
            noise: in training, what is added before the relu, so that places that are empty at the
                start can still learn: given the shape of one scene's points, numbers for all
                scenes, as ``lambda shape: std * randn_per_sample(batch, shape, generator)``. pi-GAN
                lets std fall from 1 to 0 over 5000 steps.
        """
        super().__init__()
        self.network = network
        _keep(self, film, bounds)
        self.noise = noise

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """Density per world unit, and colour; without directions as seen from the front."""
        inside, coordinates = box_coordinates(points, self.bounds)
        raw, color = _ask(self.network, self.film, coordinates, directions)
        if self.noise is not None:
            raw = raw + self.noise(tuple(raw.shape[1:])).to(raw)
        return FieldOutput(torch.where(inside, functional.relu(raw), 0.0), color)


class DistanceSirenField(nn.Module):
    """A network of sines in a box, its number as a signed distance, negative inside.

    The number counts in half sides of the box (of their mean, if they differ), as the points do
    that the network sees: its own gradient is then 1 where the distance's is.
    """

    film: Tensor
    bounds: Tensor

    def __init__(
        self,
        network: FilmSiren,
        film: Float[Tensor, "batch layers 2 width"],
        density: LaplaceDensity,
        bounds: Float[Tensor, "2 3"],
    ):
        """Scenes of one network.

        Args:
            network: sees the box as [-1, 1]^3.
            film: frequencies and phases of each scene, as of a `FilmMapping`.
            density: what a distance is as a density.
            bounds: lowest and highest corner of the box outside of which nothing is, world units.
        """
        super().__init__()
        self.network, self.density = network, density
        _keep(self, film, bounds)

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """Density per world unit, and colour; without directions as seen from the front."""
        inside, coordinates = box_coordinates(points, self.bounds)
        raw, color = _ask(self.network, self.film, coordinates, directions)
        return FieldOutput(torch.where(inside, self.density(raw * self._unit), 0.0), color)

    def distance(self, points: Float[Tensor, "batch *points 3"]) -> Float[Tensor, " batch *points"]:
        """Signed distance in world units, negative inside; goes on beyond the box."""
        coordinates = box_coordinates(points, self.bounds)[1]
        raw = self.network.raw(coordinates.flatten(1, -2), self.film)
        return raw.unflatten(1, points.shape[1:-1]) * self._unit

    @property
    def _unit(self) -> Tensor:
        """World units of half a side."""
        return 0.5 * (self.bounds[1] - self.bounds[0]).mean()


def _keep(field: nn.Module, film: Tensor, bounds: Tensor) -> None:
    """Both as tensors of the field; film is learned where it is a parameter."""
    if isinstance(film, nn.Parameter):
        field.register_parameter("film", film)
    else:
        field.register_buffer("film", film)
    field.register_buffer("bounds", checked_bounds(bounds))


def _ask(
    network: FilmSiren, film: Tensor, coordinates: Tensor, directions: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The network's answers at points of any shape."""
    shape = coordinates.shape[1:-1]
    flat = None if directions is None else directions.flatten(1, -2)
    raw, color = network(coordinates.flatten(1, -2), film, flat)
    return raw.unflatten(1, shape), color.unflatten(1, shape)
