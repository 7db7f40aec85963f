import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unflat.errors import UserError
from unflat.metrics import FeatureMoments, FeatureSample, frechet_distance, inception_score


def features(count=50, dim=6, seed=0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=generator)
    return torch.randn(count, dim, generator=generator) @ mixing + offset


def moments(rows, parts=None):
    result = FeatureMoments(rows.shape[1])
    for part in rows.split(parts or len(rows)):
        result.add(part)
    return result


def scipy_distance(a, b):
    """The textbook form, with the root of a matrix that is not symmetric."""
    from scipy import linalg

    mean_a, mean_b = a.mean(0), b.mean(0)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(cov_a @ cov_b).real
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=8), st.integers(0, 3))
def test_moments_of_a_stream_are_those_of_all_at_once(sizes, seed):
    rows = features(sum(sizes) + 2, seed=seed, offset=1e4)  # far from 0: sums of squares would fail
    result = FeatureMoments(6)
    for part in rows.split([*sizes, 2]):
        result.add(part)
    assert result.count == len(rows)
    expected = rows.double().numpy()
    np.testing.assert_allclose(result.mean, expected.mean(0), rtol=1e-12)
    np.testing.assert_allclose(result.covariance, np.cov(expected, rowvar=False), atol=1e-8)


def test_merged_moments_are_those_of_both():
    rows = features(40)
    first, second, empty = moments(rows[:15]), moments(rows[15:]), FeatureMoments(6)
    first.merge(second)
    first.merge(empty)
    empty.merge(second)
    for result, expected in ((first, moments(rows)), (empty, moments(rows[15:]))):
        assert result.count == expected.count
        torch.testing.assert_close(result.mean, expected.mean)
        torch.testing.assert_close(result.covariance, expected.covariance)
    torch.testing.assert_close(second.covariance, moments(rows[15:]).covariance)
    with pytest.raises(ValueError, match="5 features do not merge with 6"):
        first.merge(FeatureMoments(5))


def test_moments_keep_nothing_that_grows():
    result = moments(features(10))
    sizes = {name: value.numel() for name, value in vars(result).items() if torch.is_tensor(value)}
    result.add(features(1000))
    after = {name: value.numel() for name, value in vars(result).items() if torch.is_tensor(value)}
    assert sizes == after
    assert sum(after.values()) == 6 + 36
    assert not any(isinstance(value, list | dict) for value in vars(result).values())


def test_the_mean_that_is_handed_out_is_a_copy():
    result = moments(features(10))
    result.mean.zero_()
    assert result.mean.abs().max() > 0


def test_bad_rows_are_named_by_their_number_in_the_stream():
    for collector in (FeatureMoments(6), FeatureSample(), FeatureSample(4)):
        collector.add(features(10))
        rows = features(10)
        rows[3, 2], rows[7, 0] = math.nan, math.inf
        with pytest.raises(ValueError, match=r"NaN or infinity in picture 13, 17$"):
            collector.add(rows)
        with pytest.raises(ValueError, match="have 5 numbers a picture, not 6"):
            collector.add(features(10, dim=5))
    with pytest.raises(ValueError, match="0, 1, 2, 3, 4, 5, 6, 7 and 12 more"):
        FeatureMoments(2).add(torch.full((20, 2), math.nan))


def test_too_few_pictures_for_a_covariance():
    one = moments(features(1))
    with pytest.raises(UserError, match="too few images for a covariance: 1 for 6 features; give"):
        frechet_distance(one, moments(features()))
    six, seven = moments(features(6)), moments(features(7))
    assert six.is_rank_deficient
    assert "6 images for a covariance of 6 features" in six.warning
    assert not seven.is_rank_deficient
    assert seven.warning is None
    # the claim itself
    assert np.linalg.matrix_rank(six.covariance.numpy()) == 5
    assert np.linalg.matrix_rank(seven.covariance.numpy()) == 6


def test_frechet_distance_of_diagonal_gaussians():
    mean_a, mean_b = torch.tensor([0.0, 1.0, -2.0]), torch.tensor([0.5, 1.0, 1.0])
    std_a, std_b = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([3.0, 0.0, 0.7])
    # the eight corners of a box have the box's half sides as (population) standard deviations
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3) * math.sqrt(7 / 8)
    a, b = corners * std_a + mean_a, corners * std_b + mean_b
    expected = ((mean_a - mean_b) ** 2).sum() + ((std_a - std_b) ** 2).sum()
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_frechet_distance_is_scipys(seed):
    a, b = features(40, seed=seed).double(), features(60, seed=seed + 9, offset=0.3).double()
    ours = frechet_distance(moments(a), moments(b))
    assert ours == pytest.approx(scipy_distance(a.numpy(), b.numpy()), rel=1e-8)
    assert frechet_distance(moments(b), moments(a)) == pytest.approx(ours, rel=1e-10)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
    assert frechet_distance(moments(a[order], 7), moments(b)) == pytest.approx(ours, rel=1e-10)


def test_frechet_distance_without_full_rank():
    a, b = features(10, dim=64).double(), features(12, dim=64, seed=1).double()
    # inside the span of all vectors the covariances are smaller, and the distance is the same
    basis = torch.linalg.qr(torch.cat([a, b]).T).Q
    expected = frechet_distance(moments(a), moments(b))
    assert expected == pytest.approx(frechet_distance(moments(a @ basis), moments(b @ basis)))
    assert frechet_distance(moments(a), moments(a.clone())) < 1e-9 * a.square().sum()
    shifted = frechet_distance(moments(a), moments(a + 0.5))
    assert shifted == pytest.approx(64 * 0.25, rel=1e-8)
    constant = moments(torch.ones(5, 64))
    cov = moments(a).covariance.trace() + (a.mean(0) - 1).square().sum()
    assert frechet_distance(moments(a), constant) == pytest.approx(cov.item())


def test_frechet_distance_wants_equal_features():
    with pytest.raises(ValueError, match="6 and of 5 features"):
        frechet_distance(moments(features()), moments(features(dim=5)))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.integers(1, 12), st.integers(0, 5))
def test_the_sample_does_not_depend_on_how_the_stream_is_cut(sizes, capacity, seed):
    rows = torch.arange(2.0 * sum(sizes) + 2).reshape(-1, 2)
    one, cut = FeatureSample(capacity, seed), FeatureSample(capacity, seed)
    one.add(rows)
    for part in rows.split([*sizes, 1]):
        cut.add(part)
    assert one.seen == cut.seen == len(rows)
    assert torch.equal(one.features, cut.features)
    assert torch.equal(one.features, rows[one.places])
    assert len(one.features) == len(set(one.places.tolist())) == min(capacity, len(rows))


def test_every_vector_is_kept_equally_often():
    counts, runs = torch.zeros(30), 300
    rows = torch.arange(30.0)[:, None]
    for seed in range(runs):
        sample = FeatureSample(10, seed)
        for part in rows.split(7):
            sample.add(part)
        counts[sample.places] += 1
    expected = runs / 3
    sigma = math.sqrt(runs * (1 / 3) * (2 / 3))
    assert (counts - expected).abs().max() < 4.5 * sigma
    assert counts.std() > 0.5 * sigma  # it is random at all


def test_a_sample_without_a_limit_keeps_all_and_an_empty_one_says_so():
    rows = features(23)
    sample = FeatureSample()
    with pytest.raises(UserError, match="no features"):
        _ = sample.features
    for part in rows.split(4):
        sample.add(part)
    assert torch.equal(sample.features, rows)
    with pytest.raises(ValueError, match="capacity of 0"):
        FeatureSample(0)


def test_inception_score_closed_forms():
    sure = torch.eye(5).repeat(20, 1)
    assert inception_score(sure, 4) == pytest.approx((5, 0), abs=1e-6)
    unsure = torch.full((100, 5), 0.2)
    assert inception_score(unsure, 4) == pytest.approx((1, 0), abs=1e-6)
    collapsed = torch.eye(5)[:1].repeat(100, 1)
    assert inception_score(collapsed, 4) == pytest.approx((1, 0), abs=1e-6)
    # two halves: one sure of 2 classes, one of 5
    halves = torch.cat([torch.eye(5)[:2].repeat(50, 1), torch.eye(5).repeat(20, 1)])
    assert inception_score(halves, 2) == pytest.approx((3.5, 1.5), abs=1e-6)


def test_inception_score_is_a_plain_loops():
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(53, 7, generator=generator).mul(2).softmax(1)
    scores = []
    for part in range(4):
        rows = p[part * 53 // 4 : (part + 1) * 53 // 4].double().numpy()
        total = rows.mean(0)
        divergences = [
            sum(a * math.log(a / b) for a, b in zip(r, total, strict=True)) for r in rows
        ]
        scores.append(math.exp(np.mean(divergences)))
    expected = (np.mean(scores), np.std(scores))
    assert inception_score(p, 4) == pytest.approx(expected, rel=1e-5)


def test_inception_score_refuses():
    with pytest.raises(UserError, match="too few images for an Inception score: 5 for 10 splits"):
        inception_score(torch.eye(5))
    with pytest.raises(ValueError, match=r"no distribution in picture 1$"):
        inception_score(torch.tensor([[0.5, 0.5], [0.5, 0.6]]), 1)
    with pytest.raises(ValueError, match=r"no distribution in picture 0$"):
        inception_score(torch.tensor([[1.5, -0.5], [0.5, 0.5]]), 1)
    with pytest.raises(ValueError, match="NaN"):
        inception_score(torch.tensor([[math.nan, 0.5]]), 1)
