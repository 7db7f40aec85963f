"""Networks without 3D knowledge."""

from unflat.nn.quantize import (
    CodeUsage,
    FiniteScalarQuantizer,
    Quantized,
    VectorQuantizer,
    code_usage,
)
from unflat.nn.transformer import Attention, Block, Transformer, sincos_positions

__all__ = [
    "Attention",
    "Block",
    "CodeUsage",
    "FiniteScalarQuantizer",
    "Quantized",
    "Transformer",
    "VectorQuantizer",
    "code_usage",
    "sincos_positions",
]
