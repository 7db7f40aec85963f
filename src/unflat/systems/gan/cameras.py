"""Where made pictures are seen from, where the data does not tell: a prior and one lens."""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from unflat.geometry import Camera
from unflat.geometry.pose_prior import (
    AnyDistribution,
    Gaussian,
    OrbitPrior,
    PosePrior,
    Uniform,
    UniformSine,
)


@dataclass(frozen=True, kw_only=True)
class PriorCameras:
    """Cameras of a pose prior, all with the same field of view."""

    prior: PosePrior
    """Draws poses."""
    fov: float
    """Radians across the picture."""

    def sample(self, numbers: int, generator: torch.Generator) -> Camera:
        """Independent cameras, where the generator is."""
        return Camera.from_fov(self.fov, self.prior.sample(numbers, generator))


@dataclass(frozen=True, kw_only=True)
class Orbiting:
    """A prior of cameras that look at the origin, in plain numbers, as configs hold it."""

    kind: Literal["sphere", "gaussian"] = "sphere"
    """sphere: spread evenly over a band; gaussian: around the middle of the band."""
    azimuth_deg: float = 180.0
    """To each side of the front; one standard deviation for gaussian."""
    elevation_deg: tuple[float, float] = (0.0, 60.0)
    """Lowest and highest; for gaussian one standard deviation below and above the mean."""
    radius: float = 1.3
    """World units."""
    fov_deg: float = 52.0
    """Across the picture."""

    def cameras(self) -> PriorCameras:
        """The prior."""
        low, high = (math.radians(angle) for angle in self.elevation_deg)
        around = math.radians(self.azimuth_deg)
        azimuth: AnyDistribution = Uniform(low=-around, high=around)
        elevation: AnyDistribution = UniformSine(low=low, high=high)
        if self.kind == "gaussian":
            azimuth = Gaussian(std=around)
            elevation = Gaussian(mean=0.5 * (low + high), std=0.5 * (high - low))
        radius = Uniform(low=self.radius, high=self.radius)
        prior = OrbitPrior(azimuth=azimuth, elevation=elevation, radius=radius)
        return PriorCameras(prior=prior, fov=math.radians(self.fov_deg))
