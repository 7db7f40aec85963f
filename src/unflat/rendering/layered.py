"""Fast views of a layered depth picture: each layer splatted, the front one first.

What a small move uncovers is taken from the layer behind; what none shows is closed with the
farthest neighbour. A hundred times faster than marching rays, for moves of some degrees.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from unflat.geometry.camera import Camera
from unflat.rendering.forward_warp import Warped, fill_holes, forward_warp

BLEND = 0.05  # share of disparity within which neighbouring points are averaged


@torch.no_grad()
def render_layers(
    images: Sequence[Float[Tensor, "1 3 height width"]],
    inverse_depths: Sequence[Float[Tensor, "1 height width"]],
    masks: Sequence[Bool[Tensor, "1 height width"]],
    camera_from: Camera,
    camera_to: Camera,
) -> Float[Tensor, "1 3 height width"]:
    """The layers seen by another camera, at their own size.

    Args:
        images: of each layer, front first, in [0, 1].
        inverse_depths: 1 / depth at the camera they belong to, 1 / world units.
        masks: where each layer has a surface.
        camera_from: their camera, perspective, batch of one.
        camera_to: the new camera, perspective, batch of one.
    """
    merged: Warped | None = None
    for image, inverse_depth, mask in zip(images, inverse_depths, masks, strict=True):
        carried = torch.cat([image, mask[:, None].to(image)], dim=1)
        moved = forward_warp(carried, inverse_depth, camera_from, camera_to, blend=BLEND)
        seen = moved.visible & (moved.image[:, 3] > 0.5)
        if merged is None:
            merged = _close(Warped(moved.image[:, :3], moved.inverse_depth * seen, seen))
            continue
        new = seen & ~merged.visible
        merged = Warped(
            torch.where(new[:, None], moved.image[:, :3], merged.image),
            torch.where(new, moved.inverse_depth, merged.inverse_depth),
            merged.visible | new,
        )
    if merged is None:
        raise ValueError("there are no layers")
    filled = fill_holes(merged).image
    soft = _blur(_blur(filled))  # fills run in straight streaks, which the eye takes for things
    return torch.where(merged.visible[:, None], filled, soft).clamp(0, 1)


def _close(moved: Warped) -> Warped:
    """Cracks of a stretched surface, closed by the mean of their neighbours.

    A crack is a pixel that nothing landed on while at least five of its neighbours were hit.
    """
    seen = moved.visible[:, None].float()
    stack = torch.cat([moved.image, moved.inverse_depth[:, None]], dim=1)
    count = functional.avg_pool2d(seen, 3, 1, 1) * 9
    mean = functional.avg_pool2d(stack * seen, 3, 1, 1) * 9 / count.clamp_min(1)
    crack = ~moved.visible & (count[:, 0] >= 5)
    closed = torch.where(crack[:, None], mean, stack)
    return Warped(closed[:, :3], closed[:, 3], moved.visible | crack)


def _blur(image: Float[Tensor, "1 3 height width"]) -> Float[Tensor, "1 3 height width"]:
    radius = max(1, image.shape[-1] // 40)
    padded = functional.pad(image, (radius,) * 4, mode="replicate")
    return functional.avg_pool2d(padded, 2 * radius + 1, stride=1)
