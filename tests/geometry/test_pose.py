import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unflat.geometry.pose import (
    look_at,
    orbit_coordinates,
    orbit_pose,
    rotation_about,
    rotation_from_vector,
)

QUIET = settings(max_examples=20, deadline=None, derandomize=True)
ANGLE = st.floats(-3.1, 3.1)


def assert_rotation(rotation: torch.Tensor):
    identity = torch.eye(3, dtype=rotation.dtype).expand_as(rotation)
    torch.testing.assert_close(rotation @ rotation.mT, identity, atol=1e-6, rtol=0.0)
    torch.testing.assert_close(
        torch.linalg.det(rotation), torch.ones(rotation.shape[:-2]).to(rotation)
    )


def test_azimuth_zero_is_in_front_and_grows_counter_clockwise_from_above():
    front = orbit_pose(0.0, 0.0, 2.0)
    torch.testing.assert_close(front[:3, 3], torch.tensor([0.0, 0.0, 2.0]))
    torch.testing.assert_close(front[:3, :3], torch.diag(torch.tensor([1.0, -1.0, -1.0])))
    side = orbit_pose(0.0, math.pi / 2.0, 2.0)
    torch.testing.assert_close(side[:3, 3], torch.tensor([2.0, 0.0, 0.0]), atol=1e-6, rtol=0.0)
    above = orbit_pose(math.pi / 4.0, 0.0, 2.0)
    assert above[1, 3] > 1.4


@QUIET
@given(elevation=st.floats(-1.5, 1.5), azimuth=ANGLE, radius=st.floats(0.1, 9.0))
def test_orbit_pose_is_look_at_and_inverts(elevation: float, azimuth: float, radius: float):
    values = torch.tensor([elevation, azimuth, radius], dtype=torch.float64)
    pose = orbit_pose(*values.unbind())
    assert_rotation(pose[:3, :3])
    torch.testing.assert_close(pose, look_at(pose[:3, 3]))
    torch.testing.assert_close(torch.stack(orbit_coordinates(pose[:3, 3])), values)


@pytest.mark.parametrize("elevation", [math.pi / 2.0, -math.pi / 2.0])
def test_poles_are_finite_and_continuous(elevation: float):
    pole = orbit_pose(torch.tensor(elevation, dtype=torch.float64), 0.0, 1.0)
    near = orbit_pose(torch.tensor(elevation * (1.0 - 1e-6), dtype=torch.float64), 0.0, 1.0)
    torch.testing.assert_close(pole, near, atol=1e-5, rtol=0.0)
    straight = torch.tensor([0.0, math.copysign(1.0, elevation), 0.0], dtype=torch.float64)
    torch.testing.assert_close(look_at(straight), pole)


def test_look_at_with_batched_positions_and_one_target():
    position = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.tensor([[0.3, 0.1, -0.2]], dtype=torch.float64)
    pose = look_at(position, target, up=(0.0, 0.0, 1.0))
    assert_rotation(pose[:, :3, :3])
    toward = torch.nn.functional.normalize(target - position, dim=-1)
    torch.testing.assert_close(pose[:, :3, 2], toward)
    assert (pose[:, 2, 1] < 0.0).all()  # picture's down points down in a z-up world
    torch.testing.assert_close(pose[:, 2, 0], torch.zeros(5, dtype=torch.float64))  # no roll


def test_rotation_turns_counter_clockwise():
    quarter = rotation_about(torch.tensor([0.0, 0.0, 3.0]), math.pi / 2.0)
    turned = quarter @ torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(turned, torch.tensor([0.0, 1.0, 0.0]), atol=1e-6, rtol=0.0)


@QUIET
@given(x=ANGLE, y=ANGLE, z=ANGLE)
def test_rotation_is_the_matrix_exponential(x: float, y: float, z: float):
    vector = torch.tensor([x, y, z], dtype=torch.float64)
    skew = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(rotation_from_vector(vector), torch.linalg.matrix_exp(skew))


def test_rotation_gradient_at_zero_is_the_generator():
    zero = torch.zeros(3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(rotation_from_vector, zero)
    expected = torch.zeros(3, 3, 3, dtype=torch.float64)
    for i, j, k in [(0, 1, 2), (1, 2, 0), (2, 0, 1)]:
        expected[j, i, k], expected[i, j, k] = 1.0, -1.0
    torch.testing.assert_close(jacobian, expected)
