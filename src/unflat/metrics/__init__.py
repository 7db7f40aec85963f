"""Figures with units, direction and source."""

from unflat.metrics.alignment import Similarity, align_icp, align_similarity
from unflat.metrics.classes import (
    LinearClassifier,
    fit_linear_classifier,
    within_class_distance,
)
from unflat.metrics.codes import CodeCounts
from unflat.metrics.consistency import (
    LEAST_VALIDITY,
    Cycle,
    DepthAgreement,
    Reprojection,
    depth_agreement,
    forward_backward_cycle,
    reprojection_error,
)
from unflat.metrics.depth import (
    AlignedError,
    ScaleAndShift,
    absolute_relative_error,
    align_disparity,
    delta_accuracy,
    disparity_correlation,
    fit_scale_and_shift,
    non_flatness_score,
    ordinal_accuracy,
    scale_and_shift_invariant_error,
    scale_invariant_depth_error,
    standardized_depth_error,
)
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
from unflat.metrics.image import MAX_PSNR, psnr, ssim, ssim_uniform
from unflat.metrics.kernel_distance import Kid, kid, polynomial_mmd2
from unflat.metrics.mask import mask_iou
from unflat.metrics.neighborhoods import (
    DensityCoverage,
    PrecisionRecall,
    density_coverage,
    precision_recall,
)
from unflat.metrics.normals import inner_pixels, mean_angle_deviation, normals_from_depth
from unflat.metrics.perceptual import Lpips, Trunk, feature_distance
from unflat.metrics.pose import (
    accuracy_within,
    focal_error,
    rotation_error,
    symmetric_rotation_error,
    translation_error,
    turns_about_up,
)
from unflat.metrics.shape import (
    Chamfer,
    Distances,
    FScore,
    Surface,
    Triangles,
    Watertightness,
    chamfer,
    f_score,
    nearest_distances,
    sample_surface,
    watertightness,
)
from unflat.metrics.termination import termination_variance
from unflat.metrics.visual_hull import HullGrid, hull_agreement
from unflat.metrics.volume import occupancy, volumetric_iou

__all__ = [
    "LEAST_VALIDITY",
    "MAX_PSNR",
    "AlignedError",
    "Chamfer",
    "Classifier",
    "CodeCounts",
    "Cycle",
    "DensityCoverage",
    "DepthAgreement",
    "Distances",
    "FScore",
    "FeatureMoments",
    "FeatureSample",
    "Features",
    "HullGrid",
    "InceptionFeatures",
    "InceptionScore",
    "Kid",
    "LinearClassifier",
    "Lpips",
    "PrecisionRecall",
    "Reprojection",
    "ScaleAndShift",
    "Similarity",
    "Surface",
    "TransformersFeatures",
    "Triangles",
    "Trunk",
    "Watertightness",
    "absolute_relative_error",
    "accuracy_within",
    "align_disparity",
    "align_icp",
    "align_similarity",
    "chamfer",
    "delta_accuracy",
    "density_coverage",
    "depth_agreement",
    "disparity_correlation",
    "f_score",
    "feature_distance",
    "fit_linear_classifier",
    "fit_scale_and_shift",
    "focal_error",
    "forward_backward_cycle",
    "frechet_distance",
    "hull_agreement",
    "inception_score",
    "inner_pixels",
    "kid",
    "mask_iou",
    "mean_angle_deviation",
    "nearest_distances",
    "non_flatness_score",
    "normals_from_depth",
    "occupancy",
    "ordinal_accuracy",
    "polynomial_mmd2",
    "precision_recall",
    "psnr",
    "reprojection_error",
    "rotation_error",
    "sample_surface",
    "scale_and_shift_invariant_error",
    "scale_invariant_depth_error",
    "ssim",
    "ssim_uniform",
    "standardized_depth_error",
    "symmetric_rotation_error",
    "termination_variance",
    "translation_error",
    "turns_about_up",
    "volumetric_iou",
    "watertightness",
    "within_class_distance",
]
