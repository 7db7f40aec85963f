"""Networks without 3D knowledge."""

from unflat.nn.alexnet import AlexNet
from unflat.nn.coord_critic import CoordCritic, with_coordinates
from unflat.nn.critic import Critic, minibatch_deviation
from unflat.nn.equalized import EqualizedConv2d, EqualizedLinear, EqualizedMatrix
from unflat.nn.inception import FidInception
from unflat.nn.palette import PaletteNetwork
from unflat.nn.published import from_published, published_shapes
from unflat.nn.quantize import (
    CodeUsage,
    FiniteScalarQuantizer,
    Quantized,
    VectorQuantizer,
    code_usage,
)
from unflat.nn.siren import FilmLayer, FilmMapping, FilmSiren
from unflat.nn.transformer import (
    Attention,
    Block,
    KeyValueCache,
    Transformer,
    sincos_positions,
)
from unflat.nn.vgg import Vgg16

__all__ = [
    "AlexNet",
    "Attention",
    "Block",
    "CodeUsage",
    "CoordCritic",
    "Critic",
    "EqualizedConv2d",
    "EqualizedLinear",
    "EqualizedMatrix",
    "FidInception",
    "FilmLayer",
    "FilmMapping",
    "FilmSiren",
    "FiniteScalarQuantizer",
    "KeyValueCache",
    "PaletteNetwork",
    "Quantized",
    "Transformer",
    "VectorQuantizer",
    "Vgg16",
    "code_usage",
    "from_published",
    "minibatch_deviation",
    "published_shapes",
    "sincos_positions",
    "with_coordinates",
]
