import math

import pytest
import torch

from unflat.geometry import Camera, camera_rays, look_at, pixel_grid, rotation_about
from unflat.metrics import LEAST_VALIDITY, forward_backward_cycle, psnr, reprojection_error
from unflat.rendering import forward_warp


def plane_view(camera, normal, point, side, color):
    """Picture and depth of a colored plane, ray by ray."""
    rays = camera_rays(camera, pixel_grid(side, side, dtype=torch.float64).reshape(-1, 2))
    distance = ((point - rays.origins) @ normal) / (rays.directions @ normal)
    points = rays.at(distance[:, None])[:, 0]
    depth = camera.to_camera(points)[:, 2]
    return color(points).T.reshape(1, -1, side, side), depth.reshape(1, side, side)


def camera_at(x, y, z, fov=0.7):
    return Camera.from_fov(fov, look_at(torch.tensor([x, y, z], dtype=torch.float64)))


def shifted(by, fov=math.pi / 2):
    pose = torch.eye(4, dtype=torch.float64)
    pose[0, 3] = by
    return Camera.from_fov(fov, pose)


def smooth(points):
    return 0.5 + 0.2 * torch.stack(
        [(1.3 * points[:, 0]).sin(), points[:, 1].cos(), points[:, 0] * points[:, 1]], -1
    )


NORMAL = torch.nn.functional.normalize(torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64), dim=0)
ORIGIN = torch.zeros(3, dtype=torch.float64)


def test_views_of_a_plane_agree():
    cameras = camera_at(0.3, 0.5, 3.0), camera_at(-0.4, 0.2, 2.6)
    errors = []
    for side in (32, 64):
        (image_a, depth_a), (image_b, depth_b) = (
            plane_view(camera, NORMAL, ORIGIN, side, smooth) for camera in cameras
        )
        # inverse depth is affine on a plane: the depths agree to rounding
        found = reprojection_error(
            image_a, depth_a, cameras[0], image_b, depth_b, cameras[1], tolerance=0.03
        )
        exact = reprojection_error(
            image_a, depth_a, cameras[0], image_b, depth_b, cameras[1], tolerance=0.02
        )
        torch.testing.assert_close(found.validity, exact.validity)
        errors.append(found.error.item())
        assert 0.6 < found.validity.item() < 1
        assert not found.is_void.item()
    assert errors[0] < 2e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.3)  # bilinear: square of the pixel


def test_colors_that_are_affine_in_the_picture_are_exact():
    left, right = shifted(0.0), shifted(0.3)
    normal, point = torch.tensor([0, 0, 1.0]).double(), torch.tensor([0, 0, 2.0]).double()

    def color(points):
        return torch.stack([points[:, 0], points[:, 1], 1 + 0 * points[:, 0]], -1) / 10 + 0.5

    views = [plane_view(camera, normal, point, 16, color) for camera in (left, right)]
    found = reprojection_error(*views[0], left, *views[1], right)
    assert found.error.item() < 1e-7
    # 90 degrees at 2: the picture is 4 wide, 0.3 are 1.2 of 16 pixels: the first 2 columns leave b
    assert found.validity.item() == pytest.approx(14 / 16)
    brighter = reprojection_error(*views[0], left, views[1][0] + 0.1, views[1][1], right)
    assert brighter.error.item() == pytest.approx(0.1)
    # another depth, and the same picture: shifted by 1.2 pixels less
    wrong = views[0][1] * 1.04, views[1][1] * 1.04
    off = reprojection_error(views[0][0], wrong[0], left, views[1][0], wrong[1], right)
    expected = 0.3 / 10 * (1 - 1 / 1.04) / 3  # of one of three channels
    assert off.error.item() == pytest.approx(expected, rel=1e-5)


def two_layers(by, side, half=0.26):
    """A red square at 1 before a blue wall at 4, from a camera that is moved to the right."""
    camera = shifted(by)
    rays = camera_rays(camera, pixel_grid(side, side, dtype=torch.float64).reshape(-1, 2))
    near = rays.origins + rays.directions / rays.directions[:, 2:]
    hit = (near[:, :2].abs() < half).all(-1).reshape(side, side)
    red, blue = torch.tensor([1.0, 0, 0]).double(), torch.tensor([0, 0, 1.0]).double()
    image = torch.where(hit[..., None], red, blue).permute(2, 0, 1)[None]
    return image, torch.where(hit, 1.0, 4.0).double()[None], camera


def test_what_the_other_view_does_not_see_is_left_out():
    a, b = two_layers(0.0, 64), two_layers(0.5, 64)
    found = reprojection_error(*a, *b)
    assert found.error.item() == 0
    assert 0.8 < found.validity.item() < 0.97
    blind = reprojection_error(*a, *b, tolerance=1e9)
    assert blind.error.item() > 0.01  # without the test red lands on blue


def test_views_that_do_not_agree_on_depth_have_no_validity():
    a, b = two_layers(0.0, 32), two_layers(0.1, 32)
    found = reprojection_error(*a, b[0], b[1] * 1.5, b[2])
    assert found.validity.item() < LEAST_VALIDITY
    assert found.is_void.item()
    nothing = reprojection_error(*a, b[0], b[1] * 0, b[2])
    assert nothing.error.isnan().item()
    assert nothing.validity.item() == 0
    empty = reprojection_error(a[0], a[1] * math.inf, a[2], *b)
    assert (empty.error.isnan().item(), empty.validity.item()) == (True, 0)


def test_the_share_is_of_pixels_with_a_surface():
    image, depth, camera = two_layers(0.0, 32)
    holes = depth.masked_fill(depth > 3, 0)
    found = reprojection_error(image, holes, camera, image, holes, camera)
    assert (found.error.item(), found.validity.item()) == (0, 1)


def test_another_resolution_and_orthographic_cameras():
    pose = torch.eye(4).double()
    moved = pose.clone()
    moved[:3, :3] = rotation_about(
        torch.tensor([0.0, 1.0, 0.0]).double(), torch.tensor(0.2).double()
    )
    normal, point = torch.tensor([0.2, 0.1, -1.0]).double(), torch.tensor([0, 0, 3.0]).double()
    cameras = [
        Camera(
            camera_to_world=p,
            intrinsics=torch.tensor([0.5, 0.5, 0.5, 0.5]).double(),
            kind="orthographic",
        )
        for p in (pose, moved)
    ]
    (image_a, depth_a), (image_b, depth_b) = (
        plane_view(camera, normal / normal.norm(), point, side, lambda p: p / 10 + 0.5)
        for camera, side in zip(cameras, (20, 33), strict=True)
    )
    found = reprojection_error(image_a, depth_a, cameras[0], image_b, depth_b, cameras[1])
    assert found.error.item() < 1e-7  # all is affine
    assert found.validity.item() > 0.3


def test_batches_with_one_camera_or_one_each():
    views = [two_layers(by, 16) for by in (0.1, 0.3)]
    a = two_layers(0.0, 16)
    images, depths = (torch.cat([view[i] for view in views]) for i in (0, 1))
    cameras = Camera(
        camera_to_world=torch.stack([view[2].camera_to_world for view in views]),
        intrinsics=torch.stack([view[2].intrinsics for view in views]),
    )
    both = reprojection_error(
        a[0].expand_as(images), a[1].expand_as(depths), a[2], images, depths, cameras
    )
    for i, view in enumerate(views):
        one = reprojection_error(*a, *view)
        torch.testing.assert_close(both.validity[i], one.validity[0])
        torch.testing.assert_close(both.error[i], one.error[0])
    images[1, 0, 3, 3] = math.nan
    with pytest.raises(ValueError, match=r"image_b holds NaN in picture 1$"):
        reprojection_error(
            a[0].expand_as(images), a[1].expand_as(depths), a[2], images, depths, cameras
        )
    with pytest.raises(ValueError, match=r"depth_a holds NaN in picture 0, 1$"):
        reprojection_error(
            images[:1].expand_as(images),
            depths * math.nan,
            a[2],
            images[:1].expand_as(images),
            depths,
            cameras,
        )


def test_a_cycle_over_whole_pixels_loses_the_border_alone():
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    disparity = torch.full((2, 16, 16), 0.5)
    # at depth 2 the picture is 4 wide: 0.5 are 2 pixels
    found = forward_backward_cycle(image, disparity, shifted(0.0), shifted(0.5))
    assert found.psnr.min() > 99
    torch.testing.assert_close(found.validity, torch.full((2,), 14 / 16))
    half = forward_backward_cycle(image, disparity, shifted(0.0), shifted(0.625))
    assert half.psnr.max() < 30  # two pixels and a half: colors move
    away = forward_backward_cycle(image, disparity, shifted(0.0), shifted(9.0))
    assert away.psnr.isnan().all()
    assert away.validity.tolist() == [0, 0]


def test_what_landed_from_a_hole_does_not_count():
    image, depth, here = two_layers(0.0, 64, half=0.15)
    there = two_layers(0.5, 64)[2]
    found = forward_backward_cycle(image, 1 / depth, here, there)
    assert found.psnr.item() > 99
    assert 0.03 < 1 - found.validity.item() < 0.3
    # what came back from the holes, which lie infinitely far there, would lower it
    away = forward_warp(image, 1 / depth, here, there)
    back = forward_warp(away.image, away.inverse_depth, there, here)
    assert psnr(back.image, image, back.visible[:, None]).item() < 60


def test_the_warp_is_a_parameter():
    image, depth, here = two_layers(0.0, 16)
    seen = []

    def warp(image, inverse_depth, start, end):
        seen.append((image.shape[1], start is here, end is here))
        return forward_warp(image, inverse_depth, start, end)

    there = shifted(0.5)
    found = forward_backward_cycle(image, 1 / depth, here, there, warp)
    assert seen == [(3, True, False), (4, False, True)]
    assert found.psnr == forward_backward_cycle(image, 1 / depth, here, there).psnr
    with pytest.raises(ValueError, match="NaN"):
        forward_backward_cycle(image * math.nan, 1 / depth, here, there)
