"""What VQ3D stage 1 minimises: weights and schedules of the terms, and named choices of them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and schedules of the terms."""

    depth: Literal["pointwise", "accumulated"] = "pointwise"
    """VQ3D's pointwise loss, or the accumulated one that it beats (for the ablation)."""
    depth_weight: float = 2.0
    """Of the depth term; a Huber of 0.05 for the pointwise form."""
    fog_share: float = 0.1
    """Share of the run over which the depth term moves from accumulated to pointwise."""
    distortion_weight: float = 0.01
    """mip-NeRF 360's 0.01."""
    quantizer_weight: float = 1.0
    """Of the codebook's own loss; FSQ has none."""
    unrounded_share: float = 0.0
    """Share of the run without rounding; 0.1 without the linear start."""
    novel_weight: float = 0.3
    """Of warp supervision's colour term (absolute difference); 0 turns novel views off."""
    novel_depth_weight: float = 1.0
    """Of warp supervision's depth term."""
    novel_angle: float = 0.2
    """Standard deviation of each axis' turn about the pivot, radians; cut at 2.5 of it."""
    hole_weight: float = 0.3
    """Of novel pixels that the picture does not show, filled from the nearest background."""
    refiner_weight: float = 0.05
    """Of the refiner's likelihood."""
    rows: int = 12
    """Random rows of the canonical view's product grid of rays."""
    columns: int = 24
    """Random columns of it."""
    novel_rays: int = 96
    """Random rays of each novel view."""
    novel_samples: int = 24
    """Intervals of each of them."""
