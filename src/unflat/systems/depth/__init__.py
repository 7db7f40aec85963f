"""How near everything in a single picture is: teachers of disparity, others' and our own."""

from unflat.systems.depth.estimator import AnyShapeEstimator, DepthEstimator, estimate_picture
from unflat.systems.depth.source import depth_source, open_estimator

__all__ = [
    "AnyShapeEstimator",
    "DepthEstimator",
    "depth_source",
    "estimate_picture",
    "open_estimator",
]
