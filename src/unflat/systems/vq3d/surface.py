"""The visible surface at the photo's own resolution, for the detail mode.

The refiner sees the picture at the model's resolution, and photographs are stranger to it than the
scenes it learned from: its answer is noisy. It is smoothed where the photo is smooth, by robust
weighted least squares (Farbman et al. 2008 with Geman-McClure weights on depth), at a working
resolution, and carried to the photo's by a joint bilateral filter (Kopf et al. 2007) whose weighted
median keeps pixels from lying between two surfaces.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unflat.fields.detail import HiddenSheet
from unflat.rendering.box_mean import box_mean
from unflat.rendering.forward_warp import Warped, fill_holes
from unflat.systems.vq3d.autoencoder import SceneField
from unflat.systems.vq3d.refiner import Refined
from unflat.systems.vq3d.views import render_canonical

SURFACE_SIDE = 32  # pixels at which the tokens' own surface is rendered
SURFACE_SAMPLES = 24  # intervals of those rays
JUMP = 0.05  # of normalised disparity; more is another surface
WORKING_SIDE = 192  # pixels at which the surface is smoothed
RADIUS = 1.0  # of the smoothing, in 64ths of the side, where the refiner is sure to 0.03
SURE = 0.03  # expected error for which the radius holds; surer pixels move less
EDGE = 0.1  # of sRGB distance; stronger edges let depth change
LEAST_TIE = 0.1  # of neighbours across the strongest edge: texture is not geometry
RAMP = 0.022  # of the side: width of the ramps that smoothing leaves at a step
HIDING = 0.1  # step in normalised disparity behind which something is hidden
REACH = 0.1  # share of the side that a move can uncover
STEP = 0.06  # of normalised disparity; larger steps survive the smoothing
ROBUST_STEPS = 4
COLOR_SIGMA = 0.08  # of sRGB distance, for carrying to the photo's resolution
SPACE_SIGMA = 0.9  # in pixels of the working resolution


@torch.no_grad()
def token_surface(field: SceneField, side: int) -> Float[Tensor, "batch 1 side side"]:
    """Normalised disparity that the tokens' field shows the canonical camera, at any side.

    Rendered coarsely: finer rays are no nearer to the truth.
    """
    _, disparity, _ = render_canonical(field, SURFACE_SIDE, SURFACE_SAMPLES)
    return functional.interpolate(disparity, (side, side), mode="bilinear")


@torch.no_grad()
def refine_surface(refined: Refined, photo: Float[Tensor, "batch 3 height width"]) -> Refined:
    """Disparity and spread at the photo's resolution, smooth where the photo is.

    Args:
        refined: the refiner's answer, at the model's resolution.
        photo: the same picture at its own, in [0, 1].
    """
    side = min(WORKING_SIDE, photo.shape[-2])
    guide = functional.interpolate(photo, (side, side), mode="area")
    disparity = functional.interpolate(refined.disparity, (side, side), mode="bilinear")
    scales = torch.cat([refined.spread, refined.softness], dim=1)
    spread, soft = functional.interpolate(scales, (side, side), mode="bilinear").split(1, dim=1)
    smooth = snap(_smooth(disparity, spread, guide))
    return carry_to_photo(Refined(smooth, spread, soft), guide, photo)


@torch.no_grad()
def hidden_sheet(
    disparity: Float[Tensor, "batch 1 height width"], photo: Float[Tensor, "batch 3 height width"]
) -> HiddenSheet:
    """What may lie behind the near side of steps in depth, painted in from the far side.

    Around a step the near surface hides as much as a small move can uncover; colour and disparity
    there come from the farthest of the nearest unhidden pixels to the four sides, then are blurred.

    Args:
        disparity: of the visible surface, normalised.
        photo: its colours, in [0, 1].
    """
    side = disparity.shape[-1]
    reach = max(1, round(REACH * side))
    lowest = -_highest(-disparity, reach)
    near = disparity - lowest > HIDING
    ring = max(1, round(side / 96))  # pixels beside a step mix the colours of both sides
    unknown = _highest(near.float(), ring)[:, 0] > 0.5
    filled = fill_holes(Warped(photo, disparity[:, 0], ~unknown))
    stack = torch.cat([filled.image, filled.inverse_depth[:, None]], dim=1)
    radius = max(1, reach // 4)
    blurred = box_mean(box_mean(stack, radius), radius)
    rgb, behind = torch.where(unknown[:, None], blurred, stack).split([3, 1], dim=1)
    mask = near & (disparity - behind > HIDING / 2)
    # Along the border the far sheet would show where nothing was ever seen.
    inner = functional.pad(torch.ones_like(mask[..., reach:-reach, reach:-reach]), (reach,) * 4)
    mask &= inner
    return HiddenSheet(rgb, behind, mask.float())


def _highest(stack: Tensor, radius: int) -> Tensor:
    """The largest value of the square around every pixel, as far as the picture goes."""
    size = 2 * radius + 1
    along = functional.max_pool2d(
        stack, (1, size), 1, (0, radius)
    )  # the whole square is far slower
    return functional.max_pool2d(along, (size, 1), 1, (radius, 0))


def _smooth(
    disparity: Float[Tensor, "batch 1 side side"],
    spread: Float[Tensor, "batch 1 side side"],
    guide: Float[Tensor, "batch 3 side side"],
) -> Float[Tensor, "batch 1 side side"]:
    """Minimum of trust (d - D)^2 + ties (difference of neighbours)^2, ties re-weighted by depth."""
    trust = (SURE / spread).square().clamp(0.02, 20)
    strength = (RADIUS * disparity.shape[-1] / 64) ** 2
    across, down = guide.diff(dim=-1), guide.diff(dim=-2)
    ties = [
        strength * (LEAST_TIE + (1 - LEAST_TIE) * torch.exp(-step.norm(dim=1, keepdim=True) / EDGE))
        for step in (across, down)
    ]
    result = disparity
    for turn in range(ROBUST_STEPS):
        weights = ties
        if turn:
            steps = (result.diff(dim=-1), result.diff(dim=-2))
            weights = [
                tie / (1 + (step / STEP).square()).square()
                for tie, step in zip(ties, steps, strict=True)
            ]
        result = _solve(disparity, trust, weights[0], weights[1], result)
    return result


def _solve(
    data: Tensor, trust: Tensor, across: Tensor, down: Tensor, start: Tensor, steps: int = 40
) -> Tensor:
    """Conjugate gradients on (trust + Laplacian of the ties) x = trust data, Jacobi scaled."""

    def apply(x: Tensor) -> Tensor:
        right, below = across * x.diff(dim=-1), down * x.diff(dim=-2)
        flow = functional.pad(right, (1, 0)) - functional.pad(right, (0, 1))
        flow = flow + functional.pad(below, (0, 0, 1, 0)) - functional.pad(below, (0, 0, 0, 1))
        return trust * x + flow

    diagonal = trust + functional.pad(across, (1, 0)) + functional.pad(across, (0, 1))
    diagonal = diagonal + functional.pad(down, (0, 0, 1, 0)) + functional.pad(down, (0, 0, 0, 1))
    x = start
    residual = trust * data - apply(x)
    scaled = residual / diagonal
    direction = scaled
    energy = (residual * scaled).sum((1, 2, 3), keepdim=True)
    for _ in range(steps):
        moved = apply(direction)
        length = energy / (direction * moved).sum((1, 2, 3), keepdim=True).clamp_min(1e-20)
        x = x + length * direction
        residual = residual - length * moved
        scaled = residual / diagonal
        renewed = (residual * scaled).sum((1, 2, 3), keepdim=True)
        direction = scaled + renewed / energy.clamp_min(1e-20) * direction
        energy = renewed
    return x


def snap(disparity: Float[Tensor, "batch 1 side side"]) -> Float[Tensor, "batch 1 side side"]:
    """Ramps between two surfaces, pixel by pixel given to the nearer of their two sides.

    A ramp is what spans more than two jumps within the ramp's width; slopes of floors span less.
    The outermost pixels of the far side, whose colors are mixed, then go with the near one. Below
    91 pixels nothing changes.

    Args:
        disparity: normalised.
    """
    radius = int(disparity.shape[-1] * RAMP / 2)
    if radius == 0:  # the refiner's own resolution: nothing was enlarged
        return disparity
    high = _highest(disparity, radius)
    low = -_highest(-disparity, radius)
    snapped = torch.where(high - disparity < disparity - low, high, low)
    snapped = torch.where(high - low > 2 * JUMP, snapped, disparity)
    ring = max(1, round(disparity.shape[-1] / 128))
    # Pixels along a silhouette mix both colours; on the near side they move with their object.
    near = _highest(snapped, ring)
    return torch.where(near - snapped > 2 * JUMP, near, snapped)


def carry_to_photo(
    refined: Refined,
    guide: Float[Tensor, "batch 3 side side"],
    photo: Float[Tensor, "batch 3 height width"],
) -> Refined:
    """A surface at the photo's resolution: near pixels of similar color decide.

    A joint bilateral mean where they agree, their weighted median where they do not.

    Args:
        refined: at a lower resolution, or the photo's own (then as it is).
        guide: the photo at that resolution.
        photo: in [0, 1].
    """
    if photo.shape[-2:] == guide.shape[-2:]:
        return refined
    height, width = photo.shape[-2:]
    stack = torch.cat([*refined, guide], dim=1)
    windows, offsets = _windows(stack, height, width)  # batch k 6 height width, k height width
    distance = (windows[:, :, 3:] - photo[:, None]).square().sum(2)
    votes = torch.exp(-distance / (2 * COLOR_SIGMA**2) - offsets / (2 * SPACE_SIGMA**2))
    votes = votes + 1e-6 * torch.exp(-offsets)
    votes = votes / votes.sum(1, keepdim=True)
    disparity = windows[:, :, 0]
    mean, spread, soft = (votes[:, :, None] * windows[:, :, :3]).sum(1).split(1, dim=1)
    chosen = _weighted_median(disparity, votes)
    torn = disparity.amax(1, keepdim=True) - disparity.amin(1, keepdim=True) > JUMP
    return Refined(torch.where(torn, chosen, mean), spread, soft)


def _windows(stack: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The nine coarse neighbours of every fine pixel, and their squared distances."""
    side_y, side_x = stack.shape[-2:]
    y = (torch.arange(height, device=stack.device) + 0.5) * side_y / height - 0.5
    x = (torch.arange(width, device=stack.device) + 0.5) * side_x / width - 0.5
    row, column = y.round().long(), x.round().long()
    found, squares = [], []
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            rows = (row + dy).clamp(0, side_y - 1)
            columns = (column + dx).clamp(0, side_x - 1)
            found.append(stack[:, :, rows][..., columns])
            squares.append((row + dy - y).square()[:, None] + (column + dx - x).square())
    return torch.stack(found, dim=1), torch.stack(squares)


def _weighted_median(
    values: Float[Tensor, "batch k height width"], votes: Float[Tensor, "batch k height width"]
) -> Float[Tensor, "batch 1 height width"]:
    """The value at which half of the votes is reached; votes sum to 1."""
    ordered, order = values.sort(dim=1)
    reached = votes.gather(1, order).cumsum(1)
    place = (reached < 0.5 - 1e-6).sum(1, keepdim=True).clamp_max(values.shape[1] - 1)
    return ordered.gather(1, place)


def true_focal(fov_deg: float) -> float:
    """Focal length in half-widths of a field of view across the width."""
    return 1 / math.tan(math.radians(fov_deg) / 2)
