"""Score distillation on a solid: it is rendered from random sides, and a model pulls.

Terms are those that threestudio and stable-dreamfusion have for Zero-1-to-3, with their weights
where these still mean the same; pictures, steps and batches are of a size for one CPU core. The
solid is a grid of distances, whose surface exists from the first step on, so it begins as all that
the picture's own silhouette allows within a ball.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unflat.fields.distance_voxels import DistanceVoxelField
from unflat.geometry.camera import Camera
from unflat.geometry.hull import cell_centers, mattes_at
from unflat.geometry.pose import orbit_coordinates, orbit_pose
from unflat.geometry.rays import image_rays, pixel_grid
from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.lift.guidance import GuidanceConfig, ScoreGuidance
from unflat.systems.zero123.lift.shots import Shots
from unflat.systems.zero123.lift.solid import (
    Seen,
    Solid,
    on_white,
    roughness,
    seen_by,
    signed_distances,
    unevenness,
)
from unflat.systems.zero123.model import ViewModel

_BALL = 0.55  # world units: radius within which an object of longest side 1 nearly always lies
_ROOM = 1.1  # how much wider the ball is than what the silhouette shows, where that is larger
_EDGE = 0.05  # world units over which the ball ends
_GRAY = 0.6  # what is not yet known
_SOLID = 0.5  # opacity above which a normal is asked for

Progress = Callable[[int, int, Solid, float], None]
"""Is told how many of how many steps are done, the solid as it is, and how soft that is."""


@dataclass(frozen=True, kw_only=True)
class SdsConfig:
    """Sizes and weights."""

    steps: int = 300
    """Of the optimizer."""
    batch: int = 1
    """Random views a step."""
    resolution: int = 48
    """Voxels along a side."""
    shape_rate: float = 0.05
    """Of Adam, voxels of distance a step."""
    color_rate: float = 0.05
    """Of Adam, logits of colour."""
    softness: tuple[float, float] = (2.0, 0.6)
    """Of the surface, voxels: in the beginning and in the end."""
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig.sds)
    """Noise and its weight."""
    score: float = 0.1
    """Weight of what the model says; threestudio's."""
    rgb: float = 500.0
    """Weight of the squared difference of colours to a known view; threestudio's."""
    mask: float = 50.0
    """Weight of the squared difference of opacity to a known view; threestudio's."""
    normal_smooth: float = 8.0
    """Weight of the squared difference of neighbouring normals in a random view."""
    sparsity: float = 0.1
    """Weight of the mean opacity of a random view, as sqrt(opacity^2 + 0.01)."""
    opaque: float = 0.1
    """Weight of the entropy of opacity in a random view: pixels are object or not."""
    eikonal: float = 2.0
    """Weight of (|slope| - 1)^2."""
    smooth: float = 2.0
    """Weight of bends, as of `unevenness`."""
    color_smooth: float = 5.0
    """Weight of squared differences of neighbouring colours."""
    elevation_deg: tuple[float, float] = (-20.0, 70.0)
    """Of random cameras."""

    @classmethod
    def fast(cls) -> "SdsConfig":
        """As the defaults."""
        return cls()

    @classmethod
    def best(cls) -> "SdsConfig":
        """Finer, and for longer."""
        return cls(steps=1000, resolution=64, batch=2)

    @classmethod
    def polish(cls, steps: int = 100) -> "SdsConfig":
        """Little noise on a solid that is nearly right: details, not shape."""
        guidance = GuidanceConfig(least=(0.02, 0.02), most=(0.4, 0.2), annealed=1.0)
        return cls(steps=steps, softness=(0.5, 0.5), guidance=guidance, shape_rate=0.01)


def start_of(shots: Shots, resolution: int) -> Solid:
    """All that the first shot's silhouette allows within a ball about the origin, gray.

    Args:
        shots: of which the first counts.
        resolution: voxels along a side.
    """
    camera = shots.cameras[:1]
    places = pixel_grid(shots.side, shots.side).to(shots.image)[shots.opacity[0] > 0.5]
    focal, center = camera.intrinsics[0, :2], camera.intrinsics[0, 2:]
    off = ((places - center) / focal).norm(dim=-1).max() if len(places) else 0.0
    radius = max(_BALL, _ROOM * float(off * camera.position.norm()))
    side = radius + 3 * _EDGE
    bounds = shots.image.new_tensor([[-side] * 3, [side] * 3])
    points = cell_centers(bounds, (resolution, resolution, resolution))
    cone = mattes_at(shots.opacity[:1], camera, points.reshape(-1, 3))[0]
    ball = ((radius - points.norm(dim=-1)) / _EDGE + 0.5).clamp(0, 1)
    values = torch.minimum(cone.view_as(ball), ball)
    cell = 2 * side / resolution
    colors = torch.full((3, *values.shape), _GRAY).to(values)
    return Solid(signed_distances(values, 0.5, cell), colors, bounds)


def distil(
    model: ViewModel,
    shots: Shots,
    config: SdsConfig,
    *,
    seed: int = 0,
    solid: Solid | None = None,
    progress: Progress | None = None,
) -> Solid:
    """The solid that known views and a model agree with.

    Args:
        model: of new views.
        shots: known views at the model's size, the first being the picture.
        config: how.
        seed: of cameras and noise.
        solid: to begin with; what the first silhouette allows if not given.
        progress: is told of every tenth step.
    """
    generator = torch.Generator().manual_seed(seed)
    solid = start_of(shots, config.resolution) if solid is None else solid
    camera = shots.cameras[:1]
    elevation, _, radius = orbit_coordinates(camera.position)
    reference = model.reference(
        shots.image[:1].to(model.device), shots.opacity[:1].to(model.device), elevation
    )
    guidance = ScoreGuidance(model, reference, config.guidance)
    optimizer = torch.optim.Adam(
        [
            {"params": list(solid.shape_steps), "lr": config.shape_rate},
            {"params": list(solid.color_steps), "lr": config.color_rate},
        ],
        betas=(0.9, 0.99),
    )
    for step in range(config.steps):
        share = step / config.steps
        first, last = config.softness
        softness = solid.cell * first * (last / first) ** share
        now = solid.field(softness)
        known = [0] if len(shots.image) == 1 else [0, _other(shots, generator)]
        loss = _known_views(now, shots, known, config)
        views = random_cameras(camera, config, float(radius), generator)
        seen = seen_by(now, views, shots.side)
        latent = model.encode(
            on_white(seen).to(model.device, model.dtype),
            seen.opacity.to(model.device, model.dtype),
        ).float()
        pose = RelativePose.between(camera, views)
        pulled = guidance.loss(latent, pose, share=share, generator=generator)
        loss = loss + config.score / config.batch * pulled.to(loss)
        loss = loss + _plain_terms(seen, views, config)
        eikonal, rough = unevenness(now.distances[0], solid.cell)
        loss = loss + config.eikonal * eikonal + config.smooth * rough
        loss = loss + config.color_smooth * roughness(now.features[0])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if progress is not None and (step % 10 == 9 or step + 1 == config.steps):
            progress(step + 1, config.steps, solid, softness)
    return solid


def random_cameras(
    like: Camera, config: SdsConfig, radius: float, generator: torch.Generator
) -> Camera:
    """Cameras all around at one distance, heights being uniform in their sine.

    Args:
        like: a batch of one, whose intrinsics are kept.
        config: how many, how high.
        radius: world units.
        generator: on the CPU.
    """
    low, high = (math.sin(math.radians(value)) for value in config.elevation_deg)
    draws = torch.rand(2, config.batch, generator=generator)
    elevation, azimuth = (low + (high - low) * draws[0]).asin(), 2 * math.pi * draws[1]
    poses = orbit_pose(elevation, azimuth, radius).to(like.camera_to_world)
    intrinsics = like.intrinsics.expand(config.batch, 4)
    return Camera(camera_to_world=poses, intrinsics=intrinsics, kind=like.kind)


def _other(shots: Shots, generator: torch.Generator) -> int:
    """A known view that is not the first, by weight."""
    return 1 + int(torch.multinomial(shots.weight[1:] + 1e-6, 1, generator=generator))


def _known_views(
    now: DistanceVoxelField, shots: Shots, known: list[int], config: SdsConfig
) -> Tensor:
    """Colours inside of the masks, and masks."""
    chosen = torch.tensor(known)
    seen = seen_by(now, shots.cameras[chosen], shots.side)
    weight = shots.weight[chosen] / shots.weight[0]
    given = shots.premultiplied[chosen].permute(0, 2, 3, 1)
    rgb = (seen.color - given).square().mean((1, 2, 3))
    mask = (seen.opacity - shots.opacity[chosen]).square().mean((1, 2))
    return (weight * (config.rgb * rgb + config.mask * mask)).sum()


def _plain_terms(seen: Seen, views: Camera, config: SdsConfig) -> Tensor:
    """Smooth normals, little opacity, and none in between, of random views."""
    opacity = seen.opacity
    held = opacity.clamp(1e-3, 1 - 1e-3)
    entropy = -(held * held.log() + (1 - held) * (1 - held).log()).mean()
    sparsity = (opacity.square() + 0.01).sqrt().mean()
    normals = _normals(seen, views)
    uneven = normals.diff(dim=1).square().mean() + normals.diff(dim=2).square().mean()
    return config.normal_smooth * uneven + config.sparsity * sparsity + config.opaque * entropy


def _normals(seen: Seen, views: Camera) -> Float[Tensor, "views side side 3"]:
    """Unit normals of the rendered distances times the opacity; 0 at and beside the outline."""
    side = seen.opacity.shape[-1]
    rays = image_rays(views, side, side)
    depth = seen.distance / seen.opacity.clamp_min(1e-3)
    points = rays.directions * depth[..., None]
    across = functional.pad(points[:, :, 2:] - points[:, :, :-2], (0, 0, 1, 1))
    down = functional.pad(points[:, 2:] - points[:, :-2], (0, 0, 0, 0, 1, 1))
    normal = functional.normalize(torch.cross(across, down, dim=-1), dim=-1, eps=1e-8)
    inside = -functional.max_pool2d(-seen.opacity[:, None], 3, 1, 1)[:, 0] > _SOLID
    return normal * inside[..., None]
