"""A few colours for each object, of which all of its points are mixed.

After Pavllo et al. (arXiv 2211.11674, "attention-based colour mapping"): a field gives each point
soft choices p among K colours, and this network gives the object its colours V. As rendering is
linear in colour, choices can be rendered in colours' place, to maps S of K channels with opacity m:
the picture before a background b is S V + (1 - m) b.

So a picture can be recoloured without rendering it again, and the colours that fit a picture best
need no steps: V = (S^T S + r I)^-1 (S^T (picture - (1 - m) b) + r V0), a solve of K x K that stays
near colours V0 as far as r says. Without r it is ill-conditioned where choices look alike.

    palette = PaletteNetwork(512, 10)
    colors = palette(style)                                         # batch 10 3
    picture = torch.einsum("bkhw,bkc->bchw", rendered_choices, colors)
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.nn.equalized import EqualizedLinear, EqualizedMatrix

_SLOPE = 0.2
_BEYOND = 0.001  # of [0, 1] that the sigmoid is stretched by at each end


class PaletteNetwork(nn.Module):
    """A style to colours: a learned constant, changed by four layers whose norms the style sets.

    The layers come in two residual pairs; then there are two more that know nothing of the style.
    """

    def __init__(self, style_dim: int, colors: int, *, width: int | None = None):
        """A network with its first weights.

        Args:
            style_dim: numbers of a style.
            colors: of a palette; nerf-from-image has 10.
            width: of the layers; that of the style if not given, 512 in nerf-from-image.
        """
        super().__init__()
        width = style_dim if width is None else width
        self.constant = nn.Parameter(torch.randn(width))
        self.layers = nn.ModuleList(_StyledNormLayer(width, style_dim) for _ in range(4))
        self.last = EqualizedLinear(width, width)
        self.out = EqualizedLinear(width, 3 * colors)

    def forward(self, style: Float[Tensor, "batch style"]) -> Float[Tensor, "batch colors 3"]:
        """Colours in [-0.001, 1.001]: a sigmoid a little too wide, so that white can be reached.

        They are not cut to [0, 1], which would end the linearity.
        """
        features = self.constant.expand(len(style), -1)
        for number in (0, 2):
            inner = self.layers[number + 1](self.layers[number](features, style), style)
            features = (inner + features) * math.sqrt(0.5)
        raw = self.out(functional.leaky_relu(self.last(features), _SLOPE)).unflatten(1, (-1, 3))
        return raw.sigmoid() * (1 + 2 * _BEYOND) - _BEYOND


class _StyledNormLayer(nn.Module):
    """Linear, layer norm with the style's scale and shift, leaky ReLU."""

    def __init__(self, width: int, style_dim: int):
        super().__init__()
        self.linear = EqualizedMatrix(width, width)
        self.scale = EqualizedLinear(style_dim, width)
        self.shift = EqualizedLinear(style_dim, width)

    def forward(
        self, features: Float[Tensor, "batch width"], style: Float[Tensor, "batch style"]
    ) -> Float[Tensor, "batch width"]:
        linear = self.linear(features)
        normed = functional.layer_norm(linear, linear.shape[-1:])
        return functional.leaky_relu(normed * (1 + self.scale(style)) + self.shift(style), _SLOPE)
