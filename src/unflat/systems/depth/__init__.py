"""How near everything in a single picture is: teachers of disparity, others' and our own."""

from unflat.systems.depth.estimator import AnyShapeEstimator, DepthEstimator, estimate_picture

__all__ = ["AnyShapeEstimator", "DepthEstimator", "estimate_picture"]
