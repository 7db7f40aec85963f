"""A moving average of a network's weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unflat.training.schedule import ema_decay


class Ema:
    """Average of the parameters of ``networks``; buffers are followed, not averaged.

    average <- d average + (1 - d) weights, with d = min(decay, (1 + step) / (10 + step)).
    """

    def __init__(self, networks: nn.Module, decay: float) -> None:
        self.networks = networks
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in networks.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimizer step ``step`` (counted from 0)."""
        decay = ema_decay(step, self.decay)
        parameters = {name for name, _ in self.networks.named_parameters()}
        averages: list[Tensor] = []
        weights: list[Tensor] = []
        for name, value in self.networks.state_dict().items():
            if name in parameters and value.is_floating_point():
                averages.append(self.state[name])
                weights.append(value)
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]  (no public batched form)
            averages, weights, 1.0 - decay
        )

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over an average that was saved."""
        for name, value in self.state.items():
            value.copy_(state[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the networks hold the average and are in evaluation mode."""
        current = self.networks.state_dict()
        weights = {name: value.detach().clone() for name, value in current.items()}
        modes = [(module, module.training) for module in self.networks.modules()]
        self.networks.load_state_dict(self.state)
        self.networks.eval()
        try:
            yield
        finally:
            self.networks.load_state_dict(weights)
            for module, mode in modes:
                module.training = mode
