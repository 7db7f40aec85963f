import math

import pytest
import torch
from torch import nn

from unflat.fields.distance import LaplaceDensity
from unflat.losses import (
    density_variation,
    eikonal,
    indecision,
    minimal_surface,
    moved_points,
    occupancy_variation,
    points_in_cells,
    slope,
)

BOUNDS = torch.tensor([[-1.0, 0.0, 2.0], [1.0, 0.5, 6.0]], dtype=torch.float64)


def test_every_cell_of_the_box_gets_its_point(generator):
    draws = torch.rand(2, 4, 4, 4, 3, generator=generator).double()
    points = points_in_cells(BOUNDS, draws)
    assert points.shape == (2, 64, 3)
    share = (points - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0])
    cells = (share * 4).floor().long()
    for one in cells:
        assert len({tuple(cell.tolist()) for cell in one}) == 64
    assert int(cells.min()) == 0
    assert int(cells.max()) == 3
    torch.testing.assert_close((share * 4) % 1, draws.flatten(1, 3), atol=1e-9, rtol=0)


def test_neighbours_are_as_far_as_told_along_each_side_of_the_box(generator):
    noise = torch.randn(1, 4000, 3, generator=generator).double()
    points = torch.zeros(1, 4000, 3, dtype=torch.float64)
    moved = moved_points(points, BOUNDS, noise, spread=0.01)
    expected = torch.tensor([0.01, 0.0025, 0.02], dtype=torch.float64)  # half sides 1, 1/4, 2
    torch.testing.assert_close(moved / noise, expected.expand_as(moved))


def test_a_sphere_is_a_distance_and_twice_a_sphere_is_not(generator):
    points = torch.randn(2, 50, 3, generator=generator).double().requires_grad_()
    distance = points.norm(dim=-1) - 0.4
    assert float(eikonal(distance, points).detach().max()) < 1e-20
    torch.testing.assert_close(slope(distance, points), points / points.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(eikonal(2 * distance, points), torch.ones(2, 50).double())
    # |gradient| of x^2 + y^2 + z^2 is 2 r
    squared = points.square().sum(-1)
    torch.testing.assert_close(eikonal(squared, points), (2 * points.norm(dim=-1) - 1).square())


def test_the_eikonal_term_teaches_a_network_by_its_own_finite_differences():
    """The derivative by a weight, which needs second derivatives of the network."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5), nn.Softplus(), nn.Linear(5, 1)).double()
    points = torch.randn(1, 6, 3, dtype=torch.float64).requires_grad_()
    first = network[0]
    assert isinstance(first, nn.Linear)

    def cost() -> torch.Tensor:
        return eikonal(network(points)[..., 0], points).mean()

    cost().backward()
    assert first.weight.grad is not None
    step = 1e-6
    with torch.no_grad():
        first.weight[2, 1] += step
    above = float(cost().detach())
    with torch.no_grad():
        first.weight[2, 1] -= 2 * step
    below = float(cost().detach())
    assert (above - below) / (2 * step) == pytest.approx(float(first.weight.grad[2, 1]), rel=1e-5)


def test_the_term_is_finite_where_a_field_is_flat():
    points = torch.zeros(1, 2, 3).requires_grad_()
    weight = torch.ones(3, requires_grad=True)
    value = eikonal((points * weight * 0).sum(-1), points)
    value.sum().backward()
    torch.testing.assert_close(value, torch.ones(1, 2))
    assert weight.grad is not None
    assert bool(torch.isfinite(weight.grad).all())


def test_terms_by_hand():
    density = LaplaceDensity(beta=0.1)
    d, moved = torch.tensor([0.0, 0.3, -0.3]), torch.tensor([0.1, 0.3, 0.3])
    up = 0.5 * math.exp(-1)
    expected = torch.tensor([0.5 - up, 0.0, 1 - math.exp(-3)])
    torch.testing.assert_close(occupancy_variation(density, d, moved).detach(), expected)
    torch.testing.assert_close(
        indecision(density, d).detach(), torch.tensor([5.0, 5 * math.exp(-3), 5 * math.exp(-3)])
    )
    near = torch.tensor([0.0, 0.01, -0.02])
    torch.testing.assert_close(
        minimal_surface(near), torch.tensor([1.0, math.exp(-1), math.exp(-2)])
    )
    torch.testing.assert_close(density_variation(d, moved), torch.tensor([0.1, 0.0, 0.6]))


def test_less_surface_pays_for_occupancy_variation(generator):
    """The mean over a box is about proportional to the area: four times for twice the radius."""
    density = LaplaceDensity(beta=0.02).double()
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3], dtype=torch.float64)
    draws = torch.rand(1, 40, 40, 40, 3, generator=generator).double()
    points = points_in_cells(bounds, draws)
    noise = torch.randn(points.shape, generator=generator).double()
    moved = moved_points(points, bounds, noise, 0.004)

    def price(radius: float) -> float:
        terms = [each.norm(dim=-1) - radius for each in (points, moved)]
        return float(occupancy_variation(density, *terms).detach().mean())

    assert price(0.8) / price(0.4) == pytest.approx(4, rel=0.1)
