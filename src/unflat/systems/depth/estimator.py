"""Something that sees how near everything in a picture is, whoever made it.

estimator = open_estimator("depth-anything/Depth-Anything-V2-Small-hf")
disparity = estimate_picture(estimator, image)      # 1 nearest, 0 farthest
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

SIDE_MULTIPLE = 8
"""Sides of the squares that estimators are given are multiples of this many pixels."""


@runtime_checkable
class DepthEstimator(Protocol):
    """The disparity of square pictures."""

    def estimate(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch 1 side side"]:
        """Disparity, larger is nearer, about [0, 1] for each picture on its own.

        Args:
            images: sRGB in [0, 1]; a side is a multiple of `SIDE_MULTIPLE`.
        """
        ...


@runtime_checkable
class AnyShapeEstimator(DepthEstimator, Protocol):
    """An estimator that knows what to do with pictures that are not square."""

    def estimate_any(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """As `estimate`, for pictures of any shape."""
        ...


@torch.no_grad()
def estimate_picture(
    estimator: DepthEstimator, image: Float[Tensor, "3 height width"]
) -> Float[Tensor, "height width"]:
    """Disparity of one picture of any shape; larger is nearer.

    An estimator of squares sees a picture that is none stretched to a square of the longer side;
    its answer is stretched back.

    Args:
        estimator: of any kind.
        image: sRGB in [0, 1].
    """
    height, width = image.shape[-2:]
    if isinstance(estimator, AnyShapeEstimator):
        return estimator.estimate_any(image[None])[0, 0]
    side = -(-max(height, width) // SIDE_MULTIPLE) * SIDE_MULTIPLE
    square = functional.interpolate(
        image[None], (side, side), mode="bilinear", align_corners=False, antialias=True
    )
    found = estimator.estimate(square)
    return functional.interpolate(
        found, (height, width), mode="bilinear", align_corners=False, antialias=True
    )[0, 0]
