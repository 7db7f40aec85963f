"""What the fields of a batch show: to the canonical camera, and to cameras near it."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unflat.fields.detail import DetailSheets
from unflat.fields.viewspace import CanonicalField
from unflat.geometry.camera import Camera, rigid
from unflat.geometry.pose import rotation_from_vector
from unflat.geometry.pose_prior import disc_poses
from unflat.geometry.rays import camera_rays, depth_per_distance
from unflat.rendering.backends import REFERENCE, Marching, Rays, pick
from unflat.rendering.quadrature import integrate, weights
from unflat.rendering.render import render_rays
from unflat.rendering.sampling import to_distance
from unflat.systems.vq3d.autoencoder import SceneField

NOVEL_NEAR, NOVEL_FAR = 0.6, 14.0  # distances around the assumed depths 1...10


class Light(NamedTuple):
    """What rays bring back from the fields of a batch."""

    rgb: Float[Tensor, "batch *rays 3"]
    """Colour; in the canonical view it may leave [0, 1]."""
    weights: Float[Tensor, "batch *rays n"]
    """Share of light that ends in each interval; they sum to 1."""
    middles: Float[Tensor, "*any n"]
    """Normalised disparity of the intervals' middles, broadcast against the weights."""

    @property
    def disparity(self) -> Float[Tensor, " batch *rays"]:
        """Expected normalised disparity."""
        return (self.weights * self.middles).sum(-1)


def novel_cameras(
    focal: float,
    inverse_depth: Float[Tensor, "batch height width"],
    turns: Float[Tensor, "batch 3"],
) -> tuple[Camera, Camera]:
    """The canonical cameras of a batch, and each turned rigidly about its own pivot.

    The pivot lies on the optical axis at the median disparity.

    Args:
        focal: in half-widths of the picture.
        inverse_depth: of the canonical pictures.
        turns: rotation vectors, radians.
    """
    batch = len(turns)
    pivot = torch.zeros(batch, 3, device=turns.device)
    pivot[:, 2] = 1 / inverse_depth.flatten(1).median(dim=1).values
    rotation = rotation_from_vector(turns)
    moved = rigid(rotation, pivot - (rotation @ pivot[..., None])[..., 0])
    eye = torch.eye(4, device=turns.device).expand(batch, 4, 4)
    return _cameras(focal, eye), _cameras(focal, moved)


def disc_cameras(
    focal: float,
    inverse_depth: Float[Tensor, "batch height width"],
    numbers: Float[Tensor, "batch 2"],
    max_angle: float,
) -> Camera:
    """Cameras on a disc around the canonical one, each facing its own scene's pivot.

    The pivot lies on the optical axis at the median disparity.

    Args:
        focal: in half-widths of the picture.
        inverse_depth: of the canonical pictures.
        numbers: uniform in [0, 1), see `unflat.geometry.disc_poses`.
        max_angle: radians, of a camera on the rim.
    """
    depth = 1 / inverse_depth.flatten(1).median(dim=1).values
    return _cameras(focal, disc_poses(numbers, max_angle, depth))


def novel_light(
    field: SceneField | DetailSheets,
    camera: Camera,
    pixels: Int[Tensor, "batch rays 2"],
    side: int,
    offset: Float[Tensor, "batch rays 1"],
    count: int,
) -> Light:
    """Light along rays of novel cameras, with disparity in each camera's own depth.

    Args:
        field: of a batch of scenes.
        camera: one for each of them.
        pixels: column and row of each ray.
        side: of the whole picture in pixels.
        offset: of the inner edges in intervals, in [-0.5, 0.5).
        count: intervals of a ray.
    """
    rays = camera_rays(camera, (pixels.to(offset) + 0.5) / side)
    s = torch.linspace(0, 1, count + 1, device=offset.device).expand(*offset.shape[:-1], -1)
    s = torch.cat([s[..., :1], s[..., 1:-1] + offset / count, s[..., -1:]], dim=-1)
    edges = to_distance(s, NOVEL_NEAR, NOVEL_FAR, "disparity")
    out = render_rays(field, rays.origins, rays.directions, edges)
    forward = depth_per_distance(camera, rays)
    frame = field.frame
    middles = (1 / (out.middles * forward[..., None]) - frame.d_far) / (frame.d_near - frame.d_far)
    return Light(out.features, out.weights, middles)


@torch.no_grad()
def render_canonical(
    field: SceneField, side: int, samples: int = 64
) -> tuple[
    Float[Tensor, "batch 3 side side"],
    Float[Tensor, "batch 1 side side"],
    Float[Tensor, "batch 1 side side"],
]:
    """Colour, expected normalised disparity and its variance, seen by the canonical camera."""
    planes = next(field.buffers())
    dtype = torch.promote_types(planes.dtype, torch.float32)
    every = torch.arange(side, device=planes.device)
    edges = torch.linspace(1, 0, samples + 1, device=planes.device, dtype=dtype)
    parts = []
    for rows in every.split(32):  # the intervals of whole pictures are many
        rgb, shares, middles = canonical_light(field, rows, every, side, edges)
        mean = (shares * middles).sum(-1, keepdim=True)
        variance = (shares * (middles - mean).square()).sum(-1, keepdim=True)
        parts.append(torch.cat([rgb, mean, variance], dim=-1))
    rgb, mean, variance = torch.cat(parts, dim=1).permute(0, 3, 1, 2).split([3, 1, 1], dim=1)
    return rgb, mean, variance


def canonical_light(
    field: SceneField,
    rows: Int[Tensor, " rows"],
    columns: Int[Tensor, " columns"],
    side: int,
    edges: Float[Tensor, " edges"],
) -> Light:
    """Light along the canonical rays through chosen rows and columns, which share lookups.

    Args:
        field: of a batch of scenes.
        rows: of the picture.
        columns: of it; every row is crossed with every column.
        side: of the whole picture in pixels.
        edges: of the intervals, normalised disparity, from 1 down to 0.
    """
    v = (rows.to(edges) + 0.5) / side * 2 - 1
    u = (columns.to(edges) + 0.5) / side * 2 - 1
    middles = 0.5 * (edges[1:] + edges[:-1])
    slant = 1 + (v[:, None].square() + u.square()) / field.frame.focal_assumed**2
    lengths = -edges.diff() * slant.sqrt()[..., None]  # rows columns n
    canonical, rays = CanonicalField(field), _parallel_rays(field, v, u, edges, lengths)
    backend = pick(canonical, rays)
    if backend is REFERENCE:
        return Light(*_on_grid(field, v, u, middles, lengths), middles)
    marched = backend.march(canonical, rays, Marching())
    rgb, shares = (part.unflatten(1, (len(v), len(u))) for part in marched)
    return Light(rgb, shares, middles)


def jittered_edges(
    count: int, generator: torch.Generator, device: torch.device
) -> Float[Tensor, " edges"]:
    """Edges of canonical intervals, from 1 to 0; the inner ones moved by up to half of one."""
    edges = torch.linspace(1, 0, count + 1, device=device)
    jitter = torch.rand(count - 1, generator=generator, device=generator.device).to(device) - 0.5
    return torch.cat([edges[:1], edges[1:-1] + jitter / count, edges[-1:]])


def _cameras(focal: float, camera_to_world: Tensor) -> Camera:
    half = camera_to_world.new_tensor([focal / 2, focal / 2, 0.5, 0.5])
    return Camera(camera_to_world=camera_to_world, intrinsics=half.expand(len(camera_to_world), 4))


def _parallel_rays(field: SceneField, v: Tensor, u: Tensor, edges: Tensor, lengths: Tensor) -> Rays:
    """Rays of a product grid in (u, v, delta): from delta 1 towards 0."""
    batch = len(next(field.buffers()))
    down, across = torch.meshgrid(v, u, indexing="ij")
    origins = torch.stack([across, down, torch.ones_like(across)], dim=-1).flatten(0, 1)
    directions = origins.new_tensor([0.0, 0.0, -1.0]).expand_as(origins)
    distances = (1 - edges).expand(len(origins), -1)
    every = origins, directions, distances, lengths.flatten(0, 1)
    return Rays(*(part.expand(batch, -1, -1) for part in every))


def _on_grid(
    field: SceneField, v: Tensor, u: Tensor, middles: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Colour and weights in plain torch: rays of a product grid share lookups."""
    parts = []
    # Without gradients a few rows at once: their samples stay near the processor.
    few = len(v) if torch.is_grad_enabled() else 4
    for some, long in zip(v.split(few), lengths.split(few), strict=True):
        density, rgb = field.on_grid(some, u, middles)
        shares = weights(density, long.expand_as(density), opaque_last=True)
        parts.append((integrate(shares, rgb), shares))
    rgb, shares = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    return rgb, shares
