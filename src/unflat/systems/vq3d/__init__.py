"""VQ3D (arXiv 2302.06833): one photo becomes a radiance field, through discrete tokens."""

from unflat.systems.vq3d.autoencoder import Autoencoder, Encoded, build
from unflat.systems.vq3d.config import PRESETS, Config
from unflat.systems.vq3d.loss_config import LOSSES, LossConfig
from unflat.systems.vq3d.pipeline import detail_field, has_detail, load, token_field
from unflat.systems.vq3d.recipe import Vq3dRecipe
from unflat.systems.vq3d.views import render_canonical

__all__ = [
    "LOSSES",
    "PRESETS",
    "Autoencoder",
    "Config",
    "Encoded",
    "LossConfig",
    "Vq3dRecipe",
    "build",
    "detail_field",
    "has_detail",
    "load",
    "render_canonical",
    "token_field",
]
