import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unflat.metrics import disparity_correlation, fit_scale_and_shift


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
