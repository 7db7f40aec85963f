import pytest
import torch

from unflat.metrics import termination_variance


def test_half_and_half():
    weights = torch.tensor([[0.5, 0.0, 0.5]])
    positions = torch.tensor([[0.8, 0.5, 0.2]])
    assert termination_variance(weights, positions).item() == pytest.approx(0.09)


def test_equal_to_a_loop_and_blind_to_opacity():
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(3, 4, 8, generator=generator)
    positions = torch.rand(3, 4, 8, generator=generator)
    slow = 0.0
    for w, m in zip(weights.reshape(-1, 8), positions.reshape(-1, 8), strict=True):
        mean = sum(a * b for a, b in zip(w, m, strict=True)) / sum(w)
        slow += sum(a * (b - mean) ** 2 for a, b in zip(w, m, strict=True)) / sum(w)
    assert termination_variance(weights, positions).item() == pytest.approx(slow.item() / 12)
    opacity = torch.rand(3, 4, 1, generator=generator) + 0.01
    torch.testing.assert_close(
        termination_variance(weights * opacity, positions), termination_variance(weights, positions)
    )


def test_rays_that_meet_nothing_are_left_out():
    positions = torch.tensor([[0.2, 0.8]])
    one = termination_variance(torch.tensor([[0.5, 0.5]]), positions)
    two = termination_variance(torch.tensor([[0.5, 0.5], [0.0, 0.0]]), positions.expand(2, 2))
    torch.testing.assert_close(one, two)
    assert termination_variance(torch.zeros(1, 2), positions).item() == 0


def test_a_sharp_surface_has_none():
    weights = torch.nn.functional.one_hot(torch.arange(5), 5).float()
    assert termination_variance(weights, torch.rand(5, 5)).item() == pytest.approx(0, abs=1e-12)
