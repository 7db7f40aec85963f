"""A training step of EG3D in plain PyTorch: what the training of our GANs is compared with.

Written from the papers (StyleGAN2, arXiv 1912.04958; EG3D, arXiv 2112.07945) the way their code
works, with the weights of our own networks, so that both make the same picture:

- resampling inserts zeros, pads, filters, and throws away what it does not keep;
- a ray's first and second samples all make the picture, asked and summed in whole tensors;
- the critic's step makes pictures of its own, and R1 looks at the real ones once more.

``grouped`` modulates a kernel for every picture, a grouped convolution, as StyleGAN2 does it;
without it maps are scaled around one convolution, which EG3D chooses for its training.
"""

import math
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.eg3d import by_importance, march
from unflat.fields.triplane import FeatureDecoder
from unflat.geometry import Camera
from unflat.geometry.rays import image_rays
from unflat.losses import r1_penalty
from unflat.nn.critic import Critic, minibatch_deviation
from unflat.nn.equalized import BINOMIAL, EqualizedConv2d
from unflat.nn.stylegan import (
    ModulatedConv2d,
    StyleBlock,
    StyledLayer,
    SuperResolution,
    SynthesisNetwork,
)
from unflat.rendering.sampling import box_limits
from unflat.systems.gan import eg3d
from unflat.systems.gan.game import camera_label, shown_made, shown_real, swapped
from unflat.systems.gan.generator import Made
from unflat.systems.gan.recipe import Parts


class Watch(Protocol):
    """Takes the time of a part of a step: ``with watch("forward"): ...``."""

    def __call__(self, part: str) -> AbstractContextManager[None]: ...


class PlainGan:
    """EG3D's generator and critic with the weights of ours."""

    def __init__(self, parts: Parts, config: eg3d.Config, *, grouped: bool):
        assert isinstance(parts.critic, Critic)
        assert isinstance(parts.generator.decoder, SuperResolution)
        assert isinstance(parts.generator.body, eg3d.Body)
        self.generator, self.critic, self.game = parts.generator, parts.critic, parts.game
        self.body, self.sharpening = parts.generator.body, parts.generator.decoder
        self.config, self.grouped = config, grouped

    def planes(
        self, codes: Float[Tensor, "batch codes style"]
    ) -> Float[Tensor, "batch 3 channels side side"]:
        """Tri-planes of codes."""
        return plain_synthesis(self.body.synthesis, codes, self.grouped).unflatten(1, (3, -1))

    def picture(self, codes: Float[Tensor, "batch codes style"], camera: Camera) -> Made:
        """Pictures of codes through cameras."""
        side, rays = self.config.resolution // self.generator.scale, self.config.rays
        features, opacity = plain_cast(
            self.planes(codes), self.body, camera, side, rays.coarse, rays.fine
        )
        features = features + (1 - opacity)
        raw = features[:, :3]
        sharp = plain_sharpening(self.sharpening, 2 * features - 1, codes[:, -1], self.grouped)
        return Made((sharp + 1) / 2, raw, opacity, opacity.detach()[:, 0])

    def judge(
        self, shown: Float[Tensor, "batch channels side side"], label: Float[Tensor, "batch 25"]
    ) -> Float[Tensor, " batch"]:
        """Logits."""
        return plain_critic(self.critic, shown, label)


class PlainStep:
    """Both players' steps, one after the other, with their optimizers."""

    def __init__(self, gan: PlainGan, lr: float):
        self.gan = gan
        networks = gan.generator, gan.critic
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=lr, betas=(0.0, 0.99)) for network in networks
        ]

    def __call__(
        self,
        real: Float[Tensor, "batch 3 side side"],
        real_camera: Camera,
        fake_camera: Camera,
        watch: Watch,
        *,
        with_r1: bool,
    ) -> None:
        """A step of the generator, then one of the critic."""
        gan, game = self.gan, self.gan.game
        for_generator, for_critic = self.optimizers
        label, fake_label = camera_label(real_camera), camera_label(fake_camera)
        gan.critic.requires_grad_(False)
        with watch("forward"):
            logits = gan.judge(self._fake(fake_camera, fake_label), fake_label)
            cost = functional.softplus(-logits).mean()
        self._learn(cost, for_generator, watch)
        gan.critic.requires_grad_(True)
        gan.generator.requires_grad_(False)
        with watch("forward"):
            logits = gan.judge(self._fake(fake_camera, fake_label), fake_label)
            cost = functional.softplus(logits).mean()
        with watch("backward"):
            cost.backward()
        with watch("forward"):
            shown = shown_real(real, None, game.sees, real.shape[-1] // gan.generator.scale)
            cost = functional.softplus(-gan.judge(shown, label)).mean()
        if with_r1:
            with watch("backward"):
                cost.backward()
            with watch("forward"):
                shown = shown.detach().requires_grad_()
                penalty = r1_penalty(gan.judge(shown, label), shown)
                cost = game.r1_gamma * penalty.mean()
        self._learn(cost, for_critic, watch)
        gan.generator.requires_grad_(True)

    def _fake(self, camera: Camera, label: Tensor) -> Tensor:
        """What the critic sees of new pictures."""
        gan, count = self.gan, len(label)
        told = swapped(label, gan.game.swap, torch.rand(count))
        codes = gan.generator.codes(torch.randn(count, gan.generator.latent_dim), told)
        return shown_made(gan.picture(codes, camera), gan.game.sees)

    def _learn(self, cost: Tensor, optimizer: torch.optim.Optimizer, watch: Watch) -> None:
        with watch("backward"):
            cost.backward()
        with watch("update"):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


# ------------------------------------------------------------------------------------ convolutions


def resample(
    maps: Float[Tensor, "batch channels height width"],
    padding: tuple[int, int],
    *,
    up: int = 1,
    down: int = 1,
    gain: float = 1.0,
) -> Float[Tensor, "batch channels _ _"]:
    """Zeros between the pixels, zeros around, StyleGAN2's filter, then every ``down``-th pixel."""
    batch, channels, height, width = maps.shape
    maps = maps.reshape(batch, channels, height, 1, width, 1)
    maps = functional.pad(maps, [0, up - 1, 0, 0, 0, up - 1])
    maps = maps.reshape(batch, channels, height * up, width * up)
    maps = functional.pad(maps, [*padding, *padding])
    row = maps.new_tensor(BINOMIAL) / sum(BINOMIAL)
    kernel = (gain * row[:, None] * row).expand(channels, 1, -1, -1)
    return functional.conv2d(maps, kernel, groups=channels)[:, :, ::down, ::down]


def activate(maps: Tensor, bias: Tensor) -> Tensor:
    """Bias, leaky ReLU, gain."""
    return functional.leaky_relu(maps + bias[:, None, None], 0.2) * math.sqrt(2)


def modulated(layer: ModulatedConv2d, maps: Tensor, style: Tensor, grouped: bool) -> Tensor:
    """A modulated convolution, by a kernel for each picture or by scaled maps."""
    scale, kernel = layer.affine(style), layer.weight
    if not layer.demodulate:
        scale = scale / math.sqrt(kernel[0].numel())
    if not (grouped or layer.demodulate):
        return _convolved(maps * scale[:, :, None, None], kernel, layer.doubles, 1)
    kernels = kernel * scale[:, None, :, None, None]
    restored = (kernels.square().sum((2, 3, 4)) + 1e-8).rsqrt()[:, :, None, None]
    if not grouped:
        return _convolved(maps * scale[:, :, None, None], kernel, layer.doubles, 1) * restored
    if layer.demodulate:
        kernels = kernels * restored[..., None]
    batch, _, *sides = maps.shape
    maps = maps.reshape(1, -1, *sides)
    maps = _convolved(maps, kernels.flatten(0, 1), layer.doubles, batch)
    return maps.reshape(batch, -1, *maps.shape[2:])


def _convolved(maps: Tensor, kernel: Tensor, doubles: bool, groups: int) -> Tensor:
    half = kernel.shape[-1] // 2
    if not doubles:
        return functional.conv2d(maps, kernel, padding=half, groups=groups)
    turned = kernel.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    maps = functional.conv_transpose2d(maps, turned, stride=2, groups=groups)
    return resample(maps, (half, half), gain=4.0)


# ---------------------------------------------------------------------------------------- networks


def plain_synthesis(network: SynthesisNetwork, styles: Tensor, grouped: bool) -> Tensor:
    """Maps of styles."""
    maps = network.constant.expand(len(styles), -1, -1, -1)
    seen: Tensor | None = None
    for number, block in enumerate(network.blocks):
        assert isinstance(block, StyleBlock)
        first = max(0, 2 * number - 1)
        maps, seen = _block(block, maps, seen, styles[:, first:], grouped)
    assert seen is not None
    return seen


def plain_sharpening(
    network: SuperResolution, features: Tensor, style: Tensor, grouped: bool
) -> Tensor:
    """A sharpened picture."""
    maps, seen = features, features[:, :3]
    for block in network.blocks:
        assert isinstance(block, StyleBlock)
        maps, seen = _block(block, maps, seen, style[:, None].expand(-1, 3, -1), grouped)
    return seen


def _block(
    block: StyleBlock, maps: Tensor, below: Tensor | None, styles: Tensor, grouped: bool
) -> tuple[Tensor, Tensor]:
    for number, layer in enumerate(block.layers):
        assert isinstance(layer, StyledLayer)
        maps = activate(modulated(layer.conv, maps, styles[:, number], grouped), layer.bias)
    seen = modulated(block.output, maps, styles[:, len(block.layers)], grouped)
    seen = seen + block.output_bias[:, None, None]
    if below is not None:
        seen = seen + (resample(below, (2, 1), up=2, gain=4.0) if block.doubles else below)
    return maps, seen


def plain_critic(critic: Critic, normalized: Tensor, condition: Tensor) -> Tensor:
    """Logits."""
    maps = _layer(critic.enter, normalized)
    for block in critic.blocks:
        first, second, skip = block.children()
        maps = (_layer(second, _layer(first, maps)) + _filtered(skip, maps)) / math.sqrt(2)
    maps = _layer(critic.join, minibatch_deviation(maps, critic.group))
    flat = functional.leaky_relu(critic.flatten(maps.flatten(1)), 0.2) * math.sqrt(2)
    features = critic.leave(flat)
    assert critic.mapping is not None
    return (features * critic.mapping(condition)).sum(1) / math.sqrt(features.shape[1])


def _layer(layer: nn.Module, maps: Tensor) -> Tensor:
    assert isinstance(layer, EqualizedConv2d)
    assert layer.bias is not None
    return activate(_filtered(layer, maps), layer.bias)


def _filtered(layer: nn.Module, maps: Tensor) -> Tensor:
    assert isinstance(layer, EqualizedConv2d)
    kernel, half = layer.weight * layer.gain, layer.padding
    if not layer.halve:
        return functional.conv2d(maps, kernel, padding=half)
    if half:
        return functional.conv2d(resample(maps, (half + 1, half + 1)), kernel, stride=2)
    return functional.conv2d(resample(maps, (1, 1), down=2), kernel)


# -------------------------------------------------------------------------------------------- rays


def plain_cast(
    planes: Float[Tensor, "batch 3 channels height width"],
    body: eg3d.Body,
    camera: Camera,
    side: int,
    coarse: int,
    fine: int,
) -> tuple[Float[Tensor, "batch out side side"], Float[Tensor, "batch 1 side side"]]:
    """Features premultiplied by opacity, and opacity, of both passes' samples together."""
    rays = image_rays(camera, side, side)
    origins, directions = rays.origins.flatten(1, 2), rays.directions.flatten(1, 2)
    near, far = box_limits(origins, directions, body.bounds, 0.0, torch.inf)
    meets = near < far
    near, far = near.where(meets, 1.0)[..., None], far.where(meets, 1.0)[..., None]

    def asked(distances: Tensor) -> tuple[Tensor, Tensor]:
        points = origins[:, :, None] + distances[..., None] * directions[:, :, None]
        features = look_up(planes, points.flatten(1, 2) / body.bounds[1])
        raw = _decoded(body.decoder, features).unflatten(1, distances.shape[1:])
        color = torch.sigmoid(raw[..., 1:]) * (1 + 2 * 0.001) - 0.001
        return color.flatten(0, 1), raw[..., 0].flatten(0, 1)

    steps = (torch.arange(coarse) + torch.rand(*origins.shape[:-1], coarse)) / coarse
    distances = near + (far - near) * steps
    color, density = asked(distances)
    flat = distances.flatten(0, 1)
    with torch.no_grad():
        shares = march(color, density, flat)[1]
        more = by_importance(flat, shares, fine)
    extra_color, extra_density = asked(more.reshape(*distances.shape[:2], fine))
    flat, order = torch.cat([flat, more], 1).sort(1)
    color = torch.cat([color, extra_color], 1)
    color = color.gather(1, order[..., None].expand(-1, -1, color.shape[-1]))
    density = torch.cat([density, extra_density], 1).gather(1, order)
    features, shares = march(color, density, flat)
    pictures = torch.cat([features, shares.sum(1, keepdim=True)], 1)
    pictures = pictures.reshape(len(origins), side, side, -1).permute(0, 3, 1, 2)
    return pictures[:, :-1], pictures[:, -1:]


def look_up(
    planes: Float[Tensor, "batch 3 channels height width"], points: Float[Tensor, "batch points 3"]
) -> Float[Tensor, "batch points channels"]:
    """The sum of the three lookups of points in [-1, 1]^3."""
    x, y, z = points.unbind(-1)
    pairs = torch.stack([torch.stack(pair, -1) for pair in ((x, y), (x, z), (y, z))], 1)
    found = functional.grid_sample(
        planes.flatten(0, 1),
        pairs.flatten(0, 1)[:, None],
        padding_mode="border",
        align_corners=False,
    )
    return found.unflatten(0, (len(planes), 3))[..., 0, :].permute(0, 1, 3, 2).sum(1)


def _decoded(decoder: nn.Module, features: Tensor) -> Tensor:
    assert isinstance(decoder, FeatureDecoder)
    return decoder.out(functional.softplus(decoder.into(features)))
