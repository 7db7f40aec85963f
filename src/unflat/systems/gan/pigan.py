"""pi-GAN: a network of sines, modulated by a latent; pictures need no poses.

Chan et al., "pi-GAN: Periodic Implicit Generative Adversarial Networks for 3D-Aware Image
Synthesis" (CVPR 2021, arXiv 2012.00926). Special here: FiLM-SIREN, whose frequencies and phases a
mapping network sets; pictures that grow, with a critic that grows along; and a critic that reads
the pose off made pictures, which both players want it to, so that a flat card is at a loss.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unflat.fields.siren import SirenField
from unflat.nn.coord_critic import CoordCritic
from unflat.nn.siren import FilmMapping, FilmSiren
from unflat.rendering import Casting
from unflat.systems.gan.cameras import Orbiting
from unflat.systems.gan.game import Game
from unflat.systems.gan.generator import Form, Generator
from unflat.systems.gan.recipe import Parts, Start
from unflat.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes and objective; the defaults are the paper's for CARLA's cars."""

    resolution: int = 128
    """Side of the pictures in the end."""
    growth: tuple[tuple[float, int], ...] = ((0.0, 32), (0.1, 64), (0.55, 128))
    """From which share of the run on pictures have which side."""
    fade: float = 0.1
    """Share of the run in which a new side is faded in."""
    half_side: float = 0.3
    """Of the box around objects, world units."""
    latent_dim: int = 256
    """Numbers of a latent."""
    width: int = 256
    """Features of a layer of sines."""
    depth: int = 8
    """Layers of sines before density."""
    rays: Casting = Casting(coarse=48, fine=48, keep="both")
    """Samples of a ray; without the first ones in the picture a step costs half as much."""
    critic_base: int = 8192
    """Features of the critic: base / side, at most ``critic_widest``."""
    critic_widest: int = 400
    """Most of them."""
    views: Orbiting = field(
        default_factory=lambda: Orbiting(elevation_deg=(0.0, 85.0), radius=1.0, fov_deg=30.0)
    )
    """Where pictures are taken from."""
    r1_gamma: float = 10.0
    """Weight of R1; 0.2 for faces."""
    r1_every: int = 1
    """Steps from one R1 to the next."""
    pose_weight: float = 0.0
    """Of the pose that the critic reads; 15 for faces, whose cameras all stand in front."""
    noise: float = 1.0
    """Added to densities at first."""
    noise_share: float = 0.05
    """Of the run, in which that goes away."""
    top_share: float = 0.6
    """Least share of made pictures, the best, that teach the generator."""

    def __post_init__(self) -> None:
        if self.growth[0][0] != 0 or self.growth[-1][1] != self.resolution:
            raise ValueError(
                f"growth is {self.growth}; it must begin at 0 and end at {self.resolution} pixels"
            )


def paper() -> Config:
    """As published for CARLA: every side of a car, up to 128 px."""
    return Config()


def small() -> Config:
    """For one GPU: 64 px, by fewer samples."""
    return Config(
        resolution=64,
        growth=((0.0, 32), (0.3, 64)),
        width=128,
        depth=6,
        rays=Casting(coarse=24, fine=24),
        half_side=0.55,
        views=Orbiting(elevation_deg=(-10.0, 70.0)),
        r1_every=4,
    )


def tiny() -> Config:
    """Learns made-up objects on a CPU in minutes: 32 px, seen from the front's side."""
    return Config(
        resolution=32,
        growth=((0.0, 16), (0.5, 32)),
        latent_dim=32,
        width=48,
        depth=3,
        rays=Casting(coarse=12, fine=12),
        half_side=0.55,
        critic_base=512,
        critic_widest=64,
        views=Orbiting(azimuth_deg=60.0),
        r1_gamma=10.0,  # by a tenth of it the critic is so sure that everything becomes empty
        r1_every=4,
        pose_weight=5.0,
        noise=2.0,
        noise_share=0.5,
    )


PRESETS = {"tiny": tiny, "small": small, "paper": paper}


def training(config: Config) -> TrainConfig:
    """How the paper trains it; small networks bear a higher learning rate."""
    return TrainConfig(
        steps=150_000,
        batch_size=30 if config.resolution > 32 else 16,
        lr=4e-5 if config.width >= 256 else 4e-4,
        betas=(0.0, 0.9),
        weight_decay=0.0,
        clip_norm=1.0 if config.width >= 256 else 10.0,
        final_lr_fraction=0.25,
        ema_decay=0.999,
    )


class Body(nn.Module):
    """Frequencies and phases to a field of sines."""

    def __init__(self, config: Config):
        """A body with its first weights."""
        super().__init__()
        self.network = FilmSiren(config.width, config.depth)
        self.codes = self.network.film_layers
        corner = torch.full((3,), config.half_side)
        self.bounds: Tensor
        self.register_buffer("bounds", torch.stack([-corner, corner]))

    def forward(self, codes: Tensor) -> Form:
        """Objects of codes."""
        return Form(SirenField(self.network, codes, self.bounds))


def build(config: Config) -> Parts:
    """Generator, critic and objective."""
    body = Body(config)
    critic = CoordCritic(
        config.resolution,
        config.growth[0][1],
        base=config.critic_base,
        widest=config.critic_widest,
        pose_dim=2,
    )
    return Parts(
        generator=Generator(
            FilmMapping(config.latent_dim, body.codes, config.width), body, config.rays
        ),
        critic=critic,
        cameras=config.views.cameras(),
        start=Start(),
        game=Game(
            is_told_camera=False,
            r1_gamma=config.r1_gamma,
            r1_every=config.r1_every,
            pose_weight=config.pose_weight,
            top_share=config.top_share,
            density_noise=config.noise,
            noise_share=config.noise_share,
            growth=config.growth,
            fade=config.fade,
            critic_lr=10.0 if config.width >= 256 else 4.0,
        ),
    )
