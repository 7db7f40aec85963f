"""What VQ3D stage 1 minimises: weights and schedules of the terms, and named choices of them."""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and schedules of the terms."""

    depth: Literal["pointwise", "accumulated"] = "pointwise"
    """VQ3D's pointwise loss, or the accumulated one that it beats (for the ablation)."""
    depth_weight: float = 2.0
    """Of the depth term."""
    depth_huber: float | None = 0.05
    """Pointwise form: where the square turns linear, in normalised disparity; None never. Small
    forgives a teacher's soft silhouettes and asks for the likeliest depth, large for the mean."""
    mask_edges: bool = False
    """Leaves out of the depth term the pixels where the teacher's disparity jumps by more than a
    tenth of its range: there it is soft and belongs to no surface."""
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
    crop: int = 32
    """Side in pixels of the windows that the terms below see; 4 times a power of 2, at most the
    picture's side."""
    perceptual_weight: float = 0.0
    """Of the distance of a window of the canonical view by a fixed network's features."""
    critic_weight: float = 0.0
    """Of what a critic of canonical views says; 0 leaves it out. ViT-VQGAN has 0.1."""
    novel_critic_weight: float = 0.0
    """Of what a critic of novel views says, which sees colour and disparity; its real ones are
    pictures with their teacher's. Half of the other's."""
    critic_start: float = 0.1
    """Share of the run before the critic of canonical views comes in."""
    novel_critic_start: float = 0.2
    """Share of the run before the critic of novel views comes in."""
    critic_fade: float = 0.1
    """Share of the run over which a critic's say grows from nothing, and what it sees, real or
    made, becomes sharp."""
    critic_blur: float = 2.0
    """Standard deviation of that blur when it begins, pixels."""
    critic_limit: float = 1.0
    """Most that the gradient of a critic's say may be at a window, as a multiple of the squared
    error's there; the better the reconstruction, the softer the critic."""
    critic_width: int = 16
    """Features of a critic at the window's full side; they double with every halving."""
    critic_widest: int = 96
    """Most features of a critic."""
    critic_spectral: bool = False
    """Also divides a critic's convolutions by their largest singular value."""
    critic_lr_scale: float = 3.0
    """Learning rate of the critics over the model's; their layers are equalised."""
    r1_gamma: float | None = None
    """Weight of the R1 penalty; None is StyleGAN2's rule, 0.0002 crop^2 / batch."""
    r1_every: int = 16
    """Steps in which R1 is computed once on average, and counts so many times."""
    lecam_weight: float = 0.0
    """Of LeCam's regulariser, which holds critics back where pictures are few; 0.1 to 0.3."""
    novel_critic_angle: float = 0.35
    """Largest turn of the novel critic's cameras, radians; they lie on a disc that faces the pivot,
    a quarter as wide at first, whole after a third of the run."""
    trained: Literal["all", "decoder"] = "all"
    """decoder: what makes tokens stays exactly as it is, so that they keep their meaning."""

    def __post_init__(self):
        if not 0 < self.novel_critic_angle < 1.5:
            raise ValueError(f"novel_critic_angle is {self.novel_critic_angle}, not in (0, 1.5)")
        if self.depth_huber is not None and self.depth_huber <= 0:
            raise ValueError(f"depth_huber is {self.depth_huber}; it must be above 0, or null")
        if self.r1_every < 1:
            raise ValueError(f"r1_every is {self.r1_every}; it must be at least 1")
        if self.critic_blur < 0 or not 0 < self.critic_fade <= 1:
            raise ValueError(
                f"critic_blur {self.critic_blur} must be at least 0, "
                f"critic_fade {self.critic_fade} in (0, 1]"
            )

    @property
    def has_critics(self) -> bool:
        """Whether anything learns against the model."""
        return self.critic_weight > 0 or self.novel_critic_weight > 0

    @property
    def has_windows(self) -> bool:
        """Whether any term sees whole windows."""
        return self.perceptual_weight > 0 or self.has_critics


_WHOLE = LossConfig(
    mask_edges=True, perceptual_weight=0.01, critic_weight=0.1, novel_critic_weight=0.05
)

LOSSES = {
    "base": LossConfig(),
    "critics": _WHOLE,
    "no-novel-critic": replace(_WHOLE, novel_critic_weight=0.0),
    "accumulated": replace(_WHOLE, depth="accumulated"),
    "paper": replace(
        _WHOLE,
        crop=128,
        critic_width=128,
        critic_widest=512,
        critic_lr_scale=20.0,
        rows=64,
        columns=64,
        novel_rays=1024,
        novel_samples=48,
        unrounded_share=0.05,
    ),
}
"""Named objectives: without critics, the whole, and the whole with one thing other. ``paper`` is
the whole at 256 px: critics of StyleGAN2's size on half the side, more rays, and the first steps
without rounding, which a model without the linear start needs."""
