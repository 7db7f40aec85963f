import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unflat.geometry.pose import rotation_about, rotation_from_vector
from unflat.geometry.quaternion import quaternion_from_rotation, rotation_from_quaternion

QUIET = settings(max_examples=25, deadline=None, derandomize=True)


@QUIET
@given(seed=st.integers(0, 10_000), size=st.sampled_from([0.0, 1e-9, 1e-4, 1.0, 3.0]))
def test_there_and_back(seed: int, size: float):
    generator = torch.Generator().manual_seed(seed)
    vector = size * torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    rotation = rotation_from_vector(vector)
    quaternion = quaternion_from_rotation(rotation)
    torch.testing.assert_close(rotation_from_quaternion(quaternion), rotation)
    torch.testing.assert_close(rotation_from_quaternion(-3.0 * quaternion), rotation)
    assert (quaternion[..., 0] >= 0.0).all()
    torch.testing.assert_close(quaternion.norm(dim=-1), torch.ones(2, 5, dtype=torch.float64))


@pytest.mark.parametrize(
    "axis", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 0.1)]
)
def test_half_turns_are_exact(axis: tuple[float, float, float]):
    """The trace is -1 there, where the common formula divides by zero."""
    half_turn = rotation_about(torch.tensor(axis, dtype=torch.float64), math.pi)
    quaternion = quaternion_from_rotation(half_turn)
    torch.testing.assert_close(rotation_from_quaternion(quaternion), half_turn)


def test_order_is_w_first():
    quarter = rotation_about(torch.tensor([0.0, 0.0, 1.0]), math.pi / 2.0)
    expected = torch.tensor([math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)])
    torch.testing.assert_close(quaternion_from_rotation(quarter), expected)
