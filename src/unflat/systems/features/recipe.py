"""How the feature network learns: to recognise pictures, name them, and see their depth.

Three tasks share the maps of `unflat.nn.feature_net.FeatureNet`:

- two windows of a picture are to be found among those of all others (SimCLR, arXiv 2002.05709,
  NT-Xent), with windows and mild color changes only: a picture that was blurred, noised or
  compressed must *not* look the same, so none of that is among the changes;
- the class, where there is one;
- the disparity, where there is one, so that features know near from far.

Nothing but the trunk is kept.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.data.augment import cut_windows, recolor
from unflat.nn.feature_net import FeatureNet
from unflat.training.randomness import rand_per_sample

SYSTEM = "features"
"""Name under which model files are known."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The network and what it learns from."""

    widths: tuple[int, ...] = (24, 32, 64, 128, 160)
    """Channels of each stage."""
    classes: int = 0
    """Names that are told apart; 0 leaves that task out."""
    resolution: int = 128
    """Side of the pictures from which windows are cut."""
    window: int = 64
    """Side of a window as the network sees it while learning."""
    least_share: float = 0.4
    """Smallest side of a window, as a share of the picture's."""
    color: float = 0.2
    """Largest relative change of brightness, contrast and saturation of a window."""
    temperature: float = 0.2
    """Of the softmax that finds a window's partner."""
    class_weight: float = 1.0
    """Of the cross-entropy of classes, label smoothing 0.1."""
    depth_weight: float = 4.0
    """Of the mean absolute error of disparity in [0, 1]."""


class _Networks(nn.Module):
    """The trunk, and the heads that only learning needs."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.trunk = FeatureNet(config.widths)
        last = config.widths[-1]
        self.project = nn.Sequential(nn.Linear(last, last), nn.ReLU(), nn.Linear(last, 96))
        self.classify = nn.Linear(last, config.classes) if config.classes else None
        self.depth = nn.Conv2d(sum(config.widths[-3:]), 1, 1)


@dataclass
class FeatureRecipe:
    """Networks and the training step; keeps `unflat.training.Recipe`."""

    config: Config
    networks: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.model = _Networks(self.config).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] torch's stub lacks it
        self.networks = self.model

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One group."""
        return [{"params": list(self.networks.parameters())}]

    def step(
        self, batch: dict[str, Tensor], progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """``loss`` and its terms; see the module's text."""
        config = self.config
        first = self._windows(batch, generator)
        second = self._windows(batch, generator)
        images = torch.cat([first[0], second[0]])
        maps = self.model.trunk.maps(images.contiguous(memory_format=torch.channels_last))
        top = maps[-1].mean(dim=(2, 3))
        instance = nt_xent(self.model.project(top), config.temperature)
        terms = {"instance": instance}
        loss = instance
        if self.model.classify is not None:
            labels = torch.cat([batch["label"], batch["label"]])
            named = labels >= 0
            errors = functional.cross_entropy(
                self.model.classify(top), labels.clamp_min(0), reduction="none", label_smoothing=0.1
            )
            terms["class"] = (errors * named).sum() / named.sum().clamp_min(1)
            loss = loss + config.class_weight * terms["class"]
        disparity = torch.cat([first[1], second[1]])
        has = torch.cat([batch["has_disparity"], batch["has_disparity"]])
        errors = (self._disparity(maps) - _reduced(disparity, maps[2])).abs().mean(dim=(1, 2))
        terms["depth"] = (errors * has).sum() / has.sum().clamp_min(1)
        return {"loss": loss + config.depth_weight * terms["depth"], **terms}

    def sample(self, batch: dict[str, Tensor]) -> Float[Tensor, "3 height width"]:
        """Windows above the disparity that their features tell."""
        images = batch["image"][:8]
        images = functional.interpolate(images, size=(self.config.window,) * 2, mode="area")
        with torch.no_grad():
            told = self._disparity(self.model.trunk.maps(images))[:, None].clamp(0, 1)
        told = functional.interpolate(told, size=images.shape[-2:]).expand(-1, 3, -1, -1)
        return torch.cat([torch.cat(list(images), 2), torch.cat(list(told), 2)], dim=1)

    def after_step(self, step: int) -> dict[str, float]:
        """Nothing to tell."""
        return {}

    def config_json(self) -> dict[str, Any]:
        """System and config."""
        return {"system": SYSTEM, "config": asdict(self.config)}

    def _disparity(self, maps: list[Tensor]) -> Float[Tensor, "batch height width"]:
        """From the three coarsest stages, at a quarter of the resolution."""
        size = maps[2].shape[-2:]
        large = [functional.interpolate(m, size=size, mode="bilinear") for m in maps[-3:]]
        return self.model.depth(torch.cat(large, dim=1))[:, 0]

    def _windows(
        self, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Float[Tensor, "batch 3 side side"], Float[Tensor, "batch side side"]]:
        """One random window of every picture, its colors a little changed, and its disparity."""
        config = self.config
        draws = rand_per_sample(batch, (7,), generator).to(batch["image"].device)
        both = torch.cat([batch["image"], batch["disparity"]], dim=1)
        cut = cut_windows(both, draws[:, :4], config.least_share, config.window)
        return recolor(cut[:, :3], draws[:, 4:], config.color), cut[:, 3]


def nt_xent(vectors: Float[Tensor, "double dim"], temperature: float) -> Float[Tensor, ""]:
    """Cross-entropy of finding a vector's partner by cosine among all others (NT-Xent).

    Args:
        vectors: row i and row i + n belong together, of 2n rows.
        temperature: divides the cosines.
    """
    count = len(vectors) // 2
    unit = functional.normalize(vectors, dim=1)
    logits = unit @ unit.T / temperature
    logits = logits.masked_fill(torch.eye(2 * count, dtype=torch.bool, device=unit.device), -1e9)
    partner = torch.arange(2 * count, device=unit.device).roll(count)
    return functional.cross_entropy(logits, partner)


def _reduced(disparity: Tensor, like: Tensor) -> Float[Tensor, "batch height width"]:
    return functional.adaptive_avg_pool2d(disparity[:, None], (like.shape[-2], like.shape[-1]))[
        :, 0
    ]
