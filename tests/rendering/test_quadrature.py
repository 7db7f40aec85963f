import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unflat.rendering import integrate, termination_variance, transmittance, weights


def random_rays(seed=0, rays=5, n=12):
    generator = torch.Generator().manual_seed(seed)
    density = 3 * torch.rand(rays, n, generator=generator, dtype=torch.float64)
    lengths = torch.rand(rays, n, generator=generator, dtype=torch.float64)
    return density, lengths


@pytest.mark.parametrize("n", [1, 7, 100])
@pytest.mark.parametrize("sigma", [1e-3, 0.7, 40.0])
def test_a_slab_of_constant_density_has_the_closed_form(n, sigma):
    """Opacity 1 - exp(-sigma L), whatever the intervals; the quadrature is exact here."""
    edges = torch.linspace(0, 1, n + 1, dtype=torch.float64) ** 2 * 1.7 + 0.4
    lengths = edges.diff()
    density = torch.full_like(lengths, sigma)
    opacity = weights(density, lengths).sum().item()
    assert opacity == pytest.approx(-math.expm1(-sigma * 1.7), abs=1e-12)
    reached = transmittance(density, lengths)
    torch.testing.assert_close(reached, torch.exp(-sigma * (edges[:-1] - 0.4)), atol=1e-12, rtol=0)


def test_termination_in_fog_is_exponential():
    """Mean and variance of where light ends in endless fog: 1/sigma and 1/sigma^2."""
    edges = torch.linspace(0, 30, 20001, dtype=torch.float64)
    middles = 0.5 * (edges[1:] + edges[:-1])
    shares = weights(torch.full_like(middles, 2.0), edges.diff())
    assert (shares * middles).sum().item() == pytest.approx(0.5, abs=1e-6)
    assert termination_variance(shares, middles).item() == pytest.approx(0.25, abs=1e-6)


def test_weights_equal_a_slow_loop():
    density, lengths = random_rays()
    for opaque_last in (False, True):
        found = weights(density, lengths, opaque_last).numpy()
        for ray in range(5):
            light = 1.0
            for i in range(12):
                alpha = 1 - np.exp(-density[ray, i].item() * lengths[ray, i].item())
                if opaque_last and i == 11:
                    alpha = 1.0
                assert found[ray, i] == pytest.approx(light * alpha, abs=1e-14)
                light *= 1 - alpha


@given(st.integers(0, 1000), st.floats(0, 1e6), st.floats(0, 1e3))
def test_weights_are_shares(seed, dense, long):
    density, lengths = random_rays(seed, rays=3)
    density, lengths = (density * dense).float(), (lengths * long).float()
    density[0] = 0
    lengths[1, :6] = 0
    shares = weights(density, lengths)
    assert (shares >= 0).all()
    assert (shares.sum(-1) <= 1 + 1e-6).all()
    closed = weights(density, lengths, opaque_last=True)
    torch.testing.assert_close(closed.sum(-1), torch.ones(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(closed[:, :-1], shares[:, :-1], atol=0, rtol=0)


def test_empty_rays_let_exactly_all_light_pass():
    nothing = torch.zeros(4, 50)
    lengths = torch.rand(4, 50) * 1e6
    assert torch.equal(transmittance(nothing, lengths), torch.ones(4, 50))
    assert torch.equal(weights(nothing, lengths), torch.zeros(4, 50))
    last = torch.zeros(50)
    last[-1] = 1
    assert torch.equal(weights(nothing, lengths, opaque_last=True), last.expand(4, 50))


def test_thin_matter_keeps_its_digits():
    """1 - exp(-x) would lose them: 1e-9 is below float32's spacing at 1."""
    shares = weights(torch.full((1, 3), 1e-9), torch.ones(1, 3))
    torch.testing.assert_close(shares, torch.full((1, 3), 1e-9), rtol=1e-5, atol=0)


def test_a_ray_cut_finer_is_the_same_ray():
    density, lengths = random_rays()
    fine_density = density.repeat_interleave(3, dim=-1)
    fine_lengths = lengths.repeat_interleave(3, dim=-1) / 3
    fine = weights(fine_density, fine_lengths).unflatten(-1, (12, 3)).sum(-1)
    torch.testing.assert_close(fine, weights(density, lengths), atol=1e-13, rtol=0)


def test_integrate_is_the_weighted_sum():
    density, lengths = random_rays()
    shares = weights(density, lengths)
    values = torch.randn(5, 12, 4, dtype=torch.float64)
    expected = np.einsum("rn,rnc->rc", shares.numpy(), values.numpy())
    np.testing.assert_allclose(integrate(shares, values).numpy(), expected, atol=1e-13)


def test_integrate_stays_out_of_autocast():
    shares = torch.full((1, 256), 1 / 256)
    values = (0.5 + torch.arange(256) / 65536)[None, :, None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = integrate(shares, values)
        assert (shares[:, None] @ values).dtype == torch.bfloat16, "autocast is on"
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(values.mean().item(), abs=1e-6)


def test_integrate_works_without_values():
    found = integrate(torch.ones(2, 3, device="meta"), torch.ones(2, 3, 4, device="meta"))
    assert found.shape == (2, 4)


def test_variance_of_two_ends():
    shares = torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64)
    positions = torch.tensor([0.2, 0.4, 0.8], dtype=torch.float64)
    assert termination_variance(shares, positions).item() == pytest.approx(0.09)


@pytest.mark.parametrize("opaque_last", [False, True])
def test_gradients(opaque_last):
    density, lengths = random_rays(rays=2, n=5)
    density[0, 2] = 0
    lengths[1, 3] = 0
    lengths += 1e-3  # the numeric derivative needs room on both sides
    density += 1e-3
    values = torch.rand(2, 5, 3, dtype=torch.float64)

    def color(density, lengths, values):
        return integrate(weights(density, lengths, opaque_last), values)

    inputs = [t.requires_grad_() for t in (density, lengths, values)]
    assert torch.autograd.gradcheck(color, inputs)


def test_gradients_are_finite_at_empty_and_at_black_rays():
    density = torch.tensor([[0.0] * 4, [1e30] * 4, [0, 1e30, 0, 1]], requires_grad=True)
    lengths = torch.tensor([[1.0] * 4, [1.0] * 4, [0.0, 1, 1, 1]], requires_grad=True)
    weights(density, lengths).sum().backward()
    for grad in (density.grad, lengths.grad):
        assert grad is not None
        assert grad.isfinite().all()
