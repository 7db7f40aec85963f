"""The visible surface where somebody knows it better than the model: a depth map, or its network.

The map defines the surface; but behind it stands the tokens' field, in the tokens' own frame. A
photo's disparity means nothing before scale and shift are chosen, so the map takes those under
which the two agree best in least squares. Both are normalised for each picture, so its nearest
should lie near 1 and its farthest near 0 already: the fit may move either end by a quarter of the
range and no more. That bounds what wrong tokens can do: they neither flatten the map nor turn it
round.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unflat.systems.vq3d.refiner import Refined
from unflat.systems.vq3d.surface import carry_to_photo, snap

MOST_SHIFT = 0.25  # of normalised disparity, by which either end of a map may move


@torch.no_grad()
def given_surface(
    disparity: Float[Tensor, "batch 1 rows columns"],
    rendered: Float[Tensor, "batch 1 side side"],
    photo: Float[Tensor, "batch 3 height width"],
    spread: float,
) -> Refined:
    """A map as the visible surface of a photo, at the photo's resolution.

    A coarser map is enlarged along the photo's edges, without new values between two surfaces; of a
    finer one every pixel of the photo takes the nearest value. Ramps at silhouettes, which networks
    paint, become steps, as `snap` says; elsewhere nothing is smoothed.

    Args:
        disparity: normalised, 1 nearest, of the photo's square.
        rendered: the tokens' own normalised disparity.
        photo: in [0, 1].
        spread: softness of the surface, units of normalised disparity.
    """
    ends = fitted_ends(disparity, rendered)
    disparity = ends[:, :1, None, None] * (1 - disparity) + ends[:, 1:, None, None] * disparity
    side = min(disparity.shape[-1], photo.shape[-1])
    if disparity.shape[-2:] != (side, side):
        disparity = functional.interpolate(disparity, (side, side), mode="nearest-exact")
    disparity = snap(disparity)
    guide = functional.interpolate(photo, (side, side), mode="area")
    soft = torch.full_like(disparity, spread)
    return carry_to_photo(Refined(disparity, soft, soft), guide, photo)


def fitted_ends(
    disparity: Float[Tensor, "batch 1 rows columns"],
    rendered: Float[Tensor, "batch 1 side side"],
) -> Float[Tensor, "batch 2"]:
    """What a map's 0 and 1 become in the tokens' frame: bounded least squares, in closed form.

    With the ends (a, b) a value d becomes a (1 - d) + b d; a in [0, `MOST_SHIFT`], b in
    [1 - `MOST_SHIFT`, 1]. The cost is a quadratic in two unknowns: its least point is the free one
    if that is allowed, else it lies on one of the four sides of the allowed square.

    Args:
        disparity: normalised, 1 nearest.
        rendered: the tokens' own, of any resolution.
    """
    side = rendered.shape[-1]
    d = functional.interpolate(disparity, (side, side), mode="area").flatten(1).double()
    t = rendered.flatten(1).double()
    basis = torch.stack([1 - d, d], dim=1)  # batch 2 n
    matrix = basis @ basis.mT
    matrix = matrix + 1e-9 * torch.eye(2, device=d.device)  # of a map that is flat at this size
    right = (basis @ t[..., None])[..., 0]
    low = right.new_tensor([0.0, 1.0 - MOST_SHIFT])
    high = right.new_tensor([MOST_SHIFT, 1.0])
    candidates = [torch.linalg.solve(matrix, right)]
    for fixed in (0, 1):
        for bound in (low, high):
            free = 1 - fixed
            point = torch.empty_like(right)
            point[:, fixed] = bound[fixed]
            best = (right[:, free] - matrix[:, free, fixed] * bound[fixed]) / matrix[:, free, free]
            point[:, free] = best.clamp(low[free], high[free])
            candidates.append(point)
    points = torch.stack(candidates, dim=1)  # batch 5 2
    cost = ((points @ matrix) * points).sum(-1) - 2 * (points * right[:, None]).sum(-1)
    allowed = ((points >= low) & (points <= high)).all(-1)
    chosen = cost.masked_fill(~allowed, torch.inf).argmin(1)
    return points[torch.arange(len(points)), chosen].to(disparity)


def agreement(
    disparity: Float[Tensor, "1 1 rows columns"], rendered: Float[Tensor, "1 1 side side"]
) -> float:
    """Correlation of a map with the tokens' own disparity, in [-1, 1]."""
    side = rendered.shape[-1]
    small = functional.interpolate(disparity, (side, side), mode="area")
    return float(torch.corrcoef(torch.stack([small.flatten(), rendered.flatten()]))[0, 1])
