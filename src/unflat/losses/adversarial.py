"""Terms of a generator and a critic that learn against each other.

The non-saturating logistic game (arXiv 1406.2661) with the R1 gradient penalty (arXiv 1801.04406)
as StyleGAN2 plays it (arXiv 1912.04958), and LeCam's regulariser (arXiv 2104.03310). A logit is
above 0 where the critic holds a picture for real.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def generator_logistic(fake: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """-log sigmoid(logit) of made pictures: what the generator minimises."""
    return functional.softplus(-fake)


def critic_logistic(
    real: Float[Tensor, " batch"], fake: Float[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """-log sigmoid(real) - log(1 - sigmoid(fake)): what the critic minimises; 2 log 2 at a draw."""
    return functional.softplus(-real) + functional.softplus(fake)


def r1_penalty(
    logits: Float[Tensor, " batch"], images: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, " batch"]:
    """Half of the squared length of d logit / d image, for each picture; differentiable.

    Args:
        logits: of the critic on real pictures.
        images: those pictures, requiring gradients.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return 0.5 * gradient.square().sum((1, 2, 3))


def r1_weight(side: int, batch: int) -> float:
    """StyleGAN2's rule of thumb for the weight of R1: 0.0002 side^2 / batch.

    Args:
        side: in pixels, of what the critic sees.
        batch: pictures of a step.
    """
    return 0.0002 * side**2 / batch


def lecam_penalty(
    real: Float[Tensor, " batch"],
    fake: Float[Tensor, " batch"],
    real_average: Float[Tensor, ""],
    fake_average: Float[Tensor, ""],
) -> Float[Tensor, " batch"]:
    """How far logits lie beyond the average of the other side, squared.

    relu(real - fake_average)^2 + relu(real_average - fake)^2, as in LeCam's code (the paper's
    eq. 4 is without relu): a critic that tells both apart by a wide margin is held back, which
    helps where pictures are few.

    Args:
        real: logits of real pictures.
        fake: logits of made ones.
        real_average: moving average of the first.
        fake_average: moving average of the second.
    """
    too_sure = functional.relu(real - fake_average).square()
    return too_sure + functional.relu(real_average - fake).square()


class Round(NamedTuple):
    """What one look of a critic at real and made pictures tells both players."""

    generator: Float[Tensor, " batch"]
    """What the generator minimises for each made picture, without gradients."""
    slope: Float[Tensor, "batch channels height width"]
    """Its gradient by each made picture, summed over the batch; see `follow`."""
    critic: Float[Tensor, " batch"]
    """`critic_logistic` of each pair, and what else was asked for; gradients go to the critic."""
    real_logits: Float[Tensor, " batch"]
    """Of real pictures, for regularisers of the critic."""
    fake_logits: Float[Tensor, " batch"]
    """Of made pictures, the same."""
    pose_error: Float[Tensor, " batch"] | None = None
    """`pose_cost` of made pictures without its weight and gradients; None where none was asked."""


def play(
    critic: Callable[..., Tensor | tuple[Tensor, Tensor]],
    real: Float[Tensor, "batch channels height width"],
    fake: Float[Tensor, "batch channels height width"],
    r1_gamma: float = 0.0,
    *,
    real_condition: Float[Tensor, "batch dim"] | None = None,
    fake_condition: Float[Tensor, "batch dim"] | None = None,
    real_pose: Float[Tensor, "batch angles"] | None = None,
    fake_pose: Float[Tensor, "batch angles"] | None = None,
    pose_weight: float = 0.0,
    top_share: float = 1.0,
) -> Round:
    """One round for both players, the made pictures judged once.

    The generator's gradient is taken here, so that one backward pass over the sum of both players'
    terms gives each exactly its own: nothing of the generator's term reaches the critic's weights,
    nothing of the critic's reaches the generator.

    Args:
        critic: pictures, and a condition where there is one, to logits, or to logits and poses.
        real: as many as there are made ones.
        fake: made pictures.
        r1_gamma: weight of `r1_penalty`; 0 leaves it out. Computed every k-th step, it is k times
            as large.
        real_condition: what real pictures are judged given, as a class or a camera.
        fake_condition: the same of made pictures; both or neither.
        real_pose: as the critic should tell them, of real pictures (GRAM, arXiv 2112.08867); a
            cost of the critic alone.
        fake_pose: under which the pictures were made. Both players minimise `pose_cost` here, so
            that a generator whose pictures do not show their pose is at a loss (pi-GAN, arXiv
            2012.00926).
        pose_weight: of both; pi-GAN has 15.
        top_share: of the made pictures, those with the highest logits, that teach the generator
            (arXiv 2002.06224); their terms are scaled so that the mean over the batch is theirs.
            Poses are taught by all.

    Raises:
        ValueError: only one of two conditions is given; poses are weighed that nobody gives or
            the critic does not tell; the share is not in (0, 1].
    """
    if (real_condition is None) != (fake_condition is None):
        raise ValueError("real_condition and fake_condition are given both or not at all")
    if pose_weight and fake_pose is None and real_pose is None:
        raise ValueError(f"pose_weight is {pose_weight}, but no poses are given")
    fake = fake.detach().requires_grad_()
    real = real.detach().requires_grad_(r1_gamma > 0)
    fake_logits, fake_told = _judge(critic, fake, fake_condition)
    real_logits, real_told = _judge(critic, real, real_condition)
    own = critic_logistic(real_logits, fake_logits)
    cost = generator_logistic(fake_logits) * _top(fake_logits.detach(), top_share)
    pose_error = None
    if fake_pose is not None:
        error = pose_cost(fake_told, fake_pose)
        own, cost = own + pose_weight * error, cost + pose_weight * error
        pose_error = error.detach()
    if real_pose is not None:
        own = own + pose_weight * pose_cost(real_told, real_pose)
    (slope,) = torch.autograd.grad(cost.sum(), fake, retain_graph=True)
    if r1_gamma > 0:
        own = own + r1_gamma * r1_penalty(real_logits, real)
    return Round(cost.detach(), slope, own, real_logits, fake_logits, pose_error)


def pose_cost(
    told: Float[Tensor, "batch _"] | None, pose: Float[Tensor, "batch angles"]
) -> Float[Tensor, " batch"]:
    """Mean squared error of the pose that a critic reads off each picture.

    Args:
        told: by the critic.
        pose: true; radians, as pi-GAN's two angles, or whatever the critic is to learn.

    Raises:
        ValueError: the critic tells none, or other numbers.
    """
    if told is None or told.shape != pose.shape:
        found = "none" if told is None else f"some of shape {tuple(told.shape)}"
        raise ValueError(f"poses of shape {tuple(pose.shape)} are given; the critic tells {found}")
    return (told - pose.detach()).square().mean(1)


def top_share_after(step: int, interval: int = 2000, least: float = 0.6) -> float:
    """pi-GAN's share of made pictures that teach the generator: 0.99^(step / interval).

    Args:
        step: of the optimizer, from 0.
        interval: steps in which the share falls by a hundredth of itself.
        least: where it stops.
    """
    return max(0.99 ** (step / interval), least)


def follow(
    value: Float[Tensor, " batch"],
    slope: Float[Tensor, "batch channels height width"],
    fake: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, " batch"]:
    """The value, with the given gradient by each made picture."""
    return value + (slope * (fake - fake.detach())).sum((1, 2, 3))


def _judge(
    critic: Callable[..., Tensor | tuple[Tensor, Tensor]], images: Tensor, condition: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Logits, and poses if the critic tells them."""
    said = critic(images) if condition is None else critic(images, condition.detach())
    return said if isinstance(said, tuple) else (said, None)


def _top(logits: Tensor, share: float) -> Tensor:
    """A weight for each picture: of the best, 1 over their share of the batch; of others 0."""
    if not 0 < share <= 1:
        raise ValueError(f"top_share is {share}; it must be above 0 and at most 1")
    count = math.ceil(share * len(logits))
    weights = torch.zeros_like(logits)
    weights[logits.topk(count).indices] = len(logits) / count
    return weights
