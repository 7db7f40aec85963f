"""Whether made views follow the pose that was asked for, and whether they show one solid.

A picture made for one pose is held against the true pictures of all poses of that object: the one
at the asked pose should fit better than any other. The share of pairs in which it does has a
chance level in closed form, one half, whatever the object looks like; the figures of pictures have
none. It is 1 for the truth (less where sides look alike), and one half for one picture for all.

    found = pose_following(made, true)       # outlines and colors, a share for each target
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unflat.evaluation.result import Column, Item, Table
from unflat.geometry.camera import Camera

WHITE = 1 - 8 / 255
"""A channel below it makes a pixel part of what was made."""
AZIMUTHS = (45, 90, 135, 180)
"""Upper ends of the ranges of azimuths from the input, degrees."""
KINDS = {"outline": "outlines", "color": "colors"}
"""What poses are told by, with its plural."""

_DRAWS = 1000  # of the objects, with replacement
_ENDS = (0.025, 0.975)


def outlines(images: Float[Tensor, "views 3 height width"]) -> Bool[Tensor, "views height width"]:
    """What of pictures on white is not white."""
    return images.amin(dim=1) < WHITE


def azimuth_from(reference: Camera, cameras: Camera) -> Float[Tensor, " views"]:
    """Degrees about the up axis from one camera to each of the others, without sign, [0, 180]."""
    one, many = (torch.atan2(c.position[..., 0], c.position[..., 2]) for c in (reference, cameras))
    turn = torch.rad2deg(many - one).remainder(360)
    return torch.minimum(turn, 360 - turn)


def pose_following(
    made: Float[Tensor, "views 3 height width"], true: Float[Tensor, "views 3 height width"]
) -> dict[str, list[float]]:
    """Of each made view the share of other poses whose true picture fits it worse than its own.

    By ``outline``: the intersection over union of what is not white. By ``color``: the mean
    squared error over the union of both outlines. Ties count one half.

    Args:
        made: for the poses of `true`, on white, [0, 1].
        true: of one object, on white, [0, 1].

    Returns:
        By kind, a list with a value for each view; empty lists where there is one view alone.
    """
    views = len(made)
    if views < 2:
        return {kind: [] for kind in KINDS}
    ours, theirs = (outlines(images).flatten(1).double() for images in (made, true))
    both = ours @ theirs.T
    union = (ours.sum(1)[:, None] + theirs.sum(1) - both).clamp_min(1)
    one, other = made.flatten(1).double(), true.flatten(1).double()
    error = one.square().sum(1)[:, None] + other.square().sum(1) - 2 * one @ other.T
    return {
        "outline": _won(both / union),
        # both are white outside of the union, so nothing is left out
        "color": _won(-(error.clamp_min(0) / union)),
    }


def by_azimuth(
    shares: Mapping[str, Sequence[float]], azimuths: Float[Tensor, " views"]
) -> dict[str, list[float]]:
    """Figures ``pose_KIND`` and, for each range of azimuths, ``pose_KIND_UPPER``."""
    found: dict[str, list[float]] = {}
    place = torch.bucketize(azimuths.clamp(max=180), torch.tensor(AZIMUTHS).to(azimuths)).tolist()
    for kind, values in shares.items():
        found[f"pose_{kind}"] = list(values)
        for number, upper in enumerate(AZIMUTHS):
            kept = [v for v, n in zip(values, place, strict=len(values) > 0) if n == number]
            found[f"pose_{kind}_{upper}"] = kept
    return found


def intervals(items: Sequence[Item], method: str, seed: int) -> dict[str, float]:
    """The 95 % interval of each pose figure: ``_low``, ``_high``, and half its width, ``_error``.

    By drawing objects with replacement: the pairs of one object are not independent. Nothing for
    fewer than two objects.
    """
    found: dict[str, float] = {}
    draws = np.random.default_rng(seed).integers(0, len(items), (_DRAWS, len(items)))
    for key in figure_keys():
        many = [item.figures[method].get(key, []) for item in items]
        sums, counts = np.array([sum(v) for v in many]), np.array([len(v) for v in many])
        if (counts > 0).sum() < 2:
            continue
        drawn = counts[draws].sum(axis=1)
        means = sums[draws].sum(axis=1)[drawn > 0] / drawn[drawn > 0]
        low, high = np.quantile(means, _ENDS).tolist()
        found |= {f"{key}_low": low, f"{key}_high": high, f"{key}_error": (high - low) / 2}
    return found


def figure_keys() -> list[str]:
    """Names of the pose figures, all azimuths first."""
    return [f"pose_{kind}{end}" for kind in KINDS for end in ("", *(f"_{a}" for a in AZIMUTHS))]


def tables() -> list[Table]:
    """One by outlines and one by colors, with half the width of each interval."""
    ranges = ["all", *(f"{a - 45} to {a} deg" for a in AZIMUTHS)]
    found = []
    for kind, plural in KINDS.items():
        keys = [key for key in figure_keys() if key.startswith(f"pose_{kind}")]
        columns = []
        for key, label in zip(keys, ranges, strict=True):
            columns.append(Column(key=key, label=label))
            columns.append(Column(key=f"{key}_error", label="±", better=""))
        title = (
            f"Pose following by {plural}, by azimuth from the input; 0.50 is chance, 1 the truth"
        )
        found.append(Table(title=title, columns=columns))
    return found


def _won(fit: Float[Tensor, "made true"]) -> list[float]:
    """Share of the others in each row that fit worse than the diagonal."""
    own = fit.diagonal()[:, None]
    wins = (own > fit).double() + 0.5 * (own == fit).double()
    wins.fill_diagonal_(0)
    return (wins.sum(dim=1) / (len(fit) - 1)).tolist()
