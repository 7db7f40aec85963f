"""Whether outlines from several sides can be of one solid: do they agree on a visual hull.

The hull of outlines is the largest solid that none of them contradicts: of a grid of voxels those
whose middles fall into all outlines (Laurentini 1994). Seen again by the same cameras it fills
outlines that are of one solid. Outlines that contradict each other carve it away.

    grid = HullGrid(camera)
    grid.agreement(masks)            # one figure for each view
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from unflat.geometry.camera import Camera

RESOLUTION = 48
"""Voxels along a side of the box."""
SIDE = 32
"""Pixels along a side at which outlines are compared: so coarse that a solid's voxels leave no
holes between them."""
HALF_SIDE = 0.55
"""Of the box, world units: objects of longest side 1, and some room."""

_SOLID = 0.5  # share of a coarse pixel from which on it has to be filled


class HullGrid:
    """Where each voxel of a box about the origin falls in each view; masks may then vary.

    Args:
        camera: a batch of views.
        resolution: voxels along a side.
        side: pixels along a side to which masks are reduced.
        half_side: of the box, world units.
    """

    def __init__(
        self,
        camera: Camera,
        resolution: int = RESOLUTION,
        side: int = SIDE,
        half_side: float = HALF_SIDE,
    ) -> None:
        self.side = side
        line = ((torch.arange(resolution) + 0.5) / resolution * 2 - 1) * half_side
        points = torch.cartesian_prod(line, line, line)
        views = len(camera.intrinsics)
        camera = camera.to("cpu", torch.float32)
        uv, depth = camera.project(points.expand(views, -1, 3))
        place = (uv * side).floor()
        inside = ((place >= 0) & (place < side)).all(dim=-1) & (depth > 0)
        index = place[..., 1] * side + place[..., 0]
        # what a view does not see goes to a place of its own, which no mask has
        self.places = torch.where(inside, index, side * side).long()

    def hull(self, masks: Float[Tensor, "views height width"]) -> Bool[Tensor, " voxels"]:
        """Voxels that no view contradicts; a view does not speak of what is outside its picture.

        Args:
            masks: a pixel belongs to the object above one half.
        """
        touched = functional.adaptive_max_pool2d((masks > 0.5).float()[None], self.side)[0] > 0
        known = functional.pad(touched.flatten(1), (0, 1), value=True)
        return known.gather(1, self.places).all(dim=0)

    def agreement(self, masks: Float[Tensor, "views height width"]) -> Float[Tensor, " views"]:
        """Share of each outline that the hull of all fills, in [0, 1]; higher is better.

        The hull never leaves an outline by more than a coarse pixel, so this is their intersection
        over union but for the border. NaN where an outline is empty. One constant picture can be
        the outline of a ball: agreement is not truth.

        Args:
            masks: a pixel belongs to the object above one half; no smaller than the grid's side.
        """
        hull = self.hull(masks)
        seen = torch.zeros(len(masks), self.side**2 + 1, dtype=torch.bool)
        seen.scatter_(1, self.places[:, hull], True)
        solid = functional.adaptive_avg_pool2d((masks > 0.5).float()[None], self.side)[0]
        solid = solid.flatten(1) >= _SOLID
        return (seen[:, :-1] & solid).sum(dim=1) / solid.sum(dim=1)


def hull_agreement(
    masks: Float[Tensor, "views height width"], camera: Camera
) -> Float[Tensor, " views"]:
    """`HullGrid.agreement` for cameras that are used once."""
    return HullGrid(camera).agreement(masks)
