"""Volume rendering on n intervals (NeRF, arXiv 2003.08934, eq. 3; Max 1995).

Light is summed in log space before exponentiating, so empty rays give exactly 1 and long opaque
ones never underflow on the way.

>>> import torch
>>> weights(torch.tensor([[0.0, 100.0]]), torch.tensor([[1.0, 1.0]]))
tensor([[0., 1.]])
"""

import torch
from jaxtyping import Float
from torch import Tensor


def transmittance(
    density: Float[Tensor, "*rays n"], lengths: Float[Tensor, "*rays n"]
) -> Float[Tensor, "*rays n"]:
    """Light that still travels when it reaches each interval, in [0, 1].

    T_i = exp(-sum over j < i of density_j lengths_j).

    Args:
        density: at least 0, per unit of length.
        lengths: of the intervals, at least 0.
    """
    depth = density * lengths
    before = torch.cat([torch.zeros_like(depth[..., :1]), depth[..., :-1].cumsum(-1)], dim=-1)
    return torch.exp(-before)


def weights(
    density: Float[Tensor, "*rays n"], lengths: Float[Tensor, "*rays n"], opaque_last: bool = False
) -> Float[Tensor, "*rays n"]:
    """Share of a ray's light that ends in each interval; at least 0, sums to at most 1.

    w_i = T_i (1 - exp(-density_i lengths_i)).

    Args:
        density: at least 0, per unit of length.
        lengths: of the intervals, at least 0.
        opaque_last: the last interval takes all light that is left, so that weights sum to 1
            (mip-NeRF 360's opaque background).
    """
    alphas = -torch.expm1(-density * lengths)
    if opaque_last:
        alphas = torch.cat([alphas[..., :-1], torch.ones_like(alphas[..., -1:])], dim=-1)
    return transmittance(density, lengths) * alphas


def integrate(
    weights: Float[Tensor, "*rays n"], values: Float[Tensor, "*rays n channels"]
) -> Float[Tensor, "*rays channels"]:
    """Sum of weights times values along each ray, in the weights' own precision.

    Autocast would sum in half precision here, and 8 bits are fewer than a picture has.
    """
    values = values.to(weights.dtype)
    device = weights.device.type
    if not torch.amp.is_autocast_available(device):  # meta tensors
        return (weights[..., None, :] @ values).squeeze(-2)
    with torch.autocast(device, enabled=False):
        return (weights[..., None, :] @ values).squeeze(-2)


def termination_variance(
    weights: Float[Tensor, "*rays n"], positions: Float[Tensor, "*rays n"]
) -> Float[Tensor, "*rays"]:
    """Variance of where light ends, in squared units of the positions.

    Weights are taken as they are; they should sum to 1.
    """
    mean = (weights * positions).sum(-1, keepdim=True)
    return (weights * (positions - mean).square()).sum(-1)
