"""Score Jacobian chaining from one picture, as Zero-1-to-3 publishes it (its ``3drec``).

A voxel field of latents is rendered from random sides, and a model says of every rendering how it
should change. Terms, weights, cameras and the optimizer are the published ones (`SjcConfig`'s
defaults, from the authors' command line); smaller presets keep the terms.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional

from unflat.geometry.camera import Camera
from unflat.geometry.pose import look_at, orbit_coordinates
from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.lift.guidance import GuidanceConfig, ScoreGuidance
from unflat.systems.zero123.lift.shots import batch_of
from unflat.systems.zero123.lift.voxels import LatentVoxels, Marched, activated, march
from unflat.systems.zero123.model import ViewModel

_LOWEST = -0.5  # height over radius: cameras stand no lower
_SHARPNESS = 10.0  # of the emptiness
_RISE = 20.0  # how many times more the emptiness counts in the end
_BLUR, _ERODE = 7, 5  # voxels of the mesh's grid, which is twice as fine
_DENSE = 8.0  # times the mean density is the mesh's threshold


@dataclass(frozen=True, kw_only=True)
class SjcConfig:
    """Sizes and weights; the defaults are published."""

    steps: int = 10000
    """Of the optimizer, each with one random view and the picture's own."""
    resolution: int = 100
    """Voxels along a side of the box [-1, 1]^3."""
    half_box: float = 1.0
    """World units; the published box is twice as wide as its objects."""
    rate: float = 0.05
    """Of Adamax."""
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig.sjc)
    """Noise and its weight."""
    picture: float = 10000.0
    """Weight of the squared difference to the picture, in decoded colours."""
    smooth: float = 10000.0
    """Weight of uneven depth in random views, in the second half of the steps; a tenth of it
    counts for the picture's view in all steps."""
    near: float = 10000.0
    """Weight of what changes when the camera moves by ``near_shift``."""
    near_shift: float = 0.05
    """World units."""
    emptiness: float = 0.0
    """Weight of `emptiness`; not used as published."""
    radius: tuple[float, float] = (1.8, 2.2)
    """Of random cameras, world units."""

    @classmethod
    def fast(cls) -> "SjcConfig":
        """A coarse grid in a box that is as large as the object, and few steps.

        With a guidance of 3 in place of 100 the score is some thirty times weaker, and so are the
        terms that have to be in balance with it. Longer steps make up for there being fewer.
        """
        return cls(
            steps=250,
            resolution=40,
            half_box=0.7,
            rate=0.2,
            guidance=GuidanceConfig.sjc(3.0),
            picture=1000.0,
            smooth=30.0,
            near=30.0,
        )

    @classmethod
    def best(cls) -> "SjcConfig":
        """The same, for longer and finer."""
        return replace(cls.fast(), steps=1500, resolution=64, rate=0.1)


Progress = Callable[[int, int, LatentVoxels], None]
"""Is told how many of how many steps are done, and the voxels as they are."""


def chain(
    model: ViewModel,
    image: Float[Tensor, "3 side side"],
    opacity: Float[Tensor, "side side"],
    camera: Camera,
    config: SjcConfig,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> LatentVoxels:
    """Voxels of latents that the picture and a model agree with.

    Args:
        model: of new views.
        image: of an object on white, at the model's size.
        opacity: of the picture.
        camera: of the picture, a single one in the object world.
        config: how.
        seed: of the first latents, the cameras and the noise.
        progress: is told of every tenth step.
    """
    generator = torch.Generator().manual_seed(seed)
    channels, height, width = model.latent_shape
    size = config.resolution
    voxels = LatentVoxels.random((channels, size, size, size), generator, half=config.half_box).to(
        model.device
    )
    camera = batch_of(camera.to(model.device))
    batch, matte = image[None].to(model.device), opacity[None].to(model.device)
    elevation, _, _ = orbit_coordinates(camera.position)
    reference = model.reference(batch, matte, elevation)
    guidance = ScoreGuidance(model, reference, config.guidance)
    with torch.no_grad():
        white = model.encode(torch.ones_like(batch), torch.zeros_like(matte))[0].float()
    optimizer = torch.optim.Adamax(voxels.parameters(), lr=config.rate)
    for step in range(config.steps):
        own = march(voxels, camera, height, width, white)
        difference = model.decode(own.latent).image - batch
        loss = config.picture * difference.square().mean()
        loss = loss + 0.1 * config.smooth * depth_unevenness(own.distance)
        view = random_camera(camera, config.radius, generator)
        seen = march(voxels, view, height, width, white)
        if config.near:
            moved = nearby_camera(view, config.near_shift, generator)
            loss = loss + config.near * near_view(seen, march(voxels, moved, height, width, white))
        if 2 * step >= config.steps:
            loss = loss + config.smooth * depth_unevenness(seen.distance)
        if config.emptiness:
            rise = 1 + _RISE * step / config.steps
            loss = loss + rise * config.emptiness * emptiness(seen.weights)
        pose = RelativePose.between(camera, view)
        loss = loss + guidance.loss(
            seen.latent, pose, share=step / config.steps, generator=generator
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if progress is not None and (step % 10 == 9 or step + 1 == config.steps):
            progress(step + 1, config.steps, voxels)
    return voxels


def random_camera(like: Camera, radius: tuple[float, float], generator: torch.Generator) -> Camera:
    """A camera from anywhere but far below: a uniform point of the cube, normalised.

    Args:
        like: a batch of one, whose intrinsics are kept.
        radius: least and largest distance, world units.
        generator: on the CPU.
    """
    while True:
        point = 2 * torch.rand(3, generator=generator) - 1
        length = float(point.norm())
        if length > 0 and float(point[1]) / length > _LOWEST:
            break
    low, high = radius
    distance = low + (high - low) * float(torch.rand((), generator=generator))
    pose = look_at((point / length * distance)[None]).to(like.camera_to_world)
    return Camera(camera_to_world=pose, intrinsics=like.intrinsics, kind=like.kind)


def nearby_camera(camera: Camera, shift: float, generator: torch.Generator) -> Camera:
    """The camera moved by a vector of so much length in any direction, looking at the origin."""
    way = torch.randn(3, generator=generator)
    moved = camera.position + (shift * way / way.norm()).to(camera.position)
    return Camera(camera_to_world=look_at(moved), intrinsics=camera.intrinsics, kind=camera.kind)


def depth_unevenness(distance: Float[Tensor, "views height width"]) -> Float[Tensor, ""]:
    """Half the sum of the mean absolute differences of neighbours along rows and columns."""
    return 0.5 * (distance.diff(dim=-1).abs().mean() + distance.diff(dim=-2).abs().mean())


def near_view(seen: Marched, moved: Marched) -> Float[Tensor, ""]:
    """How much latents and distances change when the camera moves a little: means, added."""
    change = (moved.latent - seen.latent).abs().mean()
    return change + (moved.distance - seen.distance).abs().mean()


def emptiness(weights: Float[Tensor, "*rays n"]) -> Float[Tensor, ""]:
    """Mean of -w log(1 + 10 w) / 2: less where light ends in few places."""
    return -0.5 * (weights * torch.log1p(_SHARPNESS * weights)).mean()


@torch.no_grad()
def mesh_volume(voxels: LatentVoxels) -> tuple[Float32[np.ndarray, "z y x"], float]:
    """The published volume for marching cubes, on a grid twice as fine, and its threshold.

    Densities are averaged over 7^3 voxels, and 5^3 voxels' least is taken; the threshold is 8
    times the mean of the averages.
    """
    from scipy.ndimage import grey_erosion

    finer = functional.interpolate(
        voxels.density[None, None], scale_factor=2, mode="trilinear", align_corners=False
    )
    mean = functional.avg_pool3d(activated(finer, voxels.scale), _BLUR, 1, _BLUR // 2)
    eroded = grey_erosion(mean[0, 0].cpu().numpy(), (_ERODE,) * 3)
    return np.asarray(eroded), _DENSE * float(mean.mean())
