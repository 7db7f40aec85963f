import math

import pytest
import torch
from torch import nn

from unflat.fields import FieldOutput, PanoramaBackground
from unflat.geometry import Camera, image_rays, rotation_about
from unflat.rendering import RenderOptions, render


def numbered(height=4, width=8) -> torch.Tensor:
    """A panorama whose texels count up: 10 row + column."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    return (10.0 * rows + columns)[None, None].double()


def direction(azimuth: float, elevation: float) -> torch.Tensor:
    """Scene world: azimuth to the right of straight ahead, elevation up (y is down)."""
    across = math.cos(elevation)
    vector = [across * math.sin(azimuth), -math.sin(elevation), across * math.cos(azimuth)]
    return torch.tensor([[vector]], dtype=torch.float64)


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("column", range(8))
def test_texel_centres_are_met_by_their_own_directions(row, column):
    azimuth = (column + 0.5) / 8 * 2 * math.pi - math.pi
    elevation = math.pi / 2 - (row + 0.5) / 4 * math.pi
    found = PanoramaBackground(numbered())(direction(azimuth, elevation))
    assert found.item() == pytest.approx(10 * row + column, abs=1e-9)


def test_the_seam_behind_is_interpolated():
    background = PanoramaBackground(numbered())
    elevation = math.pi / 8  # centre of row 1
    left = background(direction(-math.pi + 1e-9, elevation)).item()
    right = background(direction(math.pi - 1e-9, elevation)).item()
    assert left == pytest.approx((10 + 17) / 2, abs=1e-6)
    assert right == pytest.approx(left, abs=1e-6)


def test_object_world_has_y_up_and_looks_along_minus_z():
    scene, turned = PanoramaBackground(numbered()), PanoramaBackground(numbered(), world="object")
    here = direction(0.9, 0.4)
    assert turned(here * torch.tensor([1.0, -1.0, -1.0])).item() == scene(here).item()
    assert turned(here).item() != scene(here).item()


def test_straight_up_is_finite_and_the_upper_row():
    found = PanoramaBackground(numbered())(direction(0.0, math.pi / 2))
    assert 0 <= found.item() <= 7


def test_an_empty_world_shows_the_panorama(generator):
    def empty(points, directions=None):
        return FieldOutput(points.new_zeros(points.shape[:-1]), torch.full_like(points, 0.3))

    panorama = torch.rand(2, 3, 6, 12, generator=generator)
    background = PanoramaBackground(panorama)
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[1, :3, :3] = rotation_about(torch.tensor([0.0, 1.0, 0.0]), torch.tensor(2.0))
    camera = Camera.from_fov(1.2, poses)
    options = RenderOptions(samples=4, opaque_last=False, background=background)
    picture = render(empty, camera, 5, 7, options)
    expected = background(image_rays(camera, 5, 7).directions)
    torch.testing.assert_close(picture.rgb, expected.permute(0, 3, 1, 2))
    assert picture.rgb.std() > 0.05
    assert (picture.opacity == 0).all()


def test_half_of_the_light_shows_half_of_the_background():
    def fog(points, directions=None):
        density = torch.full(points.shape[:-1], math.log(2) / 3)
        return FieldOutput(density, torch.ones_like(points) * torch.tensor([1.0, 0.0, 0.0]))

    options = RenderOptions(
        samples=8, near=1.0, far=4.0, opaque_last=False, background=(0.0, 0.5, 1.0), least_light=0.0
    )
    picture = render(fog, Camera.from_fov(0.5, torch.eye(4)[None]), 2, 2, options)
    assert picture.rgb[0, :, 0, 1].tolist() == pytest.approx([0.5, 0.25, 0.5], abs=1e-5)


def test_the_panorama_can_be_learned():
    background = PanoramaBackground(nn.Parameter(numbered()))
    background(direction(0.1, 0.2)).sum().backward()
    assert background.panorama.grad is not None
    assert background.panorama.grad.sum().item() == pytest.approx(1.0)
