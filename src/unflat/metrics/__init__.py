"""Figures with units, direction and source."""

from unflat.metrics.alignment import Similarity, align_icp, align_similarity
from unflat.metrics.codes import CodeCounts
from unflat.metrics.depth import ScaleAndShift, disparity_correlation, fit_scale_and_shift
from unflat.metrics.distribution import (
    FeatureMoments,
    FeatureSample,
    InceptionScore,
    frechet_distance,
    inception_score,
)
from unflat.metrics.features import (
    Classifier,
    Features,
    InceptionFeatures,
    TransformersFeatures,
)
from unflat.metrics.finite import refuse_nan
from unflat.metrics.image import MAX_PSNR, psnr, ssim, ssim_uniform
from unflat.metrics.kernel_distance import Kid, kid, polynomial_mmd2
from unflat.metrics.neighborhoods import (
    DensityCoverage,
    PrecisionRecall,
    density_coverage,
    precision_recall,
)
from unflat.metrics.perceptual import Lpips, Trunk, feature_distance
from unflat.metrics.shape import (
    Chamfer,
    FScore,
    Surface,
    Triangles,
    Watertightness,
    chamfer,
    f_score,
    sample_surface,
    watertightness,
)
from unflat.metrics.termination import termination_variance
from unflat.metrics.volume import occupancy, volumetric_iou

__all__ = [
    "MAX_PSNR",
    "Chamfer",
    "Classifier",
    "CodeCounts",
    "DensityCoverage",
    "FScore",
    "FeatureMoments",
    "FeatureSample",
    "Features",
    "InceptionFeatures",
    "InceptionScore",
    "Kid",
    "Lpips",
    "PrecisionRecall",
    "ScaleAndShift",
    "Similarity",
    "Surface",
    "TransformersFeatures",
    "Triangles",
    "Trunk",
    "Watertightness",
    "align_icp",
    "align_similarity",
    "chamfer",
    "density_coverage",
    "disparity_correlation",
    "f_score",
    "feature_distance",
    "fit_scale_and_shift",
    "frechet_distance",
    "inception_score",
    "kid",
    "occupancy",
    "polynomial_mmd2",
    "precision_recall",
    "psnr",
    "refuse_nan",
    "sample_surface",
    "ssim",
    "ssim_uniform",
    "termination_variance",
    "volumetric_iou",
    "watertightness",
]
