import itertools

import numpy as np
import pytest
import torch
from torch import nn

from unflat.fields import VoxelField

BOUNDS = torch.tensor([[-1.0, 0.0, 2.0], [3.0, 1.0, 5.0]], dtype=torch.float64)
SHAPE = (3, 2, 4)  # z y x


def centres() -> torch.Tensor:
    """World positions of the voxels' centres, z y x 3."""
    axes = []
    for axis, count in enumerate(SHAPE[::-1]):
        low, high = BOUNDS[:, axis].tolist()
        axes.append(low + (torch.arange(count, dtype=torch.float64) + 0.5) / count * (high - low))
    x, y, z = axes
    zs, ys, xs = torch.meshgrid(z, y, x, indexing="ij")
    return torch.stack([xs, ys, zs], dim=-1)


def random_field(generator) -> VoxelField:
    density = torch.rand(2, *SHAPE, generator=generator, dtype=torch.float64)
    features = torch.rand(2, 3, *SHAPE, generator=generator, dtype=torch.float64)
    return VoxelField(density, features, BOUNDS)


def test_voxels_are_met_at_their_centres(generator):
    field = random_field(generator)
    out = field(centres().expand(2, *SHAPE, 3))
    torch.testing.assert_close(out.density, field.density, atol=1e-12, rtol=0)
    torch.testing.assert_close(
        out.features, field.features.permute(0, 2, 3, 4, 1), atol=1e-12, rtol=0
    )


def test_between_centres_it_equals_a_slow_loop_over_eight_neighbours(generator):
    field = random_field(generator)
    share = torch.rand(2, 25, 3, generator=generator, dtype=torch.float64)
    points = BOUNDS[0] + share * (BOUNDS[1] - BOUNDS[0])
    out = field(points)
    size = np.array(SHAPE[::-1])
    for scene, index in itertools.product(range(2), range(25)):
        cell = np.clip(share[scene, index].numpy() * size - 0.5, 0, size - 1)
        low = np.floor(cell).astype(int)
        expected = 0.0
        for corner in itertools.product((0, 1), repeat=3):
            at = np.minimum(low + corner, size - 1)
            weight = np.prod(np.where(corner, cell - low, 1 - (cell - low)))
            expected += weight * field.density[scene, at[2], at[1], at[0]].item()
        assert out.density[scene, index].item() == pytest.approx(expected, abs=1e-12)


def test_it_is_empty_outside_its_box(generator):
    field = random_field(generator)
    inside = 0.5 * (BOUNDS[0] + BOUNDS[1])
    points = inside.repeat(2, 7, 1)
    for axis in range(3):
        points[:, 2 * axis, axis] = BOUNDS[0, axis] - 1e-6
        points[:, 2 * axis + 1, axis] = BOUNDS[1, axis] + 1e-6
    density = field(points).density
    assert (density[:, :6] == 0).all()
    assert (density[:, 6] > 0).all()


def test_negative_densities_count_as_nothing():
    density = -torch.ones(1, 2, 2, 2)
    field = VoxelField(density, torch.ones(1, 3, 2, 2, 2), torch.tensor([[0.0] * 3, [1.0] * 3]))
    assert (field(torch.full((1, 4, 3), 0.5)).density == 0).all()


def test_grids_given_as_parameters_are_learned(generator):
    density = nn.Parameter(torch.rand(1, 2, 2, 2, generator=generator, dtype=torch.float64))
    features = torch.rand(1, 3, 2, 2, 2, generator=generator, dtype=torch.float64)
    field = VoxelField(density, features, BOUNDS)
    assert [name for name, _ in field.named_parameters()] == ["density"]
    points = torch.tensor([[[0.3, 0.4, 3.1]]], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda grid: VoxelField(grid, features, BOUNDS)(points), (density,)
    )


def test_a_box_without_volume_is_refused():
    grid = torch.ones(1, 2, 2, 2)
    with pytest.raises(ValueError, match="grow along every axis"):
        VoxelField(grid, grid[:, None], torch.tensor([[0.0, 0, 0], [1, 0, 1]]))
