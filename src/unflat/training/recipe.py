"""What a training run needs, and nothing about how it is run."""

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn


@runtime_checkable
class Recipe(Protocol):
    """Networks, what is minimised, and a picture to look at.

    All state that must survive a restart lives in ``networks``, as parameters or buffers.
    """

    networks: nn.Module
    """Everything that is saved; the loop averages it (EMA)."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for AdamW: ``params``, and optionally ``lr_scale`` and ``weight_decay``."""
        ...

    def step(
        self, batch: dict[str, Tensor], progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Scalar terms; ``loss``, a mean over the batch, is what is minimised.

        Args:
            batch: from the batch source, with ``position`` and ``batch_size`` added by the loop
                (see ``unflat.training.randomness``).
            progress: share of the run that is done, in [0, 1].
            generator: the same on every process; on the device of the batch. All random numbers
                come from it, by ``rand_per_sample`` and ``randn_per_sample`` where samples
                differ.
        """
        ...

    def sample(self, batch: dict[str, Tensor]) -> Float[Tensor, "3 height width"]:
        """A sheet of pictures in [0, 1]; the averaged weights are in ``networks`` meanwhile."""
        ...

    def after_step(self, step: int) -> dict[str, float]:
        """Figures to log; called after each optimizer step.

        May change ``networks`` (codebook restart), but equally on every process: sums over the
        batch go through ``torch.distributed`` first.
        """
        ...

    def config_json(self) -> dict[str, Any]:
        """``{"system": name, "config": {...}}`` from which the networks can be built again."""
        ...


@runtime_checkable
class Paced(Protocol):
    """A recipe whose parts learn at different rates; an optional ability."""

    def lr_factor(self, progress: float) -> float:
        """What the learning rate is multiplied by, at a share of the run; above 0."""
        ...


def decay_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Groups for AdamW: matrices and kernels decay; biases, norms and positions do not."""
    decayed, free = [], []
    for name, parameter in network.named_parameters():
        (free if parameter.ndim < 2 or "positions" in name else decayed).append(parameter)
    return [{"params": decayed}, {"params": free, "weight_decay": 0.0}]


@runtime_checkable
class BatchSource(Protocol):
    """Batches as a pure function of the step, so that a run can go on where it stopped."""

    def batch(self, step: int) -> dict[str, Tensor]:
        """This process's share of the batch of a step: a contiguous slice of the global batch."""
        ...
