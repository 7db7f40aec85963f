import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unflat.losses import (
    critic_logistic,
    generator_logistic,
    lecam_penalty,
    r1_penalty,
    r1_weight,
)

LOGITS = st.floats(-30, 30)


@given(real=LOGITS, fake=LOGITS)
def test_logistic_terms_are_log_likelihoods(real, fake):
    a, b = torch.tensor([real], dtype=torch.float64), torch.tensor([fake], dtype=torch.float64)
    expected = math.log1p(math.exp(-real)) + math.log1p(math.exp(fake))
    assert float(critic_logistic(a, b)) == pytest.approx(expected, rel=1e-9)
    assert float(generator_logistic(b)) == pytest.approx(math.log1p(math.exp(-fake)), rel=1e-9)


def test_at_a_draw_the_critic_pays_two_bits():
    zero = torch.zeros(3)
    torch.testing.assert_close(critic_logistic(zero, zero), torch.full((3,), 2 * math.log(2)))


def test_a_sure_critic_still_moves_the_generator():
    """Non-saturating: the slope is -1 where the critic is sure that a picture is made."""
    logit = torch.tensor([-40.0], requires_grad=True)
    generator_logistic(logit).sum().backward()
    assert logit.grad is not None
    assert float(logit.grad) == pytest.approx(-1)


def test_the_penalty_of_a_critic_whose_slope_is_known():
    """D(x) = sum a x^2 has the gradient 2 a x; the penalty's own derivative by a is 4 a x^2."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64).requires_grad_()
    scale = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64).requires_grad_()
    penalty = r1_penalty((scale * images.square()).sum((1, 2, 3)), images)
    torch.testing.assert_close(penalty, 0.5 * (2 * scale * images).square().sum((1, 2, 3)))
    (gradient,) = torch.autograd.grad(penalty.sum(), scale)
    torch.testing.assert_close(gradient, (4 * scale * images.square()).sum(0))


def test_the_penalty_by_finite_differences():
    torch.manual_seed(0)
    critic = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3), torch.nn.Softplus(), torch.nn.Flatten(), torch.nn.Linear(12, 1)
    ).double()
    image = torch.randn(1, 1, 4, 4, dtype=torch.float64).requires_grad_()
    step, total = 1e-5, 0.0
    with torch.no_grad():
        for place in range(16):
            move = torch.zeros(16, dtype=torch.float64)
            move[place] = step
            move = move.view(1, 1, 4, 4)
            slope = (critic(image + move) - critic(image - move)) / (2 * step)
            total += 0.5 * float(slope) ** 2
    penalty = r1_penalty(critic(image)[:, 0], image)
    assert float(penalty.detach()) == pytest.approx(total, rel=1e-6)


def test_the_rule_of_thumb_gives_the_published_weights():
    """0.05 at 64 px with 16 pictures; StyleGAN2's own, 0.4096, at 256 px with 32."""
    assert r1_weight(64, 16) == pytest.approx(0.0512)
    assert r1_weight(256, 32) == pytest.approx(0.4096)


def test_lecam_holds_back_only_what_is_beyond_the_other_side():
    real, fake = torch.tensor([2.0, -3.0, 0.5]), torch.tensor([-4.0, 3.0, 1.0])
    average = torch.tensor(1.0), torch.tensor(-2.0)
    expected = torch.tensor([4.0**2 + 5.0**2, 0.0, 2.5**2])
    torch.testing.assert_close(lecam_penalty(real, fake, *average), expected)
