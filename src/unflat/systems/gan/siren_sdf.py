"""A system that nobody published: pi-GAN's sines with a signed distance, EG3D's dual critic."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unflat.fields import LaplaceDensity
from unflat.fields.siren import DistanceSirenField
from unflat.nn.critic import Critic
from unflat.nn.siren import FilmMapping, FilmSiren
from unflat.nn.stylegan import SuperResolution
from unflat.rendering import Casting
from unflat.systems.gan.game import Game
from unflat.systems.gan.generator import Form, Generator
from unflat.systems.gan.recipe import Parts, Start, playing
from unflat.systems.gan.terms import SurfaceTerm


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes; small enough for a CPU."""

    resolution: int = 32
    half_side: float = 0.55
    width: int = 48
    depth: int = 3


PRESETS = {"tiny": Config, "small": lambda: Config(resolution=64, width=128, depth=6)}
training = playing


class Body(nn.Module):
    """Frequencies and phases to a field of sines that holds a distance."""

    def __init__(self, config: Config):
        """A body with its first weights."""
        super().__init__()
        self.network = FilmSiren(config.width, config.depth, out=8)
        self.density, self.codes = LaplaceDensity(None, 0.05), self.network.film_layers
        self.lr_scales = {"density": 0.03}  # small numbers, which Adam moves as far as large ones
        self.register_buffer("box", torch.tensor([[-1.0], [1.0]]).expand(2, 3) * config.half_side)

    def forward(self, codes: Tensor) -> Form:
        """Objects of codes."""
        return Form(DistanceSirenField(self.network, codes, self.density, self.get_buffer("box")))


def build(config: Config) -> Parts:
    """Generator, critic and objective."""
    body, terms = Body(config), (SurfaceTerm(cells=6),)
    game = Game(sees="dual", r1_gamma=0.2, r1_every=8, critic_lr=5.0, fooling=0.1, ramp=0.1)
    mapping = FilmMapping(32, body.codes, config.width)
    decoder = SuperResolution(8, 1, style_dim=2 * config.width, width=24)
    generator = Generator(mapping, body, Casting(coarse=12, fine=12), decoder=decoder, scale=2)
    critic = Critic(config.resolution, channels=6, width=24, widest=64, condition_dim=25)
    start = Start(sphere=0.05, reconstruction=0.5, kept=0.5, kept_weight=2.0, views=4)
    return Parts(generator=generator, critic=critic, game=game, start=start, terms=terms)
