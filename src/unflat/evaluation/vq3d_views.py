"""VQ3D stage 1 as the tasks "views" and "lift" ask it: an object cut out of the scene it makes.

The system lifts whole pictures and knows no object, no mask and no scale. Its scene of the picture
(object on white) is placed by `unflat.evaluation.relief.place`; of its matter is kept what the
mask covers in the picture and what lies within the ball about the unit box, down to a tenth of the
box behind the visible surface: the system's scenes have no back, their matter goes on to the
horizon. Behind that is white. A picture without a mask (one of the whole frame) stays whole.
"""

import math
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unflat.evaluation.reconstructor import Mode
from unflat.evaluation.relief import HALF_BOX, SOLID, is_whole, origin_depth, place
from unflat.evaluation.view_maker import as_batch
from unflat.evaluation.vq3d import Vq3dReconstructor, options_for
from unflat.fields.field import Field, FieldOutput, Warped
from unflat.geometry.camera import Camera
from unflat.geometry.frames import to_scene_world
from unflat.geometry.projective import Frame
from unflat.rendering.render import render

_BALL = HALF_BOX * math.sqrt(3.0)  # holds every box whose longest side is 1
_THICK = 0.2 * HALF_BOX  # world units behind the visible surface
_LEAST_NEAR = 0.05  # world units
_LEAST_INVERSE = 1e-3  # 1 / world units: what lies farther than any object


@runtime_checkable
class WarpedField(Field, Warped, Protocol):
    """A field whose lengths are measured in another space."""


class CutField(nn.Module):
    """A scene of which only the object's front is left: within a mask, a ball, and a thickness.

    Args:
        base: in the scene world of the picture's camera.
        mask: of the picture.
        surface: depth of what the picture shows, world units.
        intrinsics: of the picture's camera.
        depth: of the middle of the ball, on the optical axis.
    """

    def __init__(
        self,
        base: WarpedField,
        mask: Float[Tensor, "height width"],
        surface: Float[Tensor, "height width"],
        intrinsics: Float[Tensor, "4"],
        depth: float,
    ) -> None:
        super().__init__()
        self.base, self.depth = base, depth
        # farthest depth of each pixel at which matter counts; none where the mask is empty
        self.end = torch.where(mask >= SOLID, surface + _THICK, 0.0)
        self.intrinsics = intrinsics

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """The base's answer, empty outside."""
        density, rgb = self.base(points, directions)
        height, width = self.end.shape
        x, y, z = points.unbind(-1)
        fx, fy, cx, cy = self.intrinsics.to(points).unbind()
        ahead = z > 1e-6
        safe = torch.where(ahead, z, 1.0)
        column, row = (fx * x / safe + cx) * width, (fy * y / safe + cy) * height
        inside = ahead & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        place = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
        inside &= z < self.end.to(points).flatten()[place]
        inside &= x.square() + y.square() + (z - self.depth).square() < _BALL**2
        return FieldOutput(density * inside, rgb)

    def warp(self, points: Float[Tensor, "batch *points 3"]) -> Float[Tensor, "batch *points 3"]:
        """As of the base."""
        return self.base.warp(points)


class Vq3dViews:
    """An autoencoder's scenes as pictures from other sides; keeps `ViewMaker`.

    Args:
        reconstructor: the system.
        mode: of it; its last one if not given.
    """

    is_random = False

    def __init__(self, reconstructor: Vq3dReconstructor, mode: Mode | None = None) -> None:
        self.reconstructor = reconstructor
        self.mode: Mode = mode or reconstructor.modes[-1]
        self.name = reconstructor.name

    def describe(self) -> dict[str, object]:
        """The system's own facts, and how its scene becomes an object."""
        return {
            **self.reconstructor.describe(),
            "mode": self.mode,
            "placed": "median and 5th to 95th percentile of the mask's disparity as those of a "
            "sphere about the origin whose outline has the mask's area",
            "cut": "matter outside the mask, outside the ball about the unit box, or more than "
            f"{_THICK:g} of a unit behind the visible surface is left out; nothing where there "
            "is no mask",
            "lens": "true focal length, principal point in the middle",
        }

    def field(
        self,
        image: Float[Tensor, "3 height width"],
        mask: Float[Tensor, "height width"],
        reference: Camera,
    ) -> tuple[WarpedField, Frame]:
        """The object, or the whole scene, in the scene world of the picture's camera."""
        side = self.reconstructor.resolution
        small = nn.functional.interpolate(image[None], size=(side, side), mode="area")
        made = self.reconstructor.reconstruct(small, image[None], self.mode)
        assert made.disparity is not None
        disparity = made.disparity[0].cpu()
        found = place(disparity, mask, reference)
        frame = replace(
            made.frame,
            focal_true=2 * float(reference.intrinsics[0]),
            a=found.scale,
            b=found.shift,
        )
        base = made.fields[0].with_frame(frame)
        if is_whole(mask):
            return base, frame
        surface = 1 / ((disparity - found.shift) / found.scale).clamp_min(_LEAST_INVERSE)
        lens = reference.intrinsics.clone()
        lens[2:] = 0.5
        return CutField(base, mask, surface, lens, origin_depth(reference)), frame

    @torch.no_grad()
    def make(
        self,
        image: Float[Tensor, "3 height width"],
        mask: Float[Tensor, "height width"],
        reference: Camera,
        cameras: Camera,
        seed: int,
    ) -> Float[Tensor, "views 3 height width"]:
        """The object rendered on white."""
        field, frame = self.field(image, mask, reference)
        device = self.reconstructor.device
        seen = to_scene_world(cameras, as_batch(reference)).to(device)
        middle = torch.tensor([0.0, 0.0, origin_depth(reference)], device=device)
        options = options_for(frame, self.reconstructor.samples, device)
        height, width = image.shape[-2:]
        views = []
        for view in range(seen.batch_shape[0]):
            if isinstance(field, CutField):
                distance = float((seen.position[view] - middle).norm())
                options = replace(
                    options,
                    near=max(distance - _BALL, _LEAST_NEAR),
                    far=distance + _BALL,
                    spacing="distance",
                    opaque_last=False,
                    background=(1.0, 1.0, 1.0),
                )
            made = render(field, seen[view : view + 1], height, width, options)
            views.append(made.rgb.cpu())
        return torch.cat(views).clamp(0, 1)
