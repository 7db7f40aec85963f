"""The generator that inversion is built on: signed distance in tri-planes, colours from a palette.

Pavllo, Tan, Rakotosaona, Tombari, "Shape, Pose, and Appearance from a Single Image via Bootstrapped
Radiance Field Inversion" (CVPR 2023, arXiv 2211.11674). Special here: a Laplace density of learned
thickness, colours as soft choices of a palette (rendering is linear in it), path lengths taken of
planes and palette alone, a critic that sees the mask and is told the camera. No 2D network follows:
what is rendered is the picture, so views agree exactly.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unflat.fields import DistanceDecoder, DistanceTriplaneField, LaplaceDensity
from unflat.nn.critic import Critic
from unflat.nn.palette import PaletteNetwork
from unflat.rendering import Casting
from unflat.systems.gan.game import Game
from unflat.systems.gan.generator import Form, Generator
from unflat.systems.gan.planes import SMALL, TINY, Planes
from unflat.systems.gan.recipe import Parts, Start, playing, reconstructing
from unflat.systems.gan.terms import PathLengthTerm, SurfaceTerm
from unflat.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes and objective; the defaults are the paper's for ShapeNet's cars."""

    resolution: int = 128
    """Side of the pictures it learns from."""
    half_side: float = 0.55
    """Of the box around objects, world units."""
    planes: Planes = Planes()
    """From the latent to the decoder."""
    rays: Casting = Casting(coarse=64, fine=64, keep="both")
    """Samples of a ray; without the first ones in the picture a step costs half as much."""
    colors: int = 10
    """Of a palette."""
    palette_lr: float = 1.0
    """Learning rate of the palette as a share of the generator's. Where that is high, its sigmoid
    ends at black and white, and learns no color any more."""
    critic_width: int = 256
    """Features of the critic at full side."""
    critic_widest: int = 512
    """Most of them."""
    alpha: float | None = 1.0
    """1 / density of matter at first, world units; None: always beta, so that distance 0 is where
    light ends."""
    beta: float = 0.1
    """Thickness of a surface at first, world units."""
    density_lr: float = 1.0
    """Learning rate of these two as a share of the generator's."""
    eikonal: float = 0.1
    """Weight of what keeps the distance's gradients at length 1. A surface is made sharp by
    longer ones where beta is slow; that takes more weight against it."""
    surface_cells: int = 31
    """Cells on a side of the box in which the surface's terms are asked."""
    critic_lr: float = 0.8
    """Learning rate of the critic as a share of the generator's."""
    r1_gamma: float = 5.0
    """Weight of R1."""
    r1_every: int = 1
    """Steps from one R1 to the next."""
    path_share: float = 1.0
    """Of the steps that compute path lengths."""
    start: Start = Start(sphere=0.01)
    """What comes before the game; in the paper the surface becomes a ball."""
    augment: float = 0.0
    """Largest probability of turned, scaled and moved pictures, their cameras along with them; 0 in
    the paper for ShapeNet, 0.8 for pictures of the wild and CARLA."""

    def __post_init__(self) -> None:
        if not 0 <= self.augment <= 1:
            raise ValueError(f"augment is {self.augment}; it must be between 0 and 1")


def paper() -> Config:
    """As published for ShapeNet's cars: 128 px, 32 M parameters, five days of four A100."""
    return Config()


def small() -> Config:
    """For one GPU or a patient CPU: 32 px by few samples, after a start by reconstruction."""
    return Config(
        resolution=32,
        planes=SMALL,
        rays=Casting(coarse=16, fine=16),
        critic_width=24,
        critic_widest=128,
        alpha=None,
        palette_lr=0.1,
        beta=0.05,
        density_lr=0.03,
        eikonal=0.5,
        surface_cells=12,
        critic_lr=5.0,
        r1_gamma=0.2,
        r1_every=8,
        path_share=0.25,
        start=Start(sphere=0.005, reconstruction=0.5, lr=30.0, kept=0.5, kept_weight=2.0, views=4),
    )


def tiny() -> Config:
    """Learns made-up objects on a CPU in minutes."""
    return Config(
        resolution=32,
        planes=TINY,
        rays=Casting(coarse=12, fine=12),
        colors=6,
        critic_width=24,
        critic_widest=64,
        alpha=None,
        palette_lr=0.1,
        beta=0.05,
        density_lr=0.03,
        eikonal=0.5,
        surface_cells=8,
        critic_lr=5.0,
        r1_gamma=0.2,
        r1_every=8,
        path_share=0.25,
        start=Start(sphere=0.02, reconstruction=0.4, lr=30.0, kept=0.5, kept_weight=2.0, views=4),
    )


def start() -> Config:
    """`small`, reconstructing alone, several pictures of an object at once: to play from."""
    return replace(small(), start=Start(sphere=0.01, reconstruction=0.99, views=4))


def play() -> Config:
    """The game of `small` alone, to begin from the weights of `start`."""
    return replace(small(), start=Start(kept=0.5, kept_weight=2.0, views=4))


PRESETS = {"tiny": tiny, "start": start, "play": play, "small": small, "paper": paper}


def training(config: Config) -> TrainConfig:
    """How the paper trains it."""
    return reconstructing() if config.start.is_all else playing(config)


class Body(nn.Module):
    """Codes to planes and a palette; the last code is the palette's."""

    def __init__(self, config: Config):
        """A body with its first weights."""
        super().__init__()
        self.synthesis = config.planes.synthesis()
        self.palette = PaletteNetwork(config.planes.style_dim, config.colors)
        self.decoder = DistanceDecoder(config.planes.channels, config.planes.hidden, config.colors)
        self.density = LaplaceDensity(config.alpha, config.beta)
        self.codes = self.synthesis.codes + 1
        self.lr_scales = {"palette": config.palette_lr, "density": config.density_lr}
        corner = torch.full((3,), config.half_side)
        self.bounds: Tensor
        self.register_buffer("bounds", torch.stack([-corner, corner]))

    def forward(self, codes: Float[Tensor, "batch codes style_dim"]) -> Form:
        """Objects of codes."""
        planes = self.synthesis(codes[:, :-1]).unflatten(1, (3, -1))
        field = DistanceTriplaneField(planes, self.decoder, self.density, self.bounds)
        return Form(field, self.palette(codes[:, -1]))


def build(config: Config) -> Parts:
    """Generator, critic and objective."""
    generator = Generator(config.planes.mapping(), Body(config), config.rays)
    critic = Critic(
        config.resolution,
        channels=4,
        width=config.critic_width,
        widest=config.critic_widest,
        condition_dim=25,
    )
    return Parts(
        generator=generator,
        critic=critic,
        game=Game(
            sees="rgba",
            critic_lr=config.critic_lr,
            r1_gamma=config.r1_gamma,
            r1_every=config.r1_every,
            blur=0.0 if config.start.kept else 10.0,  # what is known is sharp
            fooling=0.1 if config.start.kept else 1.0,
            ramp=0.1 if config.start.kept else 0.0,
            augment=config.augment,
        ),
        terms=(
            SurfaceTerm(eikonal_weight=config.eikonal, cells=config.surface_cells),
            PathLengthTerm(share=config.path_share),
        ),
        start=config.start,
    )
