"""From canonical maps to cameras: several hypotheses each, judged by one render.

The published code takes the pose of the least residual (arXiv 2211.11674, section 3.2). Residuals
hardly tell the front of a car from its back when the map mixes them up; a picture from there does.

    estimates = find_poses(guess, window, search)
    cameras, costs = judge(estimates, see, seen)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry import Camera, rotation_about
from unflat.geometry.camera import rigid
from unflat.geometry.pnp import PnpConfig, PoseEstimate, PoseHypothesis, solve_pose
from unflat.geometry.pnp_refine import FocalPrior
from unflat.geometry.rays import pixel_grid
from unflat.systems.inversion.encoder import ObjectGuess
from unflat.systems.inversion.framing import Window

_THERE = 0.5  # opacity from which on a pixel is a match
_SAME_FOCAL = 1e-3  # deviation of log f below which a set has one focal length
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LEAST_SCALE = 0.01  # of a match's error, world units: none counts for all others


@dataclass(frozen=True, kw_only=True)
class PoseSearch:
    """How cameras are looked for."""

    pnp: PnpConfig = field(default_factory=PnpConfig)
    """Of every picture."""
    flips: bool = True
    """Whether the best pose turned half about the object's up is one more hypothesis: an object's
    front taken for its back."""
    is_weighted: bool = True
    """Whether pixels count by how sure their map is, where the encoder tells it."""
    map_weight: float = 1.0
    """When hypotheses are judged: of the mean distance of the map's points from their rays, world
    units, beside the mean differences of color and opacity. A flip looks much like the truth, but
    the map is against it."""


class Judged(NamedTuple):
    """Cameras of a batch of pictures."""

    camera: Camera
    """The best of each picture, float32."""
    cost: list[list[float]]
    """Of every hypothesis of every picture; less is better."""
    chosen: list[int]
    """Which hypothesis it was; -1 where there is none, and the camera is the fallback."""


def search_of(camera: Camera, **settings: object) -> PoseSearch:
    """A search among focal lengths like those of some cameras.

    Args:
        camera: with one batch axis.
        **settings: other fields of `PnpConfig`.
    """
    if camera.kind == "orthographic":
        return PoseSearch(pnp=replace(PnpConfig(kind="orthographic"), **settings))  # pyright: ignore[reportArgumentType]
    logs = camera.intrinsics[:, 0].double().log()
    deviation = float(logs.std(correction=0))
    if deviation < _SAME_FOCAL:
        known = PnpConfig(focals=(math.exp(float(logs.mean())),), is_focal_free=False)
    else:
        guesses = logs.quantile(logs.new_tensor(_QUANTILES)).exp().tolist()
        prior = FocalPrior(float(logs.mean()), deviation)
        known = PnpConfig(focals=tuple(guesses), focal_prior=prior)
    return PoseSearch(pnp=replace(known, **settings))  # pyright: ignore[reportArgumentType]


def find_poses(guess: ObjectGuess, window: Window, search: PoseSearch) -> list[PoseEstimate]:
    """Hypotheses for each picture, as cameras of the whole picture from which windows were cut.

    Args:
        guess: of the encoder, of the windows' pictures.
        window: where these are in the whole, square pictures.
        search: how they are looked for.
    """
    height, width = guess.points.shape[-2:]
    grid = pixel_grid(height, width, guess.points.device).flatten(0, 1)
    uv = window.to_picture(grid.expand(len(guess.points), -1, -1))
    points = guess.points.flatten(2).mT
    weight = guess.opacity.flatten(1)
    weight = torch.where(weight > _THERE, weight, 0.0)
    if search.is_weighted and guess.log_scale is not None:
        weight = weight / guess.log_scale.flatten(1).exp().clamp(min=_LEAST_SCALE).square()
    found = []
    for one_points, one_uv, one_weight in zip(points, uv, weight, strict=True):
        estimate = solve_pose(one_points, one_uv, one_weight, search.pnp)
        if search.flips and estimate.problem is None:
            estimate = _with_flip(estimate)
        found.append(estimate)
    return found


def _with_flip(estimate: PoseEstimate) -> PoseEstimate:
    """With the pose that is best if the map takes the object's front for its back throughout.

    The map as it is says nothing for it, so that its share and its confidence are 0.
    """
    best = estimate.hypotheses[0]
    camera = best.camera
    turn = rotation_about(camera.camera_to_world.new_tensor([0.0, 1.0, 0.0]), math.pi)
    motion = rigid(turn, torch.zeros_like(turn[0]))
    turned = replace(camera, camera_to_world=motion @ camera.camera_to_world)
    flipped = replace(best, camera=turned, inlier_share=0.0, confidence=0.0)
    return replace(estimate, hypotheses=(*estimate.hypotheses, flipped))


def judge(
    estimates: Sequence[PoseEstimate],
    fallback: Camera,
    cost: Callable[[Camera], Float[Tensor, "batch hypotheses"]],
) -> Judged:
    """The hypothesis of each picture whose render is nearest to the picture.

    Args:
        estimates: of each picture.
        fallback: a single camera for pictures without a hypothesis.
        cost: of cameras with two axes, pictures and hypotheses; less is better.
    """
    most = max((len(one.hypotheses) for one in estimates), default=0)
    if most == 0:
        count = len(estimates)
        return Judged(_stacked([fallback] * count), [[] for _ in range(count)], [-1] * count)
    rows = [_row(one.hypotheses, fallback, most) for one in estimates]
    cameras = Camera(
        camera_to_world=torch.stack([row.camera_to_world for row in rows]),
        intrinsics=torch.stack([row.intrinsics for row in rows]),
        kind=fallback.kind,
    )
    costs = cost(cameras)
    kept, chosen, best = [], [], []
    for row, one, values in zip(rows, estimates, costs.tolist(), strict=True):
        kept.append(values[: len(one.hypotheses)])
        number = min(range(len(kept[-1])), key=kept[-1].__getitem__, default=-1)
        chosen.append(number)
        best.append(row[max(number, 0)])
    return Judged(_stacked(best), kept, chosen)


def _row(hypotheses: Sequence[PoseHypothesis], fallback: Camera, count: int) -> Camera:
    """So many cameras; the first again where there are fewer, the fallback where there is none."""
    cameras = [one.camera.to(dtype=torch.float32) for one in hypotheses] or [fallback]
    return _stacked([*cameras, *[cameras[0]] * (count - len(cameras))])


def _stacked(cameras: Sequence[Camera]) -> Camera:
    return Camera(
        camera_to_world=torch.stack([one.camera_to_world for one in cameras]),
        intrinsics=torch.stack([one.intrinsics for one in cameras]),
        kind=cameras[0].kind,
    )
