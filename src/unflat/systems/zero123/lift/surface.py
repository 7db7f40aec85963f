"""Where the surface lies: the level that fits the silhouettes, without crumbs.

level = best_level(solid, shots)
finished = finish(solid, level)            # the surface at distance 0, floaters gone
"""

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from unflat.errors import UserError
from unflat.systems.zero123.lift.shots import Shots
from unflat.systems.zero123.lift.solid import Solid, nearest_approach, signed_distances

_LOWEST, _HIGHEST, _LEVELS = -2.0, 3.0, 41  # voxels: levels that are tried
_CRUMB = 0.02  # share of the largest part's volume that a part needs to stay
_MOST_VIEWS = 12  # whose silhouettes are compared
_FINER = 2  # times as many pixels along a side
_TIE = 0.002  # of IoU: no difference


class Finished(NamedTuple):
    """A solid that is ready to be shown."""

    solid: Solid
    """Its distances are such, and the surface is where they are 0."""
    level: float
    """Where the surface was before, world units of distance."""
    dropped: int
    """Parts that were too small to stay."""


def best_level(solid: Solid, shots: Shots) -> float:
    """The distance whose level set has the silhouettes that the shots have, world units.

    What is rendered is soft, and half of a ray's light ends before it comes to distance 0; so the
    surface that people see lies somewhat outside of it. The level with the largest weighted sum of
    IoUs is taken.
    """
    count = min(len(shots.image), _MOST_VIEWS)
    chosen = torch.linspace(0, len(shots.image) - 1, count).round().long()
    side = _FINER * shots.side  # outlines run between pixels
    finer = functional.interpolate(shots.opacity[chosen, None], (side, side), mode="bilinear")
    given = finer[:, 0] > 0.5
    nearest = nearest_approach(solid, shots.cameras[chosen], side)
    levels = solid.cell * torch.linspace(_LOWEST, _HIGHEST, _LEVELS)
    scores = []
    for level in levels:
        drawn = nearest < level
        both = (drawn & given).sum((1, 2)).float()
        either = (drawn | given).sum((1, 2)).clamp_min(1)
        scores.append((shots.weight[chosen] * both / either).sum() / shots.weight[chosen].sum())
    # several levels may be as good: then it is the one in their middle
    as_good = torch.stack(scores) >= max(scores) - _TIE
    return float(levels[as_good].mean())


@torch.no_grad()
def finish(solid: Solid, level: float) -> Finished:
    """The solid with its surface at a level, without parts that are crumbs of it, or cavities.

    Nobody sees a cavity, so nothing speaks for one.

    Raises:
        UserError: nothing is inside of the surface.
    """
    from scipy.ndimage import binary_fill_holes, label

    heights = level - solid.distances()
    # annotated: scipy's stubs make a number of what is an array and a number
    found: tuple[np.ndarray, int] = label((heights > 0).cpu().numpy())  # pyright: ignore[reportAssignmentType]
    parts, count = found
    if not count:
        raise UserError(empty_message("nothing is left inside of its surface"))
    sizes = np.bincount(parts.ravel())[1:]
    is_crumb = np.concatenate([[False], sizes < _CRUMB * sizes.max()])
    # Next to a crumb values lead up to it, so its surroundings go with it.
    kept = ~is_crumb[parts] & (parts > 0)
    gone = _grown(is_crumb[parts]) & ~_grown(kept)
    heights[torch.from_numpy(gone).to(heights.device)] = -solid.cell
    hollow = torch.from_numpy(np.asarray(binary_fill_holes(kept)) & ~kept)
    heights[hollow.to(heights.device)] = solid.cell
    distances = signed_distances(heights, 0.0, solid.cell)
    return Finished(Solid(distances, solid.colors(), solid.bounds), level, int(is_crumb.sum()))


def empty_message(what: str) -> str:
    """What to say, and to do, where an object has no surface."""
    return (
        f"lift: the object has no surface, {what}; try another --seed, --method fit, a larger "
        "--guidance-scale, or a picture in which the object stands out from its background."
    )


def _grown(where: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    return np.asarray(binary_dilation(where, iterations=2))
