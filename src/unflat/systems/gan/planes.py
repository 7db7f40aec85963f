"""How large the tri-planes of StyleGAN2 are: what systems with such planes share."""

from dataclasses import dataclass

from unflat.nn.stylegan import MappingNetwork, SynthesisNetwork


@dataclass(frozen=True, kw_only=True)
class Planes:
    """Sizes from the latent to the decoder; the defaults are EG3D's."""

    latent_dim: int = 512
    """Numbers of a latent."""
    style_dim: int = 512
    """Numbers of a code."""
    side: int = 256
    """Texels on a side of a plane."""
    channels: int = 32
    """Features of a plane."""
    base: int = 32768
    """Features of the planes' network: base / side, at most ``widest``."""
    widest: int = 512
    """Most of them."""
    hidden: int = 64
    """Width of the decoder that reads the planes."""

    def mapping(self, condition_dim: int = 0) -> MappingNetwork:
        """Latents, and perhaps conditions, to codes; with first weights."""
        return MappingNetwork(self.latent_dim, self.style_dim, condition_dim=condition_dim)

    def synthesis(self) -> SynthesisNetwork:
        """Codes to the channels of three planes, one after the other; with first weights."""
        return SynthesisNetwork(
            self.side,
            3 * self.channels,
            style_dim=self.style_dim,
            base=self.base,
            widest=self.widest,
        )


SMALL = Planes(latent_dim=64, style_dim=192, side=64, channels=16, base=1024, widest=128, hidden=32)
"""For pictures of 32 pixels, some millions of parameters."""
TINY = Planes(latent_dim=32, style_dim=64, side=32, channels=8, base=512, widest=48, hidden=16)
"""Learns on a CPU in minutes."""
