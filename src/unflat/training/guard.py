"""The last good state of a run, kept in memory for the moment when a loss is not finite."""

import torch
from torch import Tensor, nn

from unflat.training.ema import Ema


class LastGood:
    """A copy of weights, average and optimizer at some step, to go back to."""

    def __init__(
        self, networks: nn.Module, ema: Ema | None, optimizer: torch.optim.Optimizer
    ) -> None:
        self.networks = networks
        self.ema = ema
        self.optimizer = optimizer
        self.step = -1

    def take(self, step: int) -> None:
        """Copy the state, which stands after ``step`` optimizer steps."""
        self.step = step
        self._weights = _copies(self.networks.state_dict())
        self._average = _copies(self.ema.state) if self.ema is not None else None
        self._moments = {
            parameter: _copies(state) for parameter, state in self.optimizer.state.items()
        }

    @torch.no_grad()
    def restore(self) -> int:
        """Put the copy back; the step it was taken at."""
        if self.step < 0:
            raise RuntimeError("restore() before the first take()")
        self.networks.load_state_dict(self._weights)
        if self.ema is not None and self._average is not None:
            self.ema.load(self._average)
        self.optimizer.state.clear()
        for parameter, state in self._moments.items():
            self.optimizer.state[parameter] = _copies(state)
        return self.step


def _copies(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
