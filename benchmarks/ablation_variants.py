"""The variants of VQ3D stage 1 that are compared, and the tables in which they stand."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from unflat.systems.vq3d import LOSSES, PRESETS, LossConfig, Vq3dRecipe

NO_NOVEL = {"novel_weight": 0.0, "novel_depth_weight": 0.0}
NO_LINEAR = {"linear_skip": False}
UNROUNDED = {"unrounded_share": 0.1}  # what LossConfig asks for without the linear start
BUDGET = {"rows": 8, "columns": 16, "novel_rays": 48, "novel_samples": 16}


def objective(name: str) -> dict[str, Any]:
    """What a named objective changes, for these small pictures and this high learning rate."""
    usual = asdict(LossConfig())
    changed = {key: value for key, value in asdict(LOSSES[name]).items() if value != usual[key]}
    return {**changed, "critic_lr_scale": 1.0, "critic_width": 12, "critic_widest": 48}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to build and to teach the model."""

    says: str
    config: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    seeds: int = 2


VARIANTS = {
    "pointwise": Variant(says="pointwise, slab", loss=NO_NOVEL, seeds=3),
    "accumulated": Variant(
        says="accumulated, slab", loss={"depth": "accumulated", **NO_NOVEL}, seeds=3
    ),
    "pointwise-bare": Variant(
        says="pointwise, no slab", config={"surface": False}, loss=NO_NOVEL, seeds=3
    ),
    "accumulated-bare": Variant(
        says="accumulated, no slab",
        config={"surface": False},
        loss={"depth": "accumulated", **NO_NOVEL},
        seeds=3,
    ),
    "novel": Variant(says="view-space planes, slab, linear start", seeds=3),
    "triplane": Variant(says="tri-planes, linear start of the code", config={"field": "triplane"}),
    "triplane-plain": Variant(
        says="tri-planes", config={"field": "triplane", **NO_LINEAR}, loss=UNROUNDED
    ),
    "viewspace-plain": Variant(
        says="view-space planes", config={"surface": False, **NO_LINEAR}, loss=UNROUNDED
    ),
    "viewspace-slab": Variant(says="view-space planes, slab", config=NO_LINEAR, loss=UNROUNDED),
    "fsq-even": Variant(
        says="FSQ, four times 8·5·5·5", config={"levels": ((8, 5, 5, 5),) * 4}, loss=NO_NOVEL
    ),
    "vq": Variant(
        says="codebook, four codes of 1024",
        config={"quantizer": "vq", "codes": 1024, "code_dim": 8, "codes_per_token": 4},
        loss=NO_NOVEL,
    ),
    "unquantised": Variant(
        says="none (13 real numbers)", config={"quantizer": "none"}, loss=NO_NOVEL
    ),
    "novel-accumulated": Variant(
        says="accumulated, slab, novel views", loss={"depth": "accumulated"}, seeds=3
    ),
    "critics": Variant(says="perceptual term, both critics", loss=objective("critics"), seeds=1),
    "no-novel-critic": Variant(
        says="the same without the critic of novel views",
        loss=objective("no-novel-critic"),
        seeds=1,
    ),
    "accumulated-critics": Variant(
        says="the same as both critics, depth accumulated",
        loss=objective("accumulated"),
        seeds=1,
    ),
    "novel-masked": Variant(
        says="no critics, depth not taught where the teacher jumps",
        loss={"mask_edges": True},
        seeds=1,
    ),
}
TABLES = {
    "Depth term": {name: VARIANTS[name].says for name in list(VARIANTS)[:4]},
    "Novel views": {
        "pointwise": "pointwise, novel views not supervised",
        "novel": "pointwise, supervised by warped pictures",
        "accumulated": "accumulated, not supervised",
        "novel-accumulated": "accumulated, supervised",
    },
    "Critics": {
        "novel": "none, novel views supervised by warped pictures",
        **{name: VARIANTS[name].says for name in list(VARIANTS)[13:]},
    },
    "Field": {name: VARIANTS[name].says for name in list(VARIANTS)[4:9]},
    "Quantiser": {
        "pointwise": "FSQ, water-filled levels",
        **{name: VARIANTS[name].says for name in list(VARIANTS)[9:12]},
    },
}
COLUMNS = {
    "termination_variance": ("termination variance", 5),
    "canonical_psnr": ("canonical dB", 2),
    "disparity_error": ("disparity error", 4),
    "val_correlation": ("correlation, mean", 3),
    "val_correlation_median": ("median", 3),
    "novel_psnr": ("novel dB", 2),
    "far_psnr": ("30° dB", 2),
}
CODE_COLUMNS = {"code_usage": ("codes used", 2), "code_perplexity": ("perplexity", 0)}


def recipe_of(variant: Variant) -> Vq3dRecipe:
    """The untrained model: the ``tiny`` preset at 32 pixels, without the detail mode's refiner."""
    config = replace(PRESETS["tiny"](), refiner_width=0, **variant.config)
    return Vq3dRecipe(config, LossConfig(**{**BUDGET, **variant.loss}))
