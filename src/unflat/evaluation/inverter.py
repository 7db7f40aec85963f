"""What the inversion task asks of a system: any system, a baseline, or a test's oracle."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from unflat.geometry.camera import Camera


@runtime_checkable
class Inversion(Protocol):
    """An object that a system found behind one picture."""

    @property
    def camera(self) -> Camera | None:
        """Estimated camera of the picture, a single one in the object world; None if not found."""
        ...

    def render(
        self, camera: Camera, height: int, width: int
    ) -> tuple[Float[Tensor, "views 3 height width"], Float[Tensor, "views height width"] | None]:
        """The object on white, in [0, 1], and its matte, if the system has one.

        Args:
            camera: one or several views (a batch), in the object world.
            height: pixels.
            width: pixels.
        """
        ...


@runtime_checkable
class Inverter(Protocol):
    """A system that finds an object and its camera from one picture."""

    name: str
    """For the report: a file, a model's name, or a baseline's."""
    has_pose: bool
    """Whether it estimates cameras; one that is not found then counts as a miss."""
    has_focal: bool
    """Whether it estimates focal lengths, instead of being told or assuming one."""

    def describe(self) -> dict[str, object]:
        """What the report should keep: steps, file hash, preset ..."""
        ...

    def invert(
        self,
        image: Float[Tensor, "3 height width"],
        mask: Float[Tensor, "height width"] | None,
        seed: int,
    ) -> Inversion:
        """The object of one picture.

        Args:
            image: object on white, [0, 1].
            mask: true matte of the object, as published protocols give it; None where the set
                has none.
            seed: of whatever is random.
        """
        ...
