import math

import pytest
import torch

from unflat.geometry import look_at, orbit_coordinates, orbit_pose
from unflat.geometry.turntable import swing, turn_around, turntable

PIVOT = torch.tensor([0.1, -0.2, 0.3])
ELEVATION, AZIMUTH, RADIUS = 0.35, 0.6, 1.7
START = orbit_pose(ELEVATION, AZIMUTH, RADIUS, PIVOT)


def test_angles_add_to_the_camera_s_own():
    azimuth, elevation = torch.tensor([0.0, 0.4, -2.0, 3.0]), torch.tensor([0.0, 0.3, -0.9, 0.1])
    expected = orbit_pose(ELEVATION + elevation, AZIMUTH + azimuth, RADIUS, PIVOT)
    torch.testing.assert_close(
        turn_around(START, PIVOT, azimuth, elevation), expected, atol=1e-6, rtol=0
    )


def test_turntable_goes_once_around_at_its_height():
    poses = turntable(START, PIVOT, 12)
    torch.testing.assert_close(poses[0], START)
    elevation, azimuth, radius = orbit_coordinates(poses[:, :3, 3] - PIVOT)
    torch.testing.assert_close(elevation, torch.full_like(elevation, ELEVATION))
    torch.testing.assert_close(radius, torch.full_like(radius, RADIUS))
    steps = torch.diff(azimuth, append=azimuth[:1]) % (2 * math.pi)
    torch.testing.assert_close(steps, torch.full_like(steps, math.pi / 6))


def test_rise_goes_up_first_and_comes_back():
    poses = turntable(START, PIVOT, 16, rise=0.2)
    elevation, azimuth, _ = orbit_coordinates(poses[:, :3, 3] - PIVOT)
    torch.testing.assert_close(
        elevation[[0, 4, 8, 12]] - ELEVATION, torch.tensor([0, 0.2, 0, -0.2])
    )
    assert float(azimuth[1]) > AZIMUTH
    toward = torch.nn.functional.normalize(PIVOT - poses[:, :3, 3], dim=-1)
    torch.testing.assert_close(poses[:, :3, 2], toward)


def test_swing_goes_to_the_right_first():
    poses = swing(START, PIVOT, 8, 0.5)
    elevation, azimuth, _ = orbit_coordinates(poses[:, :3, 3] - PIVOT)
    torch.testing.assert_close(elevation, torch.full_like(elevation, ELEVATION))
    torch.testing.assert_close(azimuth[[0, 2, 4, 6]] - AZIMUTH, torch.tensor([0, 0.5, 0, -0.5]))
    local = (poses[1, :3, 3] - START[:3, 3]) @ START[:3, :3]
    assert float(local[0]) > 0, "right, as the camera counts"


def test_a_rolled_camera_that_looks_aside_is_carried_rigidly():
    pose = look_at(torch.tensor([0.5, 0.4, 2.0]), torch.tensor([0.3, 0.0, 0.1]), up=(0.3, 1.0, 0.0))
    poses = turntable(pose, PIVOT, 5, rise=0.1)
    torch.testing.assert_close(poses[0], pose)
    # What the camera sees of the pivot never changes.
    seen = ((PIVOT - poses[:, :3, 3])[:, None] @ poses[:, :3, :3])[:, 0]
    torch.testing.assert_close(seen, seen[:1].expand_as(seen), atol=1e-6, rtol=0)


def test_a_path_needs_a_camera():
    with pytest.raises(ValueError, match="count is 0; a path needs"):
        turntable(START, PIVOT, 0)
