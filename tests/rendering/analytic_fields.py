"""Fields with a known picture, in any precision."""

import torch
from torch import Tensor

from unflat.fields import FieldOutput
from unflat.geometry import Frame


class HardSphere:
    """Constant density and colour inside a sphere, nothing outside."""

    def __init__(self, center=(0.0, 0.0, 3.0), radius=1.0, density=1e4, color=(1.0, 0.5, 0.0)):
        self.center, self.color = torch.tensor(center), torch.tensor(color)
        self.radius, self.density = radius, density

    def __call__(self, points: Tensor, directions: Tensor | None = None) -> FieldOutput:
        inside = (points - self.center.to(points)).norm(dim=-1) < self.radius
        color = self.color.to(points).expand(points.shape)
        return FieldOutput(torch.where(inside, self.density, 0.0).to(points), color)


class SoftSpheres:
    """Gaussian blobs of matter whose colour changes with the place, smooth to all orders."""

    CENTERS = ((0.0, 0.0, 2.5), (0.8, -0.4, 3.5), (-0.9, 0.6, 5.0))
    WIDTHS = (0.35, 0.5, 0.9)
    DENSITIES = (6.0, 4.0, 3.0)

    def __init__(self, rotation: Tensor | None = None, translation: Tensor | None = None):
        self.rotation, self.translation = rotation, translation

    def __call__(self, points: Tensor, directions: Tensor | None = None) -> FieldOutput:
        if self.rotation is not None and self.translation is not None:
            points = (points - self.translation) @ self.rotation
        density = points.new_zeros(points.shape[:-1])
        for center, width, height in zip(self.CENTERS, self.WIDTHS, self.DENSITIES, strict=True):
            square = (points - points.new_tensor(center)).square().sum(-1)
            density = density + height * torch.exp(-square / (2 * width**2))
        waves = torch.sin(points * points.new_tensor([2.0, 3.0, 1.5]))
        return FieldOutput(density, 0.5 + 0.4 * waves)


class ProjectiveSpheres(SoftSpheres):
    """Soft spheres of the assumed space, asked at points of the true one."""

    def __init__(self, frame: Frame):
        super().__init__()
        self.frame = frame

    def __call__(self, points: Tensor, directions: Tensor | None = None) -> FieldOutput:
        return super().__call__(self.frame.warp(points), directions)

    def warp(self, points: Tensor) -> Tensor:
        return self.frame.warp(points)
