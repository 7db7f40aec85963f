"""The voxels of score Jacobian chaining, and how it marches through them.

Wang et al., arXiv 2212.00774, as Zero-1-to-3 (arXiv 2303.11328) uses them: no network, no view
dependence, and "colours" that are whatever a model denoises: four latent channels, or red, green,
blue and opacity.

    voxels = LatentVoxels.random((4, 64, 64, 64), generator)
    seen = march(voxels, cameras, 32, 32, white)
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.fields.field import FieldOutput
from unflat.fields.voxels import box_coordinates
from unflat.geometry.box import intersect_box
from unflat.geometry.camera import Camera
from unflat.geometry.rays import image_rays

HALF_BOX = 1.0
"""World units: half the side of the published box."""
BEHIND = 10.0
"""Distance at which light ends that nothing stopped, world units."""

_SHIFT = 1.0  # subtracted before the softplus: empty space begins at a density of 0.31
_LEAST_WEIGHT = 1e-4  # colours are asked where more of the light ends


class LatentVoxels(nn.Module):
    """Density before its softplus, and latents, in a cube: sigma = softplus(e^scale density - 1).

    Trilinear between the voxels' centres, towards 0 in the outermost half voxel. Grids are stored
    z first, x last, as in `unflat.fields.VoxelField`, which interpolates densities, though; here
    what is before the softplus is interpolated.
    """

    def __init__(
        self,
        density: Float[Tensor, "z y x"],
        features: Float[Tensor, "channels z y x"],
        scale: float = 0.0,
        half: float = HALF_BOX,
    ):
        """Learned grids that begin as given.

        Args:
            density: before the softplus.
            features: latents.
            scale: logarithm of the density's factor, learned as well.
            half: of the cube's side, world units.
        """
        super().__init__()
        self.density = nn.Parameter(density.clone())
        self.features = nn.Parameter(features.clone())
        self.scale = nn.Parameter(density.new_tensor(scale))
        self.bounds: Tensor
        self.register_buffer("bounds", density.new_tensor([[-half] * 3, [half] * 3]))

    @classmethod
    def random(
        cls, shape: tuple[int, int, int, int], generator: torch.Generator, half: float = HALF_BOX
    ) -> "LatentVoxels":
        """As published: no density yet, and standard normal latents."""
        return cls(torch.zeros(shape[1:]), torch.randn(shape, generator=generator), half=half)

    @property
    def step(self) -> float:
        """Half a voxel, world units: how far samples are apart."""
        return float(self.bounds[1, 0] - self.bounds[0, 0]) / self.density.shape[-1] / 2

    def densities(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Per world unit, of points in the box."""
        raw = _looked_up(self.density[None], points, self.bounds)[:, 0]
        return activated(raw, self.scale)

    def latents(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n channels"]:
        """Of points in the box."""
        return _looked_up(self.features, points, self.bounds)

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """As any other field, of one scene: density, 0 outside the box, and latents."""
        flat = points.reshape(-1, 3)
        inside, _ = box_coordinates(flat, self.bounds)
        density = torch.where(inside, self.densities(flat), 0.0)
        shape = points.shape[:-1]
        return FieldOutput(density.reshape(shape), self.latents(flat).reshape(*shape, -1))


class Marched(NamedTuple):
    """What rays through latent voxels bring back."""

    latent: Float[Tensor, "views channels height width"]
    """Over the background."""
    distance: Float[Tensor, "views height width"]
    """Expected distance along the ray, world units; light that was left ends at `BEHIND`."""
    opacity: Float[Tensor, "views height width"]
    """Sum of weights, in [0, 1]."""
    weights: Float[Tensor, "views height width n"]
    """Share of light that ends at each sample; 0 beyond the box."""


def activated(raw: Float[Tensor, "*points"], scale: Float[Tensor, ""]) -> Float[Tensor, "*points"]:
    """Density per world unit of what is stored: softplus(e^scale raw - 1)."""
    return functional.softplus(scale.exp() * raw - _SHIFT)


def march(
    voxels: LatentVoxels,
    cameras: Camera,
    height: int,
    width: int,
    background: Float[Tensor, "channels rows columns"],
) -> Marched:
    """Pictures in latents, by the published rule.

    Samples lie at entry + k step, k = 0, 1 ..., as far as the ray is inside, without jitter, and
    each stands for a whole step. Colours are asked where more than 1e-4 of the light ends.

    Args:
        voxels: one scene.
        cameras: perspective, a batch.
        height: pixels.
        width: pixels.
        background: latents behind, resized bilinearly to the picture: a white picture's.
    """
    rays = image_rays(cameras, height, width)
    origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
    hits = intersect_box(type(rays)(origins, directions), voxels.bounds)
    chord = (hits.far - hits.near).where(hits.hit, 0.0)
    count = int(chord.max() / voxels.step) + 1
    ticks = voxels.step * torch.arange(count, device=origins.device, dtype=origins.dtype)
    distances = hits.near[:, None] + ticks
    inside = ticks < chord[:, None]
    points = origins[:, None] + directions[:, None] * distances[..., None]
    density = torch.zeros_like(distances)
    density[inside] = voxels.densities(points[inside])
    depth = density * voxels.step
    before = depth.cumsum(-1) - depth
    weights = torch.exp(-before) * -torch.expm1(-depth)
    seen = weights > _LEAST_WEIGHT
    values = weights.new_zeros(*weights.shape, len(voxels.features))
    values[seen] = voxels.latents(points[seen])
    opacity = weights.sum(-1)
    behind = functional.interpolate(background[None], (height, width), mode="bilinear")
    shape = (-1, height, width)
    latent = (weights[..., None] * values).sum(1).reshape(*shape, values.shape[-1])
    latent = latent.permute(0, 3, 1, 2) + (1 - opacity).reshape(-1, 1, height, width) * behind
    distance = (weights * distances).sum(-1) + (1 - opacity) * BEHIND
    return Marched(
        latent, distance.reshape(shape), opacity.reshape(shape), weights.reshape(*shape, count)
    )


def _looked_up(
    grid: Float[Tensor, "channels z y x"], points: Float[Tensor, "n 3"], bounds: Tensor
) -> Float[Tensor, "n channels"]:
    _, coordinates = box_coordinates(points, bounds)
    found = functional.grid_sample(
        grid[None], coordinates[None, None, None], padding_mode="zeros", align_corners=False
    )
    return found[0, :, 0, 0].mT
