"""How near a disparity map is to the true one, when scale and shift are nobody's to know.

A single photograph fixes disparity only up to d' = a d + b. Correlation does not see a and b;
whoever needs them fits them.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class ScaleAndShift(NamedTuple):
    """The best a and b in ``predicted = scale * true + shift``, per picture."""

    scale: Float[Tensor, " batch"]
    """In units of the prediction over units of the truth."""
    shift: Float[Tensor, " batch"]
    """In units of the prediction."""
    residual: Float[Tensor, " batch"]
    """Root of the mean squared rest, in units of the prediction; lower is better."""


def disparity_correlation(
    predicted: Float[Tensor, "batch height width"], true: Float[Tensor, "batch height width"]
) -> Float[Tensor, " batch"]:
    """Pearson correlation over the pixels of each picture, in [-1, 1]; higher is better.

    A constant map correlates with nothing: 0. Report the mean over pictures, and the median beside
    it, which a few failures do not move. For scale: one mean map for all of our scenes gets 0.80.

    Args:
        predicted: disparity in any unit (not depth: its sky would decide alone).
        true: 1 / depth, sky as 0.
    """
    predicted, true = predicted.double().flatten(1), true.double().flatten(1)
    predicted = predicted - predicted.mean(1, keepdim=True)
    true = true - true.mean(1, keepdim=True)
    norm = (predicted.square().sum(1) * true.square().sum(1)).sqrt()
    correlation = (predicted * true).sum(1) / norm.clamp_min(1e-300)
    # a map that is constant up to rounding has a direction, but it means nothing
    constant = (predicted.abs().amax(1) < 1e-9) | (true.abs().amax(1) < 1e-9)
    return torch.where(constant, 0.0, correlation).float()


def fit_scale_and_shift(
    predicted: Float[Tensor, "batch height width"],
    true: Float[Tensor, "batch height width"],
    mask: Bool[Tensor, "batch height width"] | None = None,
) -> ScaleAndShift:
    """Least squares of predicted on true disparity: predicted = scale true + shift.

    The closed form cov / var (specs of the projective frame call these a and b). A constant truth
    gives scale 0 and the mean as shift.

    Args:
        predicted: in the prediction's own unit.
        true: 1 / depth, sky as 0.
        mask: pixels that count; all if not given.

    Raises:
        ValueError: the mask leaves a picture without pixels.
    """
    x, y = true.double().flatten(1), predicted.double().flatten(1)
    weight = torch.ones_like(x) if mask is None else mask.flatten(1).double()
    count = weight.sum(1)
    if (count == 0).any():
        raise ValueError("a picture has no pixels to fit scale and shift on")
    mean_x, mean_y = (x * weight).sum(1) / count, (y * weight).sum(1) / count
    dx, dy = x - mean_x[:, None], y - mean_y[:, None]
    variance = (weight * dx.square()).sum(1)
    covariance = (weight * dx * dy).sum(1)
    scale = torch.where(variance > 1e-18 * count, covariance / variance.clamp_min(1e-300), 0.0)
    shift = mean_y - scale * mean_x
    rest = (weight * (dy - scale[:, None] * dx).square()).sum(1) / count
    return ScaleAndShift(
        scale.to(predicted.dtype), shift.to(predicted.dtype), rest.sqrt().to(predicted.dtype)
    )
