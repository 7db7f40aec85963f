"""What every backend of volume rendering does: march rays through a field.

A backend is asked whether it can (`refuses`), then to do it (`march`). The plain torch reference
takes every field; fused backends take the fields they know and give the same picture.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from unflat.fields.field import Field, FieldOutput
from unflat.rendering.occupancy import OccupancyGrid


class Rays(NamedTuple):
    """Straight lines, cut into intervals; the same number in every scene of the batch."""

    origins: Float[Tensor, "batch rays 3"]
    """World units."""
    directions: Float[Tensor, "batch rays 3"]
    """Unit length."""
    edges: Float[Tensor, "batch rays m"]
    """Distances along the ray, n + 1 for n intervals, never decreasing, world units."""
    lengths: Float[Tensor, "batch rays n"] | None = None
    """Of the intervals, in the space where the field's density is per unit of length; None:
    straight lines between the (warped) edges."""


@dataclass(frozen=True, kw_only=True)
class Marching:
    """How light is followed along rays."""

    opaque_last: bool = True
    """The last interval takes all light that is left."""
    least_light: float = 0.0
    """Transmittance below which a ray may end early; what it still carries is lost."""
    block: int = 8
    """Intervals between two looks at the light that is left."""
    occupancy: OccupancyGrid | None = None
    """Where matter may be: the density is 0 elsewhere and the field is not asked, but for the last
    point of a ray whose last interval takes what light is left."""


class Marched(NamedTuple):
    """What rays bring back."""

    features: Float[Tensor, "batch rays channels"]
    """Sum of weights times the field's features."""
    weights: Float[Tensor, "batch rays n"]
    """Share of light that ends in each interval; 0 where a ray had ended."""


@runtime_checkable
class Backend(Protocol):
    """A way to march rays.

    Every backend gives gradients to whatever learned tensors the field is made of and, where a
    ray's origin or direction asks for them, to these; never to edges.
    """

    name: str

    def refuses(self, field: Field, rays: Rays) -> str | None:
        """Why it cannot march this field along these rays, as half a sentence; None if it can."""
        ...

    def pays(self, field: Field, rays: Rays) -> bool:
        """Whether it is quicker than the reference, counting what must be compiled first."""
        ...

    def march(self, field: Field, rays: Rays, how: Marching) -> Marched:
        """Light along the rays; only of what is not refused."""
        ...

    def pays_to_ask(self, field: Field, points: Float[Tensor, "batch *points 3"]) -> bool:
        """The same for asking at points."""
        ...

    def ask(self, field: Field, points: Float[Tensor, "batch *points 3"]) -> FieldOutput | None:
        """The field's answer at points, without gradients; None if it has no quicker way."""
        ...
