"""From noise to pictures, step by step.

DDIM (Song et al., arXiv 2010.02502) as Zero-1-to-3's authors take it, and DPM-Solver++ of second
order, multistep (Lu et al., arXiv 2211.01095), which needs fewer steps.

    for step in sample(denoiser, schedule, noise, timesteps(50, "leading"), Sampler()):
        step.latent, step.clean
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unflat.systems.zero123.model import Split
from unflat.systems.zero123.schedule import NoiseSchedule, Spacing

Method = Literal["ddim", "dpm++"]
Denoiser = Callable[[Tensor, Tensor], Split]
"""Of noisy pictures and a timestep for each of them."""
Noise = Callable[[int], Float[Tensor, "batch channels height width"]]
"""Fresh noise for a step, which is counted from 0."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How pictures are denoised."""

    method: Method = "dpm++"
    """ddim: as published; dpm++: second order, as good in fewer steps."""
    steps: int = 20
    """Asked for; some spacings visit a few more or less."""
    spacing: Spacing = "trailing"
    """Where timesteps lie; the authors' sampler is leading_drop."""
    eta: float = 0.0
    """Fresh noise of each step, 0 (none) to 1 (as much as DDPM; published); ddim only."""
    guidance_scale: float = 3.0
    """How much what the picture tells is exaggerated; 1 is not at all."""


class Step(NamedTuple):
    """Where a sampling stands."""

    number: int
    """Of steps done, from 1."""
    latent: Float[Tensor, "batch channels height width"]
    """What is left to denoise."""
    clean: Float[Tensor, "batch channels height width"]
    """What the denoiser now takes the pictures for."""


def sample(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    noise: Float[Tensor, "batch channels height width"],
    visited: Int[Tensor, " visited"],
    sampler: Sampler,
    fresh: Noise | None = None,
) -> Iterator[Step]:
    """All steps; the last one's latent is the result.

    Args:
        denoiser: tells picture and noise of noisy pictures.
        schedule: of noise.
        noise: to begin with, of variance 1.
        visited: timesteps, the noisiest first.
        sampler: method and eta; the rest of it is not looked at.
        fresh: noise for each step; wanted if eta is above 0.

    Raises:
        ValueError: eta without fresh noise.
    """
    if sampler.method == "dpm++":
        yield from _dpm(denoiser, schedule, noise, visited)
        return
    if sampler.eta and fresh is None:
        raise ValueError("eta above 0 needs fresh noise")
    x = noise
    for number, timestep in enumerate(visited.tolist()):
        told = denoiser(x, torch.full((len(x),), timestep, device=x.device))
        last = number + 1 == len(visited)
        # the authors' "alpha before the first" is that of t = 0, not 1
        before = 0 if last else int(visited[number + 1])
        signal, signal_before = float(schedule.signal[timestep]), float(schedule.signal[before])
        spread = 0.0
        if sampler.eta:
            spread = (
                sampler.eta
                * (((1 - signal_before) / (1 - signal)) * (1 - signal / signal_before)) ** 0.5
            )
        x = signal_before**0.5 * told.clean + (1 - signal_before - spread**2) ** 0.5 * told.noise
        if sampler.eta and fresh is not None:
            x = x + spread * fresh(number)
        yield Step(number + 1, x, told.clean)


def _dpm(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    noise: Float[Tensor, "batch channels height width"],
    visited: Int[Tensor, " visited"],
) -> Iterator[Step]:
    """DPM-Solver++(2M), algorithm 2 of arXiv 2211.01095; the last step is of first order.

    It ends without noise: the last step gives the picture the denoiser says, as diffusers'
    ``final_sigmas_type="zero"`` does.
    """
    x, former, former_stride = noise, None, 0.0
    for number, timestep in enumerate(visited.tolist()):
        clean = denoiser(x, torch.full((len(x),), timestep, device=x.device)).clean
        if number + 1 == len(visited):
            yield Step(number + 1, clean, clean)
            return
        keep, add = _weights(schedule, timestep)
        next_keep, next_add = _weights(schedule, int(visited[number + 1]))
        # strides are of the logarithm of signal over noise; out of pure noise they are infinite
        stride = _stride(keep, add, next_keep, next_add)
        towards = clean
        if former is not None and 0 < former_stride < float("inf"):
            towards = clean + 0.5 * stride / former_stride * (clean - former)
        shrink = keep / add * next_add / next_keep  # exp(-stride)
        x = next_add / add * x + next_keep * (1 - shrink) * towards
        former, former_stride = clean, stride
        yield Step(number + 1, x, clean)


def _weights(schedule: NoiseSchedule, timestep: int) -> tuple[float, float]:
    """Of picture and noise."""
    signal = float(schedule.signal[timestep])
    return signal**0.5, (1 - signal) ** 0.5


def _stride(keep: float, add: float, next_keep: float, next_add: float) -> float:
    """How far the logarithm of signal over noise goes."""
    if keep == 0.0:
        return math.inf
    return math.log(next_keep / next_add) - math.log(keep / add)
