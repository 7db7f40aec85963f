"""The palette that makes a render as like a picture as it can be: a small linear system.

Rendering is linear in color, so that a palette renders as S V, S what the rays bring of each choice
(arXiv 2211.11674, section 3.1). The V of least squares is had in one solve. It is ill-conditioned
where two choices stand side by side everywhere, so that V is held near a given one.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def fit_palette(
    shares: Float[Tensor, "batch k height width"],
    target: Float[Tensor, "batch 3 height width"],
    weight: Float[Tensor, "batch 1 height width"],
    near: Float[Tensor, "batch k 3"],
    hold: float = 0.01,
    background: float = 1.0,
) -> Float[Tensor, "batch k 3"]:
    """Palettes in [0, 1].

    Args:
        shares: of each choice in each pixel; their sum is the opacity.
        target: pictures in [0, 1].
        weight: of each pixel, at least 0: 1 where the picture shows the object.
        near: palettes to stay near to.
        hold: how much a choice that nothing is seen of is worth against one that fills the picture.
        background: grey value behind.
    """
    rows = shares.flatten(2).mT.double()
    weights = weight.flatten(2).mT.double()
    behind = (1 - rows.sum(-1, keepdim=True)) * background
    wanted = target.flatten(2).mT.double() - behind - rows @ near.double()
    count = weights.sum(1, keepdim=True).clamp(min=1.0)
    matrix = (rows * weights).mT @ rows / count
    matrix = matrix + hold * torch.eye(rows.shape[-1], dtype=rows.dtype, device=rows.device)
    change = torch.linalg.solve(matrix, (rows * weights).mT @ wanted / count)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] torch's stub is untyped
    return (near + change.to(near)).clamp(0, 1)
