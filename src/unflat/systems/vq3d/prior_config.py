"""What can be chosen in VQ3D stage 2, the prior over stage-1 tokens, and the presets."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from unflat.systems.vq3d.config import WATERFILLED, Levels

Order = Literal["masked", "raster"]


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """VQ3D stage 2; defaults are the ``small`` preset over the tokens of ``vq3d-small``.

    The first four fields are facts of the tokens, not choices; training takes them from there.
    """

    grid: int = 8
    """Tokens along a side of the picture."""
    codebook_sizes: tuple[int, ...] = (1024, 1024, 1000, 1000)
    """Sizes of a token's codes, coarse to fine."""
    levels: Levels = WATERFILLED
    """Where codes are packed finite scalars: levels of each number, grouped by code. Codes with
    numbers in common then share a part of their embedding. Empty for learned codebooks."""
    classes: int = 0
    """Names that the prior is conditioned on."""
    order: Order = "masked"
    """masked: many codes at once, coarse codes first (MaskGIT, arXiv 2202.04200). raster: one code
    after the other, row by row, as ViT-VQGAN's second stage (arXiv 2110.04627)."""
    width: int = 256
    """Numbers of a token."""
    heads: int = 4
    """Attention heads."""
    depth: int = 4
    """Transformer blocks."""
    mlp_ratio: float = 4.0
    """Hidden width of a block's MLP over its width."""
    dropout: float = 0.1
    """Share of every block's output that is dropped while training; ViT-VQGAN has 0.1."""
    label_dropout: float = 0.1
    """Share of training samples whose class is hidden, for guidance."""

    def __post_init__(self) -> None:
        if not self.codebook_sizes or min(self.codebook_sizes) < 2:
            raise ValueError(f"codebook_sizes {self.codebook_sizes} must be at least 2 each")
        if self.levels and tuple(math.prod(code) for code in self.levels) != self.codebook_sizes:
            raise ValueError(
                f"levels {self.levels} do not multiply to codebook_sizes {self.codebook_sizes}"
            )
        if self.order not in ("masked", "raster"):
            raise ValueError(f'order "{self.order}" is neither "masked" nor "raster"')
        if self.heads < 1 or self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        for name in ("dropout", "label_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "PriorConfig":
        """The configuration that ``dataclasses.asdict`` took apart; JSON knows no tuples."""
        sizes = tuple(values["codebook_sizes"])
        levels = tuple(tuple(code) for code in values["levels"])
        return cls(**{**values, "codebook_sizes": sizes, "levels": levels})

    @property
    def tokens(self) -> int:
        """Tokens of a picture."""
        return self.grid**2

    @property
    def codes(self) -> int:
        """Codes of a token."""
        return len(self.codebook_sizes)


def tiny() -> PriorConfig:
    """For tests: learns something in a minute."""
    return PriorConfig(width=64, heads=2, depth=2)


def small() -> PriorConfig:
    """4.3 M parameters over the tokens of ``vq3d-small``: 4.4 MB in 8 bits."""
    return PriorConfig()


def base() -> PriorConfig:
    """25 M parameters before the embeddings, for one GPU; MaskGIT's small size is 69 M."""
    return PriorConfig(width=512, heads=8, depth=8)


def paper() -> PriorConfig:
    """ViT-VQGAN's second stage, which VQ3D takes over: 24 x 1536 in raster order over 32 x 32."""
    return PriorConfig(
        grid=32,
        codebook_sizes=(8192,),
        levels=(),
        classes=1000,
        order="raster",
        width=1536,
        heads=16,
        depth=24,
    )


PRESETS = {"tiny": tiny, "small": small, "base": base, "paper": paper}
