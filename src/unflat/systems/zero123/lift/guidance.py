"""What a model of new views says against a picture: a loss for any renderer.

The picture is noised, the model says what noise it sees, and the difference to the noise that was
added is the picture's gradient. Neither a field nor a camera is known here::

    guidance = ScoreGuidance(model, reference, GuidanceConfig.sds())
    loss = guidance.loss(latents, poses, share=step / steps, generator=generator)
    loss.backward()

With D what the model takes for the clean picture, y the picture, n the noise and e what the model
takes for it, D = z - sigma e and z = y + sigma n, score Jacobian chaining's -(D - y) / sigma
(arXiv 2212.00774, eq. 14) is e - n, and score distillation's (DreamFusion, arXiv 2209.14988, eq. 3,
as later code weighs it) is (1 - a_t) (e - n): one method with two weights.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.model import Tensors, ViewModel, denoise
from unflat.systems.zero123.schedule import TIMESTEPS

Form = Literal["sjc", "sds"]
"""How a difference of noise is weighed: by 1, or by 1 - a_t."""


@dataclass(frozen=True, kw_only=True)
class GuidanceConfig:
    """Which noise is added, and what its difference counts."""

    form: Form = "sds"
    """See the module."""
    least: tuple[float, float] = (0.4, 0.2)
    """Smallest timestep as a share of 1000: in the beginning, and after ``annealed``."""
    most: tuple[float, float] = (0.85, 0.5)
    """Largest timestep, alike."""
    annealed: float = 1 / 3
    """Share of the steps over which both go from the first to the second value."""
    guidance_scale: float = 3.0
    """null + scale (told - null)."""

    def __post_init__(self):
        for low, high in zip(self.least, self.most, strict=True):
            if not 0 <= low <= high < 1:
                raise ValueError(f"need 0 <= least <= most < 1, got {self.least} and {self.most}")

    @classmethod
    def sjc(cls, guidance_scale: float = 100.0) -> "GuidanceConfig":
        """As published for Zero-1-to-3's 3drec: t uniform in 10..969, guidance 100."""
        return cls(
            form="sjc", least=(0.010, 0.010), most=(0.969, 0.969), guidance_scale=guidance_scale
        )

    @classmethod
    def sds(cls, guidance_scale: float = 3.0) -> "GuidanceConfig":
        """As threestudio's zero123: ranges sink over the first 200 of 600 steps, guidance 3."""
        return cls(guidance_scale=guidance_scale)

    def timesteps(self, share: float) -> tuple[int, int]:
        """Smallest and largest timestep.

        Args:
            share: of the steps that are done, [0, 1].
        """
        along = min(1.0, share / self.annealed) if self.annealed > 0 else 1.0
        low, high = (
            round(TIMESTEPS * (first + along * (last - first)))
            for first, last in (self.least, self.most)
        )
        return low, min(high, TIMESTEPS - 1)


class ScoreGuidance:
    """A model's opinion of pictures of one object, by where they were taken from."""

    def __init__(self, model: ViewModel, reference: Tensors, config: GuidanceConfig):
        """A model that has seen the object's picture.

        Args:
            model: any.
            reference: of one picture.
            config: noise and weights.
        """
        self.model, self.reference, self.config = model, reference, config

    def loss(
        self,
        latent: Float[Tensor, "batch channels height width"],
        pose: RelativePose,
        *,
        share: float,
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """A number whose gradient by the latents is the method's.

        It is the sum of g g / 2, g the gradient, written so that autograd finds g (DreamFusion's
        appendix); its size says how far the model disagrees.

        Args:
            latent: rendered, in the model's own space (`ViewModel.encode` of a picture).
            pose: of each picture from the reference.
            share: of the steps that are done, [0, 1].
            generator: on the CPU; draws timesteps and noise.
        """
        low, high = self.config.timesteps(share)
        timestep = torch.randint(low, high + 1, (len(latent),), generator=generator)
        noise = torch.randn(latent.shape, generator=generator, dtype=latent.dtype)
        gradient = self.gradient(
            latent.detach(), pose, timestep.to(latent.device), noise.to(latent.device)
        )
        target = latent.detach() - gradient
        return 0.5 * (latent - target).square().sum()

    @torch.no_grad()
    def gradient(
        self,
        latent: Float[Tensor, "batch channels height width"],
        pose: RelativePose,
        timestep: Int[Tensor, " batch"],
        noise: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, "batch channels height width"]:
        """The difference e - n, times 1 - a_t for score distillation.

        Args:
            latent: clean.
            pose: of each picture from the reference.
            timestep: of each, in 0..999.
            noise: standard normal, that is added.
        """
        schedule = self.model.schedule
        noisy = schedule.add_noise(latent, noise, timestep)
        condition = self.model.condition(self.reference, pose.to(latent))
        said = denoise(self.model, noisy, timestep, condition, self.config.guidance_scale)
        difference = said.noise.to(latent) - noise
        if self.config.form == "sjc":
            return difference
        _, add = schedule.at(timestep, latent)
        return add.square().view(-1, 1, 1, 1) * difference
