"""What can be chosen in VQ3D stage 1, and the presets."""

from dataclasses import dataclass
from typing import Any, Literal

Levels = tuple[tuple[int, ...], ...]

# Reverse water-filling over the principal components of 8x8 patches: strong components get more
# levels. As a linear code these 39.9 bits a patch keep 2.5 dB more than four times 8*5*5*5.
WATERFILLED: Levels = ((32, 32), (16, 8, 8), (8, 5, 5, 5), (5, 5, 5, 8))


@dataclass(frozen=True, kw_only=True)
class Config:
    """VQ3D stage 1 (arXiv 2302.06833); defaults are the ``small`` preset."""

    resolution: int = 64
    """Side of the square picture in pixels; the paper's is 256."""
    patch: int = 8
    """Side of a token's patch in pixels; 8 at 256 px in the paper."""
    encoder_width: int = 256
    """Numbers of a token inside the encoder; attention heads are 64 wide, or 32 below 256."""
    decoder_width: int = 256
    """The same of the decoder."""
    encoder_depth: int = 2
    """Transformer blocks before the quantiser."""
    decoder_depth: int = 4
    """Transformer blocks after the quantiser."""
    mlp_ratio: float = 4.0
    """Hidden width of a block's MLP over its width."""
    activation: Literal["gelu", "tanh"] = "gelu"
    """Inside the blocks' MLPs; ViT-VQGAN has tanh."""
    quantizer: Literal["fsq", "vq", "none"] = "fsq"
    """Finite scalars, the paper's l2-normalised codebook, or no rounding (for ablations)."""
    levels: Levels = WATERFILLED
    """FSQ: levels of each number, grouped by code."""
    codes: int = 8192
    """VQ: size of the codebook."""
    code_dim: int = 32
    """VQ: numbers of a code; 32 in the paper."""
    codes_per_token: int = 1
    """VQ: codes of a token."""
    linear_skip: bool = True
    """A linear path patch -> code and code -> colour beside the transformers, started from
    principal components; the network ends below that plain code without it."""
    field: Literal["viewspace", "triplane"] = "viewspace"
    """Planes over (u, v, disparity), or the paper's tri-planes in contracted space."""
    surface: bool = True
    """View space only: a slab behind a regressed surface starts the density."""
    channels: int = 32
    """Features of a plane."""
    plane_resolution: int = 64
    """Texels along the side of the picture's plane, or of every tri-plane."""
    depth_resolution: int = 16
    """View space: texels along disparity."""
    side_resolution: int = 32
    """View space: texels along u (v) in the (u, disparity) and (v, disparity) planes."""
    fov_deg: float = 50.0
    """Assumed field of view across the picture; specs fix any error exactly afterwards."""
    d_near: float = 1.0
    """Assumed disparity of the nearest pixel, 1 / world units."""
    d_far: float = 0.1
    """Assumed disparity of the farthest; above 0, so that it stays finite."""
    samples: int = 24
    """Intervals of a training ray."""
    refiner_width: int = 32
    """Channels of the detail mode's depth refiner at half resolution; 0 leaves it out."""

    def __post_init__(self):
        if self.resolution % self.patch:
            raise ValueError(
                f"resolution {self.resolution} is not a multiple of patch {self.patch}"
            )
        for name in ("plane_resolution", "side_resolution"):
            if getattr(self, name) % self.grid:
                raise ValueError(
                    f"{name} {getattr(self, name)} is not a multiple of the token grid {self.grid}"
                )
        if self.refiner_width and (self.resolution % 8 or self.plane_resolution != self.resolution):
            raise ValueError(
                f"a refiner needs a resolution that is a multiple of 8 and equal to "
                f"plane_resolution, got {self.resolution} and {self.plane_resolution}"
            )
        if not 0 < self.d_far < self.d_near:
            raise ValueError(f"need 0 < d_far < d_near, got {self.d_far} and {self.d_near}")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Config":
        """The configuration that ``dataclasses.asdict`` took apart; JSON knows no tuples."""
        levels = tuple(tuple(code) for code in values["levels"])
        return cls(**{**values, "levels": levels})

    @property
    def grid(self) -> int:
        """Tokens along a side."""
        return self.resolution // self.patch

    @property
    def levels_dim(self) -> int:
        """Numbers of a token under FSQ, and without a quantiser."""
        return sum(len(code) for code in self.levels)


def tiny() -> Config:
    """For tests: 32 px, learns something in a minute."""
    return Config(
        resolution=32,
        encoder_width=64,
        decoder_width=64,
        encoder_depth=1,
        decoder_depth=2,
        channels=16,
        plane_resolution=32,
        depth_resolution=8,
        side_resolution=16,
        samples=16,
        refiner_width=8,
    )


def small() -> Config:
    """64 px, under 8 M parameters; trains on two CPU cores."""
    return Config()


def bundle128() -> Config:
    """128 px, under 8 M parameters; one GPU."""
    return Config(
        resolution=128,
        plane_resolution=128,
        depth_resolution=24,
        side_resolution=32,
        samples=32,
        encoder_depth=2,
        decoder_depth=4,
        refiner_width=24,
    )


def base() -> Config:
    """128 px on one GPU, the size of ViT-VQGAN's S encoder and a larger decoder."""
    return Config(
        resolution=128,
        encoder_width=512,
        decoder_width=512,
        encoder_depth=8,
        decoder_depth=12,
        plane_resolution=128,
        depth_resolution=32,
        side_resolution=64,
        channels=48,
        samples=48,
        refiner_width=64,
    )


def paper() -> Config:
    """The nearest honest guess at the publication: 256 px, ViT-VQGAN S and L, tri-planes."""
    return Config(
        resolution=256,
        encoder_width=512,
        decoder_width=1280,
        encoder_depth=8,
        decoder_depth=32,
        activation="tanh",
        quantizer="vq",
        linear_skip=False,
        field="triplane",
        surface=False,
        plane_resolution=256,
        channels=32,
        samples=64,
        refiner_width=0,
    )


PRESETS = {
    "tiny": tiny,
    "small": small,
    "bundle128": bundle128,
    "base": base,
    "paper": paper,
    "paper-imagenet256": paper,
    "paper-compcars": paper,
}
