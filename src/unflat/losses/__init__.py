"""Terms of training."""

from unflat.losses.adversarial import (
    Round,
    critic_logistic,
    follow,
    generator_logistic,
    lecam_penalty,
    play,
    r1_penalty,
    r1_weight,
)
from unflat.losses.depth import accumulated_depth, distortion, is_smooth, pointwise_depth
from unflat.losses.perceptual import FeatureDistance, frozen, perceptual_loss
from unflat.losses.pixel import pixel_loss
from unflat.losses.regularize import total_variation

__all__ = [
    "FeatureDistance",
    "Round",
    "accumulated_depth",
    "critic_logistic",
    "distortion",
    "follow",
    "frozen",
    "generator_logistic",
    "is_smooth",
    "lecam_penalty",
    "perceptual_loss",
    "pixel_loss",
    "play",
    "pointwise_depth",
    "r1_penalty",
    "r1_weight",
    "total_variation",
]
