"""How a generator and a critic play: what the critic sees, is told, and how strict it is."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unflat.geometry import Camera, to_eg3d
from unflat.nn.blur import start_blur
from unflat.systems.gan.generator import Made

Sees = Literal["rgb", "rgba", "dual"]


@dataclass(frozen=True, kw_only=True)
class Game:
    """The adversarial part of an objective; the non-saturating logistic game with R1."""

    sees: Sees = "rgb"
    """What a critic sees: the picture; the picture and the object's mask; or the picture and the
    rendered one before the 2D network, enlarged (EG3D's dual discrimination)."""
    is_told_camera: bool = True
    """Whether the critic judges given the camera (EG3D's 25 numbers)."""
    r1_gamma: float = 1.0
    """Weight of R1: (gamma / 2) |d logit / d picture|^2."""
    r1_every: int = 16
    """Steps between two in which R1 is computed, then so many times as strong."""
    pose_weight: float = 0.0
    """Of the squared error of the angles that the critic reads off made pictures (pi-GAN: 15)."""
    swap: float = 1.0
    """Share of made pictures whose generator is told another camera than it is seen from, at the
    end; it is 1 at the start (EG3D). Without effect on generators that are told none."""
    swap_share: float = 0.1
    """Of the adversarial part of the run, in which that share comes down from 1."""
    blur: float = 0.0
    """Pixels of blur of real pictures (and of made ones, where it is a dual critic) at first, in
    pixels of a picture 128 wide."""
    blur_share: float = 0.05
    """Of the adversarial part of the run, in which the blur goes away."""
    top_share: float = 1.0
    """Least share of made pictures, the best, that teach the generator (pi-GAN: 0.6)."""
    fooling: float = 1.0
    """Weight of the critic's word for the generator."""
    ramp: float = 0.0
    """Share of the adversarial part of the run in which the critic's word grows to its weight, so
    that a generator that knows something is not led astray by a critic that knows nothing yet."""
    critic_lr: float = 0.8
    """Learning rate of the critic as a share of the generator's."""
    density_noise: float = 0.0
    """Standard deviation of what is added to raw densities at first, for fields that take it."""
    noise_share: float = 0.05
    """Of the adversarial part of the run, in which that goes away."""
    growth: tuple[tuple[float, int], ...] = ()
    """From which share of the adversarial part on pictures have which side; empty: always that of
    the data. Only for critics that grow along."""
    fade: float = 0.1
    """Share of the adversarial part in which a new side is faded in."""
    augment: float = 0.0
    """Largest probability with which pictures are turned, scaled and moved together with their
    cameras, where the critic is too sure of real ones; 0 never. For objects before one colour."""

    def __post_init__(self) -> None:
        if not 0 <= self.augment <= 1:
            raise ValueError(f"augment is {self.augment}; it must be between 0 and 1")
        if self.augment and self.pose_weight:
            raise ValueError("augment turns pictures, which no pose that a critic tells describes")

    def swap_probability(self, progress: float) -> float:
        """Share of swapped cameras, at a share of the adversarial part of the run."""
        return 1 + (self.swap - 1) * min(1.0, progress / self.swap_share)

    def noise_at(self, progress: float) -> float:
        """Standard deviation of the densities' noise, at a share of the adversarial part."""
        return self.density_noise * max(0.0, 1 - progress / self.noise_share)

    def side_at(self, progress: float, side: int) -> tuple[int, float]:
        """Side of the pictures, and how far it is faded in, at a share of the adversarial part.

        Args:
            progress: that share.
            side: of the data's pictures.
        """
        if not self.growth:
            return side, 1.0
        number = max(i for i, (start, _) in enumerate(self.growth) if start <= progress)
        start, now = self.growth[number]
        return now, min(1.0, (progress - start) / self.fade) if number else 1.0

    def fooling_at(self, progress: float) -> float:
        """Weight of what the critic says, at a share of the adversarial part of the run."""
        grown = min(1.0, progress / self.ramp) if self.ramp else 1.0
        return self.fooling * grown

    def blur_sigma(self, progress: float, side: int) -> float:
        """Pixels of blur, at a share of the adversarial part of the run."""
        return self.blur * side / 128 * max(0.0, 1 - progress / self.blur_share)


def shown_made(made: Made, sees: Sees) -> Float[Tensor, "batch channels side side"]:
    """What the critic sees of made pictures; -1 to 1 for colours, [0, 1] for a mask."""
    image = 2 * made.image - 1
    if sees == "rgba":
        return torch.cat([image, made.opacity], dim=1)
    if sees == "dual":
        return torch.cat([image, _resized(2 * made.raw - 1, made.image.shape[-1])], dim=1)
    return image


def shown_real(
    image: Float[Tensor, "batch 3 side side"],
    mask: Float[Tensor, "batch 1 side side"] | None,
    sees: Sees,
    raw_side: int,
) -> Float[Tensor, "batch channels side side"]:
    """The same of real pictures.

    Args:
        image: in [0, 1].
        mask: share of each pixel that the object covers.
        sees: see `Game`.
        raw_side: of rendered pictures before a 2D network.

    Raises:
        ValueError: the critic sees masks, and there are none.
    """
    shown = 2 * image - 1
    if sees == "rgba":
        if mask is None:
            raise ValueError("the critic sees masks, but the batch has none")
        return torch.cat([shown, mask], dim=1)
    if sees == "dual":
        small = _resized(shown, raw_side)
        return torch.cat([shown, _resized(small, image.shape[-1])], dim=1)
    return shown


def blurred(
    shown: Float[Tensor, "batch channels side side"], sees: Sees, sigma: float, background: float
) -> Float[Tensor, "batch channels side side"]:
    """What a critic sees, softened as at the start of a run; a mask stays one.

    Args:
        shown: as `shown_real` gives it.
        sees: see `Game`.
        sigma: pixels.
        background: grey value beyond the border, in [0, 1].
    """
    colors = shown.shape[1] - (sees == "rgba")
    soft = start_blur(shown[:, :colors], sigma, outside=2 * background - 1)
    return (
        torch.cat([soft, start_blur(shown[:, colors:], sigma)], dim=1) if sees == "rgba" else soft
    )


def camera_label(camera: Camera) -> Float[Tensor, "batch 25"]:
    """The camera as critics and mappings are told it: EG3D's 25 numbers.

    An orthographic camera is told in the same places, its focal lengths per world unit.
    """
    return to_eg3d(replace(camera, kind="perspective"))


def camera_angles(camera: Camera) -> Float[Tensor, "batch 2"]:
    """Elevation and azimuth in radians of cameras that look at the origin: what pi-GAN's tells."""
    x, y, z = camera.position.unbind(-1)
    flat = torch.sqrt(x.square() + z.square())
    return torch.stack([torch.atan2(y, flat), torch.atan2(x, z)], dim=-1)


def swapped(
    label: Float[Tensor, "batch numbers"], probability: float, draws: Float[Tensor, " batch"]
) -> Float[Tensor, "batch numbers"]:
    """Labels, some of them another picture's: so that a form cannot depend on its camera alone.

    Args:
        label: of each picture.
        probability: of being swapped.
        draws: in [0, 1), one for each.
    """
    return torch.where((draws < probability)[:, None], label.roll(1, 0), label)


def _resized(images: Tensor, side: int) -> Tensor:
    if images.shape[-1] == side:
        return images
    return functional.interpolate(
        images, (side, side), mode="bilinear", align_corners=False, antialias=True
    )


def power_of_two(side: int) -> bool:
    """Whether a side is one that critics take: 8, 16, 32, ..."""
    return side >= 8 and math.log2(side).is_integer()
