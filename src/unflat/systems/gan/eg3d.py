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
from unflat.nn.stylegan import SuperResolution
from unflat.rendering import Casting
from unflat.systems.gan.game import Game
from unflat.systems.gan.generator import Form, Generator
from unflat.systems.gan.planes import SMALL, TINY, Planes
from unflat.systems.gan.recipe import Parts, Start, playing, reconstructing
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
    planes: Planes = Planes()
    """From the latent to the decoder."""
    rays: Casting = Casting(coarse=64, fine=64, keep="both")
    """Samples of a ray; without the first ones in the picture a step costs half as much."""
    is_told_camera: bool = True
    """Whether the mapping is told a camera."""
    features: int = 32
    """Rendered; the first three are the small picture's colour."""
    sharpening_width: int = 128
    """Features of the 2D network."""
    critic_width: int = 256
    """Features of the critic at full side."""
    critic_widest: int = 512
    """Most of them."""
    critic_lr: float = 0.8
    """Learning rate of the critic as a share of the generator's."""
    r1_gamma: float = 0.3
    """Weight of R1."""
    r1_every: int = 16
    """Steps from one R1 to the next."""
    swap: float = 0.8
    """Share of made pictures whose generator is told another camera, at the end."""
    start: Start = Start()
    """What comes before the game; in the paper nothing."""


def paper() -> Config:
    """As published for ShapeNet's cars: 128 px of 64 rendered."""
    return Config()


def small() -> Config:
    """For one GPU or a patient CPU: 32 px of 16 rendered, after a start by reconstruction."""
    return Config(
        resolution=32,
        half_side=0.55,
        planes=SMALL,
        rays=Casting(coarse=16, fine=16),
        features=16,
        sharpening_width=48,
        critic_width=24,
        critic_widest=128,
        critic_lr=5.0,
        r1_gamma=0.2,
        r1_every=8,
        start=Start(reconstruction=0.5, lr=30.0, kept=0.5, kept_weight=2.0, views=4),
    )


def tiny() -> Config:
    """Learns made-up objects on a CPU in minutes."""
    return Config(
        resolution=32,
        half_side=0.55,
        planes=TINY,
        rays=Casting(coarse=16, fine=16),
        features=8,
        sharpening_width=24,
        critic_width=24,
        critic_widest=64,
        critic_lr=5.0,
        r1_gamma=0.2,
        r1_every=8,
        start=Start(reconstruction=0.4, lr=30.0, kept=0.5, kept_weight=2.0, views=4),
    )


def start() -> Config:
    """`small`, reconstructing alone, several pictures of an object at once: to play from."""
    return replace(small(), start=Start(reconstruction=1.0, views=4))


def play() -> Config:
    """The game of `small` alone, to begin from the weights of `start`."""
    return replace(small(), start=Start(kept=0.5, kept_weight=2.0, views=4))


PRESETS = {"tiny": tiny, "start": start, "play": play, "small": small, "paper": paper}


def training(config: Config) -> TrainConfig:
    """How the paper trains it: 25 million pictures."""
    if config.start.is_all:
        return reconstructing()
    return playing(config, steps=780_000, warmup_steps=0)


class Body(nn.Module):
    """Codes to planes; the last code is the 2D network's, which takes that of the last layer."""

    def __init__(self, config: Config):
        """A body with its first weights."""
        super().__init__()
        self.synthesis = config.planes.synthesis()
        self.decoder = FeatureDecoder(config.planes.channels, config.planes.hidden, config.features)
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
            style_dim=config.planes.style_dim,
            width=config.sharpening_width,
        )
    generator = Generator(
        config.planes.mapping(25 if config.is_told_camera else 0),
        Body(config),
        config.rays,
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
            critic_lr=config.critic_lr,
            r1_gamma=config.r1_gamma,
            r1_every=config.r1_every,
            swap=config.swap,
            blur=0.0 if config.start.kept else 10.0,  # what is known is sharp
            fooling=0.1 if config.start.kept else 1.0,
            ramp=0.1 if config.start.kept else 0.0,
        ),
        start=config.start,
        terms=(DensityVariationTerm(),),
    )
