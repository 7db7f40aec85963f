import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unflat.geometry import Camera, image_rays, orbit_pose
from unflat.metrics import depth_agreement

RADIUS = 1.3
TOLERANCE = 0.05


def orthographic(azimuth, width=1.0):
    """A camera at (sin a, 0, cos a) RADIUS whose picture is `width` world units wide."""
    pose = orbit_pose(*torch.tensor([0.0, azimuth, RADIUS], dtype=torch.float64))
    lens = torch.tensor([1 / width, 1 / width, 0.5, 0.5], dtype=torch.float64)
    return Camera(camera_to_world=pose, intrinsics=lens, kind="orthographic")


def perspective(azimuth, elevation=0.0, radius=RADIUS):
    pose = orbit_pose(*torch.tensor([elevation, azimuth, radius], dtype=torch.float64))
    return Camera.from_fov(0.9, pose)


def ball(camera, side, size=0.4):
    """Depth of a ball about the origin, infinite beside it: |o + t d| = size."""
    rays = image_rays(camera, side, side)
    along = (rays.origins * rays.directions).sum(-1)
    square = along.square() - rays.origins.square().sum(-1) + size**2
    distance = torch.where(square > 0, -along - square.clamp_min(0).sqrt(), torch.inf)
    return (distance * (rays.directions * camera.forward).sum(-1))[None]


@pytest.mark.parametrize("degrees", [15, 45, 90])
def test_views_of_a_ball_agree_everywhere_and_share_what_geometry_says(degrees):
    a, b = orthographic(0.0), orthographic(math.radians(degrees))
    found = depth_agreement(ball(a, 128), a, ball(b, 128), b)
    assert found.agreement.item() == 1
    assert found.error.item() < 0.01
    # of the disk that a sees b sees a half disk and a half ellipse; the tolerance adds a little
    share = (1 + math.cos(math.radians(degrees))) / 2
    assert share - 0.01 < found.compared.item() < share + 0.05


@pytest.mark.parametrize("degrees", [15, 45])
def test_pictures_that_turn_with_their_camera_agree_in_a_strip(degrees):
    """Both cameras see a plane at RADIUS: turned by t, a point x to the side comes x sin t nearer.

    Where that is beyond the tolerance it contradicts; the other side lies behind, hidden.
    """
    a, b = orthographic(0.0), orthographic(math.radians(degrees))
    sine, half = math.sin(math.radians(degrees)), 0.5
    side = 256
    wall = torch.full((1, side, side), RADIUS, dtype=torch.float64)
    for start, end in ((a, b), (b, a)):
        found = depth_agreement(wall, start, wall, end)
        strip = min(TOLERANCE * RADIUS / sine, half)
        assert found.agreement.item() == pytest.approx(2 * strip / (half + strip), abs=2 / side)
        mean = sine / RADIUS * (half**2 + strip**2) / 2 / (half + strip)
        assert found.error.item() == pytest.approx(mean, rel=1e-2)
        assert found.compared.item() == pytest.approx((half + strip) / (2 * half), abs=1 / side)


def test_a_card_that_stands_still_agrees_with_itself():
    """Why this figure stands beside one of geometry: a picture on a wall is consistent."""
    side = 64
    cameras = [perspective(math.radians(angle)) for angle in (0.0, 15.0)]
    depths = []
    for camera in cameras:
        rays = image_rays(camera, side, side)
        distance = -rays.origins[..., 2] / rays.directions[..., 2]  # the plane z = 0
        depths.append((distance * (rays.directions * camera.forward).sum(-1))[None])
    found = depth_agreement(depths[0], cameras[0], depths[1], cameras[1])
    assert found.agreement.item() == 1
    assert found.error.item() < 0.01


def test_to_see_through_a_surface_is_a_contradiction_and_to_be_hidden_is_none():
    camera = perspective(0.0)
    wall = torch.full((1, 16, 16), 1.0)
    nothing = depth_agreement(wall, camera, wall * math.inf, camera)
    assert (nothing.agreement.item(), nothing.compared.item()) == (0, 1)
    assert nothing.error.isnan().item()
    nearer = depth_agreement(wall, camera, wall * 1.25, camera)
    assert nearer.agreement.item() == 0
    assert nearer.error.item() == pytest.approx(0.2)
    hidden = depth_agreement(wall * 1.25, camera, wall, camera)
    assert hidden.agreement.isnan().item()
    assert hidden.compared.item() == 0
    empty = depth_agreement(wall * 0, camera, wall, camera)
    assert (empty.agreement.isnan().item(), empty.compared.item()) == (True, 0)


def test_every_pair_is_compared_alone_and_nan_is_refused():
    a, b = perspective(0.0), perspective(0.6)
    depth_a, depth_b = ball(a, 32), ball(b, 32)
    both = depth_agreement(
        depth_a.expand(2, -1, -1),
        a,
        torch.cat(
            [
                depth_b,
                0.8 * depth_b,
            ]
        )[[1, 0]],
        b,
    )
    assert both.agreement[1] == depth_agreement(depth_a, a, depth_b, b).agreement[0] == 1
    assert both.agreement[0] != 1
    with pytest.raises(ValueError, match=r"depth_b holds NaN in picture 1$"):
        depth_agreement(depth_a.expand(2, -1, -1), a, torch.cat([depth_b, depth_b * math.nan]), b)


@given(st.integers(-9, 9), st.floats(-3.0, 3.0), st.floats(-1.2, 1.2))
def test_the_unit_of_length_changes_nothing(power, azimuth, elevation):
    """Powers of two, which rounding does not see; the balls differ, so that a part disagrees."""
    figures = []
    for unit in (1.0, 2.0**power):
        a = perspective(0.0, radius=RADIUS * unit)
        b = perspective(azimuth, elevation, RADIUS * unit)
        depth_a, depth_b = ball(a, 24, 0.4 * unit), ball(b, 24, 0.45 * unit)
        figures.append(depth_agreement(depth_a, a, depth_b, b))
    for one, other in zip(*figures, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True, atol=0, rtol=0)
