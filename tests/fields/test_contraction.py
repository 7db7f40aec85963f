import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unflat.fields import contract, uncontract

COORDINATE = st.floats(-1e4, 1e4, allow_subnormal=False)
POINT = st.tuples(COORDINATE, COORDINATE, COORDINATE)


def point(numbers) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@given(POINT)
def test_everything_comes_to_lie_inside_radius_two(numbers):
    x = point(numbers)
    y = contract(x)
    assert y.norm() < 2
    # The direction stays: the cross product vanishes and the dot product does not turn negative.
    assert torch.linalg.cross(x, y).norm() <= 1e-12 * max(1.0, float(x.norm() * y.norm()))
    assert (x * y).sum() >= 0


@given(POINT)
def test_the_inverse_undoes_it(numbers):
    x = point(numbers)
    # 2 - |y| loses digits in proportion to the distance.
    tolerance = 1e-14 * max(1.0, float(x.norm())) ** 2
    torch.testing.assert_close(uncontract(contract(x)), x, atol=tolerance, rtol=1e-12)


def test_closed_form_along_a_direction():
    direction = point([2.0, -1.0, 2.0]) / 3
    for distance, expected in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (2.0, 1.5), (10.0, 1.9)):
        torch.testing.assert_close(contract(distance * direction), expected * direction)


def test_inside_the_unit_ball_nothing_moves(generator):
    x = torch.randn(50, 3, generator=generator)
    x = x / x.norm(dim=-1, keepdim=True) * torch.rand(50, 1, generator=generator)
    assert torch.equal(contract(x), x)


def test_gradients_are_finite_and_join_at_the_sphere():
    at = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1e-20, 0], [1e8, 0, 0]], requires_grad=True)
    contract(at).sum().backward()
    assert at.grad is not None
    assert at.grad.isfinite().all()
    assert at.grad[0].tolist() == [1, 1, 1]
    jacobian = torch.func.jacrev(contract)
    eye = torch.eye(3, dtype=torch.float64)
    for radius in (1 - 1e-7, 1 + 1e-7):
        torch.testing.assert_close(
            jacobian(point([radius, 0.0, 0.0])), eye, atol=1e-6, rtol=0, check_dtype=False
        )


def test_points_at_infinity_are_refused():
    with pytest.raises(ValueError, match="norm below 2, found 2"):
        uncontract(torch.tensor([[0.0, 2.0, 0.0]]))
