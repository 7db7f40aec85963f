"""Cameras changed as their pictures are, so that a picture and its camera stay a pair.

The window on the picture is turned, made larger and moved; `unflat.nn.warp_picture` does the same
to the picture. What a critic learns of such pairs does not leak into what a generator makes,
however strong the change is: its pictures are made for the changed cameras (nerf-from-image, arXiv
2211.11674).

    augmented = augment_camera(camera, turn, scale, shift)
    picture = warp_picture(images, turn, scale, shift)
"""

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.camera import Camera


def augment_camera(
    camera: Camera,
    turn: Float[Tensor, "*batch"],
    scale: Float[Tensor, "*batch"],
    shift: Float[Tensor, "*batch 2"],
) -> Camera:
    """The camera of a window on the picture that is turned about its middle, scaled, then moved.

    Turning and scaling are exact. A move is one of the camera, sideways, as far as makes it right
    for points at the depth of the world's origin: nearer ones move a little more on the picture,
    farther ones less, and their perspective changes with it. (An off-centre principal point would
    be exact, but a critic is not told of one.) Orthographic cameras are exact throughout.

    Args:
        camera: looks towards the origin, its principal point in the middle.
        turn: radians, clockwise as seen on the picture.
        scale: how many times larger the window is, so that things look smaller.
        shift: of the window, right and up along its own turned sides, in half sides.
    """
    cosine, sine = turn.cos(), turn.sin()
    zero, one = torch.zeros_like(turn), torch.ones_like(turn)
    rows = [[cosine, -sine, zero], [sine, cosine, zero], [zero, zero, one]]
    rotation = camera.rotation @ torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    focal, center = camera.intrinsics[..., :2] / scale[..., None], camera.intrinsics[..., 2:]
    half = 0.5 / focal  # sides of the picture in world units
    if camera.kind == "perspective":
        half = half * camera.world_to_camera[..., 2, 3, None]
    right, up = (shift * half).unbind(dim=-1)
    move = torch.stack([right, -up, zero], dim=-1)
    position = camera.position + (rotation @ move[..., None])[..., 0]
    matrix = torch.cat([rotation, position[..., None]], dim=-1)
    return Camera(
        camera_to_world=torch.cat([matrix, camera.camera_to_world[..., 3:, :]], dim=-2),
        intrinsics=torch.cat([focal, center], dim=-1),
        kind=camera.kind,
    )
