"""What a batch shows a view model that learns: clean pictures, references, cameras.

`FromPictures` has them encoded by the model as it learns. What never changes can be encoded once:
`unflat.systems.zero123.latents`.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.data import batch_camera
from unflat.geometry import Camera, mirrored_camera
from unflat.geometry.pose import orbit_coordinates
from unflat.systems.zero123.model import Tensors, ViewModel
from unflat.training.randomness import rand_per_sample


class Shown(NamedTuple):
    """A batch, each picture as a target and as a reference."""

    clean: Float[Tensor, "batch channels height width"]
    """In the space where the model denoises."""
    reference: Tensors
    elevation: Float[Tensor, " batch"]
    """Radians, how high each was taken."""
    camera: Camera


class Sheet(NamedTuple):
    """A batch to look at."""

    image: Float[Tensor, "batch 3 side side"]
    reference: Tensors
    camera: Camera


@runtime_checkable
class Showing(Protocol):
    """Where a recipe takes from what a batch shows."""

    def learned(self, batch: dict[str, Tensor], generator: torch.Generator) -> Shown:
        """To learn from; random numbers are drawn as `Recipe.step` says."""
        ...

    def sheet(self, batch: dict[str, Tensor]) -> Sheet:
        """To look at, as it is."""
        ...


class FromPictures:
    """Pictures, some objects mirrored, some in other colors, encoded by the model itself.

    Args:
        model: encodes.
        views: pictures in a row that show one object, and change together.
        mirror: whether to mirror half of the objects.
        recolor: share of objects whose red, green and blue change places.
    """

    def __init__(self, model: ViewModel, views: int, mirror: bool, recolor: float) -> None:
        self.model, self.views = model, views
        self.mirror, self.recolor = mirror, recolor

    def learned(self, batch: dict[str, Tensor], generator: torch.Generator) -> Shown:
        """See `Showing`."""
        image, opacity, camera = self._changed(batch, generator)
        elevation, _, _ = orbit_coordinates(camera.position)
        return Shown(
            self.model.encode(image, opacity),
            self.model.reference(image, opacity, elevation),
            elevation,
            camera,
        )

    def sheet(self, batch: dict[str, Tensor]) -> Sheet:
        """See `Showing`."""
        camera = batch_camera(batch)
        elevation, _, _ = orbit_coordinates(camera.position)
        image = batch["image"]
        return Sheet(image, self.model.reference(image, _mask(batch), elevation), camera)

    def _changed(
        self, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Camera]:
        """Pictures, opacity and cameras."""
        image, opacity, camera = batch["image"], _mask(batch), batch_camera(batch)
        # one draw for all pictures of an object: that of the first of them
        draws = rand_per_sample(batch, (3,), generator)
        first = torch.arange(len(image), device=image.device)
        draws = draws[first - first % self.views]
        if self.mirror:
            flips = draws[:, 0] < 0.5
            image = torch.where(flips[:, None, None, None], image.flip(-1), image)
            opacity = torch.where(flips[:, None, None], opacity.flip(-1), opacity)
            other = mirrored_camera(camera)
            camera = Camera(
                camera_to_world=torch.where(
                    flips[:, None, None], other.camera_to_world, camera.camera_to_world
                ),
                intrinsics=torch.where(flips[:, None], other.intrinsics, camera.intrinsics),
                kind=camera.kind,
            )
        orders = torch.tensor([[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
        chosen = orders.to(image.device)[(draws[:, 1] * len(orders)).long()]
        moved = torch.gather(image, 1, chosen[:, :, None, None].expand_as(image))
        is_moved = draws[:, 2] < self.recolor
        return torch.where(is_moved[:, None, None, None], moved, image), opacity, camera


def _mask(batch: dict[str, Tensor]) -> Tensor:
    return batch["mask"][:, 0]
