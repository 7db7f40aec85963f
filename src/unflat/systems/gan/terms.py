"""What is asked of a generator beside fooling its critic: each term a small class with its weight.

A term is asked once a step with a `Moment`, and gives named costs, means over the batch, weights
included. ``share`` of the steps compute it, then 1 / share times as strong, so that a dear term
costs little and weighs the same (StyleGAN2's lazy regularization, arXiv 1912.04958, section 3.1).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from unflat.fields import DistanceTriplaneField, LaplaceDensity
from unflat.losses.path_length import PathLength, path_lengths
from unflat.losses.surface import (
    density_variation,
    eikonal,
    indecision,
    moved_points,
    occupancy_variation,
    points_in_cells,
)
from unflat.systems.gan.generator import Form


@dataclass(frozen=True)
class Moment:
    """What terms may look at.

    Attributes:
        codes: of the generator, requiring gradients; one for each layer.
        form: made of them.
        progress: share of the adversarial part of the run that is done.
        uniform: uniform numbers of a shape, for each picture of the batch.
        normal: normally distributed ones.
    """

    codes: Tensor
    form: Form
    progress: float
    uniform: Callable[[tuple[int, ...]], Tensor]
    normal: Callable[[tuple[int, ...]], Tensor]


@runtime_checkable
class Term(Protocol):
    """Costs of a generator."""

    share: float
    """Of the steps that compute it."""
    in_reconstruction: bool
    """Whether it is also asked while known pictures are reconstructed."""

    def __call__(self, moment: Moment) -> dict[str, Tensor]:
        """Costs by name, weights included."""
        ...


class SurfaceTerm(nn.Module):
    """What makes a number a signed distance, and its surface small and decided.

    Eikonal term, total variation of occupancy and nerf-from-image's "entropy", on one random point
    in each cell of the box (arXiv 2211.11674, section 3.1, and its code).
    """

    in_reconstruction = True

    def __init__(
        self,
        *,
        eikonal_weight: float = 0.1,
        variation_weight: float = 0.5,
        indecision_weight: float = 0.05,
        cells: int = 12,
        ramp: float = 0.1,
        share: float = 1.0,
    ):
        """Weights as published.

        Args:
            eikonal_weight: of (|gradient| - 1)^2.
            variation_weight: of the difference in occupancy between neighbours.
            indecision_weight: of points near the surface.
            cells: on a side of the box; nerf-from-image has 31.
            ramp: share of the adversarial part in which the last two grow to their weights.
            share: see `Term`.
        """
        super().__init__()
        self.weights = eikonal_weight, variation_weight, indecision_weight
        self.cells, self.ramp, self.share = cells, ramp, share

    def forward(self, moment: Moment) -> dict[str, Tensor]:
        """``eikonal``, ``variation`` and ``indecision``."""
        field = moment.form.field
        density: LaplaceDensity = field.density  # pyright: ignore[reportAttributeAccessIssue]
        distance_at: Callable[[Tensor], Tensor] = field.distance  # pyright: ignore[reportAttributeAccessIssue]
        bounds: Tensor = field.bounds  # pyright: ignore[reportAttributeAccessIssue]
        draws = moment.uniform((self.cells, self.cells, self.cells, 3))
        points = points_in_cells(bounds, draws).requires_grad_()
        distance = distance_at(points)
        slack = eikonal(distance, points).mean()
        aside = moved_points(points.detach(), bounds, moment.normal(tuple(points.shape[1:])))
        grown = min(1.0, moment.progress / self.ramp) if self.ramp else 1.0
        first, second, third = self.weights
        changed = occupancy_variation(density, distance, distance_at(aside)).mean()
        unsure = indecision(density, distance).mean()
        return {
            "eikonal": first * slack,
            "variation": second * grown * changed,
            "indecision": third * grown * unsure,
        }


class DensityVariationTerm(nn.Module):
    """EG3D's: density differs little between neighbours (arXiv 2112.07945, supplement)."""

    in_reconstruction = True

    def __init__(self, weight: float = 0.25, *, points: int = 1000, share: float = 0.25):
        """Weight, and how many points are compared in each object; EG3D has 1000."""
        super().__init__()
        self.weight, self.points, self.share = weight, points, share

    def forward(self, moment: Moment) -> dict[str, Tensor]:
        """``variation``."""
        field = moment.form.field
        bounds: Tensor = field.bounds  # pyright: ignore[reportAttributeAccessIssue]
        points = bounds[0] + (bounds[1] - bounds[0]) * moment.uniform((self.points, 3))
        aside = moved_points(points, bounds, moment.normal((self.points, 3)))
        cost = density_variation(field(points).density, field(aside).density).mean()
        return {"variation": self.weight * cost}


class PathLengthTerm(nn.Module):
    """Steps in the code change planes and palette by about the same everywhere.

    The decoder and the rays are left out, which makes it cheap (arXiv 2211.11674, section 3.1).
    """

    in_reconstruction = False

    def __init__(self, weight: float = 2.0, *, ramp: float = 0.2, share: float = 0.25):
        """Weight as published; there it is computed in every step.

        Args:
            weight: of the term.
            ramp: share of the adversarial part in which it grows to its weight: the mean of
                lengths begins at 0, and has to be about right first.
            share: see `Term`; the mean takes in as much more of each step that computes it.
        """
        super().__init__()
        self.weight, self.ramp, self.share = weight, ramp, share
        self.mean = PathLength(min(1.0, 0.01 / share))

    def forward(self, moment: Moment) -> dict[str, Tensor]:
        """``path_length``."""
        field, palette = moment.form.field, moment.form.palette
        assert isinstance(field, DistanceTriplaneField)
        planes = field.planes
        noise = moment.normal(tuple(planes.shape[1:]))
        palette_noise = None if palette is None else moment.normal(tuple(palette.shape[1:]))
        lengths = path_lengths(moment.codes, planes, noise, palette, palette_noise)
        grown = min(1.0, moment.progress / self.ramp) if self.ramp else 1.0
        return {"path_length": self.weight * grown * self.mean(lengths).mean()}


def sphere_cost(form: Form, radius: float, draws: Tensor) -> Tensor:
    """How far a form's distance is from that of a ball at the middle, and from being one.

    Squared error plus a tenth of the eikonal term, as nerf-from-image begins; its ball has radius 1
    whatever the box is, so that some boxes lie inside it: ours is given the box's own.

    Args:
        form: with a distance.
        radius: of the ball, as a share of half the box.
        draws: see `points_in_cells`.
    """
    bounds: Tensor = form.field.bounds  # pyright: ignore[reportAttributeAccessIssue]
    points = points_in_cells(bounds, draws).requires_grad_()
    distance = form.field.distance(points)  # pyright: ignore[reportAttributeAccessIssue]
    half = (bounds[1] - bounds[0]).min() / 2
    wanted = points.detach().square().sum(-1).sqrt() - radius * half
    return (distance - wanted).square().mean() + 0.1 * eikonal(distance, points).mean()
