"""Pre-norm transformer blocks over a grid of tokens (ViT, arXiv 2010.11929; ViT-VQGAN, 2110.04627).

>>> import torch
>>> tokens = torch.zeros(2, 64, 32)
>>> Transformer(width=32, depth=2, heads=4)(tokens).shape
torch.Size([2, 64, 32])
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["gelu", "tanh", "silu"]
_ACTIVATIONS = {"gelu": nn.GELU, "tanh": nn.Tanh, "silu": nn.SiLU}


class Attention(nn.Module):
    """Multi-head self-attention without masks, by torch's fused kernel."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "batch n width"]) -> Float[Tensor, "batch n width"]:
        """Tokens mixed by softmax(q k / sqrt(d)) v."""
        parts = self.query_key_value(tokens).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each: batch heads n d
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float = 4.0,
        activation: Activation = "gelu",
        residual_std: float = 0.01,
    ):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        first, last = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.mlp = nn.Sequential(first, _ACTIVATIONS[activation](), last)
        # Small residual outputs let the untrained stack pass its input through; with torch's
        # default the mean-colour plateau lasted minutes.
        for layer in (self.attention.out, last):
            nn.init.normal_(layer.weight, std=residual_std)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Float[Tensor, "batch n width"]) -> Float[Tensor, "batch n width"]:
        """Tokens after one block."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.mlp(self.mlp_norm(tokens))


class Transformer(nn.Module):
    """A stack of blocks, closed by a layer norm."""

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        activation: Activation = "gelu",
        residual_std: float = 0.01,
    ):
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio, activation, residual_std) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Float[Tensor, "batch n width"]) -> Float[Tensor, "batch n width"]:
        """Tokens after all blocks, normalised."""
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


def sincos_positions(side: int, width: int) -> Float[Tensor, "tokens width"]:
    """Fixed 2-D sine-cosine positions of a side x side grid in raster order, in [-1, 1].

    A quarter of the width each for sin and cos of the row and of the column, with wavelengths
    growing geometrically to 10000 cells (MAE, arXiv 2111.06377).

    Raises:
        ValueError: width is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"width {width} is not a multiple of 4")
    quarter = width // 4
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(quarter) / quarter)
    phases = torch.arange(side)[:, None] * frequencies  # side quarter
    wave = torch.cat([phases.sin(), phases.cos()], dim=-1)  # side width/2
    rows = wave[:, None].expand(side, side, -1)
    columns = wave[None, :].expand(side, side, -1)
    return torch.cat([rows, columns], dim=-1).reshape(side * side, width)
