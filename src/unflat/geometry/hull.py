"""Visual hulls of silhouettes, and how well silhouettes agree with each other.

A visual hull (Laurentini 1994) is all that falls inside the silhouette in every view. Silhouettes
that were made up one by one have no common object, so votes are counted instead, and a few views
may be outvoted::

    values = mattes_at(opacities, cameras, points)
    hull = voted(values, weights, outvoted=2.0) > 0.5
    scores = agreement(opacities, cameras)
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from unflat.geometry.camera import Camera, length

HALF_BOX = 0.6
"""World units: half the side of the box in which an object of longest side 1 is looked for."""

_CELLS = 32  # along a side, for agreement
_ROUNDS = 3  # of counting votes; then weights hardly change
_DOUBTED = 0.15  # share of the votes that may be wrong: more than one of eight views
_SHARPNESS = 6  # power of a score that is its vote in the next round


def cell_centers(
    bounds: Float[Tensor, "2 3"], counts: tuple[int, int, int]
) -> Float[Tensor, "z y x 3"]:
    """Middles of the cells of a box, in the order in which voxels are stored.

    Args:
        bounds: lowest and highest corner, world units.
        counts: cells along z, y and x.
    """
    low, high = bounds
    z, y, x = (
        low[axis] + (high[axis] - low[axis]) * (torch.arange(count).to(bounds) + 0.5) / count
        for axis, count in zip((2, 1, 0), counts, strict=True)
    )
    grid = torch.meshgrid(z, y, x, indexing="ij")
    return torch.stack([grid[2], grid[1], grid[0]], dim=-1)


def mattes_at(
    opacities: Float[Tensor, "views height width"], cameras: Camera, points: Float[Tensor, "n 3"]
) -> Float[Tensor, "views n"]:
    """What each view's matte is where points fall on it, bilinear; 0 outside of the picture.

    Args:
        opacities: share of each pixel that the object covers, [0, 1].
        cameras: perspective, one for each matte.
        points: world units.
    """
    uv, depth = cameras.project(points.expand(len(opacities), -1, 3))
    place = torch.where((depth > 0)[..., None], 2 * uv - 1, 2.0)
    seen = functional.grid_sample(opacities[:, None], place[:, None], align_corners=False)
    return seen[:, 0, 0]


def voted(
    values: Float[Tensor, "views n"], weights: Float[Tensor, " views"], outvoted: float = 0.0
) -> Float[Tensor, " n"]:
    """The least of the values that views agree on: views of so much weight may say less.

    With ``outvoted`` 0 it is the smallest value, and 1/2 is the surface of the visual hull.

    Args:
        values: of each point in each view.
        weights: of the views, at least 0; those of weight 0 have no say.
        outvoted: weight of views that a point may be outside of.
    """
    ordered, place = values.sort(dim=0)
    spent = weights[place].cumsum(0)
    first = (spent > outvoted).int().argmax(0)
    return ordered.gather(0, first[None])[0]


def agreement(
    opacities: Float[Tensor, "views height width"],
    cameras: Camera,
    *,
    half_box: float = HALF_BOX,
) -> Float[Tensor, " views"]:
    """How far each view's silhouette belongs to the object of the others, in [0, 1].

    The product of two shares: of its own silhouette that the hull of the others covers (what lies
    beyond belongs to no common object), and of the others' silhouettes that stay covered when it
    carves as well (what it lacks). Views count by their own score in the next of three rounds, so
    that a wrong one does not blame the others. Silhouettes of one object score nearly 1; cells and
    pixels are coarse, so that differences below 0.02 mean nothing. Two views always have some
    object in common unless one lacks what the other shows above or below it.

    Args:
        opacities: mattes of at least two views.
        cameras: perspective, one for each.
        half_box: half the side of the box about the origin that holds the object, world units.

    Raises:
        ValueError: there are fewer than two views.
    """
    if len(opacities) < 2:
        raise ValueError(f"agreement is between views; {len(opacities)} cannot agree")
    bounds = opacities.new_tensor([[-half_box] * 3, [half_box] * 3])
    points = cell_centers(bounds, (_CELLS, _CELLS, _CELLS)).reshape(-1, 3)
    looks = _looks(opacities, cameras, points, 2 * half_box / _CELLS)
    weights = opacities.new_ones(len(opacities))
    scores = weights
    for _ in range(_ROUNDS):
        scores = torch.stack([_score(looks, weights, view) for view in range(len(opacities))])
        weights = (scores / scores.max().clamp_min(1e-6)) ** _SHARPNESS
    return scores


class _Looks:
    """Cells and coarse pixels of all views."""

    def __init__(self, inside: Tensor, pixel: Tensor, needed: Tensor):
        self.inside: Bool[Tensor, "views n"] = inside
        self.pixel: Int[Tensor, "views n"] = pixel
        self.needed: Bool[Tensor, "views pixels"] = needed

    def covered(self, view: int, cells: Bool[Tensor, " n"]) -> float:
        """Share of a view's silhouette onto which some of the cells fall; 0 if it is empty."""
        needed = self.needed[view]
        there = torch.zeros_like(needed)
        there[self.pixel[view, cells]] = True
        return float((there & needed).sum()) / max(1, int(needed.sum()))


def _looks(
    opacities: Float[Tensor, "views height width"],
    cameras: Camera,
    points: Float[Tensor, "n 3"],
    cell: float,
) -> _Looks:
    """Each cell in each view; a cell counts as inside if any of it may be."""
    distance = float(length(cameras.position).min())
    focal = float(cameras.intrinsics[..., 0].max())
    # A coarse pixel is never finer than a cell, or silhouettes of cells would have holes.
    side = max(8, int((distance - 0.5 * float(points.abs().max())) / (focal * cell)))
    reach = round(cell * focal * opacities.shape[-1] / distance / 2 + 0.5)
    grown = functional.max_pool2d(opacities[:, None], 2 * reach + 1, 1, reach)[:, 0]
    inside = mattes_at(grown, cameras, points) > 0.5
    uv, _ = cameras.project(points.expand(len(opacities), -1, 3))
    column, row = (uv * side).long().clamp(0, side - 1).unbind(-1)
    needed = functional.adaptive_avg_pool2d(opacities[:, None], side).flatten(1) > 0.5
    return _Looks(inside, row * side + column, needed)


def _score(looks: _Looks, weights: Float[Tensor, " views"], view: int) -> Tensor:
    """Of one view against the others."""
    told = weights.clone()
    told[view] = 0
    doubted = max(_DOUBTED * float(told.sum()), 1.01 if len(told) > 3 else 0.0)
    hull = told @ (~looks.inside).to(told) <= doubted
    own = looks.covered(view, hull)
    carved = hull & looks.inside[view]
    kept = told.new_zeros(())
    for other in range(len(told)):
        if not told[other]:
            continue
        before = looks.covered(other, hull)
        kept += told[other] * (looks.covered(other, carved) / before if before else 1.0)
    return own * kept / told.sum().clamp_min(1e-6)
