"""The feature network that stands in where nobody has Inception's or VGG's weights."""

from unflat.systems.features.pipeline import calibrated, load
from unflat.systems.features.recipe import SYSTEM, Config, FeatureRecipe, nt_xent

__all__ = ["SYSTEM", "Config", "FeatureRecipe", "calibrated", "load", "nt_xent"]
