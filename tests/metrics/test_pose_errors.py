import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unflat.geometry import orbit_pose, rotation_about, rotation_from_quaternion
from unflat.metrics import (
    accuracy_within,
    focal_error,
    rotation_error,
    symmetric_rotation_error,
    translation_error,
    turns_about_up,
)


def random_rotations(count, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return rotation_from_quaternion(torch.randn(count, 4, generator=generator, dtype=dtype))


@given(
    st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda axis: np.linalg.norm(axis) > 0.1),
    st.floats(0, 180),
    st.integers(0, 1000),
)
def test_a_turn_by_an_angle_is_that_angle(axis, degrees, seed):
    true = random_rotations(1, seed)[0]
    turn = rotation_about(torch.tensor(axis, dtype=torch.float64), math.radians(degrees))
    for predicted in (turn @ true, true @ turn):
        assert rotation_error(predicted, true).item() == pytest.approx(degrees, abs=1e-6)
        assert rotation_error(true, predicted).item() == pytest.approx(degrees, abs=1e-6)


def test_rotation_error_is_the_arc_cosine_of_the_trace():
    first, second = random_rotations(50), random_rotations(50, seed=1)
    errors = rotation_error(first, second)
    for error, a, b in zip(errors, first.numpy(), second.numpy(), strict=True):
        slow = math.degrees(math.acos((np.trace(a.T @ b) - 1) / 2))
        assert error.item() == pytest.approx(slow, abs=1e-5)
    shaped = rotation_error(first.reshape(5, 10, 3, 3), second.reshape(5, 10, 3, 3))
    torch.testing.assert_close(shaped.flatten(), errors)


def test_rotation_error_keeps_its_digits_at_the_ends():
    """In float32 the arc cosine cannot tell angles below 0.02 degrees from 0."""
    true = random_rotations(20, dtype=torch.float32)
    assert rotation_error(true, true).max() == 0
    axis = torch.tensor([0.6, 0.0, 0.8])
    for degrees in (1e-3, 180 - 1e-3):
        turn = rotation_about(axis.double(), math.radians(degrees))
        predicted = (turn @ true.double()).float()
        assert (rotation_error(predicted, true) - degrees).abs().max() < 2e-5


def test_random_rotations_are_126_degrees_apart():
    errors = rotation_error(random_rotations(20000), random_rotations(20000, seed=1))
    assert errors.mean().item() == pytest.approx(90 + 360 / math.pi**2, abs=1.0)  # closed form


def test_a_square_table_looks_alike_four_times():
    true = orbit_pose(0.4, 0.3, 2.0)[:3, :3]
    symmetries = turns_about_up(4)
    assert symmetries.shape == (4, 3, 3)
    for degrees, expected in ((0, 0), (90, 0), (180, 0), (270, 0), (45, 45), (100, 10), (-10, 10)):
        predicted = orbit_pose(0.4, 0.3 + math.radians(degrees), 2.0)[:3, :3]
        error = symmetric_rotation_error(predicted, true, symmetries)
        assert error.item() == pytest.approx(expected, abs=1e-3)
    # The symmetry belongs to the object: about the camera's own axis nothing looks alike.
    rolled = true @ rotation_about(torch.tensor([0.0, 0.0, 1.0]), math.pi / 2)
    assert symmetric_rotation_error(rolled, true, symmetries).item() > 60


def test_without_symmetry_it_is_the_plain_error():
    first, second = random_rotations(30), random_rotations(30, seed=1)
    plain = rotation_error(first, second)
    torch.testing.assert_close(symmetric_rotation_error(first, second, turns_about_up(1)), plain)
    least = symmetric_rotation_error(first, second, turns_about_up(6).double())
    assert (least <= plain + 1e-4).all()
    assert (least < plain - 10).any()


def test_accuracy_counts_what_is_below():
    errors = torch.tensor([0.0, 14.9, 15.0, 29.0, math.inf])
    assert accuracy_within(errors, 15.0).item() == pytest.approx(0.4)
    assert accuracy_within(errors, 30.0).item() == pytest.approx(0.8)
    with pytest.raises(ValueError, match="no NaN"):
        accuracy_within(torch.tensor([1.0, math.nan]), 15.0)
    with pytest.raises(ValueError, match=r"\(0,\)"):
        accuracy_within(torch.zeros(0), 15.0)


def test_positions_and_focal_lengths():
    first = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    second = torch.tensor([[1.0, 5.0, 7.0], [0.0, 0.0, -2.0]])
    torch.testing.assert_close(translation_error(first, second), torch.tensor([5.0, 2.0]))
    true = torch.tensor([1.0, 1.0, 2.0])
    predicted = torch.tensor([1.0, 2.0, 1.0])
    expected = torch.tensor([0.0, math.log(2), math.log(2)])
    torch.testing.assert_close(focal_error(predicted, true), expected)
    with pytest.raises(ValueError, match="predicted: focal lengths must be positive"):
        focal_error(torch.tensor([-1.0]), torch.tensor([1.0]))
    with pytest.raises(ValueError, match=r"true .* not finite"):
        translation_error(first, second * math.nan)


def test_what_is_no_rotation_is_refused():
    good = torch.eye(3)[None]
    with pytest.raises(ValueError, match=r"predicted .* not finite"):
        rotation_error(good * math.nan, good)
    with pytest.raises(ValueError, match=r"true .* no rotation"):
        rotation_error(good, 2.0 * good)
    with pytest.raises(ValueError, match=r"predicted .* no rotation"):
        rotation_error(-good, good)  # a mirror
    with pytest.raises(ValueError, match="the identity is not among them"):
        symmetric_rotation_error(good, good, turns_about_up(4)[1:])
    with pytest.raises(ValueError, match="order is 0"):
        turns_about_up(0)
