"""What a model of new views is: one protocol for published weights and for our own.

::

    reference = model.reference(image, opacity)        # once for a picture
    condition = model.condition(reference, pose)       # once for a pose
    clean, noise = denoise(model, noisy, timestep, condition, guidance_scale=3.0)

A picture is denoised in a model's own space ("latent"): of an autoencoder for published weights, of
red, green, blue and opacity in [-1, 1] for the small ones.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.schedule import NoiseSchedule, Prediction


@dataclass(frozen=True)
class Tensors:
    """Tensors with a common leading axis, by names that only their model knows."""

    parts: dict[str, Tensor]

    def __len__(self) -> int:
        """Of the leading axis."""
        return len(next(iter(self.parts.values())))

    def __getitem__(self, index: slice | Tensor) -> "Tensors":
        """Some of the batch."""
        return Tensors({name: part[index] for name, part in self.parts.items()})

    def repeat(self, count: int) -> "Tensors":
        """Each of the batch so many times in a row."""
        return Tensors(
            {name: part.repeat_interleave(count, dim=0) for name, part in self.parts.items()}
        )

    @staticmethod
    def join(several: "list[Tensors]") -> "Tensors":
        """One batch after the other."""
        return Tensors(
            {name: torch.cat([each.parts[name] for each in several]) for name in several[0].parts}
        )


class Views(NamedTuple):
    """Pictures that a model made."""

    image: Float[Tensor, "batch 3 side side"]
    """On white, in [0, 1]."""
    opacity: Float[Tensor, "batch side side"] | None
    """Share of each pixel that the object covers; None if the model does not tell."""


class Split(NamedTuple):
    """What a noisy picture is made of, by a model."""

    clean: Float[Tensor, "batch channels height width"]
    noise: Float[Tensor, "batch channels height width"]


@runtime_checkable
class ViewModel(Protocol):
    """What makes pictures of an object from other sides out of one picture."""

    name: str
    """By which a person called it."""
    schedule: NoiseSchedule
    prediction: Prediction
    side: int
    """Of pictures, pixels."""
    latent_shape: tuple[int, int, int]
    """Channels, height and width of what is denoised."""
    foreground: float
    """Longer side of an object's box as a share of the picture, in what it learned from."""
    guidance_scale: float
    """What serves it best."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes; noisy pictures are kept in float32 all the same."""
        ...

    def reference(
        self,
        image: Float[Tensor, "batch 3 side side"],
        opacity: Float[Tensor, "batch side side"],
        elevation: Float[Tensor, " batch"] | None = None,
    ) -> Tensors:
        """All of pictures that does not depend on a pose.

        Args:
            image: one object on white, [0, 1].
            opacity: share of each pixel that the object covers, [0, 1].
            elevation: radians, how high each was taken; None if nobody knows.

        Raises:
            UserError: this model has to be told the elevation, and is not.
        """
        ...

    def condition(self, reference: Tensors, pose: RelativePose) -> Tensors:
        """What the network is told of pictures and poses.

        Args:
            reference: of one picture for all poses, or of one for each.
            pose: a batch, one axis.
        """
        ...

    def null(self, condition: Tensors) -> Tensors:
        """What it is told where guidance wants it to know nothing."""
        ...

    def predict(
        self,
        noisy: Float[Tensor, "batch channels height width"],
        timestep: Int[Tensor, " batch"],
        condition: Tensors,
    ) -> Float[Tensor, "batch channels height width"]:
        """What the network says: noise or clean, see `prediction`."""
        ...

    def encode(
        self,
        image: Float[Tensor, "batch 3 side side"],
        opacity: Float[Tensor, "batch side side"],
    ) -> Float[Tensor, "batch channels height width"]:
        """Pictures in the space where they are denoised; differentiable."""
        ...

    def decode(self, latent: Float[Tensor, "batch channels height width"]) -> Views:
        """Pictures out of it; differentiable, not clipped."""
        ...


def denoise(
    model: ViewModel,
    noisy: Float[Tensor, "batch channels height width"],
    timestep: Int[Tensor, " batch"],
    condition: Tensors,
    guidance_scale: float = 1.0,
) -> Split:
    """What noisy pictures are made of, said - null said being exaggerated by the guidance scale.

    said = null + scale (told - null), both in one batch (Ho and Salimans, arXiv 2207.12598). At a
    scale of 1 the null half is not computed.
    """
    if guidance_scale == 1.0:
        said = model.predict(noisy, timestep, condition)
    else:
        both = Tensors.join([condition, model.null(condition)])
        said, null = model.predict(
            torch.cat([noisy, noisy]), torch.cat([timestep, timestep]), both
        ).chunk(2)
        said = null + guidance_scale * (said - null)
    return Split(*model.schedule.split(noisy, said.to(noisy), timestep, model.prediction))
