"""Depth terms on where light ends (specs: pointwise depth of VQ3D, arXiv 2302.06833).

With weights that sum to 1, the pointwise square is the accumulated square plus the variance of the
termination: sum w (m - D)^2 = (sum w m - D)^2 + Var_w(m). That variance is what removes fog.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional


def pointwise_depth(
    weights: Float[Tensor, "*rays n"],
    middles: Float[Tensor, "*rays n"],
    target: Float[Tensor, "*rays"],
    huber: float | None = 0.05,
) -> Float[Tensor, "*rays"]:
    """Sum over samples of w_i rho(m_i - D), a value per ray.

    VQ3D's idea; light that is left over counts as ending at disparity 0. With ``huber`` None rho is
    the square; otherwise 2 huber |x| - huber^2 beyond huber, the square within: it forgives a
    teacher's soft silhouettes.

    Args:
        weights: along each ray, sum at most 1.
        middles: normalised disparity of each interval's middle, [0, 1].
        target: teacher's normalised disparity, [0, 1].
        huber: where the square turns linear, in units of normalised disparity.
    """
    target = target[..., None]
    left = (1 - weights.sum(-1)).clamp_min(0)
    ends = torch.cat([middles - target, -target], dim=-1)
    shares = torch.cat([weights, left[..., None]], dim=-1)
    if huber is None:
        return (shares * ends.square()).sum(-1)
    cost = 2 * functional.huber_loss(ends, torch.zeros_like(ends), reduction="none", delta=huber)
    return (shares * cost).sum(-1)


def accumulated_depth(
    weights: Float[Tensor, "*rays n"],
    middles: Float[Tensor, "*rays n"],
    target: Float[Tensor, "*rays"],
) -> Float[Tensor, "*rays"]:
    """(sum w m - D)^2, a value per ray: the form that allows fog, kept for the ablation."""
    return ((weights * middles).sum(-1) - target).square()


def distortion(
    weights: Float[Tensor, "*rays n"], edges: Float[Tensor, "*rays n+1"]
) -> Float[Tensor, "*rays"]:
    """How spread out the weights of a ray are (mip-NeRF 360, arXiv 2111.12077, eq. 15).

    sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 |edge_{i+1} - edge_i|, in linear time by prefix
    sums, for edges that rise or fall.

    Args:
        weights: along each ray, at least 0.
        edges: of the intervals, monotone, in a normalised coordinate.
    """
    lengths = edges.diff(dim=-1)
    middles = edges[..., :-1] + 0.5 * lengths
    mass = weights.cumsum(-1) - weights  # of all earlier intervals
    moment = (weights * middles).cumsum(-1) - weights * middles
    between = 2 * (weights * (middles * mass - moment)).sum(-1)
    return between.abs() + (weights.square() * lengths.abs()).sum(-1) / 3


def is_smooth(
    disparity: Float[Tensor, "batch 1 height width"], jump: float = 0.1
) -> Bool[Tensor, "batch 1 height width"]:
    """Where a teacher's disparity changes by less than ``jump`` within one pixel each way."""
    highest = functional.max_pool2d(disparity, 3, 1, 1)
    lowest = -functional.max_pool2d(-disparity, 3, 1, 1)
    return highest - lowest < jump
