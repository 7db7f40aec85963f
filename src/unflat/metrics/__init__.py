"""Figures with units, direction and source."""

from unflat.metrics.codes import CodeCounts
from unflat.metrics.depth import ScaleAndShift, disparity_correlation, fit_scale_and_shift
from unflat.metrics.image import MAX_PSNR, psnr, ssim
from unflat.metrics.termination import termination_variance

__all__ = [
    "MAX_PSNR",
    "CodeCounts",
    "ScaleAndShift",
    "disparity_correlation",
    "fit_scale_and_shift",
    "psnr",
    "ssim",
    "termination_variance",
]
