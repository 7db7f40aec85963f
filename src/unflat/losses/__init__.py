"""Terms of training."""

from unflat.losses.adversarial import (
    Round,
    critic_logistic,
    follow,
    generator_logistic,
    lecam_penalty,
    play,
    pose_cost,
    r1_penalty,
    r1_weight,
    top_share_after,
)
from unflat.losses.depth import accumulated_depth, distortion, is_smooth, pointwise_depth
from unflat.losses.path_length import PathLength, path_lengths
from unflat.losses.perceptual import FeatureDistance, frozen, perceptual_loss
from unflat.losses.pixel import pixel_loss
from unflat.losses.regularize import total_variation
from unflat.losses.surface import (
    density_variation,
    eikonal,
    indecision,
    minimal_surface,
    moved_points,
    occupancy_variation,
    points_in_cells,
    slope,
)

__all__ = [
    "FeatureDistance",
    "PathLength",
    "Round",
    "accumulated_depth",
    "critic_logistic",
    "density_variation",
    "distortion",
    "eikonal",
    "follow",
    "frozen",
    "generator_logistic",
    "indecision",
    "is_smooth",
    "lecam_penalty",
    "minimal_surface",
    "moved_points",
    "occupancy_variation",
    "path_lengths",
    "perceptual_loss",
    "pixel_loss",
    "play",
    "points_in_cells",
    "pointwise_depth",
    "pose_cost",
    "r1_penalty",
    "r1_weight",
    "slope",
    "top_share_after",
    "total_variation",
]
