"""Means of a recipe's terms between two lines of metrics.jsonl."""

from typing import Any

import torch
from torch import Tensor

from unflat.training.distribution import gather_over_processes


class RunningMeans:
    """Sums of scalar terms, kept on their device until a line is due."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, terms: dict[str, Tensor]) -> None:
        """Take in the terms of one step; a step may leave some out."""
        for name, value in terms.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """Means since the last call, over all processes; of what any of them has."""
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for part in gather_over_processes(self.to_json()):
            for name, (value, count) in part.items():
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + count
        self._sums, self._counts = {}, {}
        return {name: value / counts[name] for name, value in sums.items()}

    def to_json(self) -> dict[str, tuple[float, int]]:
        """The sums as a checkpoint keeps them; float32 survives JSON unchanged."""
        if not self._sums:
            return {}
        values = torch.stack(list(self._sums.values())).tolist()  # one wait for the device
        return {
            name: (value, self._counts[name])
            for name, value in zip(self._sums, values, strict=True)
        }

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on from what ``to_json`` gave."""
        self._sums = {
            name: torch.tensor(value, device=device) for name, (value, _) in state.items()
        }
        self._counts = {name: count for name, (_, count) in state.items()}
