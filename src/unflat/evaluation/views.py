"""The views of a posed scene as the task uses them: in the canonical frame, at one resolution."""

from dataclasses import replace

from unflat.data.posed import PosedScene, resize_maps
from unflat.errors import UserError
from unflat.geometry.camera import Camera


def scene_at(scene: PosedScene, side: int) -> PosedScene:
    """The scene with area-averaged pictures and inverse depths of another side.

    Raises:
        UserError: its pictures are smaller than that.
    """
    stored = scene.images.shape[-1]
    if side > stored:
        raise UserError(
            f"--resolution {side}: scene {scene.name} holds pictures of {stored} pixels; "
            f"choose at most {stored}."
        )
    return replace(
        scene,
        images=resize_maps(scene.images, side),
        inverse_depth=resize_maps(scene.inverse_depth[:, None], side)[:, 0],
        masks=None,
        normals=None,
    )


def canonical_of(camera: Camera) -> Camera:
    """The canonical camera of a scene, the first of its views, as a batch of one."""
    return camera[0:1]


def novel_of(camera: Camera) -> Camera:
    """All cameras of a scene but the canonical one."""
    return camera[1:]
