"""Pre-norm transformer blocks over a grid of tokens (ViT, arXiv 2010.11929; ViT-VQGAN, 2110.04627).

>>> import torch
>>> tokens = torch.zeros(2, 64, 32)
>>> Transformer(width=32, depth=2, heads=4)(tokens).shape
torch.Size([2, 64, 32])
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["gelu", "tanh", "silu"]
_ACTIVATIONS = {"gelu": nn.GELU, "tanh": nn.Tanh, "silu": nn.SiLU}


class KeyValueCache:
    """Keys and values of the tokens that one causal attention has already seen."""

    def __init__(self, length: int):
        """Room for so many tokens; memory is taken when the first of them come."""
        self.length = length
        self.count = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def extend(
        self, key: Float[Tensor, "batch heads n d"], value: Float[Tensor, "batch heads n d"]
    ) -> tuple[Float[Tensor, "batch heads total d"], Float[Tensor, "batch heads total d"]]:
        """All keys and values so far, these included.

        Raises:
            ValueError: there is no room for them.
        """
        start, end = self.count, self.count + key.shape[2]
        if end > self.length:
            raise ValueError(f"{end} tokens do not fit into a cache of {self.length}")
        if self._keys is None or self._values is None:
            shape = (*key.shape[:2], self.length, key.shape[3])
            self._keys, self._values = key.new_empty(shape), value.new_empty(shape)
        self._keys[:, :, start:end] = key
        self._values[:, :, start:end] = value
        self.count = end
        return self._keys[:, :, :end], self._values[:, :, :end]


class Attention(nn.Module):
    """Multi-head self-attention by torch's fused kernel: of all to all, or of each to earlier ones.

    Args:
        width: numbers of a token.
        heads: must divide the width.
        causal: a token sees itself and the tokens before it, no others.
    """

    def __init__(self, width: int, heads: int, causal: bool = False):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.causal = causal
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, tokens: Float[Tensor, "batch n width"], cache: KeyValueCache | None = None
    ) -> Float[Tensor, "batch n width"]:
        """Tokens mixed by softmax(q k / sqrt(d)) v.

        Args:
            tokens: with a cache, only those that come after the ones in it.
            cache: of this attention; gains the tokens.
        """
        parts = self.query_key_value(tokens).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each: batch heads n d
        if not self.causal:
            if cache is not None:
                raise ValueError("only causal attention can go on from a cache")
            mixed = functional.scaled_dot_product_attention(query, key, value)
            return self.out(mixed.transpose(1, 2).flatten(2))
        past, count = 0 if cache is None else cache.count, tokens.shape[1]
        if cache is not None:
            key, value = cache.extend(key, value)
        mask = None
        if past and count > 1:  # is_causal counts from the first key, not from the last
            mask = torch.ones(count, past + count, dtype=torch.bool, device=tokens.device)
            mask = mask.tril(past)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=past == 0 and count > 1
        )
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); both sums lose ``dropout`` while training."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float = 4.0,
        activation: Activation = "gelu",
        residual_std: float = 0.01,
        causal: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal)
        self.mlp_norm = nn.LayerNorm(width)
        first, last = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.mlp = nn.Sequential(first, _ACTIVATIONS[activation](), last)
        # Small residual outputs let the untrained stack pass its input through; with torch's
        # default the mean-colour plateau lasted minutes.
        for layer in (self.attention.out, last):
            nn.init.normal_(layer.weight, std=residual_std)
            nn.init.zeros_(layer.bias)

    def forward(
        self, tokens: Float[Tensor, "batch n width"], cache: KeyValueCache | None = None
    ) -> Float[Tensor, "batch n width"]:
        """Tokens after one block; see :class:`Attention` for the cache."""
        tokens = tokens + self._dropped(self.attention(self.attention_norm(tokens), cache))
        return tokens + self._dropped(self.mlp(self.mlp_norm(tokens)))

    def _dropped(self, change: Tensor) -> Tensor:
        if not self.dropout:
            return change
        return functional.dropout(change, self.dropout, self.training)


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
        causal: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio, activation, residual_std, causal, dropout)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def caches(self, length: int) -> list[KeyValueCache]:
        """Empty caches, one for each block, for sequences of at most so many tokens."""
        return [KeyValueCache(length) for _ in self.blocks]

    def forward(
        self,
        tokens: Float[Tensor, "batch n width"],
        caches: Sequence[KeyValueCache] | None = None,
    ) -> Float[Tensor, "batch n width"]:
        """Tokens after all blocks, normalised.

        Args:
            tokens: with caches, only those that come after the ones in them.
            caches: from :meth:`caches`, of a causal stack; gain the tokens.
        """
        for number, block in enumerate(self.blocks):
            tokens = block(tokens, None if caches is None else caches[number])
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
