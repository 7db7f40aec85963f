"""A recipe small enough for tests: regression of a smooth function, with noise and dropout."""

from typing import Any

import torch
from torch import Tensor, nn

from unflat.training import randn_per_sample


class TinyRecipe:
    def __init__(self, seed: int = 0, noise: float = 0.05, dropout: float = 0.0) -> None:
        torch.manual_seed(seed)
        self.networks = nn.Sequential(
            nn.Linear(2, 32),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(32, 32),
            nn.Tanh(),
            nn.Linear(32, 1),
        )
        self.networks.register_buffer("seen", torch.zeros(()))
        self.noise = noise

    def parameter_groups(self) -> list[dict[str, Any]]:
        first = list(self.networks[0].parameters())
        rest = [p for layer in self.networks[1:] for p in layer.parameters()]
        return [{"params": first, "lr_scale": 0.5}, {"params": rest}]

    def step(
        self, batch: dict[str, Tensor], progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        jitter = self.noise * randn_per_sample(batch, (2,), generator)
        error = (self.networks(batch["x"] + jitter) - batch["y"]).square().mean()
        return {"loss": error * batch.get("scale", torch.tensor(1.0)).mean(), "error": error}

    def sample(self, batch: dict[str, Tensor]) -> Tensor:
        row = self.networks(batch["x"]).sigmoid().reshape(1, 1, -1)
        return row.expand(3, 4, -1)

    def after_step(self, step: int) -> dict[str, float]:
        self.networks.get_buffer("seen").add_(1)
        return {"seen": float(self.networks.get_buffer("seen"))}

    def config_json(self) -> dict[str, Any]:
        return {"system": "tiny-regression", "config": {"noise": self.noise}}


class TinyBatches:
    """y = sin(3 x0) x1; contiguous slices of the global batch."""

    def __init__(
        self, size: int = 16, rank: int = 0, world_size: int = 1, shuffled: bool = False
    ) -> None:
        self.size, self.rank, self.world_size, self.shuffled = size, rank, world_size, shuffled

    def batch(self, step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1000 + step)
        x = torch.rand((self.size, 2), generator=generator) * 2 - 1
        y = (torch.sin(3 * x[:, :1]) * x[:, 1:]).clone()
        if self.shuffled:
            y = y[torch.randperm(self.size, generator=generator)]
        share = self.size // self.world_size
        piece = slice(self.rank * share, (self.rank + 1) * share)
        return {"x": x[piece], "y": y[piece]}
