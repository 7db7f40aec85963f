"""How near a picture is to the right one: PSNR and SSIM, a value for each picture.

>>> import torch
>>> psnr(torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.1))
tensor([20., 20.])
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

MAX_PSNR = 100.0
"""dB that equal pictures get, so that a mean over pictures stays finite."""

_WINDOW_SIGMA = 1.5  # pixels; Wang et al. 2004
_WINDOW_RADIUS = 5  # an 11 x 11 window
_STABILISERS = (0.01**2, 0.03**2)  # of means and of variances, for values in [0, 1]


def psnr(
    image: Float[Tensor, "batch channels height width"],
    reference: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, " batch"]:
    """Peak signal-to-noise ratio of each picture, in dB; higher is better.

    -10 log10 of the mean squared error over a picture's pixels and channels, peak 1. A data set's
    figure is the mean of these values over pictures, never the PSNR of the mean error: the latter
    is lower (Jensen), by about 1 dB on our scenes. Equal pictures give `MAX_PSNR`.

    Args:
        image: clamped to [0, 1] first, as it would be on a screen.
        reference: in [0, 1].
    """
    error = (image.clamp(0, 1) - reference).double().square().flatten(1).mean(1)
    return (-10 * error.clamp_min(10 ** (-MAX_PSNR / 10)).log10()).to(image.dtype)


def ssim(
    image: Float[Tensor, "batch channels height width"],
    reference: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, " batch"]:
    """Structural similarity of each picture, at most 1; higher is better.

    Wang et al. 2004 with their Gaussian window (11 x 11, sigma 1.5), population variances, mean
    over channels and over the windows that lie wholly inside the picture.

    Args:
        image: clamped to [0, 1] first; sides of at least 11 pixels.
        reference: in [0, 1].

    Raises:
        ValueError: a picture is smaller than the window.
    """
    side = 2 * _WINDOW_RADIUS + 1
    if min(image.shape[-2:]) < side:
        raise ValueError(f"SSIM needs pictures of at least {side} pixels a side, got {image.shape}")
    image, reference = image.clamp(0, 1).double(), reference.double()
    mean, mean_reference = _blur(image), _blur(reference)
    variance = _blur(image.square()) - mean.square()
    variance_reference = _blur(reference.square()) - mean_reference.square()
    covariance = _blur(image * reference) - mean * mean_reference
    c1, c2 = _STABILISERS
    luminance = (2 * mean * mean_reference + c1) / (mean.square() + mean_reference.square() + c1)
    structure = (2 * covariance + c2) / (variance + variance_reference + c2)
    return (luminance * structure).flatten(1).mean(1).float()


def _blur(image: Tensor) -> Tensor:
    """Means under the window, where it lies wholly inside."""
    offsets = torch.arange(-_WINDOW_RADIUS, _WINDOW_RADIUS + 1, device=image.device)
    window = torch.exp(-(offsets.to(image.dtype) ** 2) / (2 * _WINDOW_SIGMA**2))
    window = window / window.sum()
    channels = image.shape[1]
    columns = window.expand(channels, 1, 1, -1)
    image = functional.conv2d(image, columns, groups=channels)
    return functional.conv2d(image, columns.mT, groups=channels)
