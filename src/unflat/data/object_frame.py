"""Worlds of published poses, turned and scaled to the object world.

Where the poses were estimated, nobody has written down which way is up in their world. Their
pictures tell: people hold cameras upright. Size: the box that the published generator marches
(arXiv 2211.11674, its code) becomes the box of our configs, so that one config fits every set.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry import Camera
from unflat.geometry.camera import rigid

BOX_HALF_SIDE = 0.55
"""To which published boxes are brought: SRN's, and that of the presets."""

_LEAST_UP = 0.3  # of the mean up direction along an axis; 1 if all cameras are upright

# Turns about x, which leave left and right as they are: the axis that is up, and what is then y, z.
_TURNS = {
    (0.0, 1.0, 0.0): ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    (0.0, -1.0, 0.0): ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)),
    (0.0, 0.0, 1.0): ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)),
    (0.0, 0.0, -1.0): ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
}


def upright_turn(camera: Camera) -> Float[Tensor, "3 3"]:
    """The quarter turns about x after which y is up in the mean of all pictures.

    x is kept since published sets are doubled by mirroring it: it is their left and right. Which
    of the two ends of z is the front, cameras do not tell. No turn if no axis is clearly up.

    Args:
        camera: all of a data set, whatever part of it is used, so that the parts share a world.
    """
    up = -camera.camera_to_world[:, :3, 1].double().mean(0)
    axis = max(_TURNS, key=lambda axis: float(up @ up.new_tensor(axis)))
    if float(up @ up.new_tensor(axis)) < _LEAST_UP:
        axis = (0.0, 1.0, 0.0)
    return torch.tensor(_TURNS[axis])


def to_object_world(camera: Camera, turn: Float[Tensor, "3 3"], half_side: float) -> Camera:
    """The cameras of the turned world in which a box around the origin has `BOX_HALF_SIDE`.

    Pictures stay what they are.

    Args:
        camera: any batch.
        turn: a rotation, world to object world.
        half_side: of the published box, in the camera's world units.
    """
    scale = BOX_HALF_SIDE / half_side
    turn = turn.to(camera.rotation)
    position = camera.position @ turn.mT * scale
    intrinsics = camera.intrinsics
    if camera.kind == "orthographic":  # theirs are per world unit
        intrinsics = torch.cat([intrinsics[..., :2] / scale, intrinsics[..., 2:]], dim=-1)
    pose = rigid(turn @ camera.rotation, position)
    return replace(camera, camera_to_world=pose, intrinsics=intrinsics)
