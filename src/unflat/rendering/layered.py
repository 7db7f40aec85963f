"""Fast views of a layered depth picture: each layer splatted, the front one first.

What a small move uncovers is taken from the layer behind; what none shows is closed with the
farthest neighbour. Hundreds of times faster than marching rays, for moves of some degrees.

    picture = LayeredPicture([image], [inverse_depth], [mask], camera)
    view = picture.view(other_camera)
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from unflat.geometry.camera import Camera
from unflat.geometry.rays import pixel_grid
from unflat.rendering.box_mean import box_mean
from unflat.rendering.forward_warp import Warped, fill_holes

BLEND = 0.05  # share of disparity within which points on one pixel are averaged
SUBPIXELS = 2  # points along a side of a pixel; closes the cracks of twofold growth


class Surroundings(NamedTuple):
    """A depth picture that the same camera would see through a wider lens."""

    image: Float[Tensor, "3 rows columns"]
    """sRGB in [0, 1]."""
    inverse_depth: Float[Tensor, "rows columns"]
    """1 / depth, above 0 where the mask holds, 1 / world units."""
    mask: Bool[Tensor, "rows columns"]
    """Where there is a surface."""
    reach: float
    """Half-widths of the other layers that its own half-width spans."""


class _Points(NamedTuple):
    """Sub-pixel points of a layer: x/z, y/z, 1 and 1/z in the layer's camera, and colours."""

    rays: Float[Tensor, "4 n"]
    colors: Float[Tensor, "n 4"]  # red, green, blue, 1


class LayeredPicture:
    """Depth pictures of one camera, ready to be seen by others."""

    @torch.no_grad()
    def __init__(
        self,
        images: Sequence[Float[Tensor, "3 height width"]],
        inverse_depths: Sequence[Float[Tensor, "height width"]],
        masks: Sequence[Bool[Tensor, "height width"]],
        camera: Camera,
        around: "Surroundings | None" = None,
    ):
        """Layers of one size.

        Args:
            images: of each layer, front first, in [0, 1].
            inverse_depths: 1 / depth in the camera, above 0 where the mask holds, 1 / world units.
            masks: where each layer has a surface.
            camera: theirs, perspective, batch of one.
            around: what stands beside their picture.

        Raises:
            ValueError: no layers, or an orthographic camera.
        """
        if not images or camera.kind != "perspective":
            raise ValueError(f"need layers and a perspective camera, got {camera.kind}")
        self.size = (images[0].shape[-2], images[0].shape[-1])
        self.camera = camera
        self._layers = [
            _points(*layer, camera) for layer in zip(images, inverse_depths, masks, strict=True)
        ]
        self._around: _Points | None = None
        if around is not None:
            size = (around.mask.shape[-2], around.mask.shape[-1])
            finer = max(1, math.ceil(self.size[0] * around.reach / size[0])) * SUBPIXELS
            self._around = _points(
                around.image,
                around.inverse_depth,
                around.mask,
                replace(
                    camera,
                    intrinsics=camera.intrinsics
                    / camera.intrinsics.new_tensor([around.reach, around.reach, 1.0, 1.0]),
                ),
                finer,
            )

    def view(self, camera: Camera) -> Float[Tensor, "3 height width"]:
        """The layers seen by another perspective camera (batch of one), at their own size."""
        return self.seen(camera).image[0]

    @torch.no_grad()
    def seen(self, camera: Camera) -> Warped:
        """The same with depths, a batch of one; what no layer shows is closed but not visible."""
        merged = _close(self._splat(self._layers[0], camera))
        between = _between(merged.visible)
        for layer in self._layers[1:]:
            moved = self._splat(layer, camera)
            new = moved.visible & ~merged.visible & between
            merged = Warped(
                torch.where(new[:, None], moved.image, merged.image),
                torch.where(new, moved.inverse_depth, merged.inverse_depth),
                merged.visible | new,
            )
        if self._around is not None:
            moved = _close(self._splat(self._around, camera))
            new = moved.visible & ~merged.visible
            merged = Warped(
                torch.where(new[:, None], moved.image, merged.image),
                torch.where(new, moved.inverse_depth, merged.inverse_depth),
                merged.visible | new,
            )
        filled = fill_holes(merged)
        radius = max(1, self.size[1] // 40)
        # Fills run in straight streaks, which the eye takes for things.
        soft = box_mean(box_mean(filled.image, radius), radius)
        image = torch.where(merged.visible[:, None], filled.image, soft).clamp(0, 1)
        return Warped(image, filled.inverse_depth, merged.visible)

    def _splat(self, points: _Points, camera: Camera) -> Warped:
        height, width = self.size
        pixels = height * width
        relative = camera.world_to_camera[0] @ self.camera.camera_to_world[0]
        focal, center = camera.intrinsics[0, :2, None], camera.intrinsics[0, 2:, None]
        across = (focal * relative[:2] + center * relative[2]) * torch.tensor([[width], [height]])
        # Column and row times the third part: depth divided by that in the first camera.
        moved = torch.cat([across, relative[2:3]]) @ points.rays
        forward = moved[2].clamp_min(1e-6)
        column, row = moved[0] / forward, moved[1] / forward
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        inside &= moved[2] > 1e-6
        place = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
        target = place.masked_fill_(~inside, pixels)  # a spare pixel takes the rest
        near = points.rays[3] / forward
        nearest = torch.zeros(pixels + 1).scatter_reduce_(0, target, near, "amax")
        counted = near >= (1 - BLEND) * nearest.index_select(0, target)
        counted = (counted & inside).nonzero().flatten()
        total = torch.zeros(pixels + 1, 4)
        total.index_add_(0, target[counted], points.colors.index_select(0, counted))
        total, nearest = total[:pixels].T.reshape(1, 4, height, width), nearest[:pixels]
        return Warped(
            total[:, :3] / total[:, 3:].clamp_min(1),
            nearest.reshape(1, height, width),
            total[:, 3] > 0,
        )


def _points(
    image: Tensor, inverse_depth: Tensor, mask: Tensor, camera: Camera, finer: int = SUBPIXELS
) -> _Points:
    height, width = mask.shape
    uv = pixel_grid(height * finer, width * finer)
    across = (uv - camera.intrinsics[0, 2:]) / camera.intrinsics[0, :2]
    stack = torch.cat([image, inverse_depth[None], mask[None].to(image)])
    stack = stack.repeat_interleave(finer, 1).repeat_interleave(finer, 2)
    there = stack[4] > 0.5
    one = torch.ones_like(stack[3])
    rays = torch.cat([across, one[..., None], stack[3][..., None]], dim=-1)
    return _Points(
        rays[there].T.contiguous(), torch.cat([stack[:3], one[None]])[:, there].T.contiguous()
    )


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


def _between(seen: Bool[Tensor, "1 height width"]) -> Bool[Tensor, "1 height width"]:
    """Pixels with something seen on both sides, in their row or in their column.

    What is not between lies beyond the border of the picture, where a layer behind would show what
    the one in front has only moved away from.
    """
    hits = seen.int()
    sides = [
        hits.cummax(dim).values.bool() & hits.flip(dim).cummax(dim).values.flip(dim).bool()
        for dim in (1, 2)
    ]
    return sides[0] | sides[1]
