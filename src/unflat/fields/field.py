"""What a field is: something that can be asked for density and colour at points."""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


class FieldOutput(NamedTuple):
    """Answer of a field at some points."""

    density: Float[Tensor, " batch *points"]
    """At least 0, per unit of length in the space where lengths are measured (see ``warp``)."""
    features: Float[Tensor, "batch *points channels"]
    """Colour in [0, 1] where there are three channels, else features."""


@runtime_checkable
class Field(Protocol):
    """A batch of scenes, asked at world points.

    Optional abilities are declared by their presence: ``warp`` (:class:`Warped`), ``bounds``
    (:class:`Bounded`), ``inner_edges`` (:class:`Furnished`), ``distance`` (:class:`Distanced`).
    """

    def __call__(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """Density and features at world points; directions are unit vectors of travel."""
        ...


@runtime_checkable
class Warped(Protocol):
    """A field whose lengths are measured in another space than the world's."""

    def warp(self, points: Float[Tensor, "batch *points 3"]) -> Float[Tensor, "batch *points 3"]:
        """World points in the space where the density is per unit of length."""
        ...


@runtime_checkable
class Bounded(Protocol):
    """A field that is empty outside a box."""

    bounds: Float[Tensor, "2 3"]
    """Lowest and highest corner, world units."""


@runtime_checkable
class Distanced(Protocol):
    """A field that knows how far from its surface a point is."""

    def distance(self, points: Float[Tensor, "batch *points 3"]) -> Float[Tensor, " batch *points"]:
        """Signed distance in world units, negative inside."""
        ...


@runtime_checkable
class Furnished(Protocol):
    """A field with small things in it, which samples spread over whole rays could miss."""

    def inner_edges(
        self,
        origins: Float[Tensor, "batch rays 3"],
        directions: Float[Tensor, "batch rays 3"],
    ) -> Float[Tensor, "batch rays m"]:
        """Distances at which each ray is to be cut as well, world units; infinite for none."""
        ...
