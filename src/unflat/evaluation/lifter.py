"""What the task "lift" asks of a system: any system, a baseline, files, or a test's oracle."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from unflat.geometry.camera import Camera
from unflat.metrics import Surface


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of an object, and all that is told beside it."""

    name: str
    """Of the object in its data set, for methods that read files."""
    image: Float[Tensor, "3 height width"]
    """Object on white, [0, 1]."""
    mask: Float[Tensor, "height width"]
    """True matte of the object, [0, 1]."""
    camera: Camera
    """Of the picture, a single one in the object world."""
    hull_masks: Float[Tensor, "views height width"]
    """True mattes of several views; only for references that are named after seeing them."""
    hull_cameras: Camera
    """Of those views."""


@runtime_checkable
class Lifter(Protocol):
    """A system that makes a surface from one picture."""

    name: str
    """For the report: a file, a model's name, or a baseline's."""

    def describe(self) -> dict[str, object]:
        """What the report should keep: steps, file hash, preset ..."""
        ...

    def lift(self, picture: Picture, seed: int) -> Surface:
        """Triangles in the object world: y up, front +z, the object's box about the origin.

        Args:
            picture: of the object.
            seed: of whatever is random.
        """
        ...
