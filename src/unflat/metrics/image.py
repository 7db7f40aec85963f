"""How near a picture is to the right one: PSNR and SSIM, a value for each picture.

>>> import torch
>>> psnr(torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.1))
tensor([20., 20.])
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from unflat.metrics.checks import refuse_pictures

MAX_PSNR = 100.0
"""dB that equal pictures get, so that a mean over pictures stays finite."""

_WINDOW_SIGMA = 1.5  # pixels; Wang et al. 2004
_WINDOW_RADIUS = 5  # an 11 x 11 window
_UNIFORM_SIDE = 7  # scikit-image's default
_STABILISERS = (0.01**2, 0.03**2)  # of means and of variances, for values in [0, 1]


def psnr(
    image: Float[Tensor, "batch channels height width"],
    reference: Float[Tensor, "batch channels height width"],
    mask: Float[Tensor, "batch 1 height width"]
    | Bool[Tensor, "batch 1 height width"]
    | None = None,
) -> Float[Tensor, " batch"]:
    """Peak signal-to-noise ratio of each picture, in dB; higher is better.

    -10 log10 of the mean squared error over a picture's pixels and channels, peak 1. A data set's
    figure is the mean of these values over pictures, never the PSNR of the mean error: the latter
    is lower (Jensen), by about 1 dB on our scenes. Equal pictures give `MAX_PSNR`.

    Args:
        image: clamped to [0, 1] first, as it would be on a screen.
        reference: in [0, 1].
        mask: where the error counts, or a matte in [0, 1] by which it is weighted; everywhere if
            not given. A picture of which nothing counts has no error: it gets NaN, which belongs
            left out of means.

    Raises:
        ValueError: a picture is not finite (it is named), or the sizes differ.
    """
    _check_pair(image, reference)
    error = (image.clamp(0, 1) - reference).double().square()
    if mask is None:
        mean = error.flatten(1).mean(1)
    else:
        weight = mask.double()
        if not ((weight >= 0) & (weight <= 1)).all():
            raise ValueError("a mask of PSNR holds values outside [0, 1]")
        mean = (error.mean(1, keepdim=True) * weight).flatten(1).sum(1) / weight.flatten(1).sum(1)
    return (-10 * mean.clamp_min(10 ** (-MAX_PSNR / 10)).log10()).to(image.dtype)


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
        ValueError: a picture is smaller than the window or not finite, or the sizes differ.
    """
    return _similarity(image, reference, 2 * _WINDOW_RADIUS + 1, _blur, 1.0)


def ssim_uniform(
    image: Float[Tensor, "batch channels height width"],
    reference: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, " batch"]:
    """Structural similarity under scikit-image's default window, at most 1; higher is better.

    7 x 7 pixels of equal weight, sample variances (over 48), mean over channels and over the
    windows that lie wholly inside. Not comparable with `ssim`: name which one a figure is.

    Args:
        image: clamped to [0, 1] first; sides of at least 7 pixels.
        reference: in [0, 1].

    Raises:
        ValueError: a picture is smaller than the window or not finite, or the sizes differ.
    """
    pixels = _UNIFORM_SIDE**2
    return _similarity(image, reference, _UNIFORM_SIDE, _box_mean, pixels / (pixels - 1))


def _similarity(
    image: Tensor,
    reference: Tensor,
    side: int,
    window_mean: Callable[[Tensor], Tensor],
    correction: float,
) -> Tensor:
    """SSIM of each picture under a window; the correction multiplies its variances."""
    _check_pair(image, reference)
    if min(image.shape[-2:]) < side:
        raise ValueError(f"SSIM needs pictures of at least {side} pixels a side, got {image.shape}")
    image, reference = image.clamp(0, 1).double(), reference.double()
    mean, mean_reference = window_mean(image), window_mean(reference)
    variance = correction * (window_mean(image.square()) - mean.square())
    variance_reference = correction * (window_mean(reference.square()) - mean_reference.square())
    covariance = correction * (window_mean(image * reference) - mean * mean_reference)
    c1, c2 = _STABILISERS
    luminance = (2 * mean * mean_reference + c1) / (mean.square() + mean_reference.square() + c1)
    structure = (2 * covariance + c2) / (variance + variance_reference + c2)
    return (luminance * structure).flatten(1).mean(1).float()


def _check_pair(image: Tensor, reference: Tensor) -> None:
    """Refuses pictures that do not compare."""
    if image.shape != reference.shape:
        raise ValueError(
            f"image has shape {tuple(image.shape)}, its reference {tuple(reference.shape)}"
        )
    for name, pictures in (("image", image), ("reference", reference)):
        wrong = ~pictures.isfinite().flatten(1).all(1)
        refuse_pictures(wrong, f"the {name} holds NaN or infinity in picture")


def _box_mean(image: Tensor) -> Tensor:
    """Means under the uniform window, where it lies wholly inside."""
    return functional.avg_pool2d(image, _UNIFORM_SIDE, stride=1)


def _blur(image: Tensor) -> Tensor:
    """Means under the window, where it lies wholly inside."""
    offsets = torch.arange(-_WINDOW_RADIUS, _WINDOW_RADIUS + 1, device=image.device)
    window = torch.exp(-(offsets.to(image.dtype) ** 2) / (2 * _WINDOW_SIGMA**2))
    window = window / window.sum()
    channels = image.shape[1]
    columns = window.expand(channels, 1, 1, -1)
    image = functional.conv2d(image, columns, groups=channels)
    return functional.conv2d(image, columns.mT, groups=channels)
