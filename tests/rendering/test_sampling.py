import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unflat.rendering import (
    box_limits,
    even_edges,
    from_distance,
    guided_edges,
    importance_edges,
    merge_edges,
    stratified_edges,
    to_distance,
)


def random_histogram(seed=0, rays=4, n=9):
    generator = torch.Generator().manual_seed(seed)
    steps = torch.rand(rays, n + 1, generator=generator, dtype=torch.float64) + 0.05
    edges = steps.cumsum(-1)
    shares = torch.rand(rays, n, generator=generator, dtype=torch.float64) ** 3
    shares[:, 2] = 0
    return edges, 0.9 * shares / shares.sum(-1, keepdim=True)


def slow_inverse(edges, shares, quantile):
    """Walk through the intervals until the quantile's light has been spent."""
    left = quantile
    for start, stop, share in zip(edges[:-1], edges[1:], shares, strict=True):
        if left <= share:
            return start + (stop - start) * left / share
        left -= share
    return edges[-1]


# Spacing


def test_even_in_distance_and_even_in_disparity():
    s = even_edges(6, dtype=torch.float64)
    distance = to_distance(s, 0.5, 8.0, "distance").numpy()
    np.testing.assert_allclose(distance, np.linspace(0.5, 8, 7), atol=1e-14)
    disparity = to_distance(s, 0.5, 8.0, "disparity").numpy()
    np.testing.assert_allclose(1 / disparity, np.linspace(2, 0.125, 7), atol=1e-14)
    # Half of the way in disparity is the harmonic mean.
    assert to_distance(torch.tensor([0.5]), 1.0, 3.0, "disparity").item() == pytest.approx(1.5)


@given(st.floats(0.01, 5), st.floats(1.01, 1e5), st.sampled_from(["distance", "disparity"]))
def test_spacing_meets_near_and_far_and_rises(near, ratio, spacing):
    far = near * ratio
    found = to_distance(even_edges(16, dtype=torch.float64), near, far, spacing)
    assert found[0].item() == pytest.approx(near, rel=1e-12)
    assert found[-1].item() == pytest.approx(far, rel=1e-9)
    assert (found.diff() > 0).all()


def test_even_edges_bound_the_intervals_asked_for():
    assert even_edges(4).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert even_edges(1, dtype=torch.float64).dtype == torch.float64


# Stratified


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_stratified_edges_stay_in_their_cells(seed, count):
    edges = stratified_edges(5, count, torch.Generator().manual_seed(seed))
    assert edges.shape == (5, count + 1)
    assert (edges[:, 0] == 0).all()
    assert (edges[:, -1] == 1).all()
    assert (edges.diff() >= -1e-7).all()
    assert ((edges - even_edges(count)).abs() <= 0.5 / count + 1e-6).all()


def test_stratified_edges_are_even_on_average_and_differ_by_ray():
    edges = stratified_edges(4000, 8, torch.Generator().manual_seed(0))
    # The mean of 4000 uniform numbers of width 1/8 strays by 0.0006.
    torch.testing.assert_close(edges.mean(0), even_edges(8), atol=3e-3, rtol=0)
    inner = edges[:, 1:-1]
    torch.testing.assert_close(inner.std(0), torch.full((7,), 0.125 / 12**0.5), rtol=0.05, atol=0)
    assert torch.corrcoef(inner.T).triu(1).abs().max() < 0.1


def test_stratified_edges_repeat_with_their_generator():
    one, two = (stratified_edges(3, 5, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, stratified_edges(3, 5, torch.Generator().manual_seed(8)))


# Importance


@pytest.mark.parametrize("jitter", [False, True])
def test_importance_edges_invert_the_distribution_like_a_slow_loop(jitter):
    edges, shares = random_histogram()
    count, blur = 15, 0.02
    generator = torch.Generator().manual_seed(3) if jitter else None
    found = importance_edges(edges, shares, count, generator, blur)
    offset = np.full((4, 16), 0.5)
    if jitter:
        offset = torch.rand(4, 16, generator=torch.Generator().manual_seed(3)).numpy()
    spread = shares.numpy() + blur / 9
    spread = spread / spread.sum(-1, keepdims=True)
    for ray in range(4):
        for k in range(16):
            expected = slow_inverse(edges[ray].numpy(), spread[ray], (k + offset[ray, k]) / 16)
            # quantiles are made in float32
            assert found[ray, k].item() == pytest.approx(expected, abs=2e-5)


@given(st.integers(0, 10_000), st.integers(0, 30))
def test_importance_edges_are_sorted_and_bounded(seed, count):
    edges, shares = random_histogram(seed)
    for generator in (None, torch.Generator().manual_seed(seed)):
        found = importance_edges(edges.float(), shares.float(), count, generator)
        assert found.shape == (4, count + 1)
        assert found.isfinite().all()
        assert (found.diff() >= 0).all()
        assert (found >= edges[:, :1].float()).all()
        assert (found <= edges[:, -1:].float()).all()


def test_importance_edges_fall_as_often_as_there_is_light():
    """Monte Carlo: shares of 40,000 jittered edges per interval are the weights."""
    edges, shares = random_histogram(rays=1)
    found = importance_edges(edges, shares, 39_999, torch.Generator().manual_seed(0), blur=0.0)
    counts = torch.histogram(found[0], edges[0]).hist / 40_000
    torch.testing.assert_close(counts, shares[0] / 0.9, atol=1e-3, rtol=0)
    assert counts[2] < 1e-3, "the empty interval"
    assert counts.max() > 0.2


def test_an_opaque_interval_takes_nearly_all_edges():
    shares = torch.zeros(1, 10)
    shares[0, 4] = 1
    found = importance_edges(even_edges(10)[None], shares, 31)
    assert ((found > 0.4) & (found < 0.5)).sum() >= 30


def test_rays_without_light_are_cut_evenly():
    found = importance_edges(even_edges(8)[None], torch.zeros(1, 8), 15)
    torch.testing.assert_close(found[0], (torch.arange(16) + 0.5) / 16, atol=1e-6, rtol=0)


def test_no_gradient_runs_through_the_places():
    edges, shares = random_histogram()
    assert not importance_edges(edges, shares.requires_grad_(), 5).requires_grad


def test_edges_that_do_not_bound_the_weights_are_refused():
    with pytest.raises(ValueError, match="5 edges do not bound 5 intervals"):
        importance_edges(torch.rand(2, 5), torch.rand(2, 5), 4)


def test_merged_edges_hold_all_in_order(generator):
    one = torch.rand(3, 4, generator=generator).sort(-1).values
    two = torch.rand(3, 6, generator=generator).sort(-1).values
    merged = merge_edges(one, two)
    np.testing.assert_array_equal(merged.numpy(), np.sort(np.hstack([one, two]), axis=-1))


# Around what is expected


@given(st.integers(0, 1000), st.integers(1, 20), st.sampled_from([0.0, 0.1, 1.0]))
def test_guided_edges_bound_all_of_a_ray_in_order(seed, count, blur):
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(3, 5, 16, generator=generator, dtype=torch.float64) ** 8
    shares[0, 0] = 0  # nothing is expected
    shares[0, 1, :15] = 0  # only the last cell
    shares[0, 2, 1:] = 0  # only the first
    edges = guided_edges(shares, count, blur)
    assert edges.shape == (3, 5, count + 1)
    assert (edges[..., 0] == 0).all()
    assert (edges[..., -1] == 1).all()
    assert (edges.diff(dim=-1) >= 0).all()


def test_guided_edges_are_close_where_light_is_expected():
    """A tenth of the inner edges is spread evenly, the rest lies in the cell that has it all."""
    shares = torch.zeros(1, 10, dtype=torch.float64)
    shares[0, 6] = 5.0
    edges = guided_edges(shares, 41, blur=0.1)[0]
    inner = edges[1:-1]
    # Of 40 quantiles at (k + 0.5) / 40 a share of (1 + 0.01) / 1.1 lies in [0.6, 0.7].
    assert abs(int(((inner >= 0.6) & (inner <= 0.7)).sum()) - 40 * 1.01 / 1.1) <= 1
    assert (inner < 0.6).any()
    assert (inner > 0.7).any()
    exact = guided_edges(shares, 6, blur=0.0)[0]
    torch.testing.assert_close(exact[1:-1], 0.6 + 0.1 * (torch.arange(5).double() + 0.5) / 5)


def test_guided_edges_are_as_close_as_the_roots_of_what_is_expected():
    edges = guided_edges(torch.tensor([[0.0, 9.0, 0.0, 1.0]]), 402, blur=0.0)[0]
    inner = edges[1:-1]
    assert int(((inner >= 0.25) & (inner <= 0.5)).sum()) == 301
    assert int((inner >= 0.75).sum()) == 100


def test_where_nothing_is_expected_guided_edges_are_even():
    edges = guided_edges(torch.zeros(1, 8, dtype=torch.float64), 5)[0]
    torch.testing.assert_close(edges[1:-1], (torch.arange(4).double() + 0.5) / 4)


@given(st.floats(0.05, 4), st.floats(1.5, 1e3), st.sampled_from(["distance", "disparity"]))
def test_positions_of_distances_are_the_inverse_of_distances(near, ratio, spacing):
    s = torch.linspace(0, 1, 12, dtype=torch.float64)
    far = near * ratio
    back = from_distance(to_distance(s, near, far, spacing), near, far, spacing)
    torch.testing.assert_close(back, s, atol=1e-9, rtol=0)


# A ray's own limits


@pytest.mark.parametrize("spacing", ["distance", "disparity"])
def test_every_ray_may_have_its_own_limits(spacing):
    near, far = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([3.0, 2.5, 8.0])
    s = even_edges(6).expand(3, -1)
    together = to_distance(s, near[:, None], far[:, None], spacing)
    for index in range(3):
        alone = to_distance(s[index], float(near[index]), float(far[index]), spacing)
        torch.testing.assert_close(together[index], alone)


def test_rays_are_cut_where_they_enter_and_leave_a_box():
    bounds = torch.tensor([[-1.0, -2.0, 3.0], [1.0, 2.0, 5.0]])
    directions = torch.nn.functional.normalize(
        torch.tensor([[0.0, 0, 1], [0.3, 0, 1], [0.0, 1, 0.1], [0.0, 0, -1], [0.0, 0, 1]]), dim=-1
    )
    origins = torch.zeros(5, 3)
    origins[4, 2] = 4.0  # inside
    near, far = box_limits(origins, directions, bounds, 0.5, 10.0)
    # The second leaves through x = 1 at z = 10 / 3; the third and fourth miss.
    slant = (1 + 0.3**2) ** 0.5
    torch.testing.assert_close(near, torch.tensor([3, 3 * slant, 10, 10, 0.5]))
    torch.testing.assert_close(far, torch.tensor([5, slant / 0.3, 10, 10, 1]))
    near, far = box_limits(origins, directions, bounds, 4.5, 4.8)
    torch.testing.assert_close(near, torch.tensor([4.5, 4.8, 4.8, 4.8, 4.8]))
    torch.testing.assert_close(far, torch.full((5,), 4.8))
