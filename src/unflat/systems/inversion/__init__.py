"""An object and its camera from one picture, by turning a generator around (arXiv 2211.11674)."""

from unflat.systems.inversion.encoder import PRESETS, Config, Encoder, ObjectGuess, build
from unflat.systems.inversion.published import open_backbone, open_encoder

__all__ = [
    "PRESETS",
    "Config",
    "Encoder",
    "ObjectGuess",
    "build",
    "open_backbone",
    "open_encoder",
]
