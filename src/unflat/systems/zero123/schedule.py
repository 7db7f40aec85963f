"""How much noise a timestep means, and which timesteps are visited.

The noisy picture of a timestep t is sqrt(a_t) x + sqrt(1 - a_t) n, a_t the cumulated product of the
schedule (Ho et al., arXiv 2006.11239); t = 0 is nearly clean.

    schedule = NoiseSchedule.scaled_linear()
    timesteps(50, "leading")                   # 981, 961 ... 1
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Spacing = Literal["leading_drop", "leading", "trailing", "hourglass"]
"""How timesteps are placed; see `timesteps`."""
Prediction = Literal["noise", "clean"]
"""What a network says of a noisy picture: its noise, or the picture without it."""

TIMESTEPS = 1000
"""Of every schedule here."""
_FIRST, _LAST = 0.00085, 0.0120  # variances of Stable Diffusion's first and last step
_HOURGLASS = 0.7  # exponent; below 1 places timesteps densely at both ends


@dataclass(frozen=True)
class NoiseSchedule:
    """Cumulated signal variance of every timestep."""

    signal: Float[Tensor, " timesteps"]
    """a_t in [0, 1], float64, falling."""

    @classmethod
    def scaled_linear(cls) -> "NoiseSchedule":
        """Stable Diffusion's, which Zero-1-to-3 keeps: square roots of variances rise linearly."""
        roots = torch.linspace(_FIRST**0.5, _LAST**0.5, TIMESTEPS, dtype=torch.float64)
        return cls(torch.cumprod(1 - roots**2, dim=0))

    @classmethod
    def cosine(cls) -> "NoiseSchedule":
        """cos^2 down to no signal at all (Nichol and Dhariwal, arXiv 2102.09672, without clipping).

        Its last timestep is pure noise, of which a network can only say the picture.
        """
        share = (torch.arange(TIMESTEPS, dtype=torch.float64) + 1) / TIMESTEPS
        signal = torch.cos(0.5 * math.pi * share) ** 2
        signal[-1] = 0.0
        return cls(signal)

    def at(
        self, timestep: Int[Tensor, "*batch"], like: Tensor
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Weights of picture and noise: sqrt(a_t) and sqrt(1 - a_t).

        Args:
            timestep: in 0..999.
            like: whose device and precision the answers have.
        """
        signal = self.signal[timestep.to(self.signal.device)]
        return signal.sqrt().to(like), (1 - signal).sqrt().to(like)

    def add_noise(
        self,
        clean: Float[Tensor, "batch channels height width"],
        noise: Float[Tensor, "batch channels height width"],
        timestep: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch channels height width"]:
        """The noisy pictures of timesteps."""
        keep, add = (_as_column(value, clean) for value in self.at(timestep, clean))
        return keep * clean + add * noise

    def split(
        self,
        noisy: Float[Tensor, "batch channels height width"],
        said: Float[Tensor, "batch channels height width"],
        timestep: Int[Tensor, " batch"],
        prediction: Prediction,
    ) -> tuple[
        Float[Tensor, "batch channels height width"], Float[Tensor, "batch channels height width"]
    ]:
        """The picture and the noise that a noisy picture is made of, by what a network says."""
        keep, add = (_as_column(value, noisy) for value in self.at(timestep, noisy))
        if prediction == "noise":
            return (noisy - add * said) / keep, said
        return said, (noisy - keep * said) / add


def timesteps(steps: int, spacing: Spacing) -> Int[Tensor, " visited"]:
    """Timesteps to visit, the noisiest first.

    ``leading``: multiples of floor(1000 / steps) plus one, as ports of Zero-1-to-3 take them; at 75
    steps there are 77. ``leading_drop``: the same without the noisiest, which is what the authors'
    sampler does. ``trailing``: from 999 down in even strides (arXiv 2305.08891). ``hourglass``:
    from 999 to 0, dense at both ends.

    Args:
        steps: asked for, 1..1000; the leading kinds take at most 500.
        spacing: how they are placed.

    Raises:
        ValueError: no such number of steps can be placed.
    """
    most = TIMESTEPS // 2 if spacing in ("leading", "leading_drop") else TIMESTEPS
    least = 2 if spacing == "leading_drop" else 1
    if not least <= steps <= most:
        raise ValueError(f"steps is {steps}; {spacing} spacing takes {least} to {most}")
    if spacing == "trailing":
        places = TIMESTEPS - torch.arange(steps, dtype=torch.float64) * TIMESTEPS / steps
        return places.round().long() - 1
    if spacing == "hourglass":
        along = 1 - 2 * torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
        places = 0.5 + 0.5 * along.sign() * along.abs() ** _HOURGLASS
        return torch.unique(((TIMESTEPS - 1) * places).round().long()).flip(0)
    rising = torch.arange(0, TIMESTEPS, TIMESTEPS // steps) + 1
    return (rising[:-1] if spacing == "leading_drop" else rising).flip(0)


def _as_column(
    value: Float[Tensor, " batch"], like: Float[Tensor, "batch channels height width"]
) -> Tensor:
    """With as many axes as a batch of pictures."""
    return value.view(-1, *[1] * (like.ndim - 1))
