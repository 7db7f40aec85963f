"""How far points are from the rays of their pixels, and the poses that bring them nearest.

The pixels are exact and the points are not (a network guessed them), so what counts is the distance
in space between a point and the ray through its pixel, not the distance on the picture. With errors
alike in all directions its least sum of squares has no bias, neither in the rotation nor in the
focal length; on the picture, errors along the ray favor long lenses far away.

Poses are told as `unflat.geometry.published_pose` tells them, by what barely depends on the rest: a
rotation, where the object's middle is on the picture, how large the object is there, and how strong
the perspective is. An orthographic camera is the limit of no perspective. With x a point turned to
the camera's axes, q its pixel seen from the middle's and s the scale, the point less the one of the
same depth that an orthographic camera would see there is e = x - (q, 0) / s; with d the unit
direction of the pixel's ray, what remains of e across the ray, e - (e . d) d, is the residual.
"""

import math
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unflat.geometry.camera import length
from unflat.geometry.pose import rotation_from_vector

_FARTHEST = 10.0
"""Distance that counts for all points beyond it or behind the camera, in sizes of the object."""
_GAUSSIAN_MEDIAN = math.sqrt(2.0 * math.log(2.0))
"""Median length of a vector in the plane whose components have deviation 1."""
_LEAST_WIDTH = 1e-6
"""Of the robust loss, in sizes of the object; exact matches have no width of their own."""
_FOCALS = (0.05, 200.0)
"""Focal lengths in picture widths beyond which none is looked for."""
_LONGEST_STEP = 0.5
"""Radians, picture widths or factors of e."""
_DAMPING = (1e-9, 1e-3, 1e8)
"""Least, first and most; relative to the diagonal of the normal equations."""
_FINISHED = 1e-8
"""Step below which refining ends."""


class Matches(NamedTuple):
    """Points and where they are seen, in units that suit every picture."""

    points: Float[Tensor, "n 3"]
    """In sizes of the object, from its middle."""
    seen: Float[Tensor, "n 2"]
    """Right and down from the principal point, in picture widths."""
    weights: Float[Tensor, " n"]
    """At least 0, of mean 1."""

    def take(self, index: Tensor) -> "Matches":
        """Some of the matches, in the order of `index`."""
        return Matches(self.points[index], self.seen[index], self.weights[index])


class Poses(NamedTuple):
    """Hypotheses: how the object is turned, where and how large it is seen, and by which lens."""

    rotation: Float[Tensor, "poses 3 3"]
    """From the object's axes to the camera's (right, down, forward)."""
    middle: Float[Tensor, "poses 2"]
    """Where the object's middle is seen: from the principal point, in picture widths."""
    log_scale: Float[Tensor, " poses"]
    """Log of the picture widths that the object's size spans at its middle."""
    log_focal: Float[Tensor, " poses"] | None
    """Log of the focal length in picture widths; None if orthographic."""

    def take(self, index: Tensor) -> "Poses":
        """Some of the hypotheses, in the order of `index`."""
        focal = None if self.log_focal is None else self.log_focal[index]
        return Poses(self.rotation[index], self.middle[index], self.log_scale[index], focal)


class FocalPrior(NamedTuple):
    """What is known of the focal length beforehand: its log is normally distributed."""

    mean: float
    """Of log f, f in picture widths."""
    deviation: float
    """Of log f; above 0."""


class Residuals(NamedTuple):
    """What keeps points from their rays, and what changes it."""

    across: Float[Tensor, "poses n 3"]
    """From ray to point, in sizes of the object; orthogonal to the ray."""
    squared: Float[Tensor, "poses n"]
    """As it counts: squared lengths, but alike for all far points and all behind the camera."""
    is_behind: Bool[Tensor, "poses n"]
    """Points that are not in front of the camera; none if it is orthographic."""
    turned: Float[Tensor, "poses n 3"]
    """The points in the camera's axes, from the object's middle."""
    offset: Float[Tensor, "poses n 2"]
    """From the middle to where the orthographic ray of the pixel goes."""
    ray: Float[Tensor, "#poses n 3"]
    """Unit directions."""
    along: Float[Tensor, "poses n"]
    """Between the point and its pixel's orthographic one, along the ray."""
    rise: Float[Tensor, "#poses n"] | None
    """Change of the unnormalized ray's forward part over its length, with log f."""


def residuals(poses: Poses, matches: Matches) -> Residuals:
    """The points' ways to their rays, for every hypothesis.

    Args:
        poses: any number.
        matches: any number.
    """
    scale = poses.log_scale.exp()[:, None]
    turned = matches.points @ poses.rotation.mT
    offset = (matches.seen - poses.middle[:, None]) / scale[..., None]
    if poses.log_focal is None:
        ray = matches.points.new_tensor([[[0.0, 0.0, 1.0]]]).expand(1, len(matches.points), 3)
        rise, is_behind = None, torch.zeros_like(turned[..., 2], dtype=torch.bool)
    else:
        focal = poses.log_focal.exp()[:, None]
        seen = matches.seen.expand(len(focal), -1, 2)
        ray = torch.cat([seen, focal[..., None].expand(-1, seen.shape[1], 1)], dim=-1)
        stretch = length(ray)
        ray, rise = ray / stretch[..., None], focal / stretch
        is_behind = turned[..., 2] + focal / scale <= 0.0
    apart = torch.cat([turned[..., :2] - offset, turned[..., 2:]], dim=-1)
    along = (apart * ray).sum(dim=-1)
    across = apart - along[..., None] * ray
    squared = (across * across).sum(dim=-1).clamp(max=_FARTHEST**2)
    squared = torch.where(is_behind, _FARTHEST**2, squared)
    return Residuals(across, squared, is_behind, turned, offset, ray, along, rise)


def robust_loss(
    squared: Float[Tensor, "poses n"], matches: Matches, width: Float[Tensor, " poses"]
) -> Float[Tensor, " poses"]:
    """Cauchy's: the weighted mean of log(1 + r^2 / width^2); infinite where it has no value.

    Args:
        squared: distances from the points to their rays.
        matches: for their weights.
        width: distance at which a match begins to count as wrong, in sizes of the object.
    """
    loss = torch.log1p(squared / (width**2)[..., None]) @ matches.weights / len(matches.points)
    return torch.nan_to_num(loss, nan=torch.inf)


def pose_loss(
    poses: Poses, matches: Matches, width: Float[Tensor, " poses"], prior: FocalPrior | None
) -> Float[Tensor, " poses"]:
    """What is made least: `robust_loss` and the prior's share, as if errors were independent.

    Args:
        poses: any number.
        matches: any number.
        width: see `robust_loss`.
        prior: of the focal length; not used if orthographic.
    """
    loss = robust_loss(residuals(poses, matches).squared, matches, width)
    if prior is None or poses.log_focal is None:
        return loss
    unit = noise_variance(width) / width**2 / len(matches.points)
    return loss + unit * ((poses.log_focal - prior.mean) / prior.deviation) ** 2


def loss_width(
    squared: Float[Tensor, "poses n"], matches: Matches, reach: float
) -> Float[Tensor, " poses"]:
    """Twice the weighted median distance among the matches nearer than `reach`, at most `reach`.

    Only among those nearer, since more than half of the matches may be wrong.

    Args:
        squared: distances from the points to their rays.
        matches: for their weights.
        reach: in sizes of the object.
    """
    distance = squared.sqrt()
    weights = torch.where(distance <= reach, matches.weights, 0.0)
    return (2.0 * weighted_median(distance, weights)).clamp(_LEAST_WIDTH, reach)


def weighted_median(
    values: Float[Tensor, "rows n"], weights: Float[Tensor, "#rows n"] | Float[Tensor, " n"]
) -> Float[Tensor, " rows"]:
    """The least value of a row with at least half of the weight at or below it.

    Args:
        values: at least one a row.
        weights: at least 0; where all are 0, the least value is given.
    """
    ordered, order = values.sort(dim=-1)
    below = weights.expand_as(values).gather(-1, order).cumsum(dim=-1)
    index = (below < 0.5 * below[:, -1:]).sum(dim=-1, keepdim=True)
    return ordered.gather(-1, index)[:, 0]


def refine(
    poses: Poses,
    matches: Matches,
    width: Float[Tensor, " poses"],
    prior: FocalPrior | None,
    is_focal_free: bool,
    steps: int,
) -> Poses:
    """The poses of locally least robust loss, by Levenberg-Marquardt's steps.

    A step that does not lessen its pose's loss is not taken, so that nothing ever gets worse.

    Args:
        poses: where to start.
        matches: any number.
        width: of Cauchy's loss, in sizes of the object.
        prior: of the focal length, beside matches whose errors are independent.
        is_focal_free: whether the focal length is refined.
        steps: at most.
    """
    least, first, most = _DAMPING
    damping = torch.full_like(poses.log_scale, first)
    loss = pose_loss(poses, matches, width, prior)
    for _ in range(steps):
        matrix, gradient = normal_equations(poses, matches, width, prior, is_focal_free)
        step = _damped_step(matrix, gradient, damping)
        moved = _moved(poses, step)
        new_loss = pose_loss(moved, matches, width, prior)
        is_better = new_loss < loss
        poses = _chosen(is_better, moved, poses)
        loss = torch.where(is_better, new_loss, loss)
        damping = torch.where(is_better, 0.1 * damping, 8.0 * damping).clamp(least, most)
        if not bool((step.abs() >= _FINISHED).any()):
            break
    return poses


def normal_equations(
    poses: Poses,
    matches: Matches,
    width: Float[Tensor, " poses"],
    prior: FocalPrior | None,
    is_focal_free: bool,
) -> tuple[Float[Tensor, "poses m m"], Float[Tensor, "poses m"]]:
    """J' W J and J' W r of rotation vector (3), middle (2), log scale and, if free, log focal.

    W has Cauchy's weights 1 / (1 + r^2 / width^2) times the matches' own.
    """
    now = residuals(poses, matches)
    weights = matches.weights / (1.0 + now.squared / (width**2)[:, None])
    weights = torch.where(now.squared < _FARTHEST**2, weights, 0.0)
    x, y, z = now.turned.unbind(dim=-1)
    zero = torch.zeros_like(x)
    inverse = torch.exp(-poses.log_scale)[:, None].expand_as(x)
    columns = [
        torch.stack([zero, -z, y], dim=-1),
        torch.stack([z, zero, -x], dim=-1),
        torch.stack([-y, x, zero], dim=-1),
        torch.stack([inverse, zero, zero], dim=-1),
        torch.stack([zero, inverse, zero], dim=-1),
        torch.cat([now.offset, zero[..., None]], dim=-1),
    ]
    is_free = is_focal_free and now.rise is not None
    if is_free:
        assert now.rise is not None
        columns.append(torch.stack([zero, zero, -now.along * now.rise], dim=-1))
    jacobian = torch.stack(columns, dim=-1)  # poses n 3 m
    ray = now.ray[..., None]
    jacobian = jacobian - ray * (ray * jacobian).sum(dim=-2, keepdim=True)
    weighted = jacobian * weights[..., None, None]
    flat = jacobian.flatten(1, 2)
    matrix = weighted.flatten(1, 2).mT @ flat
    gradient = (weighted.flatten(1, 2).mT @ now.across.flatten(1, 2)[..., None])[..., 0]
    if is_free and prior is not None and poses.log_focal is not None:
        stiffness = noise_variance(width) / prior.deviation**2
        matrix[:, -1, -1] += stiffness
        gradient[:, -1] += stiffness * (poses.log_focal - prior.mean)
    return matrix, gradient


def noise_variance(width: Tensor) -> Tensor:
    """Variance of one component of the errors, of a loss as wide as twice their median length."""
    return (width / (2.0 * _GAUSSIAN_MEDIAN)) ** 2


def _damped_step(matrix: Tensor, gradient: Tensor, damping: Tensor) -> Tensor:
    """The step of Levenberg and Marquardt, 0 where the equations have no answer."""
    diagonal = torch.diagonal(matrix, dim1=-2, dim2=-1)
    ground = 1e-12 * diagonal.amax(dim=-1, keepdim=True) + 1e-30
    damped = matrix + torch.diag_embed(damping[:, None] * diagonal + ground)
    # torch's stubs leave this function untyped.
    factored = torch.linalg.cholesky_ex(damped.nan_to_num())  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    factor, failed = cast("tuple[Tensor, Tensor]", factored)
    step = -torch.cholesky_solve(gradient.nan_to_num()[..., None], factor)[..., 0]
    is_good = (failed == 0) & step.isfinite().all(dim=-1)
    step = torch.where(is_good[:, None], step, 0.0)
    longest = step.abs().amax(dim=-1, keepdim=True).clamp(min=_LONGEST_STEP)
    return step * (_LONGEST_STEP / longest)


def _moved(poses: Poses, step: Tensor) -> Poses:
    focal = poses.log_focal
    if focal is not None and step.shape[-1] > 6:
        least, most = _FOCALS
        focal = (focal + step[:, 6]).clamp(math.log(least), math.log(most))
    return Poses(
        rotation_from_vector(step[:, :3]) @ poses.rotation,
        poses.middle + step[:, 3:5],
        poses.log_scale + step[:, 5],
        focal,
    )


def _chosen(is_first: Tensor, first: Poses, second: Poses) -> Poses:
    focal = second.log_focal
    if focal is not None and first.log_focal is not None:
        focal = torch.where(is_first, first.log_focal, focal)
    return Poses(
        torch.where(is_first[:, None, None], first.rotation, second.rotation),
        torch.where(is_first[:, None], first.middle, second.middle),
        torch.where(is_first, first.log_scale, second.log_scale),
        focal,
    )
