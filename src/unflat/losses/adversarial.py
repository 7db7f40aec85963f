"""Terms of a generator and a critic that learn against each other.

The non-saturating logistic game (arXiv 1406.2661) with the R1 gradient penalty (arXiv 1801.04406)
as StyleGAN2 plays it (arXiv 1912.04958), and LeCam's regulariser (arXiv 2104.03310). A logit is
above 0 where the critic holds a picture for real.
"""

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
    """`generator_logistic` of each made picture, without gradients."""
    slope: Float[Tensor, "batch channels height width"]
    """Its gradient by each made picture, summed over the batch; see `follow`."""
    critic: Float[Tensor, " batch"]
    """`critic_logistic` of each pair, and R1 where asked for; gradients go to the critic alone."""
    real_logits: Float[Tensor, " batch"]
    """Of real pictures, for regularisers of the critic."""
    fake_logits: Float[Tensor, " batch"]
    """Of made pictures, the same."""


def play(
    critic: Callable[[Tensor], Tensor],
    real: Float[Tensor, "batch channels height width"],
    fake: Float[Tensor, "batch channels height width"],
    r1_gamma: float = 0.0,
) -> Round:
    """One round for both players, the made pictures judged once.

    The generator's gradient is taken here, so that one backward pass over the sum of both players'
    terms gives each exactly its own: nothing of the generator's term reaches the critic's weights,
    nothing of the critic's reaches the generator.

    Args:
        critic: pictures to logits.
        real: as many as there are made ones.
        fake: made pictures.
        r1_gamma: weight of `r1_penalty`; 0 leaves it out. Computed every k-th step, it is k times
            as large.
    """
    fake = fake.detach().requires_grad_()
    real = real.detach().requires_grad_(r1_gamma > 0)
    fake_logits, real_logits = critic(fake), critic(real)
    cost = generator_logistic(fake_logits)
    (slope,) = torch.autograd.grad(cost.sum(), fake, retain_graph=True)
    own = critic_logistic(real_logits, fake_logits)
    if r1_gamma > 0:
        own = own + r1_gamma * r1_penalty(real_logits, real)
    return Round(cost.detach(), slope, own, real_logits, fake_logits)


def follow(
    value: Float[Tensor, " batch"],
    slope: Float[Tensor, "batch channels height width"],
    fake: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, " batch"]:
    """The value, with the given gradient by each made picture."""
    return value + (slope * (fake - fake.detach())).sum((1, 2, 3))
