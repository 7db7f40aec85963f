"""How high a picture was taken, found out by the model's own views.

Zero-1-to-3 is told differences of angles alone, so nobody says how high the camera of the picture
stands; yet a mesh that is made of its views needs to know. One-2-3-45 (arXiv 2306.16928) lets the
model turn the picture a little and asks which elevation makes matched points meet. Here outlines
are asked, not points: turned around an upright axis, views of a picture taken from above and of
one taken level carve different bodies, and only the true elevation gives one that all agree on.

    found = estimate_elevation(model, shown, seed=0)
    found.degrees, found.spread_deg, found.confidence
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.hull import agreement
from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.make import make_views, opacity_of
from unflat.systems.zero123.model import ViewModel
from unflat.systems.zero123.prepare import Prepared
from unflat.systems.zero123.sampler import Sampler
from unflat.systems.zero123.view_folder import cameras_of

CANDIDATES_DEG = tuple(range(-30, 81, 5))
"""Elevations that are tried."""

_TURNS_DEG = (45, 90, 135, 180, 225, 270, 315)
_TILTS_DEG = (-25.0, 25.0)
_STEPS = 10
_PRIOR_DEG = (15.0, 25.0)  # mean and spread of how high people take pictures of things
_SHARPNESS = 60.0  # how many times likelier a score higher by 1 / 60 is, as a power of e


@dataclass(frozen=True, kw_only=True)
class Elevation:
    """How high a picture was taken."""

    degrees: float
    """Above the level of the object's middle."""
    spread_deg: float
    """Standard deviation of what else it could be."""
    confidence: float
    """Probability that it is right within 15 degrees, by the scores alone, [0, 1]."""
    scores: dict[int, float]
    """How well outlines agree at each candidate, [0, 1]."""

    @property
    def radians(self) -> float:
        """The same in radians."""
        return math.radians(self.degrees)


def estimate_elevation(
    model: ViewModel, shown: Prepared, *, seed: int = 0, prior: bool = True
) -> Elevation:
    """The elevation at which the model's own views of a picture agree best.

    Args:
        model: makes the views, without being told an elevation.
        shown: the picture as the model sees it.
        seed: of the views.
        prior: expect pictures to be taken from 15 degrees above, give or take 25.
    """
    turns = [0.0, *map(float, _TURNS_DEG), *(0.0 for _ in _TILTS_DEG)]
    tilts = [0.0] * (1 + len(_TURNS_DEG)) + list(_TILTS_DEG)
    poses = RelativePose.from_degrees(torch.tensor(turns), torch.tensor(tilts))
    device = model.device
    reference = model.reference(shown.image[None].to(device), shown.opacity[None].to(device))
    sampler = Sampler(steps=_STEPS, guidance_scale=1.0)
    views = make_views(model, reference, poses[1:], sampler, seed=seed)
    outlines = torch.cat([shown.opacity[None], opacity_of(views).cpu()])
    scores = {
        degrees: float(agreement(outlines, cameras_of(poses, math.radians(degrees))).mean())
        for degrees in CANDIDATES_DEG
    }
    return weighed(scores, prior=prior)


def weighed(scores: dict[int, float], *, prior: bool = True) -> Elevation:
    """What scores of candidates tell, as a mean and its spread.

    Args:
        scores: by degrees, evenly spaced.
        prior: see `estimate_elevation`.
    """
    degrees = torch.tensor(list(scores), dtype=torch.float64)
    logarithm = _SHARPNESS * torch.tensor(list(scores.values()), dtype=torch.float64)
    if prior:
        mean, spread = _PRIOR_DEG
        logarithm = logarithm - 0.5 * ((degrees - mean) / spread) ** 2
    chances = torch.softmax(logarithm, dim=0)
    best = _mean_near(degrees, chances, float(degrees[chances.argmax()]))
    spread = float((chances * (degrees - best) ** 2).sum().sqrt())
    near = float(chances[(degrees - best).abs() <= 15].sum())
    return Elevation(degrees=best, spread_deg=spread, confidence=near, scores=scores)


def _mean_near(
    degrees: Float[Tensor, " candidates"], chances: Float[Tensor, " candidates"], peak: float
) -> float:
    """Mean of what is likely about a peak: finer than the candidates, deaf to what is far."""
    is_near = (degrees - peak).abs() <= 10
    return float((degrees * chances)[is_near].sum() / chances[is_near].sum())
