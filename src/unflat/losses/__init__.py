"""Terms of training."""

from unflat.losses.depth import accumulated_depth, distortion, is_smooth, pointwise_depth
from unflat.losses.pixel import pixel_loss
from unflat.losses.regularize import total_variation

__all__ = [
    "accumulated_depth",
    "distortion",
    "is_smooth",
    "pixel_loss",
    "pointwise_depth",
    "total_variation",
]
