"""How a camera has to move to see an object from another side, in Zero-1-to-3's four numbers.

Liu et al., arXiv 2303.11328. Both cameras look at the origin without roll, so three differences
tell all that the network is told: of the polar angle (from straight above down), of the azimuth
(counter-clockwise seen from above), and of the distance. How high the first camera stands is not
among them.

    pose = RelativePose.between(camera, cameras)        # of cameras that are known
    pose = RelativePose.from_degrees(30, 20, 0, input_elevation_deg=5)
    pose.embedding()                                    # (polar, sin azimuth, cos azimuth, radius)
    cameras = pose.cameras(camera)                      # the way back
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.camera import Camera
from unflat.geometry.pose import orbit_coordinates, orbit_pose


@dataclass(frozen=True, kw_only=True)
class RelativePose:
    """Target minus reference, of any batch of camera pairs."""

    polar: Float[Tensor, "*batch"]
    """Radians; positive is lower."""
    azimuth: Float[Tensor, "*batch"]
    """Radians; positive is counter-clockwise seen from above: the camera moves to its right."""
    radius: Float[Tensor, "*batch"]
    """World units, the object's longest side being 1; positive is farther."""

    @classmethod
    def between(cls, reference: Camera, target: Camera) -> "RelativePose":
        """From one camera of the object world to another; batches are broadcast."""
        elevation, azimuth, radius = orbit_coordinates(reference.position)
        other_elevation, other_azimuth, other_radius = orbit_coordinates(target.position)
        # wrapped into (-pi, pi], so that equal moves have equal numbers
        turn = other_azimuth - azimuth
        return cls(
            polar=elevation - other_elevation,
            azimuth=torch.atan2(turn.sin(), turn.cos()),
            radius=other_radius - radius,
        )

    @classmethod
    def from_degrees(
        cls,
        azimuth_deg: Float[Tensor, "*#batch"] | float,
        elevation_deg: Float[Tensor, "*#batch"] | float,
        distance: Float[Tensor, "*#batch"] | float = 0.0,
        *,
        input_elevation_deg: float = 0.0,
    ) -> "RelativePose":
        """From what a person says.

        Args:
            azimuth_deg: around to the camera's right, from the picture's own side.
            elevation_deg: how high the new camera stands; positive is up.
            distance: farther by so many world units.
            input_elevation_deg: how high the picture was taken.
        """
        values = (azimuth_deg, elevation_deg, distance)
        azimuth, elevation, radius = (torch.as_tensor(v, dtype=torch.float32) for v in values)
        none = torch.zeros_like(azimuth + elevation + radius)
        return cls(
            polar=torch.deg2rad(input_elevation_deg - elevation) + none,
            azimuth=torch.deg2rad(azimuth) + none,
            radius=radius + none,
        )

    @property
    def batch_shape(self) -> torch.Size:
        """The leading axes."""
        return self.polar.shape

    def __getitem__(self, index: int | slice | Tensor) -> "RelativePose":
        """Some of the batch."""
        return RelativePose(
            polar=self.polar[index], azimuth=self.azimuth[index], radius=self.radius[index]
        )

    def to(self, like: Tensor) -> "RelativePose":
        """The same on the device and in the precision of a tensor."""
        return RelativePose(
            polar=self.polar.to(like), azimuth=self.azimuth.to(like), radius=self.radius.to(like)
        )

    def embedding(self) -> Float[Tensor, "*batch 4"]:
        """What Zero-1-to-3 is given: (polar, sin azimuth, cos azimuth, radius)."""
        return torch.stack(
            [self.polar, self.azimuth.sin(), self.azimuth.cos(), self.radius], dim=-1
        )

    def stable_embedding(
        self, input_elevation: Float[Tensor, "*#batch"] | float
    ) -> Float[Tensor, "*batch 4"]:
        """What Stable Zero123 is given: the reference's own polar angle in place of the radius.

        Args:
            input_elevation: radians, how high the picture was taken.
        """
        elevation = torch.as_tensor(input_elevation).to(self.polar).expand_as(self.polar)
        parts = [self.polar, self.azimuth.sin(), self.azimuth.cos(), math.pi / 2 - elevation]
        return torch.stack(parts, dim=-1)

    def cameras(self, reference: Camera) -> Camera:
        """The cameras so far from a reference, with its intrinsics.

        Args:
            reference: a single camera, or one for each pose; looks at the origin of the object
                world without roll.
        """
        elevation, azimuth, radius = orbit_coordinates(reference.position)
        poses = orbit_pose(
            elevation - self.polar, azimuth + self.azimuth, (radius + self.radius).clamp_min(1e-3)
        )
        intrinsics = reference.intrinsics.expand(*poses.shape[:-2], 4)
        return Camera(camera_to_world=poses, intrinsics=intrinsics, kind=reference.kind)

    def back(self) -> "RelativePose":
        """From the target to the reference."""
        return RelativePose(polar=-self.polar, azimuth=-self.azimuth, radius=-self.radius)

    def then(self, other: "RelativePose") -> "RelativePose":
        """One move and then another."""
        return RelativePose(
            polar=self.polar + other.polar,
            azimuth=self.azimuth + other.azimuth,
            radius=self.radius + other.radius,
        )

    def angle(self, input_elevation: Float[Tensor, "*#batch"] | float) -> Float[Tensor, "*batch"]:
        """Radians between the two sides that are seen, in [0, pi].

        Args:
            input_elevation: radians, how high the picture was taken.
        """
        first = torch.as_tensor(input_elevation).to(self.polar)
        second = first - self.polar
        cosine = first.sin() * second.sin() + first.cos() * second.cos() * self.azimuth.cos()
        return cosine.clamp(-1, 1).acos()
