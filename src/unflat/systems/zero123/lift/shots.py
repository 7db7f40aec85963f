"""Pictures of one object by known cameras, and how much each is believed."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.camera import Camera
from unflat.geometry.hull import agreement

_AGREES = 0.03  # how much less than the best a view's agreement may be at no cost
_WHITE = 0.125  # difference from white at which a pixel is surely covered
_DISAGREES = 0.10  # what divides its weight by e beyond that


@dataclass(frozen=True, kw_only=True)
class Shots:
    """Pictures of one object by known cameras, the first being the picture that was given."""

    image: Float[Tensor, "views 3 side side"]
    """On white, [0, 1]."""
    opacity: Float[Tensor, "views side side"]
    """Share of each pixel that the object covers, [0, 1]."""
    cameras: Camera
    """Object world."""
    weight: Float[Tensor, " views"]
    """How much each is believed, at least 0."""

    @property
    def side(self) -> int:
        """Pixels."""
        return self.image.shape[-1]

    @property
    def premultiplied(self) -> Float[Tensor, "views 3 side side"]:
        """Colour times opacity, without the white."""
        return self.image - (1 - self.opacity)[:, None]


def batch_of(camera: Camera) -> Camera:
    """A single camera as a batch of one."""
    return Camera(
        camera_to_world=camera.camera_to_world[None],
        intrinsics=camera.intrinsics[None],
        kind=camera.kind,
    )


def believed(shots: Shots, first_weight: float) -> Shots:
    """Shots weighed by the agreement of their silhouettes; the first is beyond doubt."""
    scores = agreement(shots.opacity, shots.cameras)[1:]
    doubt = (scores.max() - _AGREES - scores).clamp_min(0)
    weight = torch.exp(-doubt / _DISAGREES)
    return replace(shots, weight=torch.cat([weight.new_tensor([first_weight]), weight]))


def masks_of_white(image: Float[Tensor, "views 3 side side"]) -> Float[Tensor, "views side side"]:
    """Mattes of objects on white that nobody told the opacity of.

    The darkest channel's difference from white, up to 1/8, is how much of a pixel is covered; what
    an outline encloses belongs to the object, white or not.

    Args:
        image: in [0, 1].
    """
    from scipy.ndimage import binary_fill_holes

    matte = ((1 - image.amin(1)) / _WHITE).clamp(0, 1)
    for view in range(len(matte)):
        filled = binary_fill_holes((matte[view] > 0.5).cpu().numpy())
        matte[view] = torch.maximum(matte[view], torch.as_tensor(filled).to(matte))
    return matte
