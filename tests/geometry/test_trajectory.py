import math

import pytest
import torch

from unflat.geometry.trajectory import orbit, spiral, turn_about_pivot, wiggle

PATHS = {"orbit": orbit, "spiral": spiral, "wiggle": wiggle}
ANGLE = math.radians(12.0)
PIVOT = torch.tensor([0.0, 0.0, 2.5])


@pytest.mark.parametrize("name", PATHS)
def test_paths_begin_at_identity_and_look_at_the_pivot(name: str):
    poses = PATHS[name](36, ANGLE, 2.5)
    assert poses.shape == (36, 4, 4)
    torch.testing.assert_close(poses[0], torch.eye(4))
    toward = PIVOT - poses[:, :3, 3]
    distance = toward.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(toward / distance, poses[:, :3, 2], atol=1e-5, rtol=0.0)
    angle = torch.acos(poses[:, 2, 2].clamp(max=1.0))
    assert float(angle.max()) == pytest.approx(ANGLE, abs=2e-3)
    if name == "spiral":
        assert float(distance.min()) == pytest.approx(2.5 * 0.85, abs=1e-3)
    else:
        torch.testing.assert_close(distance, torch.full_like(distance, 2.5))


@pytest.mark.parametrize("name", PATHS)
def test_paths_are_closed_and_smooth(name: str):
    """Second differences shrink with the square of the step, also across the closing step."""
    coarse, fine = PATHS[name](100, ANGLE, 2.5), PATHS[name](200, ANGLE, 2.5)
    bend = [(p.roll(-1, 0) - 2.0 * p + p.roll(1, 0)).abs().max() for p in (coarse, fine)]
    assert bend[1] < 0.35 * bend[0]


def test_orbit_sees_all_sides_and_wiggle_only_two():
    position = orbit(36, ANGLE, 2.5)[:, :3, 3]
    reach = 2.5 * math.sin(ANGLE)
    for axis in (0, 1):
        assert position[:, axis].max() > 0.8 * reach
        assert position[:, axis].min() < -0.8 * reach
    assert wiggle(36, ANGLE, 2.5)[:, 1, 3].abs().max() == 0.0


def test_right_is_right_and_up_is_up():
    pose = turn_about_pivot(torch.tensor([0.2, 0.0]), torch.tensor([0.0, 0.2]), 2.0)
    assert pose[0, 0, 3] > 0.3
    assert pose[1, 1, 3] < -0.3  # y points down in the scene world


def test_impossible_paths_are_refused():
    with pytest.raises(ValueError, match="count is 0"):
        orbit(0, ANGLE, 2.5)
    with pytest.raises(ValueError, match="pivot_depth"):
        wiggle(4, ANGLE, 0.0)
