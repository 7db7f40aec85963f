"""EG3D: tri-planes from StyleGAN2, sharpened in 2D, judged at both resolutions.

Chan et al., "Efficient Geometry-aware 3D Generative Adversarial Networks" (CVPR 2022, arXiv
2112.07945). Special here: the planes' network is told a camera, most of the time another one than
it is seen from; few rendered features are made large by a 2D network; the critic sees the large
picture beside the small one, enlarged, so that both agree. The published planes repeat an axis
pair; these are three different ones.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unflat.fields import FeatureDecoder, TriplaneField
from unflat.nn.critic import Critic
from unflat.nn.equalized import equalize
from unflat.nn.stylegan import MappingNetwork, SuperResolution, SynthesisNetwork
from unflat.rendering import Casting
from unflat.systems.gan.game import Game
from unflat.systems.gan.generator import Form, Generator
from unflat.systems.gan.recipe import Parts, Start, reconstructing
from unflat.systems.gan.terms import DensityVariationTerm
from unflat.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes and objective; the defaults are the paper's for ShapeNet's cars."""

    resolution: int = 128
    """Side of the pictures it learns from."""
    doublings: int = 1
    """How often the 2D network doubles the rendered side; 0 renders every pixel and has none."""
    half_side: float = 0.8
    """Of the box around objects, world units."""
    latent_dim: int = 512
    """Numbers of a latent."""
    style_dim: int = 512
    """Numbers of a code."""
    is_told_camera: bool = True
    """Whether the mapping is told a camera."""
    plane_side: int = 256
    """Texels on a side of a plane."""
    plane_channels: int = 32
    """Features of a plane."""
    plane_base: int = 32768
    """Features of the planes' network: base / side, at most ``plane_widest``."""
    plane_widest: int = 512
    """Most of them."""
    hidden: int = 64
    """Width of the decoder."""
    features: int = 32
    """Rendered; the first three are the small picture's colour."""
    sharpening_width: int = 128
    """Features of the 2D network."""
    coarse: int = 64
    """Samples of a ray."""
    fine: int = 64
    """Further ones where matter is."""
    keep_coarse: bool = True
    """Whether the first samples make the picture too; without them a step costs half as much."""
    critic_width: int = 256
    """Features of the critic at full side."""
    critic_widest: int = 512
    """Most of them."""
    r1_gamma: float = 0.3
    """Weight of R1."""
    r1_every: int = 16
    """Steps from one R1 to the next."""
    swap: float = 0.8
    """Share of made pictures whose generator is told another camera, at the end."""
    reconstruction: float = 0.0
    """Share of the run in which known objects are reconstructed first; 0 in the paper."""
    start_lr: float = 1.0
    """Learning rate of what comes before the game, as a multiple of the game's."""
    start_noise: float = 0.1
    """Added to the latents of known objects."""
    kept: float = 0.0
    """Share of a batch that goes on to be reconstructed in the game."""
    views: int = 1
    """Pictures in a row that show the same object, for runs that only reconstruct."""


def paper() -> Config:
    """As published for ShapeNet's cars: 128 px of 64 rendered."""
    return Config()


def small() -> Config:
    """For one GPU or a patient CPU: 32 px of 16 rendered, after a start by reconstruction."""
    return Config(
        resolution=32,
        half_side=0.55,
        latent_dim=64,
        style_dim=192,
        plane_side=64,
        plane_channels=16,
        plane_base=1024,
        plane_widest=128,
        hidden=32,
        features=16,
        sharpening_width=48,
        coarse=16,
        fine=16,
        keep_coarse=False,
        critic_width=24,
        critic_widest=128,
        r1_every=8,
        reconstruction=0.5,
        start_lr=6.0,
        kept=0.25,
    )


def tiny() -> Config:
    """Learns made-up objects on a CPU in minutes."""
    return Config(
        resolution=32,
        half_side=0.55,
        latent_dim=32,
        style_dim=64,
        plane_side=32,
        plane_channels=8,
        plane_base=512,
        plane_widest=48,
        hidden=16,
        features=8,
        sharpening_width=24,
        coarse=16,
        fine=16,
        keep_coarse=False,
        critic_width=24,
        critic_widest=64,
        r1_every=8,
        reconstruction=0.4,
        start_lr=6.0,
        kept=0.25,
    )


def start() -> Config:
    """`small`, reconstructing alone, several pictures of an object at once: to play from."""
    return replace(small(), reconstruction=1.0, start_lr=1.0, views=4)


PRESETS = {"tiny": tiny, "start": start, "small": small, "paper": paper}


def training(config: Config) -> TrainConfig:
    """How the paper trains it."""
    if config.views > 1:
        return reconstructing()
    batch = 32 if config.resolution > 32 else 16
    return TrainConfig(
        steps=780_000,  # 25 million pictures
        batch_size=batch,
        lr=2.5e-3,
        betas=(0.0, 0.99),
        weight_decay=0.0,
        clip_norm=0.0,
        schedule="constant",
        ema_decay=0.5 ** (batch / 10_000),
    )


class Body(nn.Module):
    """Codes to planes; the last code is the 2D network's, which takes that of the last layer."""

    def __init__(self, config: Config):
        """A body with its first weights."""
        super().__init__()
        self.synthesis = SynthesisNetwork(
            config.plane_side,
            3 * config.plane_channels,
            style_dim=config.style_dim,
            base=config.plane_base,
            widest=config.plane_widest,
        )
        self.decoder = FeatureDecoder(config.plane_channels, config.hidden, config.features)
        equalize(self.decoder.into)
        equalize(self.decoder.out)
        self.codes = self.synthesis.codes
        corner = torch.full((3,), config.half_side)
        self.bounds: Tensor
        self.register_buffer("bounds", torch.stack([-corner, corner]))

    def forward(self, codes: Float[Tensor, "batch codes style_dim"]) -> Form:
        """Objects of codes."""
        planes = self.synthesis(codes).unflatten(1, (3, -1))
        return Form(TriplaneField(planes, self.decoder, self.bounds))


def build(config: Config) -> Parts:
    """Generator, critic and objective."""
    sharpening = None
    if config.doublings:
        sharpening = SuperResolution(
            config.features,
            config.doublings,
            style_dim=config.style_dim,
            width=config.sharpening_width,
        )
    generator = Generator(
        MappingNetwork(
            config.latent_dim,
            config.style_dim,
            condition_dim=25 if config.is_told_camera else 0,
        ),
        Body(config),
        Casting(
            coarse=config.coarse, fine=config.fine, keep="both" if config.keep_coarse else "fine"
        ),
        decoder=sharpening,
        scale=2**config.doublings,
    )
    critic = Critic(
        config.resolution,
        channels=6 if config.doublings else 3,
        width=config.critic_width,
        widest=config.critic_widest,
        condition_dim=25,
    )
    return Parts(
        generator=generator,
        critic=critic,
        game=Game(
            sees="dual" if config.doublings else "rgb",
            r1_gamma=config.r1_gamma,
            r1_every=config.r1_every,
            swap=config.swap,
            blur=10.0,
        ),
        start=Start(
            reconstruction=config.reconstruction,
            lr=config.start_lr,
            noise=config.start_noise,
            kept=config.kept,
            views=config.views,
        ),
        terms=(DensityVariationTerm(),),
    )
