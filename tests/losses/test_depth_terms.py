import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unflat.losses import accumulated_depth, distortion, is_smooth, pointwise_depth


def rays(seed=0, count=4, n=7, total=None):
    """Weights, falling disparity edges from 1 to 0, their middles, a target."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(count, n, generator=generator, dtype=torch.float64) ** 2
    share = share / share.sum(-1, keepdim=True)
    if total is not None:
        share = share * total
    inner = torch.rand(count, n - 1, generator=generator, dtype=torch.float64)
    inner = inner.sort(dim=-1, descending=True).values
    edges = torch.cat([torch.ones_like(inner[:, :1]), inner, torch.zeros_like(inner[:, :1])], -1)
    target = torch.rand(count, generator=generator, dtype=torch.float64)
    return share, edges, 0.5 * (edges[:, 1:] + edges[:, :-1]), target


# Pointwise and accumulated


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_pointwise_is_accumulated_plus_variance(seed, total):
    """The identity; light that is left ends at 0 and counts in mean and variance alike."""
    share, _, middles, target = rays(seed, total=total)
    left = 1 - share.sum(-1)
    mean = (share * middles).sum(-1)
    variance = (share * (middles - mean[:, None]).square()).sum(-1) + left * mean.square()
    found = pointwise_depth(share, middles, target, huber=None)
    expected = accumulated_depth(share, middles, target) + variance
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_fog_is_free_for_the_accumulated_term_alone():
    share = torch.tensor([[0.5, 0.5]])
    middles, target = torch.tensor([[0.8, 0.2]]), torch.tensor([0.5])
    assert accumulated_depth(share, middles, target).item() == pytest.approx(0, abs=1e-12)
    assert pointwise_depth(share, middles, target, huber=None).item() == pytest.approx(0.09)


@pytest.mark.parametrize("huber", [None, 0.05, 0.3])
def test_pointwise_equals_a_slow_loop(huber):
    share, _, middles, target = rays(total=0.8)
    found = pointwise_depth(share, middles, target, huber=huber)
    for ray in range(4):
        ends = [*zip(share[ray].tolist(), middles[ray].tolist(), strict=True), (0.2, 0.0)]
        expected = 0.0
        for weight, at in ends:
            x = abs(at - target[ray].item())
            linear = huber is not None and x > huber
            expected += weight * (2 * huber * x - huber**2 if linear else x * x)
        assert found[ray].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("huber", [None, 0.05])
def test_light_that_is_left_ends_at_disparity_zero(huber):
    """Emptying a ray costs as much as putting its matter at the far end."""
    target = torch.tensor([0.7])
    middles = torch.tensor([[0.9, 0.0]])
    empty = pointwise_depth(torch.zeros(1, 2), middles, target, huber)
    far = pointwise_depth(torch.tensor([[0.0, 1.0]]), middles, target, huber)
    torch.testing.assert_close(empty, far)
    assert empty > 0


def test_huber_is_continuous_with_a_continuous_slope():
    delta = 0.05
    at = (delta + torch.tensor([-1e-6, 1e-6], dtype=torch.float64)).requires_grad_()
    one = torch.ones(2, 1, dtype=torch.float64)
    cost = pointwise_depth(one, at[:, None], torch.zeros(2, dtype=torch.float64), huber=delta)
    (slope,) = torch.autograd.grad(cost.sum(), at)
    assert cost.tolist() == pytest.approx([delta**2] * 2, abs=1e-6)
    assert slope.tolist() == pytest.approx([2 * delta] * 2, abs=1e-5)
    # Far away it grows with the distance, not with its square.
    far = torch.tensor([[0.5], [1.0]], dtype=torch.float64)
    near, double = pointwise_depth(one, far, torch.zeros(2).double(), huber=delta).tolist()
    assert double - near == pytest.approx(2 * delta * 0.5)


def test_a_huge_huber_is_the_square():
    share, _, middles, target = rays()
    one = pointwise_depth(share, middles, target, huber=10.0)
    torch.testing.assert_close(one, pointwise_depth(share, middles, target, huber=None))


@pytest.mark.parametrize("huber", [None, 0.05])
def test_matter_at_the_target_costs_nothing(huber):
    share = torch.tensor([[0.0, 1.0, 0.0]])
    middles = torch.tensor([[0.9, 0.4, 0.1]])
    assert pointwise_depth(share, middles, torch.tensor([0.4]), huber).item() == 0
    moved = pointwise_depth(share, middles, torch.tensor([0.5]), huber).item()
    assert moved == pytest.approx(0.01 if huber is None else 2 * 0.05 * 0.1 - 0.05**2)


# Distortion


def slow_distortion(share: torch.Tensor, edges: torch.Tensor) -> float:
    """The double sum of the paper."""
    w, e = share.tolist(), edges.tolist()
    middle = [(e[i] + e[i + 1]) / 2 for i in range(len(w))]
    pairs = itertools.product(range(len(w)), repeat=2)
    between = sum(w[i] * w[j] * abs(middle[i] - middle[j]) for i, j in pairs)
    return between + sum(w[i] ** 2 * abs(e[i + 1] - e[i]) for i in range(len(w))) / 3


@given(st.integers(0, 10_000), st.floats(0.01, 1))
def test_distortion_equals_the_double_sum_for_rising_and_falling_edges(seed, total):
    share, edges, _, _ = rays(seed, total=total)
    assert (edges.diff() <= 0).all()
    falling = distortion(share, edges)
    rising = distortion(share.flip(-1), edges.flip(-1))
    negative = distortion(share, -edges)
    for ray in range(4):
        expected = slow_distortion(share[ray], edges[ray])
        assert falling[ray].item() == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(rising, falling)
    torch.testing.assert_close(negative, falling)


def test_distortion_is_the_mean_distance_of_two_ends_of_light():
    """Monte Carlo: two places drawn from the step function, within intervals evenly."""
    share, edges, _, _ = rays(seed=3, count=1)
    generator = torch.Generator().manual_seed(0)
    draws = torch.multinomial(share[0], 400_000, replacement=True, generator=generator)
    inside = torch.rand(400_000, generator=generator, dtype=torch.float64)
    places = edges[0, draws] + inside * (edges[0, draws + 1] - edges[0, draws])
    apart = (places[:200_000] - places[200_000:]).abs()
    error = apart.std() / 200_000**0.5
    assert abs(distortion(share, edges).item() - apart.mean().item()) < 4 * error
    assert error < 1e-3


def test_distortion_of_one_interval_and_of_none():
    edges = torch.tensor([[1.0, 0.6, 0.5, 0.0]])
    assert distortion(torch.tensor([[0.0, 1.0, 0.0]]), edges).item() == pytest.approx(0.1 / 3)
    assert distortion(torch.zeros(1, 3), edges).item() == 0


# Gradients


@pytest.mark.parametrize("huber", [None, 0.05])
def test_depth_gradients(huber):
    share, _, middles, target = rays(count=2, n=4, total=0.9)
    inputs = (share.requires_grad_(), middles.requires_grad_(), target.requires_grad_())
    assert torch.autograd.gradcheck(lambda *x: pointwise_depth(*x, huber), inputs)
    assert torch.autograd.gradcheck(accumulated_depth, inputs)


def test_distortion_gradients():
    share, edges, _, _ = rays(count=2, n=5)
    assert torch.autograd.gradcheck(distortion, (share.requires_grad_(), edges.requires_grad_()))
    nothing = torch.zeros(1, 5, requires_grad=True)
    distortion(nothing, edges[:1].float().detach()).sum().backward()
    assert nothing.grad is not None
    assert nothing.grad.isfinite().all()


# Teachers' edges


def test_smooth_pixels_are_those_without_a_jump_around_them():
    disparity = torch.full((1, 1, 5, 7), 0.3)
    disparity[..., 4:] = 0.6
    smooth = is_smooth(disparity, jump=0.1)[0, 0]
    assert smooth[:, :3].all()
    assert not smooth[:, 3:5].any(), "one pixel on either side of the jump"
    assert smooth[:, 5:].all()
    assert is_smooth(disparity, jump=0.31).all()


def test_a_gentle_slope_is_smooth_up_to_the_corners():
    slope = torch.linspace(0, 1, 41)[None, None, None].expand(1, 1, 5, 41)
    assert is_smooth(slope, jump=0.06).all(), "1/40 a pixel, 2/40 from left to right"
    assert not is_smooth(slope, jump=0.04)[..., 1:-1].any()
