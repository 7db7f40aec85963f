"""What the task "views" asks of a system: any system, a baseline, or a test's oracle."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.camera import Camera


@runtime_checkable
class ViewMaker(Protocol):
    """A system that makes pictures of an object from other sides."""

    name: str
    """For the report: a file, a model's name, or a baseline's."""
    is_random: bool
    """Whether another seed makes other pictures."""

    def describe(self) -> dict[str, object]:
        """What the report should keep: steps, file hash, preset ..."""
        ...

    def make(
        self,
        image: Float[Tensor, "3 height width"],
        mask: Float[Tensor, "height width"],
        reference: Camera,
        cameras: Camera,
        seed: int,
    ) -> Float[Tensor, "views 3 height width"]:
        """The object on white, in [0, 1], as the cameras see it.

        Args:
            image: object on white, [0, 1].
            mask: true matte of the object, [0, 1]; ones where the set has none.
            reference: camera of the picture, a single one in the object world.
            cameras: of the pictures to make, a batch.
            seed: of whatever is random.
        """
        ...


def turned_deg(reference: Camera, cameras: Camera) -> Float[Tensor, " views"]:
    """Degrees between the optical axes of one camera and of each of the others, in [0, 180].

    For cameras that look at one point this is the angle between the sides they see it from.
    """
    forward = cameras.forward.double()
    one = reference.forward.double().expand_as(forward)
    across = torch.linalg.cross(one, forward).norm(dim=-1)
    return torch.rad2deg(torch.atan2(across, (one * forward).sum(dim=-1))).to(
        cameras.intrinsics.dtype
    )


def as_batch(camera: Camera) -> Camera:
    """A single camera as a batch of one."""
    return Camera(
        camera_to_world=camera.camera_to_world[None],
        intrinsics=camera.intrinsics[None],
        kind=camera.kind,
    )
