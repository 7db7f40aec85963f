"""SegFormer: a transformer over four ever coarser maps, and linear layers that join them again.

Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers"
(arXiv 2105.15203). Pictures of any sides: that a place is where it is, the zeros tell that
convolutions see beyond the border. In attention every cell asks, but only the cells of a map
reduced by a convolution answer, so that a fine map costs no more than a coarse one.

>>> import torch
>>> network = SegFormer(MIX_SIZES["small"], width=128, out=64)
>>> network(torch.zeros(2, 3, 64, 96)).shape
torch.Size([2, 64, 32, 48])
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

_BLOCK_EPS = 1e-6  # as released: of norms in blocks and after stages; the others have 1e-5
_FIRST_KERNEL, _KERNEL = 7, 3  # of the convolutions that make a stage's cells; they overlap


@dataclass(frozen=True, kw_only=True)
class MixSizes:
    """Sizes of a `MixTransformer`; a tuple has an entry for each of the four stages."""

    widths: tuple[int, int, int, int]
    """Numbers of a cell."""
    depths: tuple[int, int, int, int]
    """Blocks."""
    heads: tuple[int, int, int, int] = (1, 2, 5, 8)
    """Of attention; each divides its width."""
    reductions: tuple[int, int, int, int] = (8, 4, 2, 1)
    """Cells on a side that answer as one in attention."""
    first_stride: int = 4
    """Pixels on a side of the first stage's cells; from stage to stage they double."""
    mlp_ratio: int = 4
    """Hidden width of a block's MLP over its width; 4 as released, where the paper's table has 8 in
    the first two stages of b0 to b4."""
    path_drop: float = 0.1
    """Probability at which the last block is passed over for a sample while training; those before
    it less, linearly from 0."""

    def __post_init__(self) -> None:
        for name in ("widths", "depths", "heads", "reductions"):
            values = getattr(self, name)
            if len(values) != 4 or min(values) < 1:
                raise ValueError(f"{name} must be four numbers above 0, not {values}")
        for width, heads in zip(self.widths, self.heads, strict=True):
            if width % heads:
                raise ValueError(f"width {width} is not a multiple of heads {heads}")
        if not 0 <= self.path_drop < 1:
            raise ValueError(f"path_drop must be in [0, 1), not {self.path_drop}")


_WIDTHS = (64, 128, 320, 512)
MIX_SIZES: dict[str, MixSizes] = {
    "tiny": MixSizes(
        widths=(8, 16, 24, 32),
        depths=(1, 1, 1, 1),
        heads=(1, 2, 3, 4),
        reductions=(4, 2, 1, 1),
        first_stride=2,
        path_drop=0.0,
    ),
    "small": MixSizes(
        widths=(32, 64, 128, 192),
        depths=(2, 2, 2, 2),
        heads=(1, 2, 4, 6),
        reductions=(4, 2, 1, 1),
        first_stride=2,
        path_drop=0.0,
    ),
    "b0": MixSizes(widths=(32, 64, 160, 256), depths=(2, 2, 2, 2)),
    "b1": MixSizes(widths=_WIDTHS, depths=(2, 2, 2, 2)),
    "b2": MixSizes(widths=_WIDTHS, depths=(3, 4, 6, 3)),
    "b3": MixSizes(widths=_WIDTHS, depths=(3, 4, 18, 3)),
    "b4": MixSizes(widths=_WIDTHS, depths=(3, 8, 27, 3)),
    "b5": MixSizes(widths=_WIDTHS, depths=(3, 6, 40, 3)),
}
"""The paper's b0 to b5, and two of our own for pictures of 32 and 64 pixels."""


class ReducedAttention(nn.Module):
    """Multi-head attention of all cells of a map to the cells of that map reduced.

    The reduction is a convolution with kernel and stride r, which passes over rows and columns that
    are left over, and a layer norm; with r = 1 there is neither (section 3.1, eq. 2).
    """

    def __init__(self, width: int, heads: int, reduction: int = 1):
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.reduce = self.reduce_norm = None
        if reduction > 1:
            self.reduce = nn.Conv2d(width, width, reduction, stride=reduction)
            self.reduce_norm = nn.LayerNorm(width)

    def forward(
        self, cells: Float[Tensor, "batch height width channels"]
    ) -> Float[Tensor, "batch height width channels"]:
        """Cells mixed by softmax(q k / sqrt(d)) v."""
        query = self.query(cells).flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        answering = self.key_value(self._reduced(cells)).flatten(1, 2)
        key, value = answering.unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2)).view_as(cells)

    def _reduced(self, cells: Tensor) -> Tensor:
        if self.reduce is None or self.reduce_norm is None:
            return cells
        height, width = cells.shape[1:3]
        features = cells.movedim(-1, 1)
        below, beside = max(0, self.reduction - height), max(0, self.reduction - width)
        if below or beside:  # a map smaller than the kernel
            features = functional.pad(features, (0, beside, 0, below))
        return self.reduce_norm(self.reduce(features).movedim(1, -1))


class MixMlp(nn.Module):
    """An MLP on each cell that sees its eight neighbors in between: where positions come from.

    Linear, 3x3 convolution of each channel with zeros beyond the border, GELU, linear (section 3.1,
    eq. 3).
    """

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.first = nn.Linear(width, hidden)
        self.neighbors = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.last = nn.Linear(hidden, width)

    def forward(
        self, cells: Float[Tensor, "batch height width channels"]
    ) -> Float[Tensor, "batch height width channels"]:
        """What a block adds to its cells."""
        hidden = self.neighbors(self.first(cells).movedim(-1, 1)).movedim(1, -1)
        return self.last(functional.gelu(hidden))


class MixBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    While training each of the two is passed over for a sample with probability ``path_drop``, and
    counts the more where it is not (stochastic depth, arXiv 1603.09382).
    """

    def __init__(
        self, width: int, heads: int, reduction: int, mlp_ratio: int = 4, path_drop: float = 0.0
    ):
        super().__init__()
        self.path_drop = path_drop
        self.attention_norm = nn.LayerNorm(width, eps=_BLOCK_EPS)
        self.attention = ReducedAttention(width, heads, reduction)
        self.mlp_norm = nn.LayerNorm(width, eps=_BLOCK_EPS)
        self.mlp = MixMlp(width, mlp_ratio * width)

    def forward(
        self, cells: Float[Tensor, "batch height width channels"]
    ) -> Float[Tensor, "batch height width channels"]:
        """Cells after one block."""
        cells = cells + self._kept(self.attention(self.attention_norm(cells)))
        return cells + self._kept(self.mlp(self.mlp_norm(cells)))

    def _kept(self, change: Tensor) -> Tensor:
        if not self.training or not self.path_drop:
            return change
        kept = torch.rand(len(change), 1, 1, 1, device=change.device) >= self.path_drop
        return change * kept / (1 - self.path_drop)


class MixStage(nn.Module):
    """A map to one of coarser cells: an overlapping convolution, a norm, blocks, a norm."""

    def __init__(
        self,
        into: int,
        width: int,
        heads: int,
        reduction: int,
        *,
        kernel: int,
        stride: int,
        mlp_ratio: int,
        path_drops: Sequence[float],
    ):
        """A stage of as many blocks as there are probabilities."""
        super().__init__()
        self.embed = nn.Conv2d(into, width, kernel, stride=stride, padding=kernel // 2)
        self.embed_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            MixBlock(width, heads, reduction, mlp_ratio, drop) for drop in path_drops
        )
        self.norm = nn.LayerNorm(width, eps=_BLOCK_EPS)

    def forward(
        self, features: Float[Tensor, "batch into height width"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The coarser map; its sides are rounded up."""
        cells = self.embed_norm(self.embed(features).movedim(1, -1))
        for block in self.blocks:
            cells = block(cells)
        return self.norm(cells).movedim(-1, 1)


class MixTransformer(nn.Module):
    """A picture to four maps of features, the finest first."""

    def __init__(self, sizes: MixSizes, channels: int = 3):
        """A network with its first weights, drawn as in the released code.

        Args:
            sizes: of its stages.
            channels: of pictures.
        """
        super().__init__()
        self.sizes = sizes
        drops = torch.linspace(0, sizes.path_drop, sum(sizes.depths), device="cpu").tolist()
        self.stages = nn.ModuleList()
        for number, width in enumerate(sizes.widths):
            done = sum(sizes.depths[:number])
            self.stages.append(
                MixStage(
                    channels if number == 0 else sizes.widths[number - 1],
                    width,
                    sizes.heads[number],
                    sizes.reductions[number],
                    kernel=_FIRST_KERNEL if number == 0 else _KERNEL,
                    stride=sizes.first_stride if number == 0 else 2,
                    mlp_ratio=sizes.mlp_ratio,
                    path_drops=drops[done : done + sizes.depths[number]],
                )
            )
        self.apply(_draw)

    def forward(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> list[Float[Tensor, "batch _ _ _"]]:
        """Maps at 1/s, 1/2s, 1/4s and 1/8s of the picture's sides, s the first stride."""
        maps = []
        for stage in self.stages:
            image = stage(image)
            maps.append(image)
        return maps


class MapDecoder(nn.Module):
    """Four maps to one of the finest's size, by linear layers and enlarging alone (section 3.2).

    There is nothing between fusing and the last layer, as in the code of nerf-from-image; the
    released SegFormer has a batch norm and a ReLU there.
    """

    def __init__(self, widths: Sequence[int], width: int, out: int):
        """A decoder with its first weights.

        Args:
            widths: channels of the maps, the finest's first.
            width: to which they are all brought.
            out: channels of the result.
        """
        super().__init__()
        self.project = nn.ModuleList(nn.Linear(each, width) for each in widths)
        self.fuse = nn.Conv2d(len(widths) * width, width, 1)
        self.predict = nn.Conv2d(width, out, 1)

    def forward(
        self, maps: Sequence[Float[Tensor, "batch _ _ _"]]
    ) -> Float[Tensor, "batch out height width"]:
        """The maps, the finest first, as one.

        Enlarging is linear too, so each map is fused before it instead of after it, at a third of
        the cost: fuse(cat(enlarged)) is the sum of the enlarged products.
        """
        shares = self.fuse.weight.flatten(1).chunk(len(maps), dim=1)  # the coarsest comes first
        fused = []
        for project, share, features in zip(self.project[::-1], shares, maps[::-1], strict=True):
            cells = functional.linear(project(features.movedim(1, -1)), share)
            fused.append(_enlarged(cells.movedim(-1, 1), maps[0].shape[-2:]))
        bias = self.fuse.bias
        assert bias is not None
        return self.predict(sum(fused, start=bias.view(-1, 1, 1)))


class SegFormer(nn.Module):
    """A picture to features of its cells: `MixTransformer`, then `MapDecoder`."""

    def __init__(self, sizes: MixSizes, width: int, out: int):
        """A network with its first weights.

        Args:
            sizes: of the transformer.
            width: of the decoder; the paper has 256 for b0 and b1, 768 for the others.
            out: channels of the result.
        """
        super().__init__()
        self.stride = sizes.first_stride
        self.backbone = MixTransformer(sizes)
        self.decoder = MapDecoder(sizes.widths, width, out)

    def forward(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch out rows columns"]:
        """Features of the first stage's cells.

        Args:
            image: in [-1, 1], or however else it was while training.
        """
        return self.decoder(self.backbone(image))


def _enlarged(features: Tensor, size: torch.Size) -> Tensor:
    if features.shape[-2:] == size:
        return features
    return functional.interpolate(features, size, mode="bilinear", align_corners=False)


def _draw(layer: nn.Module) -> None:
    """First weights; norms keep torch's 1 and 0."""
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
    elif isinstance(layer, nn.Conv2d):
        fan_out = layer.out_channels * math.prod(layer.kernel_size) // layer.groups
        nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
    else:
        return
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
