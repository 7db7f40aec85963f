import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_cameras import random_camera

from unflat.geometry.camera import Camera, CameraKind, invert_rigid
from unflat.geometry.pose import orbit_pose
from unflat.geometry.rays import camera_rays, depth_per_distance, image_rays, pixel_grid

QUIET = settings(max_examples=20, deadline=None, derandomize=True)


def test_identity_camera_sees_right_down_forward():
    camera = Camera.from_fov(math.radians(90.0))
    uv, depth = camera.project(torch.tensor([[0.0, 0.0, 2.0], [2.0, 0.0, 2.0], [0.0, 2.0, 2.0]]))
    torch.testing.assert_close(uv, torch.tensor([[0.5, 0.5], [1.0, 0.5], [0.5, 1.0]]))
    torch.testing.assert_close(depth, torch.full((3,), 2.0))


def test_fov_is_across_the_width_and_pixels_are_square():
    camera = Camera.from_fov(math.radians(60.0), aspect=2.0)
    assert float(camera.fov) == pytest.approx(math.radians(60.0))
    edge = math.tan(math.radians(30.0))
    uv, _ = camera.project(torch.tensor([[edge, edge / 2.0, 1.0]]))
    torch.testing.assert_close(uv, torch.tensor([[1.0, 1.0]]))
    with pytest.raises(ValueError, match="fov is 4"):
        Camera.from_fov(4.0)


@pytest.mark.parametrize("kind", ["perspective", "orthographic"])
@QUIET
@given(seed=st.integers(0, 10_000))
def test_points_of_a_ray_fall_on_its_picture_coordinates(kind: CameraKind, seed: int):
    camera = random_camera(seed, (2,), kind)
    uv = torch.rand(2, 7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    rays = camera_rays(camera, uv)
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(2, 7, dtype=torch.float64))
    distance = torch.linspace(0.5, 3.0, 7, dtype=torch.float64).expand(2, 7)
    points = rays.at(distance[..., None])[..., 0, :]
    seen, depth = camera.project(points)
    torch.testing.assert_close(seen, uv)
    torch.testing.assert_close(depth, distance * depth_per_distance(camera, rays))
    torch.testing.assert_close(camera.unproject(uv, depth), points)


def test_orthographic_scale_is_per_world_unit():
    intrinsics = torch.tensor([0.25, 0.25, 0.5, 0.5])
    camera = Camera(camera_to_world=torch.eye(4), intrinsics=intrinsics, kind="orthographic")
    uv, _ = camera.project(torch.tensor([[2.0, 0.0, 1.0], [2.0, 0.0, 9.0]]))
    torch.testing.assert_close(uv, torch.tensor([[1.0, 0.5], [1.0, 0.5]]))


def test_pixel_centres_are_at_half_integers():
    grid = pixel_grid(2, 4)
    torch.testing.assert_close(grid[0, :, 0], torch.tensor([0.125, 0.375, 0.625, 0.875]))
    torch.testing.assert_close(grid[:, 3, 1], torch.tensor([0.25, 0.75]))


def test_picture_rays_have_rows_downwards_and_columns_rightwards():
    camera = random_camera(3, (2, 3))
    rays = image_rays(camera, 4, 5)
    assert rays.origins.shape == rays.directions.shape == (2, 3, 4, 5, 3)
    uv, _ = camera.project((rays.origins + rays.directions)[..., 1, 2, :][..., None, :])
    expected = torch.tensor([2.5 / 5.0, 1.5 / 4.0], dtype=torch.float64).expand(2, 3, 1, 2)
    torch.testing.assert_close(uv, expected)


def test_inverse_indexing_and_moving():
    camera = random_camera(1, (3,))
    identity = torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
    torch.testing.assert_close(camera.world_to_camera @ camera.camera_to_world, identity)
    torch.testing.assert_close(invert_rigid(camera.world_to_camera), camera.camera_to_world)
    single = camera[1]
    assert single.batch_shape == ()
    assert torch.equal(single.position, camera.position[1])
    assert camera.to(dtype=torch.float32).intrinsics.dtype == torch.float32


def test_wrong_shapes_are_refused():
    with pytest.raises(Exception, match=r"intrinsics|camera_to_world"):
        Camera(camera_to_world=torch.eye(4), intrinsics=torch.ones(2, 4))
    with pytest.raises(Exception, match=r"points"):
        Camera.from_fov(1.0, orbit_pose(torch.zeros(2), 0.0, 1.0)).project(torch.zeros(2, 5, 2))
