"""Attention to a single token is a constant: worked out once for a pose, added at every step.

Attention gives sum_i softmax_i(q k_i) v_i over tokens i. Zero-1-to-3's context is one token; the
softmax of one number is 1 whatever q and k are, so that block l adds the same vector

    b_l(c) = W_o W_v c + b_o

at every pixel and every step, and its norm, queries and keys do nothing (arXiv 2411.15706 sees the
same). Stable Diffusion v1 has 16 such blocks; their widths sum to 12,480.

    constants = fold_attention(unet)            # in place
    unet(noisy, timestep, constants(context))   # context: batch 1 width
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class AttentionConstants(nn.Module):
    """From a token to what all cross-attentions of a network add, one after the other."""

    weight: Float[Tensor, "total width"]
    bias: Float[Tensor, " total"]

    def __init__(self, weight: Tensor, bias: Tensor, widths: dict[str, int]) -> None:
        """Float32, whatever the network computes in: this is done once for a pose.

        Args:
            weight: W_o W_v of all blocks, rows after each other.
            bias: b_o of all.
            widths: of each block by its name, in the order of the rows.
        """
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.widths = widths

    def forward(self, context: Float[Tensor, "batch 1 width"]) -> Float[Tensor, "batch 1 total"]:
        """The constants of a batch of tokens."""
        return functional.linear(context.to(self.weight), self.weight, self.bias)

    def by_block(self, constants: Float[Tensor, "batch 1 total"]) -> dict[str, Tensor]:
        """Cut apart: ``batch width`` for each block, by its name."""
        parts = constants[:, 0].split(list(self.widths.values()), dim=-1)
        return dict(zip(self.widths, parts, strict=True))


class _Share(nn.Module):
    """In the place of an attention: its columns of the constants, at every pixel."""

    def __init__(self, start: int, width: int) -> None:
        super().__init__()
        self.start, self.width = start, width

    def forward(self, hidden: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        """``batch 1 width``, which is broadcast; the hidden states say nothing here."""
        return encoder_hidden_states[..., self.start : self.start + self.width]


def fold_attention(unet: nn.Module) -> AttentionConstants:
    """Replace all cross-attention of a denoiser (diffusers' naming) by constants, in place.

    Returns:
        What makes them of a token; the denoiser is then given those in place of a context.
    """
    blocks = {
        name.removesuffix(".attn2"): unet.get_submodule(name.removesuffix(".attn2"))
        for name, module in unet.named_modules()
        if name.endswith(".attn2")
    }
    weights, biases, widths = [], [], {}
    start = 0
    for name, block in blocks.items():
        attention: Any = block.attn2
        out = attention.to_out[0]
        # in float64: a product of two matrices whose rounding is smaller than theirs
        product = out.weight.detach().double() @ attention.to_v.weight.detach().double()
        weights.append(product.float())
        biases.append(out.bias.detach().float())
        widths[name] = len(product)
        block.norm2, block.attn2 = nn.Identity(), _Share(start, len(product))
        start += len(product)
    return AttentionConstants(torch.cat(weights), torch.cat(biases), widths)
