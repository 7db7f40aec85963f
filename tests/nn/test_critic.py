import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from unflat.losses import critic_logistic
from unflat.nn import Critic, EqualizedConv2d, EqualizedLinear, minibatch_deviation
from unflat.nn.equalized import blur, leaky


def pictures(count: int, side: int = 16, channels: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, side, side, generator=generator)


def test_a_linear_layer_scales_its_weights_when_they_are_used():
    torch.manual_seed(0)
    layer = EqualizedLinear(50, 40, lr_multiplier=0.1)
    torch.nn.init.normal_(layer.bias)
    features = torch.randn(3, 50)
    expected = features @ layer.weight.T * (0.1 / math.sqrt(50)) + 0.1 * layer.bias
    torch.testing.assert_close(layer(features), expected)
    assert float(layer.weight.detach().std()) == pytest.approx(10, rel=0.1)


@torch.no_grad()
def test_layers_keep_the_second_moment():
    torch.manual_seed(0)
    maps = torch.randn(8, 32, 16, 16)
    out = leaky(EqualizedConv2d(32, 64, 3)(maps))[..., 1:-1, 1:-1]
    assert float(out.square().mean()) == pytest.approx(1, rel=0.1)


def test_the_filter_is_binomial_and_keeps_the_mean():
    flat = torch.ones(1, 2, 8, 8)
    torch.testing.assert_close(blur(flat, 0), torch.ones(1, 2, 5, 5))
    point = torch.zeros(1, 1, 7, 7)
    point[0, 0, 3, 3] = 1
    row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    torch.testing.assert_close(blur(point, 0)[0, 0], torch.outer(row, row))


@pytest.mark.parametrize("size", [1, 3])
def test_halving_is_filter_then_convolution_then_every_second(size):
    """Slowly: the whole low-pass picture, a plain convolution, every second row and column."""
    torch.manual_seed(0)
    layer = EqualizedConv2d(3, 5, size, halve=True).double()
    maps = torch.randn(2, 3, 8, 10, dtype=torch.float64)
    row = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8
    pad = size // 2 + 1
    padded = functional.pad(maps, (pad,) * 4)
    smooth = torch.zeros(2, 3, padded.shape[2] - 3, padded.shape[3] - 3, dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            part = padded[:, :, i : i + smooth.shape[2], j : j + smooth.shape[3]]
            smooth += row[i] * row[j] * part
    whole = functional.conv2d(smooth, layer.weight / math.sqrt(3 * size**2), layer.bias)
    out = layer(maps)
    assert out.shape == (2, 5, 4, 5)
    torch.testing.assert_close(out, whole[..., ::2, ::2])


@given(batch=st.integers(1, 12), group=st.integers(1, 5))
def test_deviation_of_a_group_by_a_plain_loop(batch, group):
    maps = pictures(batch, 4, 3).double()
    out = minibatch_deviation(maps, group)
    size = max(n for n in range(1, min(group, batch) + 1) if batch % n == 0)
    torch.testing.assert_close(out[:, :3], maps)
    for i in range(batch):
        start = i // size * size
        members = maps[start : start + size]
        deviation = (members.var(0, correction=0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(out[i, 3], deviation.expand(4, 4))


def test_groups_stay_when_the_batch_is_cut():
    torch.manual_seed(0)
    critic, images = Critic(16, width=8, widest=16).double(), pictures(8).double()
    parts = torch.cat([critic(images[:4]), critic(images[4:])])
    torch.testing.assert_close(critic(images), parts)
    assert not torch.allclose(critic(images)[:2], critic(images[:2]))


@torch.no_grad()
def test_a_picture_among_its_likes_is_judged_otherwise_than_among_others():
    torch.manual_seed(0)
    critic, images = Critic(16, width=8, widest=16), pictures(4)
    alike = images[:1].expand(4, -1, -1, -1)
    assert abs(float(critic(alike)[0] - critic(images)[0])) > 1e-3


def test_a_condition_is_projected_onto_the_features():
    torch.manual_seed(0)
    critic = Critic(16, width=8, widest=16, condition_dim=5)
    assert critic.mapping is not None
    images, condition = pictures(4), torch.eye(5)[[0, 3, 3, 1]]
    maps = leaky(critic.enter(images))
    for block in critic.blocks:
        maps = block(maps)
    maps = leaky(critic.join(minibatch_deviation(maps, 4)))
    features = critic.leave(leaky(critic.flatten(maps.flatten(1))))
    expected = (features * critic.mapping(condition)).sum(1) / math.sqrt(16)
    torch.testing.assert_close(critic(images, condition), expected)
    other = critic(images, condition.roll(1, 0))
    changed = (other - expected).abs() > 1e-6
    assert changed.tolist() == [True, True, False, True]
    with pytest.raises(ValueError, match="condition"):
        critic(images)


def test_sides_and_pictures_that_do_not_fit_are_refused():
    for side in (4, 24, 48, 0):
        with pytest.raises(ValueError, match=f"side is {side}"):
            Critic(side)
    with pytest.raises(ValueError, match="side 16"):
        Critic(16)(pictures(1, 32))
    with pytest.raises(ValueError, match="condition"):
        Critic(16)(pictures(1), torch.zeros(1, 2))


def test_a_spectral_critic_has_convolutions_of_slope_one():
    torch.manual_seed(0)
    critic, images = Critic(16, width=8, widest=16, is_spectral=True), pictures(4)
    for _ in range(60):  # each forward pass takes one step of power iteration
        critic(images)
    for block in critic.blocks:
        largest = torch.linalg.svdvals(block.second.weight.flatten(1))[0]
        assert float(largest.detach()) == pytest.approx(1, abs=0.02)
    critic(images).sum().backward()
    assert all(weight.grad is not None for weight in critic.parameters())


def test_a_critic_learns_to_tell_waves_from_noise():
    """Same mean and spread of every pixel; untrained it is wrong about as often as right."""
    torch.manual_seed(0)
    critic = Critic(16, width=8, widest=24)
    optimizer = torch.optim.Adam(critic.parameters(), lr=2e-3, betas=(0.0, 0.99))
    generator = torch.Generator().manual_seed(1)

    def real() -> Tensor:
        phase, down, across = torch.rand(3, 8, 3, 1, 1, generator=generator)
        place = torch.arange(16.0)
        angle = 0.8 * (down * place[:, None] + across * place) + 2 * math.pi * phase
        return math.sqrt(2) * torch.sin(angle)

    def noise() -> Tensor:
        return torch.randn(8, 3, 16, 16, generator=generator)

    @torch.no_grad()
    def gap() -> tuple[float, float]:
        first = torch.cat([critic(real()) for _ in range(4)])
        second = torch.cat([critic(noise()) for _ in range(4)])
        right = (first > 0).sum() + (second < 0).sum()
        return float(critic_logistic(first, second).mean()), float(right) / 64

    before, _ = gap()
    for _ in range(60):
        optimizer.zero_grad()
        critic_logistic(critic(real()), critic(noise())).mean().backward()
        optimizer.step()
    after, right = gap()
    assert before > 1.0
    assert after < 0.2
    assert right > 0.95
