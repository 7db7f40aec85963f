"""Networks without 3D knowledge."""

from unflat.nn.alexnet import AlexNet
from unflat.nn.inception import FidInception
from unflat.nn.published import from_published, published_shapes
from unflat.nn.quantize import (
    CodeUsage,
    FiniteScalarQuantizer,
    Quantized,
    VectorQuantizer,
    code_usage,
)
from unflat.nn.transformer import Attention, Block, Transformer, sincos_positions
from unflat.nn.vgg import Vgg16

__all__ = [
    "AlexNet",
    "Attention",
    "Block",
    "CodeUsage",
    "FidInception",
    "FiniteScalarQuantizer",
    "Quantized",
    "Transformer",
    "VectorQuantizer",
    "Vgg16",
    "code_usage",
    "from_published",
    "published_shapes",
    "sincos_positions",
]
