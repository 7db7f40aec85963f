"""Rays through picture coordinates of a camera.

rays = image_rays(Camera.from_fov(math.radians(45)), 64, 64)   # origins, directions 64 64 3
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.camera import Camera


class Rays(NamedTuple):
    """Half-lines in the world; a distance along one is in world units."""

    origins: Float[Tensor, "*rays 3"]
    """Where distances are counted from."""
    directions: Float[Tensor, "*rays 3"]
    """Unit length."""

    def at(self, distance: Float[Tensor, "*rays n"]) -> Float[Tensor, "*rays n 3"]:
        """Points at distances along each ray."""
        return self.origins[..., None, :] + distance[..., None] * self.directions[..., None, :]


def pixel_grid(
    height: int,
    width: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "height width 2"]:
    """Picture coordinates (u, v) of all pixel centres: ((j + 0.5) / width, (i + 0.5) / height)."""
    v = (torch.arange(height, device=device, dtype=dtype) + 0.5) / height
    u = (torch.arange(width, device=device, dtype=dtype) + 0.5) / width
    return torch.stack([u.expand(height, width), v[:, None].expand(height, width)], dim=-1)


def camera_rays(camera: Camera, uv: Float[Tensor, "*batch n 2"]) -> Rays:
    """Rays (`*batch n 3`) that leave the camera through picture coordinates.

    A perspective ray begins at the camera's centre, an orthographic one in the plane through it.

    Args:
        camera: its batch axes are those of `uv`.
        uv: [0, 1] from the left upper corner of the picture to the right lower one.
    """
    focal, center = camera.intrinsics[..., None, :2], camera.intrinsics[..., None, 2:]
    across = (uv - center) / focal
    position = camera.position[..., None, :]
    if camera.kind == "orthographic":
        origins = across @ camera.rotation[..., :2].mT + position
        return Rays(origins, camera.forward[..., None, :].expand_as(origins))
    local = torch.cat([across, torch.ones_like(across[..., :1])], dim=-1)
    directions = torch.nn.functional.normalize(local, dim=-1) @ camera.rotation.mT
    return Rays(position.expand_as(directions), directions)


def image_rays(camera: Camera, height: int, width: int) -> Rays:
    """Rays (`*batch height width 3`) through the centres of all pixels of a picture."""
    grid = pixel_grid(height, width, device=camera.intrinsics.device, dtype=camera.intrinsics.dtype)
    uv = grid.reshape(-1, 2).expand(*camera.batch_shape, height * width, 2)
    rays = camera_rays(camera, uv)
    shape = (*camera.batch_shape, height, width, 3)
    return Rays(rays.origins.reshape(shape), rays.directions.reshape(shape))


def depth_per_distance(camera: Camera, rays: Rays) -> Float[Tensor, "*rays"]:
    """How much depth a ray gains per unit of distance: cosine to the optical axis, in (0, 1].

    Args:
        camera: its batch axes are the first axes of the rays.
        rays: as `image_rays` or `camera_rays` of this camera made them.
    """
    batch = camera.batch_shape
    forward = camera.forward
    between = (1,) * (rays.directions.dim() - len(batch) - 1)
    return (rays.directions * forward.reshape(*batch, *between, 3)).sum(dim=-1)
