"""Some steps of gradient descent from an encoder's guess: codes and camera fit the picture.

Hybrid inversion (arXiv 2211.11674, section 3.3): Adam on the codes of all layers and on four
numbers of the pose. Dividing codes by a gain makes Adam's steps in them so many times longer,
which takes many steps' way in few; poses have no gain. Pictures of a batch do not touch each other.

    fitted = fit(start, losses, FitConfig(steps=10, gain=20.0))
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from unflat.geometry.published_pose import ObjectPose

_FEW = 10
_MOST_ZOOM = 4.0
_SPAN = 5
"""Steps whose mean loss is compared with that of as many before."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How codes and cameras are fitted."""

    steps: int = 10
    """Of Adam; 0 leaves the guess as it is."""
    gain: float = 20.0
    """How many times longer steps in codes are; published: 20 for 10 steps, 5 for 30."""
    palette_gain: float = 5.0
    """Likewise of a palette that is fitted itself."""
    lr: float = 2e-3
    """Of Adam."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of Adam."""
    fits_pose: bool = True
    """Whether rotation, shift and scale change."""
    fits_focal: bool = False
    """Whether the focal length changes too."""
    knee: float = 0.0
    """A picture stops when 5 steps bring a smaller share of its loss than this; 0: never."""


def steps_of(count: int) -> FitConfig:
    """As published: few steps are long ones, gain 20 up to 10 of them, 5 beyond."""
    return FitConfig(steps=count, gain=20.0 if count <= _FEW else 5.0)


class Unknowns(NamedTuple):
    """What is looked for, of a batch of pictures."""

    codes: Float[Tensor, "batch codes style_dim"]
    """One for each layer."""
    pose: ObjectPose
    """Of whole pictures."""
    palette: Float[Tensor, "batch k 3"] | None = None
    """Colors instead of those of the last code; None leaves them to it."""


class Fitted(NamedTuple):
    """What was found."""

    unknowns: Unknowns
    losses: list[Float[Tensor, " batch"]]
    """At each step, before it."""
    steps: list[int]
    """That each picture took."""
    is_broken: Bool[Tensor, " batch"]
    """Where a loss or a number was not finite: such a picture stays as it was before."""


def fit(
    start: Unknowns,
    losses: Callable[[Unknowns], Float[Tensor, " batch"]],
    config: FitConfig,
    progress: Callable[[int, int, Unknowns], None] | None = None,
) -> Fitted:
    """Take some steps from a start.

    Args:
        start: of a batch of pictures.
        losses: of each picture; differentiable.
        config: how many steps, and how long ones.
        progress: is told steps done, of how many, and where they led.
    """
    free = _Free(start, config)
    batch = len(start.codes)
    is_going = torch.ones(batch, dtype=torch.bool, device=start.codes.device)
    is_broken = torch.zeros_like(is_going)
    history: list[Tensor] = []
    steps = [0] * batch
    for step in range(config.steps):
        before = free.copies()
        found = losses(free.unknowns())
        free.step(found)
        history.append(found.detach())
        good = found.detach().isfinite() & free.is_finite()
        is_broken |= is_going & ~good
        is_going &= good
        free.restore(before, ~is_going)
        steps = [count + bool(going) for count, going in zip(steps, is_going, strict=True)]
        is_going &= ~_at_knee(history, config.knee)
        if progress is not None:
            progress(step + 1, config.steps, free.found())
        if not bool(is_going.any()):
            break
    return Fitted(free.found(), history, steps, is_broken)


def _at_knee(history: list[Tensor], least: float) -> Tensor:
    """Which pictures gain next to nothing any more."""
    if least <= 0 or len(history) < 2 * _SPAN:
        return torch.zeros_like(history[-1], dtype=torch.bool)
    new = torch.stack(history[-_SPAN:]).mean(0)
    old = torch.stack(history[-2 * _SPAN : -_SPAN]).mean(0)
    return old - new < least * old.abs()


class _Free:
    """The numbers that Adam moves."""

    def __init__(self, start: Unknowns, config: FitConfig) -> None:
        self.config, self.start = config, start

        def leaf(value: Tensor, gain: float = 1.0) -> Tensor:
            return (value.detach() / gain).clone().requires_grad_(True)

        self.leaves = {"codes": leaf(start.codes, config.gain)}
        if start.palette is not None:
            self.leaves["palette"] = leaf(start.palette, config.palette_gain)
        if config.fits_pose:
            pose = start.pose
            self.leaves |= {"turn": leaf(pose.quaternion), "shift": leaf(pose.shift)}
            self.leaves["scale"] = leaf(pose.scale)
        if config.fits_focal and start.pose.zoom is not None:
            self.leaves["zoom"] = leaf(start.pose.zoom)
        self.optimizer = torch.optim.Adam(
            list(self.leaves.values()), lr=config.lr, betas=config.betas
        )

    def unknowns(self) -> Unknowns:
        """As they are now, with gradients."""
        leaves, pose = self.leaves, self.start.pose
        palette = leaves.get("palette")
        return Unknowns(
            codes=leaves["codes"] * self.config.gain,
            pose=ObjectPose(
                functional.normalize(leaves.get("turn", pose.quaternion), dim=-1),
                leaves.get("shift", pose.shift),
                leaves.get("scale", pose.scale),
                leaves.get("zoom", pose.zoom),
            ),
            palette=None if palette is None else palette * self.config.palette_gain,
        )

    def found(self) -> Unknowns:
        """As they are now, for good."""

        def copy(value: Tensor) -> Tensor:
            return value.detach().clone()

        now = self.unknowns()
        turn, shift, scale, zoom = now.pose
        return Unknowns(
            codes=copy(now.codes),
            pose=ObjectPose(
                copy(turn), copy(shift), copy(scale), None if zoom is None else copy(zoom)
            ),
            palette=None if now.palette is None else copy(now.palette),
        )

    def step(self, losses: Tensor) -> None:
        """One of Adam's, then back to what poses can be."""
        self.optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()  # pyright: ignore[reportUnknownMemberType] torch's stub is untyped
        self.optimizer.step()  # pyright: ignore[reportUnknownMemberType] torch's stub is untyped
        with torch.no_grad():
            for name, leaf in self.leaves.items():
                if name == "turn":
                    leaf.copy_(functional.normalize(leaf, dim=-1))
                elif name == "scale":
                    leaf.abs_()
                elif name == "zoom":
                    leaf.clamp_(-_MOST_ZOOM, _MOST_ZOOM)

    def copies(self) -> dict[str, Tensor]:
        """To come back to."""
        return {name: leaf.detach().clone() for name, leaf in self.leaves.items()}

    def restore(self, copies: dict[str, Tensor], which: Tensor) -> None:
        """Some pictures become what they were."""
        if bool(which.any()):
            with torch.no_grad():
                for name, leaf in self.leaves.items():
                    leaf[which] = copies[name][which]

    def is_finite(self) -> Tensor:
        """Of each picture's numbers, whether all are."""
        rows = [
            leaf.detach().flatten(1) if leaf.ndim > 1 else leaf.detach()[:, None]
            for leaf in self.leaves.values()
        ]
        return torch.cat(rows, dim=1).isfinite().all(dim=1)
