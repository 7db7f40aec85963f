"""Voxels that hold a distance: what is rendered, and the surface that is drawn."""

import numpy as np
import pytest
import torch

from unflat.export.isosurface import mesh_of_field
from unflat.fields import Distanced, DistanceVoxelField, LaplaceDensity, VoxelField, soft_density
from unflat.geometry.hull import cell_centers

BOUNDS = torch.tensor([[-1.0, -0.8, -0.6], [1.0, 0.8, 0.6]])
COUNTS = (24, 32, 40)


def ball(softness: float = 0.02) -> DistanceVoxelField:
    points = cell_centers(BOUNDS, COUNTS)
    colors = torch.rand(1, 3, *COUNTS, generator=torch.Generator().manual_seed(0))
    return DistanceVoxelField((points.norm(dim=-1) - 0.43)[None], colors, BOUNDS, softness)


def test_density_is_that_of_the_learned_one():
    distance = torch.linspace(-0.3, 0.3, 41, dtype=torch.float64)
    learned = LaplaceDensity(None, 0.07).double()
    torch.testing.assert_close(
        soft_density(distance, 0.07), learned(distance).detach(), rtol=1e-6, atol=1e-9
    )


def test_it_is_a_voxel_field_of_that_density():
    field = ball()
    sunk = field.distances + 0.55 * 2.0 / 40 + 1.1 * 0.02
    plain = VoxelField(soft_density(sunk, 0.02), field.features, BOUNDS)
    points = 2.4 * torch.rand(1, 200, 3) - 1.2
    for found, expected in zip(field(points), plain(points), strict=True):
        assert torch.equal(found, expected)
    assert isinstance(field, Distanced)


@pytest.mark.parametrize("softness", [0.01, 0.025, 0.05])
def test_its_outline_is_that_of_its_surface(softness):
    """Rays along an axis: a ball's outline is a disc of its radius, to 0.4 voxels of 0.05."""
    across = torch.linspace(-0.6, 0.6, 121)
    depth = torch.linspace(-0.59, 0.59, 119)
    points = torch.zeros(1, 121, 119, 3)
    points[..., 0], points[..., 2] = across[:, None], depth
    density = ball(softness)(points).density
    covered = 1 - torch.exp(-0.01 * density[0].sum(-1)) > 0.5
    radius = 0.5 * 0.01 * float(covered.sum())
    assert radius == pytest.approx(0.43, abs=0.4 * 0.05)


def test_distances_are_true_inside_of_the_box_and_grow_beyond():
    field = ball()
    points = (2 * torch.rand(1, 500, 3) - 1) * 0.5
    expected = points.norm(dim=-1) - 0.43
    away = points.norm(dim=-1) > 0.15  # the middle has a kink that voxels round off
    assert (field.distance(points) - expected)[away].abs().max() < 0.01
    far = torch.tensor([[[1.0, 0.0, 0.0], [1.5, 0.0, 0.0], [1.0, 0.8, 0.6], [1.0, 0.8, 1.6]]])
    distance = field.distance(far)[0]
    assert float(distance[1] - distance[0]) == pytest.approx(0.5)
    assert float(distance[3] - distance[2]) == pytest.approx(1.0)


def test_its_surface_is_finer_than_its_voxels():
    mesh = mesh_of_field(ball(), 48)
    radius = np.linalg.norm(mesh.vertices, axis=1)
    assert np.abs(radius - 0.43).max() < 0.1 * 0.05  # a tenth of a voxel


def test_gradients_reach_what_the_distances_were_made_of():
    distances = torch.full((1, 3, 3, 3), 0.05, requires_grad=True)
    field = DistanceVoxelField(distances, torch.rand(1, 3, 3, 3, 3), BOUNDS, 0.1)
    field(torch.zeros(1, 1, 3)).density.sum().backward()
    assert distances.grad is not None
    sunk = 0.05 + 0.55 * 2.0 / 3 + 1.1 * 0.1
    expected = -0.5 * np.exp(-sunk / 0.1) / 0.01
    assert float(distances.grad[0, 1, 1, 1]) == pytest.approx(expected, rel=1e-4)


def test_a_surface_has_some_softness():
    with pytest.raises(ValueError, match="softness is 0"):
        ball(softness=0.0)
