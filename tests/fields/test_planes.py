import numpy as np
import pytest
import torch

from unflat.fields import sample_plane, sample_triplane


def slow_lookup(plane: np.ndarray, x: float, y: float) -> np.ndarray:
    """Bilinear between texel centres, clamped: plane channels height width, x along columns."""
    _, height, width = plane.shape
    column = np.clip((x + 1) / 2 * width - 0.5, 0, width - 1)
    row = np.clip((y + 1) / 2 * height - 0.5, 0, height - 1)
    left, top = int(np.floor(column)), int(np.floor(row))
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    a, b = column - left, row - top
    upper = (1 - a) * plane[:, top, left] + a * plane[:, top, right]
    lower = (1 - a) * plane[:, bottom, left] + a * plane[:, bottom, right]
    return (1 - b) * upper + b * lower


def test_texel_centres_lie_half_a_texel_inside(generator):
    plane = torch.rand(1, 2, 3, 5, generator=generator, dtype=torch.float64)
    x = (torch.arange(5, dtype=torch.float64) + 0.5) / 5 * 2 - 1
    y = (torch.arange(3, dtype=torch.float64) + 0.5) / 3 * 2 - 1
    grid = torch.stack([x.expand(3, 5), y[:, None].expand(3, 5)], dim=-1)
    found = sample_plane(plane, grid[None])
    torch.testing.assert_close(found, plane.permute(0, 2, 3, 1), atol=1e-14, rtol=0)


def test_lookup_equals_a_slow_loop_inside_and_beyond_the_border(generator):
    plane = torch.rand(2, 3, 4, 6, generator=generator, dtype=torch.float64)
    at = 1.6 * (2 * torch.rand(2, 40, 2, generator=generator, dtype=torch.float64) - 1)
    assert (at.abs() > 1).any()
    assert (at.abs() < 1).all(-1).any()
    found = sample_plane(plane, at)
    for scene in range(2):
        for point in range(40):
            expected = slow_lookup(plane[scene].numpy(), *at[scene, point].tolist())
            np.testing.assert_allclose(found[scene, point].numpy(), expected, atol=1e-13)


def test_nearest_takes_the_texel_whose_cell_holds_the_point():
    plane = torch.arange(4.0).reshape(1, 1, 1, 4)
    at = torch.tensor([[[-0.51, 0.0], [-0.49, 0.0], [0.99, 0.0], [5.0, 0.0]]])
    assert sample_plane(plane, at, mode="nearest").flatten().tolist() == [0, 1, 3, 3]


@pytest.mark.parametrize("shape", [(), (7,), (2, 3), (2, 1, 3)])
def test_points_may_have_any_shape(shape, generator):
    plane = torch.rand(2, 3, 4, 4, generator=generator)
    at = 2 * torch.rand(2, *shape, 2, generator=generator) - 1
    found = sample_plane(plane, at)
    assert found.shape == (2, *shape, 3)
    flat = sample_plane(plane, at.reshape(2, -1, 2))
    torch.testing.assert_close(found.reshape(2, -1, 3), flat)


def test_triplane_adds_the_planes_xy_xz_yz(generator):
    planes = torch.rand(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64)
    points = 1.2 * (2 * torch.rand(2, 30, 3, generator=generator, dtype=torch.float64) - 1)
    found = sample_triplane(planes, points)
    for scene in range(2):
        xy, xz, yz = planes[scene].numpy()
        for index, (x, y, z) in enumerate(points[scene].tolist()):
            expected = slow_lookup(xy, x, y) + slow_lookup(xz, x, z) + slow_lookup(yz, y, z)
            np.testing.assert_allclose(found[scene, index].numpy(), expected, atol=1e-13)


def test_each_plane_ignores_the_axis_it_does_not_span(generator):
    points = 2 * torch.rand(1, 20, 3, generator=generator) - 1
    for plane, ignored in enumerate((2, 1, 0)):
        planes = torch.zeros(1, 3, 1, 8, 8)
        planes[:, plane] = torch.rand(1, 8, 8, generator=generator)
        before = sample_triplane(planes, points)
        for axis in range(3):
            moved = points.clone()
            moved[..., axis] = -moved[..., axis]
            same = torch.equal(sample_triplane(planes, moved), before)
            assert same == (axis == ignored), f"plane {plane}, axis {axis}"


def test_gradients_of_planes_and_points(generator):
    planes = torch.rand(1, 3, 2, 3, 4, generator=generator, dtype=torch.float64)
    # Points away from texel centres, where the interpolation has kinks.
    points = torch.tensor([[[0.13, -0.41, 0.27], [-0.61, 0.08, 0.55]]], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        sample_triplane, (planes.requires_grad_(), points.requires_grad_())
    )
