"""How our own small teacher learns to see depth: from rendered scenes, changed hard.

Photographs look unlike renders. Colors, hue, sharpness, noise, and which part of the picture is
seen are therefore changed at random before the network sees it; the disparity of what is left is
stretched to [0, 1] again. What is raised is the Laplace likelihood of the true disparity, so the
network also says how wrong it expects to be.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unflat.data.augment import blur, cut_windows, recolor, stretch, turn_hue
from unflat.nn.depth_net import DepthNet, laplace_loss
from unflat.training import decay_groups
from unflat.training.randomness import rand_per_sample, randn_per_sample

SYSTEM = "depth"
"""Name under which model files are known."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The network and how its pictures are changed."""

    widths: tuple[int, int, int] = (32, 64, 192)
    """Channels at half, quarter and eighth of the resolution."""
    depth: int = 3
    """Transformer blocks at the bottom."""
    resolution: int = 64
    """Side of the pictures it sees."""
    source: int = 96
    """Side of the pictures from which windows are cut while it learns."""
    least_share: float = 0.6
    """Smallest side of a window, as a share of the picture's."""
    color: float = 0.4
    """Largest relative change of brightness, contrast and saturation."""
    hue: float = 0.1
    """Largest turn of the colors, as a share of the circle."""
    blurred: float = 0.3
    """Share of pictures that are blurred."""
    noise: float = 0.04
    """Largest standard deviation of noise, in [0, 1] of color."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Config":
        """The configuration that ``dataclasses.asdict`` took apart; JSON knows no tuples."""
        return cls(**{**values, "widths": tuple(values["widths"])})


def tiny() -> Config:
    """For tests: learns something in seconds."""
    return Config(widths=(16, 24, 64), depth=1, resolution=32, source=40)


def build(config: Config) -> DepthNet:
    """The untrained network of a configuration."""
    return DepthNet(config.widths, config.depth, config.resolution)


class DepthRecipe:
    """The network with its training step."""

    def __init__(self, config: Config | None = None):
        self.config = config or Config()
        self.model = build(self.config).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] torch's stub lacks it
        self.networks: nn.Module = self.model

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights decay; biases, norms and positions do not."""
        return decay_groups(self.model)

    def step(
        self, batch: dict[str, Tensor], progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Likelihood of the disparity of changed windows; pictures without one count nothing."""
        image, disparity, has = self._changed(batch, generator)
        guess = self.model(image)
        cost = laplace_loss(guess, disparity).mean(dim=(1, 2, 3))
        loss = (cost * has).sum() / len(has)
        error = (guess.disparity - disparity).abs().mean(dim=(1, 2, 3)).detach()
        return {"loss": loss, "error": (error * has).sum() / has.sum().clamp_min(1)}

    @torch.no_grad()
    def sample(self, batch: dict[str, Tensor]) -> Float[Tensor, "3 height width"]:
        """Rows of pictures: input, disparity, true disparity."""
        side = self.config.resolution
        both = torch.cat([batch["image"][:8], batch["disparity"][:8]], dim=1)
        both = nn.functional.interpolate(both, (side, side), mode="area")
        seen = self.model(both[:, :3]).disparity.expand(-1, 3, -1, -1)
        rows = [both[:, :3], seen, both[:, 3:].expand(-1, 3, -1, -1)]
        return torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2).clamp(0, 1)

    def after_step(self, step: int) -> dict[str, float]:
        """Nothing to tell."""
        return {}

    def config_json(self) -> dict[str, Any]:
        """System and config."""
        return {"system": SYSTEM, "config": asdict(self.config)}

    def _changed(
        self, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Windows, their disparity, and which of them have one that says something."""
        config = self.config
        draws = rand_per_sample(batch, (10,), generator).to(batch["image"])
        both = torch.cat([batch["image"], batch["disparity"]], dim=1)
        cut = cut_windows(both, draws[:, :4], config.least_share, config.resolution)
        image, disparity = cut[:, :3], stretch(cut[:, 3:])
        has = batch["has_disparity"] & (disparity.amax(dim=(1, 2, 3)) > 0.5)
        image = recolor(image, draws[:, 4:7], config.color)
        image = turn_hue(image, draws[:, 7], config.hue)
        image = blur(image, draws[:, 8], config.blurred)
        noise = randn_per_sample(batch, tuple(image.shape[1:]), generator).to(image)
        image = image + config.noise * draws[:, 9, None, None, None] * noise
        return image.clamp(0, 1), disparity, has.to(image)
