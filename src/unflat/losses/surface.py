"""Terms on the surface that a field holds, and the points at which they are asked.

    points = points_in_cells(bounds, draws).requires_grad_()
    distance = field.distance(points)
    loss = 0.1 * eikonal(distance, points).mean()

Distances are signed, negative inside, in world units. Nothing here averages: whoever adds the terms
up does.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.fields.distance import LaplaceDensity
from unflat.geometry.camera import length


def points_in_cells(
    bounds: Float[Tensor, "2 3"], draws: Float[Tensor, "batch n n n 3"]
) -> Float[Tensor, "batch _ 3"]:
    """One point in each of n x n x n equal cells of a box, so that no part of it is left out.

    nerf-from-image (arXiv 2211.11674) has n = 31. EG3D (arXiv 2112.07945) draws from the cube
    [-1, 1]^3 whatever the box is: in its box of side 1 only an eighth of those points fall inside,
    where alone there is a density to teach.

    Args:
        bounds: lowest and highest corner of the box, world units.
        draws: uniform in [0, 1]: the place in each cell.
    """
    n = draws.shape[1]
    index = torch.arange(n, device=draws.device, dtype=draws.dtype)
    corner = torch.stack(torch.meshgrid(index, index, index, indexing="ij"), dim=-1)
    share = ((corner + draws) / n).flatten(1, 3)
    return bounds[0] + (bounds[1] - bounds[0]) * share


def moved_points(
    points: Float[Tensor, "batch n 3"],
    bounds: Float[Tensor, "2 3"],
    noise: Float[Tensor, "batch n 3"],
    spread: float = 0.004,
) -> Float[Tensor, "batch n 3"]:
    """Points a little aside, for the terms that compare neighbours.

    Args:
        points: world units.
        bounds: of the box.
        noise: standard normal.
        spread: standard deviation in half sides of the box, 0.004 in nerf-from-image. EG3D has the
            same number in world units.
    """
    return points + 0.5 * (bounds[1] - bounds[0]) * spread * noise


def slope(
    distance: Float[Tensor, " batch *n"], points: Float[Tensor, "batch *n 3"]
) -> Float[Tensor, "batch *n 3"]:
    """Gradient of a field's values by the points they were asked at; differentiable.

    Args:
        distance: or a density; each value depends on its own point alone.
        points: requiring gradients, in the units in which lengths are meant.
    """
    (gradient,) = torch.autograd.grad(distance.sum(), points, create_graph=True)
    return gradient


def eikonal(
    distance: Float[Tensor, " batch *n"], points: Float[Tensor, "batch *n 3"]
) -> Float[Tensor, " batch *n"]:
    """(|gradient| - 1)^2: zero everywhere for a true distance (IGR, arXiv 2002.10099, eq. 3).

    Args:
        distance: at the points.
        points: requiring gradients, in the units of the distance.
    """
    return (length(slope(distance, points)) - 1).square()


def occupancy_variation(
    density: LaplaceDensity, distance: Float[Tensor, "*n"], moved: Float[Tensor, "*n"]
) -> Float[Tensor, "*n"]:
    """How much the share inside differs between neighbours: |Psi(-d(x)) - Psi(-d(x'))|.

    nerf-from-image's total variation (arXiv 2211.11674; weight 0.5, grown over the first 12500
    iterations): its mean over a box is about proportional to the area of the surface.

    Args:
        density: whose Psi it is.
        distance: at some points.
        moved: at their neighbours, see `moved_points`.
    """
    return (density.share(distance) - density.share(moved)).abs()


def indecision(density: LaplaceDensity, distance: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """How undecided points are between inside and outside: exp(-|d| / beta) / (2 beta).

    nerf-from-image's "entropy" term (weight 0.05, grown over the first 12500 iterations): it drives
    values away from the surface, so that with the eikonal term no more surface is left than needed.

    Args:
        density: whose beta it is.
        distance: at any points.
    """
    return density.sharpness(distance)


def minimal_surface(distance: Float[Tensor, "*n"], sharpness: float = 100.0) -> Float[Tensor, "*n"]:
    """exp(-sharpness |d|): a price on every point near a surface (StyleSDF, arXiv 2112.11427).

    StyleSDF weighs it with 0.05. The same idea as `indecision`, with a width that is not learned.

    Args:
        distance: at any points.
        sharpness: per unit of distance; 100 there.
    """
    return torch.exp(-sharpness * distance.abs())


def density_variation(
    density: Float[Tensor, "*n"], moved: Float[Tensor, "*n"]
) -> Float[Tensor, "*n"]:
    """|density(x) - density(x')|: keeps tri-planes smooth (EG3D, weight 0.25, every 4th step).

    EG3D asks the decoder's number before its softplus, so that empty space is smoothed as well; it
    moves points by 0.004 world units and draws them as told at `points_in_cells`.

    Args:
        density: at some points, before or after the activation.
        moved: at their neighbours, see `moved_points`.
    """
    return (density - moved).abs()
