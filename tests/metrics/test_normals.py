import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unflat.geometry import Camera, camera_rays, look_at, pixel_grid
from unflat.metrics import inner_pixels, mean_angle_deviation, normals_from_depth


def plane_depth(camera, normal, point, side):
    """Depth of a plane under a perspective camera, from the equation of the plane."""
    grid = pixel_grid(side, side, dtype=torch.float64).reshape(-1, 2)
    rays = camera_rays(camera, grid)
    distance = ((point - rays.origins) @ normal) / (rays.directions @ normal)
    return (distance * (rays.directions @ camera.forward)).reshape(1, side, side)


def sphere(camera, radius, side):
    """Depth, normals and mask of a sphere around the origin."""
    grid = pixel_grid(side, side, dtype=torch.float64).reshape(-1, 2)
    rays = camera_rays(camera, grid)
    along = -(rays.origins * rays.directions).sum(-1)
    square = along**2 - rays.origins.square().sum(-1) + radius**2
    mask = square > 0
    points = rays.at((along - square.clamp_min(0).sqrt())[:, None])[:, 0]
    depth = camera.to_camera(points)[:, 2]
    normals = (points / radius).T.reshape(1, 3, side, side)
    return depth.reshape(1, side, side), normals, mask.reshape(1, side, side)


def camera_at(x, y, z, fov=0.7):
    pose = look_at(torch.tensor([x, y, z], dtype=torch.float64))
    return Camera.from_fov(fov, pose)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6))
def test_normals_of_a_tilted_plane_are_exact(tilt, turn):
    camera = camera_at(1.0, 0.7, 3.0)
    across, down, forward = camera.rotation.unbind(-1)
    normal = torch.nn.functional.normalize(-forward + tilt * across + turn * down, dim=0)
    depth = plane_depth(camera, normal, torch.zeros(3, dtype=torch.float64), 9)
    found = normals_from_depth(depth, camera)
    expected = normal.float()[None, :, None, None].expand(1, 3, 9, 9)  # the border as well
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert mean_angle_deviation(found, expected).item() < 1e-4


def test_normals_of_a_sphere_get_better_with_the_square_of_the_pixel():
    camera = camera_at(1.0, 0.7, 3.0)
    deviations = []
    for side in (48, 96, 192):
        depth, true, mask = sphere(camera, 0.8, side)
        # a fixed part of the ball: the rim, where depth is steep, has no second order
        facing = (true * -camera.forward[None, :, None, None]).sum(1) > 0.6
        found = normals_from_depth(depth, camera)
        deviations.append(mean_angle_deviation(found.double(), true, mask & facing).item())
    assert deviations[0] < 0.5
    assert deviations[0] / deviations[1] == pytest.approx(4, rel=0.15)
    assert deviations[1] / deviations[2] == pytest.approx(4, rel=0.15)


def test_orthographic_maps_of_their_own_cameras():
    cameras = Camera(
        camera_to_world=torch.stack([torch.eye(4), look_at(torch.tensor([2.0, 0.0, 0.0]))]),
        intrinsics=torch.tensor([[0.5, 0.5, 0.5, 0.5]]).expand(2, 4),
        kind="orthographic",
    )
    u = pixel_grid(6, 6)[..., 0]
    depth = torch.stack([3 + 2 * u, torch.full((6, 6), 2.0)])  # 45 degrees: x = 2 u - 1
    found = normals_from_depth(depth, cameras)
    s = math.sqrt(0.5)
    expected = torch.tensor([[s, 0, -s], [1.0, 0, 0]])[:, :, None, None].expand(2, 3, 6, 6)
    torch.testing.assert_close(found, expected)


def test_a_wall_is_45_degrees_off_a_half_sphere():
    grid = pixel_grid(300, 300, dtype=torch.float64) * 2 - 1
    square = grid.square().sum(-1)
    ball = torch.cat([grid, -(1 - square).clamp_min(0).sqrt()[..., None]], -1).permute(2, 0, 1)
    wall = torch.tensor([0, 0, -3.0]).double()[:, None, None].expand(3, 300, 300)
    found = mean_angle_deviation(wall[None], ball[None], (square < 1)[None])
    assert found.item() == pytest.approx(45, abs=0.1)


def test_angles_in_degrees_over_the_mask():
    angles = torch.tensor([[0.0, 1e-4, 30.0, 90.0], [180.0, 60.0, 45.0, 10.0]]).double()
    radians = torch.deg2rad(angles)
    turned = torch.stack([radians.cos(), radians.sin(), 0 * radians])[None]
    straight = torch.tensor([1.0, 0, 0]).double()[None, :, None, None].expand(1, 3, 2, 4)
    for mask in (torch.ones(1, 2, 4, dtype=torch.bool), (angles < 50)[None], (angles < 1)[None]):
        found = mean_angle_deviation(2 * turned, straight, mask)
        assert found.item() == pytest.approx(angles[mask[0]].mean().item(), rel=1e-6)
    whole = mean_angle_deviation(turned, straight)
    assert whole.item() == pytest.approx(angles.mean().item(), rel=1e-6)


def test_inner_pixels():
    mask = torch.zeros(1, 6, 6, dtype=torch.bool)
    mask[0, 1:5, 0:5] = True
    mask[0, 1, 1] = False
    expected = torch.zeros_like(mask)
    expected[0, 2:4, 1:4] = True
    expected[0, 2, 1:3] = False
    assert torch.equal(inner_pixels(mask), expected)


def test_bad_input():
    camera = Camera.from_fov(0.7)
    depth = torch.full((2, 5, 5), 2.0)
    depth[1, 2, 2] = math.inf
    normals = normals_from_depth(depth, camera)
    true = normals_from_depth(depth[:1].expand(2, 5, 5), camera)
    with pytest.raises(ValueError, match=r"normals hold NaN or zero in picture 1$"):
        mean_angle_deviation(normals, true)
    assert mean_angle_deviation(normals, true, inner_pixels(depth < 9)[:, :1].expand(2, 5, 5) | (
        torch.arange(25).reshape(5, 5) == 0)).max() < 1e-4  # fmt: skip
    with pytest.raises(ValueError, match=r"true normals hold NaN or zero in picture 0$"):
        mean_angle_deviation(true, true * torch.tensor([0.0, 1.0])[:, None, None, None])
    with pytest.raises(ValueError, match=r"no pixels of picture 0, 1$"):
        mean_angle_deviation(true, true, torch.zeros(2, 5, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="2 x 2 pixels, got 1 x 5"):
        normals_from_depth(depth[:, :1], camera)
