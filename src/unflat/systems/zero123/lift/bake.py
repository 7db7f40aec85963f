"""What a field of latents shows, as pictures that a solid of colours can be fitted to.

Latents have no colours point by point, and voxels that look like a white background may be as dense
as they like: both are told only by decoded pictures. So a solid is fitted to these.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.camera import Camera
from unflat.systems.zero123.lift.shots import Shots, masks_of_white
from unflat.systems.zero123.lift.voxels import LatentVoxels, march
from unflat.systems.zero123.model import ViewModel

_FIRST_WEIGHT = 4.0  # of the picture among views of weight 1


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
        weight=torch.cat([torch.full((1,), _FIRST_WEIGHT), torch.ones(len(images))]),
    )
