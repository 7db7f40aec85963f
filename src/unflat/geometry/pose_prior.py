"""Where cameras are likely to stand, when no one knows where they stood.

A prior draws camera-to-world matrices. `OrbitPrior` and `SpherePrior` are for the object world (a
camera that looks at the origin), `PivotPrior` and `DiscPrior` are for the scene world (cameras near
the canonical one that look at a point on its axis); `DatasetPrior` repeats known cameras.

    prior = OrbitPrior(azimuth=Uniform(low=-math.pi, high=math.pi), elevation=Gaussian(std=0.2))
    poses = prior.sample(8, torch.Generator().manual_seed(0))     # 8 4 4
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.camera import Camera, rigid
from unflat.geometry.pose import orbit_pose
from unflat.geometry.trajectory import turn_about_pivot


@runtime_checkable
class Distribution(Protocol):
    """Numbers at random."""

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
        """Independent draws in float32, where the generator is."""
        ...


@runtime_checkable
class PosePrior(Protocol):
    """Cameras at random."""

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 4 4"]:
        """Independent camera-to-world matrices in float32, where the generator is."""
        ...


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Equally likely between two bounds; equal bounds give that number always."""

    low: float
    """Smallest number, in the unit of what is drawn."""
    high: float
    """Largest number."""

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
        """Draws in [low, high]."""
        return (self.low + (self.high - self.low) * _unit(count, generator)).float()


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Normally distributed."""

    mean: float = 0.0
    """In the unit of what is drawn."""
    std: float
    """Standard deviation; at least 0."""

    def __post_init__(self) -> None:
        if self.std < 0.0:
            raise ValueError(f"std is {self.std}; it must be at least 0")

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
        """Draws without bounds."""
        noise = torch.randn(
            count, generator=generator, device=generator.device, dtype=torch.float64
        )
        return (self.mean + self.std * noise).float()


@dataclass(frozen=True, kw_only=True)
class TruncatedGaussian:
    """A normal distribution given that the number lies between two bounds.

    Nothing piles up at the bounds, as it would by clipping.
    """

    mean: float = 0.0
    """Of the normal distribution before it is cut; in the unit of what is drawn."""
    std: float
    """Standard deviation before it is cut; above 0."""
    low: float
    """Smallest number."""
    high: float
    """Largest number."""

    def __post_init__(self) -> None:
        if self.std <= 0.0:
            raise ValueError(f"std is {self.std}; it must be above 0")
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        if not self._share(self.high) - self._share(self.low) > 1e-9:
            raise ValueError(f"[{self.low}, {self.high}] is too far from the mean {self.mean}")

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
        """Draws in [low, high], by the inverse of the cumulative distribution."""
        first, last = self._share(self.low), self._share(self.high)
        share = first + (last - first) * _unit(count, generator)
        value = self.mean + self.std * math.sqrt(2.0) * torch.erfinv(2.0 * share - 1.0)
        return value.clamp(self.low, self.high).float()

    def _share(self, value: float) -> float:
        """How much of the normal distribution lies below a number."""
        return 0.5 * math.erfc(-(value - self.mean) / (self.std * math.sqrt(2.0)))


@dataclass(frozen=True, kw_only=True)
class UniformSine:
    """Angles whose sine is uniform: elevations of points spread evenly over a sphere's band."""

    low: float = -0.5 * math.pi
    """Smallest angle in radians, at least -pi/2."""
    high: float = 0.5 * math.pi
    """Largest angle in radians, at most pi/2."""

    def __post_init__(self) -> None:
        if not -0.5 * math.pi <= self.low <= self.high <= 0.5 * math.pi:
            raise ValueError(f"[{self.low}, {self.high}] must lie inside [-pi/2, pi/2]")

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
        """Angles in radians in [low, high]."""
        first, last = math.sin(self.low), math.sin(self.high)
        angle = torch.asin((first + (last - first) * _unit(count, generator)).clamp(-1.0, 1.0))
        return angle.clamp(self.low, self.high).float()


AnyDistribution = Uniform | Gaussian | TruncatedGaussian | UniformSine
"""A choice of distribution, as configurations name it."""


@dataclass(frozen=True, kw_only=True)
class OrbitPrior:
    """Cameras of the object world that look at the origin without roll."""

    azimuth: AnyDistribution
    """Radians; 0 in front (+z), growing counter-clockwise seen from above."""
    elevation: AnyDistribution
    """Radians; positive above. Beyond the poles the camera is upside down."""
    radius: AnyDistribution = Uniform(low=1.0, high=1.0)
    """Distance to the origin in world units; must be positive."""

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 4 4"]:
        """Camera-to-world matrices; azimuth, elevation, radius are independent."""
        azimuth = self.azimuth.sample(count, generator)
        elevation = self.elevation.sample(count, generator)
        return orbit_pose(elevation, azimuth, self.radius.sample(count, generator))


@dataclass(frozen=True, kw_only=True)
class SpherePrior:
    """Cameras spread evenly over a sphere or a band of it, looking at the origin without roll."""

    radius: float = 1.0
    """World units."""
    low: float = -0.5 * math.pi
    """Smallest elevation in radians."""
    high: float = 0.5 * math.pi
    """Largest elevation in radians."""

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 4 4"]:
        """Camera-to-world matrices in the object world."""
        prior = OrbitPrior(
            azimuth=Uniform(low=-math.pi, high=math.pi),
            elevation=UniformSine(low=self.low, high=self.high),
            radius=Uniform(low=self.radius, high=self.radius),
        )
        return prior.sample(count, generator)


@dataclass(frozen=True, kw_only=True)
class PivotPrior:
    """Cameras near the canonical one of the scene world, turned about a point on its axis.

    The defaults are those for pictures without poses: two standard deviations of 0.2 and 0.1 rad.
    """

    right: AnyDistribution = TruncatedGaussian(std=0.2, low=-0.4, high=0.4)
    """Radians by which the camera moves to its right about the pivot."""
    up: AnyDistribution = TruncatedGaussian(std=0.1, low=-0.2, high=0.2)
    """Radians by which it moves up."""
    pivot_depth: float
    """Depth of the pivot on the canonical optical axis, in world units."""

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 4 4"]:
        """Camera-to-world matrices in the scene world."""
        right = self.right.sample(count, generator)
        return turn_about_pivot(right, self.up.sample(count, generator), self.pivot_depth)


@dataclass(frozen=True, kw_only=True)
class DiscPrior:
    """Cameras of the scene world spread evenly over a disc, all facing the pivot without roll.

    The disc lies in the canonical camera's picture plane, around it: no camera is nearer to the
    scene than the canonical one, which `PivotPrior`'s cameras are.
    """

    max_angle: float
    """Radians between the canonical optical axis and that of a camera on the rim."""
    pivot_depth: float
    """Depth of the pivot on the canonical optical axis, in world units."""

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 4 4"]:
        """Camera-to-world matrices in the scene world."""
        numbers = torch.stack([_unit(count, generator), _unit(count, generator)], dim=-1).float()
        depth = torch.full((count,), self.pivot_depth, device=numbers.device)
        return disc_poses(numbers, self.max_angle, depth)


@dataclass(frozen=True)
class DatasetPrior:
    """The cameras of a data set, each as likely as the others, drawn with replacement.

    What generators with labeled poses are trained with: the camera of a generated picture is that
    of some real one, drawn independently of the real pictures in the batch (EG3D, arXiv
    2112.07945; nerf-from-image, arXiv 2211.11674).
    """

    camera: Camera
    """All cameras of the set, in one batch axis; at least one."""

    def __post_init__(self) -> None:
        if len(self.camera.batch_shape) != 1 or self.camera.batch_shape[0] == 0:
            shape = tuple(self.camera.batch_shape)
            raise ValueError(f"camera has batch shape {shape}; it must be one axis, not empty")

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 4 4"]:
        """Camera-to-world matrices alone; `cameras` gives the same draw with intrinsics."""
        return self.cameras(count, generator).camera_to_world

    def cameras(self, count: int, generator: torch.Generator) -> Camera:
        """Independent draws with their intrinsics, in float32, where the generator is."""
        device, size = generator.device, self.camera.batch_shape[0]
        chosen = torch.randint(size, (count,), generator=generator, device=device)
        return self.camera[chosen.to(self.camera.intrinsics.device)].to(device, torch.float32)


def disc_poses(
    numbers: Float[Tensor, "*batch 2"], max_angle: float, pivot_depth: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 4 4"]:
    """Camera-to-world matrices of `DiscPrior`, each with its own pivot, from given numbers.

    Args:
        numbers: uniform in [0, 1): the share of the disc's area further in, and of a full turn.
        max_angle: radians between the canonical optical axis and that of a camera on the rim, in
            [0, pi / 2).
        pivot_depth: world units, positive.

    Raises:
        ValueError: the angle is outside its range.
    """
    if not 0 <= max_angle < 0.5 * math.pi:
        raise ValueError(f"max_angle is {max_angle}; it must be in [0, pi / 2)")
    area, turn = numbers.unbind(-1)
    angle = torch.atan(area.sqrt() * math.tan(max_angle))
    way = 2.0 * math.pi * turn
    away = 1.0 - 1.0 / torch.cos(angle)  # on the disc, not on the sphere around the pivot
    poses = turn_about_pivot(angle * torch.cos(way), angle * torch.sin(way), 1.0, away)
    return rigid(poses[..., :3, :3], poses[..., :3, 3] * pivot_depth[..., None])


def _unit(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)
