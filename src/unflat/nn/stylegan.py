"""StyleGAN2's generator (arXiv 1912.04958): latents to styles, styles to maps, and what sharpens.

    mapping = MappingNetwork(128, 256)
    synthesis = SynthesisNetwork(64, 96, style_dim=256)
    style = mapping(torch.randn(4, 128), truncation=0.7)
    maps = synthesis(style[:, None].expand(-1, synthesis.codes, -1))     # 4 96 64 64

Everything is plain torch and can be differentiated twice, as path length needs it. A modulated
convolution scales what enters and what leaves by numbers of the style, around one convolution that
the whole batch shares: equal to a kernel for each picture, and faster than grouped convolutions.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.nn.equalized import BINOMIAL, EqualizedLinear, blur, leaky

_EPSILON = 1e-8
_FIRST_SIDE = 4


class MappingNetwork(nn.Module):
    """Latents to styles: normalized, then some layers that learn slowly."""

    average: Tensor
    seen: Tensor

    def __init__(
        self,
        latent_dim: int,
        style_dim: int,
        *,
        condition_dim: int = 0,
        depth: int = 2,
        lr_multiplier: float = 0.01,
        average_decay: float = 0.998,
    ):
        """A mapping with its first weights.

        Args:
            latent_dim: numbers of a latent.
            style_dim: numbers of a style.
            condition_dim: numbers of what styles are made given, as of a camera; 0 for none.
            depth: layers; StyleGAN2 has 8, EG3D and nerf-from-image 2.
            lr_multiplier: of the layers' learning rate.
            average_decay: of the styles' running average in training, step by step.
        """
        super().__init__()
        self.latent_dim, self.style_dim, self.condition_dim = latent_dim, style_dim, condition_dim
        self.average_decay = average_decay
        self.embed = EqualizedLinear(condition_dim, style_dim) if condition_dim else None
        entering = latent_dim + (style_dim if condition_dim else 0)
        self.layers = nn.ModuleList(
            EqualizedLinear(entering if number == 0 else style_dim, style_dim, lr_multiplier)
            for number in range(depth)
        )
        self.register_buffer("average", torch.zeros(style_dim))
        self.register_buffer("seen", torch.zeros(style_dim + 1))  # a step's sum, and how many

    def forward(
        self,
        latent: Float[Tensor, "batch latent_dim"],
        condition: Float[Tensor, "batch condition_dim"] | None = None,
        truncation: float = 1.0,
    ) -> Float[Tensor, "batch style_dim"]:
        """Styles; while training they are kept for the average, see `take_in`.

        Args:
            latent: normally distributed.
            condition: if the mapping was made for one.
            truncation: how far from the average a style goes: 1 all the way, 0 not at all.

        Raises:
            ValueError: a condition too many or too few.
        """
        if (condition is None) != (self.embed is None):
            raise ValueError("a condition is given exactly if the mapping has a condition_dim")
        vector = unit_moment(latent)
        if self.embed is not None and condition is not None:
            vector = torch.cat([vector, unit_moment(self.embed(condition))], dim=1)
        for layer in self.layers:
            vector = leaky(layer(vector))
        if self.training:
            with torch.no_grad():
                self.seen[:-1] += vector.sum(0)
                self.seen[-1] += len(vector)
        return vector if truncation == 1 else self.average.lerp(vector, truncation)

    @torch.no_grad()
    def take_in(self, seen: Float[Tensor, " n"]) -> None:
        """Takes a step's styles into the average.

        Args:
            seen: `seen` of this step, style_dim + 1 numbers; of several processes their mean, so
                that all stay alike.
        """
        if seen[-1]:
            self.average.lerp_(seen[:-1] / seen[-1], 1 - self.average_decay)
        self.seen.zero_()


class ModulatedConv2d(nn.Module):
    """A convolution whose kernel's entering channels are scaled by a style.

    With ``demodulate`` the leaving channels are scaled back to unit variance, as it would be for
    independent features of unit variance.
    """

    def __init__(
        self,
        entering: int,
        leaving: int,
        size: int,
        style_dim: int,
        *,
        double: bool = False,
        demodulate: bool = True,
    ):
        """A layer with its first weights.

        Args:
            entering: channels.
            leaving: channels.
            size: side of the kernel, odd.
            style_dim: numbers of a style.
            double: whether the sides are doubled, by a transposed convolution and a low-pass.
            demodulate: whether variance is restored; without it the style is divided by the root
                of the fan-in.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.randn(leaving, entering, size, size))
        self.affine = EqualizedLinear(style_dim, entering)
        nn.init.ones_(self.affine.bias)
        self.doubles, self.demodulate = double, demodulate

    def forward(
        self,
        maps: Float[Tensor, "batch entering height width"],
        style: Float[Tensor, "batch style_dim"],
    ) -> Float[Tensor, "batch leaving _ _"]:
        """The same height and width, or twice both; without bias."""
        weight, scale = self.weight, self.affine(style)
        if not self.demodulate:
            scale = scale / math.sqrt(weight[0].numel())
        maps = maps * scale[:, :, None, None]
        if self.doubles:
            maps = functional.conv_transpose2d(maps, weight.transpose(0, 1), stride=2)
            maps = blur(maps, weight.shape[-1] // 2) * 4
        else:
            maps = functional.conv2d(maps, weight, padding=weight.shape[-1] // 2)
        if self.demodulate:
            energy = scale.square() @ weight.square().sum((2, 3)).T
            maps = maps * (energy + _EPSILON).rsqrt()[:, :, None, None]
        return maps


class StyledLayer(nn.Module):
    """A modulated convolution, noise if wanted, bias, leaky ReLU."""

    noise: Tensor

    def __init__(
        self,
        entering: int,
        leaving: int,
        style_dim: int,
        *,
        double: bool = False,
        noise_side: int | None = None,
        clamp: float | None = None,
    ):
        """A layer with its first weights.

        Args:
            entering: channels.
            leaving: channels.
            style_dim: numbers of a style.
            double: whether the sides are doubled.
            noise_side: side of the constant noise map that is added; None adds none.
            clamp: largest magnitude of features, for weights that learned with half precision's
                limits; None cuts none.
        """
        super().__init__()
        self.clamp = clamp
        self.conv = ModulatedConv2d(entering, leaving, 3, style_dim, double=double)
        self.bias = nn.Parameter(torch.zeros(leaving))
        self.noise_strength = None
        if noise_side is not None:
            self.noise_strength = nn.Parameter(torch.zeros(()))
            self.register_buffer("noise", torch.randn(noise_side, noise_side))

    def forward(
        self,
        maps: Float[Tensor, "batch entering height width"],
        style: Float[Tensor, "batch style_dim"],
    ) -> Float[Tensor, "batch leaving _ _"]:
        """Features; the noise is the same for all pictures and calls."""
        maps = self.conv(maps, style)
        if self.noise_strength is not None:
            maps = maps + self.noise * self.noise_strength
        maps = leaky(maps + self.bias[:, None, None])
        return maps if self.clamp is None else maps.clamp(-self.clamp, self.clamp)


class StyleBlock(nn.Module):
    """One resolution: convolutions, and an output that is added to the one from below."""

    def __init__(
        self,
        entering: int,
        leaving: int,
        channels: int,
        style_dim: int,
        *,
        double: bool = True,
        layers: int = 2,
        noise_side: int | None = None,
        clamp: float | None = None,
    ):
        """A block with its first weights.

        Args:
            entering: channels of the features.
            leaving: channels of the features.
            channels: of the output.
            style_dim: numbers of a style.
            double: whether the first layer doubles the sides; the output from below then, too.
            layers: convolutions, 1 or 2.
            noise_side: see `StyledLayer`.
            clamp: see `StyledLayer`; of the output as well, before it is added.
        """
        super().__init__()
        self.doubles, self.clamp = double, clamp
        self.layers = nn.ModuleList(
            StyledLayer(
                entering if number == 0 else leaving,
                leaving,
                style_dim,
                double=double and number == 0,
                noise_side=noise_side,
                clamp=clamp,
            )
            for number in range(layers)
        )
        self.output = ModulatedConv2d(leaving, channels, 1, style_dim, demodulate=False)
        self.output_bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self,
        maps: Float[Tensor, "batch entering height width"],
        below: Float[Tensor, "batch channels height width"] | None,
        styles: Float[Tensor, "batch codes style_dim"],
    ) -> tuple[Float[Tensor, "batch leaving _ _"], Float[Tensor, "batch channels _ _"]]:
        """Features and output.

        Args:
            maps: features from below.
            below: output from below, if there is one.
            styles: one for each layer, then one for the output.
        """
        for number, layer in enumerate(self.layers):
            maps = layer(maps, styles[:, number])
        seen = self.output(maps, styles[:, len(self.layers)]) + self.output_bias[:, None, None]
        if self.clamp is not None:
            seen = seen.clamp(-self.clamp, self.clamp)
        if below is not None:
            seen = seen + (double_side(below) if self.doubles else below)
        return maps, seen


class SynthesisNetwork(nn.Module):
    """Styles to maps: from a learned constant of 4 pixels, doubled block by block.

    The output layer of a block shares its code with the first convolution of the next one, so that
    there are 2 log2(side) - 2 codes.
    """

    def __init__(
        self,
        side: int,
        channels: int,
        *,
        style_dim: int,
        base: int = 32768,
        widest: int = 512,
        noise: bool = False,
    ):
        """A network with its first weights.

        Args:
            side: of the maps in pixels: a power of 2, at least 8.
            channels: of the maps.
            style_dim: numbers of a style.
            base: features of a block are base / side, at most ``widest``.
            widest: most features.
            noise: whether constant noise is added after each convolution.

        Raises:
            ValueError: the side is not one of those.
        """
        super().__init__()
        doublings = round(math.log2(max(side, 1) / _FIRST_SIDE))
        if doublings < 1 or side != _FIRST_SIDE * 2**doublings:
            raise ValueError(f"side is {side}; it must be a power of 2, at least 8")
        sides = [_FIRST_SIDE * 2**level for level in range(doublings + 1)]
        widths = [max(1, min(base // s, widest)) for s in sides]
        self.side, self.codes = side, 2 * len(sides)
        self.constant = nn.Parameter(torch.randn(widths[0], _FIRST_SIDE, _FIRST_SIDE))
        self.blocks = nn.ModuleList(
            StyleBlock(
                widths[max(level - 1, 0)],
                widths[level],
                channels,
                style_dim,
                double=level > 0,
                layers=2 if level > 0 else 1,
                noise_side=sides[level] if noise else None,
            )
            for level in range(len(sides))
        )

    def forward(
        self, styles: Float[Tensor, "batch codes style_dim"]
    ) -> Float[Tensor, "batch channels side side"]:
        """The sum of what all blocks put out.

        Raises:
            ValueError: another number of codes.
        """
        if styles.shape[1] != self.codes:
            raise ValueError(f"there are {self.codes} codes, got {styles.shape[1]}")
        maps = self.constant.expand(len(styles), -1, -1, -1)
        maps, seen = self.blocks[0](maps, None, styles[:, :2])
        for number, block in enumerate(self.blocks[1:]):
            maps, seen = block(maps, seen, styles[:, 2 * number + 1 : 2 * number + 4])
        return seen


class SuperResolution(nn.Module):
    """A rendered picture of features, sharpened in 2D (EG3D, arXiv 2112.07945, section 4.2).

    Every block is modulated by the same style and adds to the picture that is the features' first
    three channels.
    """

    def __init__(
        self,
        entering: int,
        doublings: int,
        *,
        style_dim: int,
        width: int = 64,
        blocks: int | None = None,
        side: int | None = None,
        clamp: float | None = None,
    ):
        """Blocks with their first weights.

        Args:
            entering: channels of the rendered features, at least 3.
            doublings: how often the side is doubled: 0 leaves it.
            style_dim: numbers of a style.
            width: features of the first block; halved with every further one.
            blocks: at least 1 and ``doublings``, which is what it is if not given; the first ones
                leave the side as it is. EG3D always has two.
            side: to which what enters is resized; None takes it as it is.
            clamp: see `StyledLayer`.

        Raises:
            ValueError: fewer than three channels enter, or there are more doublings than blocks.
        """
        super().__init__()
        count = max(doublings, 1) if blocks is None else blocks
        if entering < 3:
            raise ValueError(f"{entering} channels enter; the first three are the picture")
        if count < max(doublings, 1):
            raise ValueError(f"{doublings} doublings want as many blocks, not {count}")
        self.side = side
        widths = [entering, *(max(8, width // 2**number) for number in range(count))]
        self.blocks = nn.ModuleList(
            StyleBlock(
                widths[number],
                widths[number + 1],
                3,
                style_dim,
                double=number >= count - doublings,
                clamp=clamp,
            )
            for number in range(count)
        )

    def forward(
        self,
        features: Float[Tensor, "batch entering height width"],
        style: Float[Tensor, "batch style_dim"],
    ) -> Float[Tensor, "batch 3 _ _"]:
        """A picture of the features' range, the sides doubled as often as asked."""
        if self.side is not None and features.shape[2:] != (self.side, self.side):
            features = functional.interpolate(
                features, (self.side, self.side), mode="bilinear", antialias=True
            )
        maps, seen = features, features[:, :3]
        styles = style[:, None].expand(-1, 3, -1)
        for block in self.blocks:
            maps, seen = block(maps, seen, styles)
        return seen


def unit_moment(vectors: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    """Vectors divided by the root of their mean square."""
    return vectors * (vectors.square().mean(-1, keepdim=True) + _EPSILON).rsqrt()


def double_side(
    images: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels _ _"]:
    """Twice the height and width: zeros between the pixels, then StyleGAN2's low-pass times 4."""
    row = images.new_tensor(BINOMIAL) / sum(BINOMIAL) * 2
    kernel = (row[:, None] * row).expand(images.shape[1], 1, -1, -1)
    return functional.conv_transpose2d(images, kernel, stride=2, padding=1, groups=images.shape[1])
