import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unflat.losses import (
    critic_logistic,
    follow,
    generator_logistic,
    lecam_penalty,
    play,
    r1_penalty,
    r1_weight,
    top_share_after,
)
from unflat.nn import Critic

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


@pytest.mark.parametrize("r1_gamma", [0.0, 3.0])
def test_one_backward_gives_both_players_what_two_would(r1_gamma):
    """Gradients of a generator and of a critic, whose pictures influence each other's logits."""
    torch.manual_seed(0)
    generator = torch.nn.Linear(5, 3 * 8 * 8).double()
    critic = Critic(8, width=4, widest=8).double()
    z, real = torch.randn(4, 5).double(), torch.randn(4, 3, 8, 8).double()

    def gradients(player: torch.nn.Module) -> list[torch.Tensor]:
        found = [weight.grad for weight in player.parameters()]
        assert all(gradient is not None for gradient in found)
        player.zero_grad(set_to_none=True)
        return [gradient for gradient in found if gradient is not None]

    fake = generator(z).view(4, 3, 8, 8)
    judged = play(critic, real, fake, r1_gamma)
    fooling = follow(judged.generator, judged.slope, fake)
    (fooling.mean() + judged.critic.mean()).backward()
    at_once = gradients(generator), gradients(critic)

    fake = generator(z).view(4, 3, 8, 8)
    cost = generator_logistic(critic(fake))
    torch.testing.assert_close(fooling, cost)
    cost.mean().backward()
    apart = gradients(generator)
    critic.zero_grad(set_to_none=True)
    asked = real.clone().requires_grad_()
    real_logits = critic(asked)
    own = critic_logistic(real_logits, critic(fake.detach()))
    if r1_gamma:
        own = own + r1_gamma * r1_penalty(real_logits, asked)
    torch.testing.assert_close(judged.critic, own)
    own.mean().backward()
    torch.testing.assert_close(at_once[0], apart, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(at_once[1], gradients(critic), rtol=1e-10, atol=1e-14)
    assert all(weight.grad is None for weight in generator.parameters())


class PoseCritic(torch.nn.Module):
    """Logits and two angles from a picture, and a condition where one is given."""

    def __init__(self, dim: int = 0):
        super().__init__()
        torch.manual_seed(3)
        self.trunk = torch.nn.Linear(3 * 4 * 4, 7)
        self.leave = torch.nn.Linear(7 + dim, 3)

    def forward(
        self, images: torch.Tensor, condition: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.tanh(self.trunk(images.flatten(1)))
        if condition is not None:
            hidden = torch.cat([hidden, condition], dim=1)
        said = self.leave(hidden)
        return said[:, 0], said[:, 1:]


def gradients_of(player: torch.nn.Module, cost: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(cost.mean(), list(player.parameters()), retain_graph=True))


@pytest.mark.parametrize("top_share", [1.0, 0.5])
def test_poses_conditions_and_the_best_few_by_the_terms_written_out(top_share, generator):
    """Both players of pi-GAN's game, each with a backward pass of its own, in float64."""
    maker = torch.nn.Linear(5, 48).double()
    critic = PoseCritic(dim=2).double()
    z, real = (torch.randn(6, n, generator=generator).double() for n in (5, 48))
    real = real.view(6, 3, 4, 4)
    given = [torch.randn(6, 2, generator=generator).double() for _ in range(4)]
    real_condition, fake_condition, real_pose, fake_pose = given
    fake = maker(z).view(6, 3, 4, 4)
    judged = play(
        critic,
        real,
        fake,
        0.7,
        real_condition=real_condition,
        fake_condition=fake_condition,
        real_pose=real_pose,
        fake_pose=fake_pose,
        pose_weight=15.0,
        top_share=top_share,
    )
    ours = follow(judged.generator, judged.slope, fake)

    logits, told = critic(fake, fake_condition)
    best = logits.topk(round(6 * top_share)).values
    error = ((told - fake_pose) ** 2).mean(1)
    expected = torch.nn.functional.softplus(-best).mean() + 15 * error.mean()
    torch.testing.assert_close(ours.mean(), expected)
    for mine, theirs in zip(gradients_of(maker, ours), gradients_of(maker, expected), strict=True):
        torch.testing.assert_close(mine, theirs)

    asked = real.clone().requires_grad_()
    real_logits, real_told = critic(asked, real_condition)
    logits, told = critic(fake.detach(), fake_condition)
    cost = critic_logistic(real_logits, logits) + 0.7 * r1_penalty(real_logits, asked)
    cost = (
        cost + 15 * ((told - fake_pose) ** 2).mean(1) + 15 * ((real_told - real_pose) ** 2).mean(1)
    )
    torch.testing.assert_close(judged.critic, cost)
    own = gradients_of(critic, judged.critic)
    for mine, theirs in zip(own, gradients_of(critic, cost), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert judged.pose_error is not None
    torch.testing.assert_close(judged.pose_error, error.detach())


def test_the_critic_sees_the_condition_that_belongs_to_the_picture(generator):
    critic = PoseCritic(dim=2)
    images = torch.randn(3, 3, 4, 4, generator=generator)
    first, second = torch.randn(2, 3, 2, generator=generator)
    judged = play(critic, images, images, real_condition=first, fake_condition=second)
    torch.testing.assert_close(judged.real_logits, critic(images, first)[0])
    torch.testing.assert_close(judged.fake_logits, critic(images, second)[0])
    assert float((judged.real_logits - judged.fake_logits).detach().abs().min()) > 1e-3


def test_weight_zero_only_tells_the_error_of_the_pose(generator):
    critic = PoseCritic()
    real, fake = torch.randn(2, 3, 3, 4, 4, generator=generator)
    plain = play(lambda images: critic(images)[0], real, fake)
    told = play(critic, real, fake, fake_pose=torch.zeros(3, 2))
    torch.testing.assert_close(told.critic, plain.critic)
    torch.testing.assert_close(told.slope, plain.slope)
    assert plain.pose_error is None
    assert told.pose_error is not None
    torch.testing.assert_close(told.pose_error, critic(fake)[1].square().mean(1).detach())


def test_what_does_not_fit_a_round_is_refused(generator):
    critic = PoseCritic()
    images = torch.randn(2, 3, 4, 4, generator=generator)
    with pytest.raises(ValueError, match="both or not at all"):
        play(critic, images, images, real_condition=torch.zeros(2, 2))
    with pytest.raises(ValueError, match="no poses are given"):
        play(critic, images, images, pose_weight=15.0)
    with pytest.raises(ValueError, match=r"shape \(2, 3\).*critic tells some of shape \(2, 2\)"):
        play(critic, images, images, fake_pose=torch.zeros(2, 3), pose_weight=1.0)
    with pytest.raises(ValueError, match="critic tells none"):
        play(lambda x: critic(x)[0], images, images, fake_pose=torch.zeros(2, 2), pose_weight=1.0)
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"top_share is {share}"):
            play(critic, images, images, top_share=share)


def test_the_share_of_the_best_falls_as_published():
    """The check values of the survey: 0.9044 at 20000, 0.7778 at 50000, 0.6 from 102000."""
    shares = [top_share_after(step) for step in (0, 20_000, 50_000, 102_000, 500_000)]
    assert shares == pytest.approx([1, 0.9044, 0.7778, 0.6, 0.6], abs=5e-5)
