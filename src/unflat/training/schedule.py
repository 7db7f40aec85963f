"""Learning rate and averaging over the course of a run."""

import math
from typing import Literal


def run_progress(
    step: int, steps: int, elapsed: float = 0.0, max_seconds: float | None = None
) -> float:
    """Share of the run that is done, in [0, 1]: by steps or by time, whichever is further."""
    done = step / steps
    if max_seconds is not None:
        done = max(done, elapsed / max_seconds)
    return min(done, 1.0)


def lr_factor(
    step: int,
    progress: float,
    *,
    warmup_steps: int,
    schedule: Literal["cosine", "constant"] = "cosine",
    final_fraction: float = 0.0,
) -> float:
    """Learning rate as a share of its peak, in (0, 1].

    min(1, (step + 1) / warmup_steps) x (f + (1 - f) (1 + cos(pi progress)) / 2), the second
    factor being 1 for ``constant``.
    """
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps > 0 else 1.0
    if schedule == "constant":
        return warmup
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    return warmup * (final_fraction + (1.0 - final_fraction) * cosine)


def ema_decay(step: int, decay: float) -> float:
    """Decay of the average at a step counted from 0: min(decay, (1 + step) / (10 + step))."""
    return min(decay, (1 + step) / (10 + step))
