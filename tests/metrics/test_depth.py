import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unflat.metrics import (
    absolute_relative_error,
    align_disparity,
    delta_accuracy,
    disparity_correlation,
    fit_scale_and_shift,
    non_flatness_score,
    ordinal_accuracy,
    scale_and_shift_invariant_error,
    scale_invariant_depth_error,
    standardized_depth_error,
)

MASKED = [
    absolute_relative_error,
    align_disparity,
    delta_accuracy,
    ordinal_accuracy,
    scale_and_shift_invariant_error,
    scale_invariant_depth_error,
    standardized_depth_error,
]


def maps(seed=0, batch=4):
    generator = torch.Generator().manual_seed(seed)
    true = torch.rand(batch, 6, 7, generator=generator)
    return true + torch.randn(true.shape, generator=generator), true


def test_correlation_is_numpys():
    predicted, true = maps()
    ours = disparity_correlation(predicted, true)
    for value, a, b in zip(ours, predicted.numpy(), true.numpy(), strict=True):
        assert value.item() == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], abs=1e-6)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.floats(0.01, 50), st.floats(-5, 5))
def test_correlation_does_not_see_scale_and_shift(scale, shift):
    predicted, true = maps()
    expected = disparity_correlation(predicted, true)
    moved = disparity_correlation((predicted * scale + shift).double(), true.double())
    torch.testing.assert_close(moved, expected, atol=2e-4, rtol=0)
    torch.testing.assert_close(disparity_correlation(-predicted, true), -expected)


def test_a_constant_map_correlates_with_nothing():
    _, true = maps()
    constant = torch.full_like(true, 0.3)
    assert disparity_correlation(constant, true).tolist() == [0] * 4
    assert disparity_correlation(true, constant).tolist() == [0] * 4


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.floats(0.05, 20), st.floats(-2, 2))
def test_the_fit_recovers_an_exact_line(scale, shift):
    _, true = maps()
    true = true.double()
    fit = fit_scale_and_shift(scale * true + shift, true)
    torch.testing.assert_close(fit.scale, torch.full((4,), scale).double(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(fit.shift, torch.full((4,), shift).double(), rtol=1e-6, atol=1e-7)
    assert fit.residual.max() < 1e-7 * max(1, scale)


def test_the_fit_is_numpys_least_squares_with_and_without_a_mask():
    predicted, true = maps()
    mask = true > 0.3
    for m in (None, mask):
        fit = fit_scale_and_shift(predicted, true, m)
        for i in range(4):
            keep = (m[i] if m is not None else torch.ones_like(true[i], dtype=torch.bool)).numpy()
            x, y = true[i].numpy()[keep].astype(float), predicted[i].numpy()[keep].astype(float)
            slope, offset = np.polyfit(x, y, 1)
            assert fit.scale[i].item() == pytest.approx(slope, abs=1e-5)
            assert fit.shift[i].item() == pytest.approx(offset, abs=1e-5)
            rest = np.sqrt(np.mean((y - slope * x - offset) ** 2))
            assert fit.residual[i].item() == pytest.approx(rest, abs=1e-5)


def test_degenerate_fits():
    predicted, true = maps()
    fit = fit_scale_and_shift(predicted, torch.full_like(true, 0.7))
    assert fit.scale.tolist() == [0] * 4
    torch.testing.assert_close(fit.shift, predicted.mean(dim=(1, 2)))
    with pytest.raises(ValueError, match="no pixels"):
        fit_scale_and_shift(predicted, true, torch.zeros_like(true, dtype=torch.bool))


def masked_maps(seed=0, batch=3, height=9, width=8):
    generator = torch.Generator().manual_seed(seed)
    true = torch.rand(batch, height, width, generator=generator) + 0.1
    noise = torch.randn(true.shape, generator=generator)
    mask = torch.rand(true.shape, generator=generator) > 0.3
    return (true + 0.2 * noise).clamp_min(0.05), true, mask


def each(*tensors):
    """Pictures one by one, as flat float64 arrays under the mask, the last of the tensors."""
    *values, mask = tensors
    for i, keep in enumerate(mask):
        yield i, *(value[i][keep].double().numpy() for value in values)


def line(x, y):
    slope, offset = np.polyfit(x, y, 1)
    return slope * x + offset


def test_aligned_error_is_numpys_least_squares():
    predicted, true, mask = masked_maps()
    found = scale_and_shift_invariant_error(predicted, true, mask)
    aligned = align_disparity(predicted, true, mask)
    for i, p, t in each(predicted, true, mask):
        error = line(p, t) - t
        extent = t.max() - t.min()
        assert found.root_mean_square[i] == pytest.approx(np.sqrt((error**2).mean()) / extent)
        assert found.mean_absolute[i] == pytest.approx(np.abs(error).mean() / extent)
        np.testing.assert_allclose(aligned[i][mask[i]], line(p, t), atol=1e-6)
    whole = scale_and_shift_invariant_error(predicted, true)
    every = scale_and_shift_invariant_error(predicted, true, torch.ones_like(mask))
    torch.testing.assert_close(whole.mean_absolute, every.mean_absolute)
    assert (whole.mean_absolute != found.mean_absolute).all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.floats(-20, 20).filter(lambda a: abs(a) > 0.05), st.floats(-5, 5))
def test_what_is_aligned_does_not_see_scale_and_shift(scale, shift):
    predicted, true, mask = (value.double() for value in masked_maps())
    mask = mask > 0
    moved = scale * predicted + shift
    for metric in (absolute_relative_error, delta_accuracy):
        torch.testing.assert_close(metric(moved, true, mask), metric(predicted, true, mask))
    a, b = (scale_and_shift_invariant_error(p, true, mask) for p in (moved, predicted))
    torch.testing.assert_close(a.root_mean_square, b.root_mean_square)
    exact = scale_and_shift_invariant_error(scale * true + shift, true, mask)
    assert exact.root_mean_square.max() < 1e-8
    if scale > 0:
        for metric in (standardized_depth_error, ordinal_accuracy):
            torch.testing.assert_close(metric(moved, true, mask), metric(predicted, true, mask))
        torch.testing.assert_close(
            scale_invariant_depth_error(scale * predicted, true, mask),
            scale_invariant_depth_error(predicted, true, mask),
        )


def test_a_constant_map_gets_the_spread_of_the_truth():
    true = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    found = scale_and_shift_invariant_error(torch.full_like(true, 7), true)
    assert found == pytest.approx((0.5, 0.5))
    nothing = scale_and_shift_invariant_error(true, torch.full_like(true, 0.3))
    assert nothing.root_mean_square.isnan().all()
    assert nothing.mean_absolute.isnan().all()


def test_relative_errors_are_plain_loops_and_leave_sky_out():
    predicted, true, mask = masked_maps()
    true[:, :2] = 0  # sky
    relative, close = (m(predicted, true, mask) for m in (absolute_relative_error, delta_accuracy))
    tight = delta_accuracy(predicted, true, mask, 1.05)
    for i, p, t in each(predicted, true, mask & (true > 0)):
        depth = 1 / np.maximum(line(p, t), t.min())
        assert relative[i].item() == pytest.approx(np.mean(np.abs(depth * t - 1)), rel=1e-5)
        ratio = np.maximum(depth * t, 1 / (depth * t))
        assert close[i].item() == pytest.approx(np.mean(ratio < 1.25))
        assert tight[i].item() == pytest.approx(np.mean(ratio < 1.05))
    assert (tight < close).all()
    assert absolute_relative_error(true * 3 + 1, true, mask).max() < 1e-6
    assert delta_accuracy(true * 3 + 1, true, mask).tolist() == [1, 1, 1]


def test_aligned_depth_is_capped_at_the_farthest():
    true = torch.tensor([[[1.0, 1.0, 1.0, 0.1]]])
    predicted = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])  # aligned 1, 1, 0.55, 0.55
    assert absolute_relative_error(predicted, true).item() == pytest.approx(
        (1 / 0.55 - 1 + 1 - 0.1 / 0.55) / 4
    )
    # a point that was taken for far too far: aligned behind the farthest, and held there
    predicted = torch.tensor([[[0.0, 5.0, 5.0, 5.0, 2.0]]])
    true = torch.tensor([[[0.3, 1.0, 1.0, 1.0, 0.2]]])
    aligned = align_disparity(predicted, true).flatten()
    assert aligned.min() < 0.15
    expected = (aligned.clamp_min(0.2).reciprocal() * true.flatten() - 1).abs().mean()
    assert absolute_relative_error(predicted, true).item() == pytest.approx(expected.item())


def test_standardized_error_is_numpys_and_two_less_two_correlations():
    predicted, true, mask = masked_maps()
    found = standardized_depth_error(predicted, true, mask)
    for i, p, t in each(predicted, true, mask):
        slow = np.mean(((p - p.mean()) / p.std() - (t - t.mean()) / t.std()) ** 2)
        assert found[i].item() == pytest.approx(slow, rel=1e-5)
    whole = standardized_depth_error(predicted, true)
    torch.testing.assert_close(whole, 2 - 2 * disparity_correlation(predicted, true))
    torch.testing.assert_close(standardized_depth_error(-true, true), torch.full((3,), 4.0))
    flat = torch.full_like(true, 0.7)
    torch.testing.assert_close(standardized_depth_error(flat, true), torch.ones(3))


def test_side_is_the_standard_deviation_of_log_ratios():
    predicted, true, mask = masked_maps()
    found = scale_invariant_depth_error(predicted, true, mask)
    for i, p, t in each(predicted, true, mask):
        assert found[i].item() == pytest.approx(np.std(np.log(p) - np.log(t)), rel=1e-5)
    half = torch.tensor([[[1.0, 1.0], [1.2, 1.2]]])
    expected = math.log(1.2) / 2
    assert scale_invariant_depth_error(half, torch.ones(1, 2, 2)).item() == pytest.approx(expected)
    broken = predicted * torch.tensor([1.0, 1.0, 0.0])[:, None, None]
    with pytest.raises(ValueError, match=r"predicted depth is not above 0 in picture 2$"):
        scale_invariant_depth_error(broken, true, mask)
    with pytest.raises(ValueError, match=r"true depth is not above 0 in picture 2$"):
        scale_invariant_depth_error(true, broken, mask)


def test_order_over_all_pairs():
    """With many draws the share is that of all pairs, counted one by one."""
    predicted, true, mask = masked_maps()
    predicted = (predicted * 4).round()  # some are equal
    found = ordinal_accuracy(predicted, true, mask, pairs=200_000, threshold=0.1)
    for i, p, t in each(predicted, true, mask):
        score, count = 0.0, 0
        for a in range(len(t)):
            for b in range(len(t)):
                if max(t[a], t[b]) > 1.1 * min(t[a], t[b]):
                    right = (p[a] > p[b]) == (t[a] > t[b])
                    score += 0.5 if p[a] == p[b] else right
                    count += 1
        assert found[i].item() == pytest.approx(score / count, abs=4 * 0.5 / math.sqrt(100_000))


def test_order_closed_forms():
    predicted, true, mask = masked_maps()
    mask[:, 0, 0], mask[:, 0, 1] = True, True
    assert ordinal_accuracy(true**3, true, mask).tolist() == [1, 1, 1]
    assert ordinal_accuracy(-true, true, mask).tolist() == [0, 0, 0]
    assert ordinal_accuracy(torch.ones_like(true), true, mask).tolist() == [0.5] * 3
    sky = torch.tensor([[[0.0, 0.0, 1.0]]])
    assert ordinal_accuracy(torch.tensor([[[5.0, 6.0, 7.0]]]), sky).item() == 1  # sky is one depth
    assert ordinal_accuracy(true, torch.ones_like(true)).isnan().all()
    # the draws are of the picture alone, not of its batch
    alone = ordinal_accuracy(predicted[2:], true[2:], mask[2:])
    assert alone == ordinal_accuracy(predicted, true, mask)[2]
    assert alone != ordinal_accuracy(predicted[2:], true[2:], mask[2:], seed=1)
    with pytest.raises(ValueError, match=r"negative in picture 1$"):
        ordinal_accuracy(true, true * torch.tensor([1.0, -1.0, 1.0])[:, None, None])


def test_non_flatness_is_exp_of_numpys_entropy():
    values = masked_maps(height=32, width=32)[0].double()
    for bins in (64, 10):
        found = non_flatness_score(values, bins)
        for score, picture in zip(found, values.numpy(), strict=True):
            shares = np.histogram(picture, bins)[0] / picture.size
            entropy = -sum(p * math.log(p) for p in shares if p > 0)
            assert score.item() == pytest.approx(math.exp(entropy), rel=1e-5)


def test_non_flatness_closed_forms():
    ramp = torch.arange(64.0 * 4).reshape(1, 16, 16)
    assert non_flatness_score(ramp).item() == pytest.approx(64)
    assert non_flatness_score(5 - 0.1 * ramp).item() == pytest.approx(64, rel=0.02)
    assert non_flatness_score(ramp, 16).item() == pytest.approx(16)
    assert non_flatness_score(torch.full((1, 4, 4), 0.3)).item() == 1
    assert non_flatness_score((ramp > 127).float()).item() == pytest.approx(2)
    with pytest.raises(ValueError, match=r"disparity holds NaN or infinity in picture 0$"):
        non_flatness_score(ramp / 0)


@pytest.mark.parametrize("metric", MASKED)
def test_masks_hide_and_nothing_else_does(metric):
    predicted, true, mask = masked_maps()
    hidden_p, hidden_t = predicted.clone(), true.clone()
    hidden_p[~mask], hidden_t[~mask] = math.nan, math.inf
    found, expected = (torch.stack(list(metric(p, t, mask))) for p, t in
                       ((hidden_p, hidden_t), (predicted, true)))  # fmt: skip
    if metric is align_disparity:
        found, expected = found[mask], expected[mask]
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match=r"predicted holds NaN or infinity in picture 0, 1, 2$"):
        metric(hidden_p, true)
    with pytest.raises(ValueError, match=r"true holds NaN or infinity in picture 0, 1, 2$"):
        metric(true, hidden_t)
    mask[1] = False
    with pytest.raises(ValueError, match=r"the mask leaves no pixels of picture 1$"):
        metric(predicted, true, mask)


def test_only_sky_has_no_relative_error():
    with pytest.raises(ValueError, match=r"only sky is under the mask of picture 0$"):
        delta_accuracy(torch.ones(1, 2, 2), torch.zeros(1, 2, 2))
