"""A solid from pictures that were made once: fit, not distil.

Views from a model are close to, but not quite, pictures of one object. So silhouettes vote where
matter is, each view counts by how well it agrees with the others, small differences of colour are
allowed to each, and what is left is made smooth::

    shots = believed(shots, first_weight=4.0)
    fitted = fit(shots, FitConfig.fast(), seed=0)
    fitted.solid.field(fitted.softness)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unflat.geometry.rays import Rays, camera_rays
from unflat.systems.zero123.lift.carving import carved
from unflat.systems.zero123.lift.shots import Shots
from unflat.systems.zero123.lift.solid import (
    Seen,
    Solid,
    along_rays,
    roughness,
    samples_of,
    seen_by,
    unevenness,
)

Progress = Callable[[int, int, Solid, float], None]
"""Is told how many of how many steps are done, the solid as it is, and how soft that is."""

_CHARBONNIER = 0.02  # colour difference up to which it counts as a square
_UNLIKE = 2.0  # times the usual residual at which a view counts half
_EDGE = 0.1  # share of rays that look where nothing is


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How long, how fine, and what is asked of a solid beside the pictures."""

    steps: int = 200
    """Of the optimizer."""
    rays: int = 2560
    """A step."""
    resolution: int = 64
    """Voxels along the longest side of the solid's box."""
    shape_rate: float = 0.15
    """Of Adam, voxels of distance a step."""
    color_rate: float = 0.05
    """Of Adam, logits of colour."""
    softness: tuple[float, float] = (1.0, 0.4)
    """Of the surface, voxels: in the beginning and in the end."""
    mask: float = 1.0
    """Weight of the squared difference of opacity; that of colour is 1."""
    eikonal: float = 0.05
    """Weight of (|slope| - 1)^2."""
    smooth: float = 0.04
    """Weight of bends, as of `unevenness`."""
    color_smooth: float = 0.02
    """Weight of squared differences of neighbouring colours."""
    offset: float = 0.02
    """Weight of squared colour offsets of views, divided by 0.1^2."""
    reweigh: int = 2
    """How often views are weighed anew by what is left of their differences."""

    @classmethod
    def fast(cls) -> "FitConfig":
        """Some 15 to 20 s on one core for 16 views of 64 px."""
        return cls()

    @classmethod
    def best(cls) -> "FitConfig":
        """Some two minutes for 32 views."""
        return cls(steps=900, resolution=96, rays=4096)

    @classmethod
    def of_renderings(cls) -> "FitConfig":
        """For pictures that already are of one object."""
        return cls(steps=120, rays=2048, reweigh=0)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What the pictures have in common."""

    solid: Solid
    softness: float
    """Of its surface, world units."""
    weight: Float[Tensor, " views"]
    """Of the views in the end; that of the first is what it was given."""
    offset: Float[Tensor, "views 3"]
    """By how much each view is brighter than the solid."""
    residual: Float[Tensor, " views"]
    """Mean absolute difference of colour and opacity over each silhouette."""


def fit(
    shots: Shots, config: FitConfig, *, seed: int = 0, progress: Progress | None = None
) -> Fitted:
    """The solid of some shots.

    Args:
        shots: of at least two sides.
        config: how it is fitted.
        seed: draws rays.
        progress: is told of every tenth step.

    Raises:
        UserError: silhouettes have nothing in common.
    """
    return refine(carved(shots, config.resolution), shots, config, seed=seed, progress=progress)


def refine(
    solid: Solid,
    shots: Shots,
    config: FitConfig,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Fitted:
    """The same from a solid that is there already."""
    generator = torch.Generator().manual_seed(seed)
    pool = _Pool(shots, solid)
    weight, offset = shots.weight.clone(), nn.Parameter(shots.weight.new_zeros(len(shots.image), 3))
    optimizer = torch.optim.Adam(
        [
            {"params": list(solid.shape_steps), "lr": config.shape_rate},
            {"params": [*solid.color_steps, offset], "lr": config.color_rate},
        ],
        betas=(0.9, 0.99),
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    softness = config.softness[0] * solid.cell
    again = {config.steps * (turn + 1) // (config.reweigh + 2) for turn in range(config.reweigh)}
    for step in range(config.steps):
        share = step / config.steps
        first, last = config.softness
        softness = solid.cell * first * (last / first) ** min(1.0, 1.5 * share)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (0.1 + 0.9 * math.cos(0.5 * math.pi * share))
        if step in again:
            weight = _weighed(shots, _residuals(solid, shots, softness, offset))
        view, pixel = pool.draw(config.rays, generator)
        field = solid.field(softness)
        seen = along_rays(field, pool.rays(view, pixel, generator), samples_of(field))
        loss = _difference(seen, *pool.truth(view, pixel), offset[view], weight[view], config)
        eikonal, rough = unevenness(field.distances[0], solid.cell)
        loss = loss + config.eikonal * eikonal + config.smooth * rough
        loss = loss + config.color_smooth * roughness(field.features[0])
        loss = loss + config.offset * (offset / 0.1).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        offset.grad[0] = 0  # pyright: ignore[reportOptionalSubscript] the loss has it
        optimizer.step()
        if progress is not None and (step % 10 == 9 or step + 1 == config.steps):
            progress(step + 1, config.steps, solid, softness)
    residual = _residuals(solid, shots, softness, offset)
    return Fitted(
        solid=solid, softness=softness, weight=weight, offset=offset.detach(), residual=residual
    )


class _Pool:
    """Pixels of all shots."""

    def __init__(self, shots: Shots, solid: Solid):
        self.shots = shots
        self.premultiplied = shots.premultiplied.flatten(2).mT
        self.opacity = shots.opacity.flatten(1)
        # Most is learned in and around silhouettes, of the views and of what there is already.
        with torch.no_grad():
            there = seen_by(solid.field(solid.cell), shots.cameras, shots.side).opacity
        wanted = torch.maximum(there, shots.opacity)[:, None]
        grown = nn.functional.max_pool2d(wanted, 5, 1, 2)[:, 0].flatten(1)
        self.near = (grown > 0.05).nonzero()

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Views and pixels."""
        few = int(_EDGE * count)
        near = self.near[torch.randint(len(self.near), (count - few,), generator=generator)]
        pixels = self.opacity.shape[1]
        other = torch.randint(self.opacity.numel(), (few,), generator=generator)
        any_ = torch.stack([other // pixels, other % pixels], dim=1)
        view, pixel = torch.cat([near, any_]).unbind(1)
        return view, pixel

    def rays(self, view: Tensor, pixel: Tensor, generator: torch.Generator) -> Rays:
        """Through any point of the pixels, which are means over their areas."""
        side = self.shots.side
        corner = torch.stack([pixel % side, pixel // side], dim=-1)
        uv = (corner + torch.rand(len(pixel), 2, generator=generator)) / side
        rays = camera_rays(self.shots.cameras[view], uv[:, None])
        return Rays(rays.origins[:, 0], rays.directions[:, 0])

    def truth(self, view: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
        """Colour times opacity, and opacity."""
        return self.premultiplied[view, pixel], self.opacity[view, pixel]


def _difference(
    seen: Seen,
    color: Float[Tensor, "rays 3"],
    opacity: Float[Tensor, " rays"],
    offset: Float[Tensor, "rays 3"],
    weight: Float[Tensor, " rays"],
    config: FitConfig,
) -> Float[Tensor, ""]:
    """What views would have changed, each by its weight."""
    shown = seen.color + seen.opacity[:, None] * offset
    unlike = ((shown - color).square().sum(-1) + _CHARBONNIER**2).sqrt() - _CHARBONNIER
    unlike = unlike + config.mask * (seen.opacity - opacity).square()
    return (weight * unlike).sum() / weight.sum()


@torch.no_grad()
def _residuals(
    solid: Solid, shots: Shots, softness: float, offset: Float[Tensor, "views 3"]
) -> Float[Tensor, " views"]:
    """Mean absolute difference of colour and opacity over each view's silhouettes."""
    seen = seen_by(solid.field(softness), shots.cameras, shots.side)
    shown = seen.color + seen.opacity[..., None] * offset[:, None, None]
    true = shots.premultiplied.permute(0, 2, 3, 1)
    unlike = (shown - true).abs().mean(-1) + (seen.opacity - shots.opacity).abs()
    area = torch.maximum(seen.opacity, shots.opacity).sum((1, 2))
    return unlike.sum((1, 2)) / area.clamp_min(1)


def _weighed(shots: Shots, residual: Float[Tensor, " views"]) -> Float[Tensor, " views"]:
    """Weights of silhouettes, less where a picture is less like the solid than others are."""
    usual = residual.median().clamp_min(0.02)
    weight = shots.weight / (1 + (residual / (_UNLIKE * usual)) ** 4)
    weight[0] = shots.weight[0]
    return weight
