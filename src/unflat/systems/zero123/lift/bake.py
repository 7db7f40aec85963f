"""From a field of latents to a solid of colours."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.camera import Camera
from unflat.geometry.hull import cell_centers, mattes_at, voted
from unflat.systems.zero123.lift.carving import painted
from unflat.systems.zero123.lift.shots import Shots, masks_of_white
from unflat.systems.zero123.lift.solid import Solid, signed_distances
from unflat.systems.zero123.lift.surface import surface_level
from unflat.systems.zero123.lift.voxels import LatentVoxels, march
from unflat.systems.zero123.model import ViewModel

_OUTVOTED = 0.06  # share of the views' weight that may see nothing where there is matter
_PLAIN = 0.6  # gray, before there are colours


@torch.no_grad()
def shots_of_latents(
    model: ViewModel,
    voxels: LatentVoxels,
    cameras: Camera,
    white: Float[Tensor, "channels rows columns"],
    picture: Shots,
) -> Shots:
    """The picture, and what the voxels show from other sides, decoded.

    Mattes are decoded as well: voxels may be dense and look like a white background, which no term
    of score chaining minds.

    Args:
        model: that decodes.
        voxels: whose latents are rendered.
        cameras: a batch.
        white: latents behind.
        picture: comes first, and counts most.
    """
    height, width = model.latent_shape[1:]
    images, mattes = [], []
    for view in range(len(cameras.camera_to_world)):
        camera = cameras[view : view + 1].to(voxels.bounds.device)
        seen = model.decode(march(voxels, camera, height, width, white).latent)
        image = seen.image.float().cpu().clamp(0, 1)
        images.append(image)
        if seen.opacity is None:
            mattes.append(masks_of_white(image))
        else:
            mattes.append(seen.opacity.float().cpu().clamp(0, 1))
    own = picture.cameras
    return Shots(
        image=torch.cat([picture.image, *images]),
        opacity=torch.cat([picture.opacity, *mattes]),
        cameras=Camera(
            camera_to_world=torch.cat([own.camera_to_world, cameras.camera_to_world]),
            intrinsics=torch.cat([own.intrinsics, cameras.intrinsics]),
        ),
        weight=torch.cat([torch.full((1,), 4.0), torch.ones(len(images))]),
    )


@torch.no_grad()
def solid_of_latents(voxels: LatentVoxels, shots: Shots) -> Solid:
    """The solid that latent voxels hold, in the colours of decoded pictures.

    It is where they are dense, as far as decoded mattes show anything there.

    Raises:
        UserError: nowhere are they dense enough.
    """
    bounds = voxels.bounds.cpu()
    count = voxels.density.shape[-1]
    points = cell_centers(bounds, (count, count, count)).reshape(1, -1, 3)
    density = voxels(points.to(voxels.bounds)).density.view((count,) * 3).cpu()
    side = float(bounds[1, 0] - bounds[0, 0])
    cell, level = side / count, surface_level(density, side)
    dense = signed_distances(density.clamp_min(1e-6).log(), math.log(level), cell)
    mattes = mattes_at(shots.opacity, shots.cameras, points[0])
    hull = voted(mattes, shots.weight, _OUTVOTED * float(shots.weight.sum())).view_as(dense)
    distances = torch.maximum(dense, signed_distances(hull, 0.5, cell))
    solid = Solid(distances, torch.full((3, *distances.shape), _PLAIN), bounds)
    return Solid(distances, painted(solid, shots), bounds)
