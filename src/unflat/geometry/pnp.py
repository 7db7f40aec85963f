"""The camera that sees given points at given places of a picture: pose and focal length.

What a network says of every pixel, which point of the object it shows, is wrong here and there and
inexact everywhere (arXiv 2211.11674 solves it by OpenCV for every guess of the focal length and
takes the least residual). Here a start is drawn that wrong matches do not spoil, and refined with
the focal length:

    estimate = solve_pose(points, uv, confidence, PnpConfig(focals=(1.1, 1.5, 2.0)))
    if estimate.problem is None:
        camera = estimate.hypotheses[0].camera

Worked out in float64 on the CPU, wherever the matches are. The order of the matches does not
matter, and the same matches with the same seed give the same answer.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.camera import Camera, CameraKind
from unflat.geometry.pnp_frame import LEAST_MATCHES, MatchFrame, match_frame
from unflat.geometry.pnp_refine import (
    FocalPrior,
    Matches,
    Poses,
    loss_width,
    noise_variance,
    normal_equations,
    pose_loss,
    refine,
    residuals,
    weighted_median,
)
from unflat.geometry.pnp_start import different, start_poses

_START_WIDTH = 0.05
"""Of Cauchy's loss that judges triples, in sizes of the object."""
_REACH = 0.25
"""Distance beyond which no match counts as an inexact one, in sizes of the object."""
_DIFFERENT = (math.radians(15.0), math.radians(2.0))
"""Angle between hypotheses that are different, before and after refining."""
_STEPS = (10, 30)
"""At most, with a few matches and with all; the width of the loss is found anew between."""
_FEW = 256
"""Matches that tell which starts come to the same end."""
_CERTAIN = math.radians(5.0)
"""Deviation of the rotation that halves the confidence."""


@dataclass(frozen=True, kw_only=True)
class PnpConfig:
    """How poses are looked for."""

    kind: CameraKind = "perspective"
    """Of the camera looked for."""
    focals: tuple[float, ...] = (0.8, 1.2, 1.8, 2.7, 4.0)
    """Guesses of the focal length in picture widths; not used if orthographic."""
    is_focal_free: bool = True
    """Whether the focal length is refined; if not, there is one guess and it is right."""
    focal_prior: FocalPrior | None = None
    """What is known of a focal length that is refined. Without one, much noise or a flat object
    leave it, and with it the distance, far from determined."""
    draws: int = 512
    """Triples of matches that are tried."""
    starts: int = 8
    """Different poses that are refined."""
    keep: int = 4
    """Different poses that are told, at most."""
    most_matches: int = 1024
    """Looked at, drawn at random from more; more are hardly better where neighbors err alike."""
    inlier_distance: float = 0.1
    """From point to ray, up to which a match is right, in sizes of the object."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        for name in ("draws", "starts", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.most_matches < LEAST_MATCHES:
            raise ValueError(f"most_matches is {self.most_matches}; the least is {LEAST_MATCHES}")
        if not self.inlier_distance > 0.0:
            raise ValueError(f"inlier_distance is {self.inlier_distance}; it must be above 0")
        if not all(0.0 < focal < math.inf for focal in self.focals):
            raise ValueError(f"focals are {self.focals}; all must be positive and finite")
        if self.kind == "perspective" and not self.focals:
            raise ValueError("focals is empty; a perspective camera needs at least one guess")
        is_refined = self.kind == "perspective" and self.is_focal_free
        if not self.is_focal_free and len(self.focals) != 1:
            raise ValueError(f"focals are {self.focals}; give one if is_focal_free is False")
        if self.focal_prior is not None and not is_refined:
            raise ValueError("focal_prior is given, but no focal length is refined")


@dataclass(frozen=True, kw_only=True)
class PoseHypothesis:
    """One camera that may have seen the matches, and how well it explains them."""

    camera: Camera
    """A single view in float64; an orthographic one stands 10 half widths from the object."""
    distances: Float[Tensor, " n"]
    """World units from every given point to the ray of its pixel; infinite where not finite or
    behind the camera."""
    loss: float
    """What hypotheses of the same matches are ranked by: less is better."""
    inlier_share: float
    """By confidence, of the matches that are right (`PnpConfig.inlier_distance`), in [0, 1]."""
    median_distance: float
    """Of all matches, by confidence, in sizes of the object."""
    rotation_deviation: float
    """Radians, from the curvature of the loss, as if errors were independent."""
    log_focal_deviation: float | None
    """Likewise of log f; None if not refined."""
    confidence: float
    """In [0, 1]: the inlier share, less where the rotation is not well determined."""


@dataclass(frozen=True, kw_only=True)
class PoseEstimate:
    """What was found: different hypotheses, the best first, or why there are none."""

    hypotheses: tuple[PoseHypothesis, ...]
    """Empty if there is a problem."""
    matches: int
    """Finite ones of a confidence above 0, of those given."""
    problem: str | None
    """What is wrong with the matches, in one sentence; None if nothing is."""


def solve_pose(
    points: Float[Tensor, "n 3"],
    uv: Float[Tensor, "n 2"],
    confidence: Float[Tensor, " n"] | None = None,
    config: PnpConfig | None = None,
    *,
    center: tuple[float, float] = (0.5, 0.5),
    aspect: float = 1.0,
) -> PoseEstimate:
    """Cameras that see the points at their places, found without a start, the best first.

    Bad matches are no error, so that one picture does not stop others: see `PoseEstimate.problem`.

    Args:
        points: in world units; those that are not finite are left out.
        uv: where they are seen, in [0, 1] inside the picture, as `Camera.project` tells it.
        confidence: of each match, at least 0; only ratios count. All alike if not given.
        config: the defaults if not given.
        center: the principal point in (u, v).
        aspect: width over height of the picture; pixels are square.

    Raises:
        ValueError: the shapes do not fit together, or the aspect is not above 0.
    """
    config = config or PnpConfig()
    generator = torch.Generator().manual_seed(config.seed)
    frame = match_frame(points, uv, confidence, center, aspect)
    if problem := frame.problem():
        return _no_pose(frame, problem)
    matches = frame.matches(config.most_matches, generator)
    focals = None
    if config.kind == "perspective":
        focals = torch.tensor(config.focals, dtype=torch.float64)
    poses, loss = start_poses(matches, focals, config.draws, _START_WIDTH, generator)
    poses = poses.take(different(poses, loss, config.starts, _DIFFERENT[0]))
    return _refined(poses, matches, frame, config, generator)


def refine_pose(
    camera: Camera,
    points: Float[Tensor, "n 3"],
    uv: Float[Tensor, "n 2"],
    confidence: Float[Tensor, " n"] | None = None,
    config: PnpConfig | None = None,
    *,
    center: tuple[float, float] = (0.5, 0.5),
    aspect: float = 1.0,
) -> PoseEstimate:
    """Cameras that see the points at their places, found from given ones, the best first.

    For starts of one's own, as an object's front taken for its back. Bad matches are no error here
    either.

    Args:
        camera: a batch of starts with one leading axis, of the kind of the config.
        points: see `solve_pose`.
        uv: see `solve_pose`.
        confidence: see `solve_pose`.
        config: its focals, draws and starts are not used.
        center: see `solve_pose`; that of the starts is not used.
        aspect: see `solve_pose`.

    Raises:
        ValueError: the starts are of another kind, or not a batch with one leading axis.
    """
    config = config or PnpConfig()
    if camera.kind != config.kind:
        raise ValueError(f"camera is {camera.kind}; config.kind is {config.kind}")
    if len(camera.batch_shape) != 1:
        raise ValueError(f"camera has batch shape {tuple(camera.batch_shape)}; give one axis")
    generator = torch.Generator().manual_seed(config.seed)
    frame = match_frame(points, uv, confidence, center, aspect)
    if problem := frame.problem():
        return _no_pose(frame, problem)
    matches = frame.matches(config.most_matches, generator)
    return _refined(frame.poses(camera), matches, frame, config, generator)


def _no_pose(frame: MatchFrame, problem: str) -> PoseEstimate:
    return PoseEstimate(hypotheses=(), matches=len(frame.order), problem=problem)


def _refined(
    poses: Poses,
    matches: Matches,
    frame: MatchFrame,
    config: PnpConfig,
    generator: torch.Generator,
) -> PoseEstimate:
    """The hypotheses that starts lead to."""
    few = torch.randperm(len(matches.points), generator=generator)[:_FEW]
    poses = _improved(poses, matches.take(few), config, _STEPS[0])
    poses = _improved(poses, matches, config, _STEPS[1])
    if len(poses.rotation) == 0:
        return _no_pose(frame, "no pose has the points in front of the camera.")
    poses = poses.take(torch.arange(len(poses.rotation))[: config.keep])
    found = residuals(poses, matches).squared
    width = _common_width(found, matches)
    loss = pose_loss(poses, matches, width, config.focal_prior)
    right = torch.where(found <= config.inlier_distance**2, matches.weights, 0.0).sum(dim=-1)
    share = right / matches.weights.sum()
    median = weighted_median(found.sqrt(), matches.weights)
    cameras, distances = frame.cameras(poses), frame.distances(poses)
    rotation, focal = _deviations(poses, matches, width, config)
    confidence = share / (1.0 + (rotation / _CERTAIN) ** 2)
    hypotheses = tuple(
        PoseHypothesis(
            camera=cameras[i],
            distances=distances[i],
            loss=float(loss[i]),
            inlier_share=float(share[i]),
            median_distance=float(median[i]),
            rotation_deviation=float(rotation[i]),
            log_focal_deviation=None if focal is None else float(focal[i]),
            confidence=float(confidence[i]),
        )
        for i in range(len(loss))
    )
    return PoseEstimate(hypotheses=hypotheses, matches=len(frame.order), problem=None)


def _improved(poses: Poses, matches: Matches, config: PnpConfig, steps: int) -> Poses:
    """Where starts lead to, the best first; those that come to the same end are one."""
    width = loss_width(residuals(poses, matches).squared, matches, _REACH)
    poses = refine(poses, matches, width, config.focal_prior, config.is_focal_free, steps)
    found = residuals(poses, matches).squared
    loss = pose_loss(poses, matches, _common_width(found, matches), config.focal_prior)
    return poses.take(different(poses, loss, len(loss), _DIFFERENT[1]))


def _common_width(squared: Tensor, matches: Matches) -> Tensor:
    """The least width of all hypotheses, for all of them: losses of one width compare."""
    width = loss_width(squared, matches, _REACH)
    return width.amin().expand_as(width) if len(width) else width


def _deviations(
    poses: Poses, matches: Matches, width: Tensor, config: PnpConfig
) -> tuple[Tensor, Tensor | None]:
    """Standard deviations of the rotation (radians, all axes together) and of log focal length."""
    matrix, _ = normal_equations(poses, matches, width, config.focal_prior, config.is_focal_free)
    # torch's stubs leave this function untyped.
    inverted = torch.linalg.inv_ex(matrix)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    inverse, failed = cast("tuple[Tensor, Tensor]", inverted)
    variance = torch.diagonal(inverse, dim1=-2, dim2=-1) * noise_variance(width)[:, None]
    is_good = (failed == 0)[:, None] & (variance >= 0.0)
    deviation = torch.where(is_good, variance, torch.inf).sqrt()
    rotation = deviation[:, :3].square().sum(dim=-1).sqrt()
    return rotation, deviation[:, 6] if deviation.shape[-1] > 6 else None
