"""Where a picture's light is expected to end: few samples then make the picture.

A guide is a small picture of histograms. One comes from rendering the scene itself at a fraction of
its side (``RenderOptions(coarse=4)`` does so), or from a picture of distances that is known:

    guide = Guide.of_distance(distance, spread, options.near, options.far, options.spacing)
    picture = render(field, camera, 128, 128, options, guide)

Every pixel takes the highest shares of its neighborhood in the guide, so that it expects both
surfaces at a silhouette (as mip-NeRF 360's proposals expect at least what is there, arXiv
2111.12077, section 3).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from unflat.rendering.sampling import Spacing, even_edges, from_distance


class Guide(NamedTuple):
    """Shares of light expected to end in even cells of each ray, for a picture of any size."""

    shares: Float[Tensor, "batch height width n"]
    """At least 0; cells are even in the spacing, from near to far, of the options it is used with;
    only ratios along a ray matter."""

    @classmethod
    def of_distance(
        cls,
        distance: Float[Tensor, "batch height width"],
        spread: Float[Tensor, "batch height width"],
        near: float,
        far: float,
        spacing: Spacing = "disparity",
        cells: int = 128,
    ) -> "Guide":
        """All light is expected to end within ``distance`` +- ``spread``, evenly.

        Args:
            distance: along the rays, world units; beyond [near, far] nothing is expected, and
                samples are even.
            spread: half width, at least 0, world units; what is thinner than a cell fills it.
            near: of the options that the guide will be used with, world units.
            far: the same.
            spacing: the same.
            cells: n.
        """
        ends = torch.stack([distance - spread, distance + spread], dim=-1).clamp(near, far)
        low, high = from_distance(ends, near, far, spacing)[..., None].unbind(-2)
        edges = even_edges(cells, device=distance.device, dtype=distance.dtype)
        meets = (low < edges[1:]) & (high >= edges[:-1])
        there = (distance + spread >= near) & (distance - spread <= far)
        return cls((meets & there[..., None]).to(distance.dtype))

    def widened(self) -> "Guide":
        """The highest shares of each pixel and its eight neighbors."""
        shares = self.shares.permute(0, 3, 1, 2)
        return Guide(functional.max_pool2d(shares, 3, 1, 1).permute(0, 2, 3, 1))

    def at(
        self, pixels: Int64[Tensor, " m"], height: int, width: int
    ) -> Float[Tensor, "batch m n"]:
        """Shares for pixels of a picture of another size: those of the nearest pixel here.

        Args:
            pixels: row times width + column.
            height: of the other picture.
            width: of the other picture.
        """
        own_height, own_width = self.shares.shape[1:3]
        row = (2 * (pixels // width) + 1) * own_height // (2 * height)
        column = (2 * (pixels % width) + 1) * own_width // (2 * width)
        return self.shares[:, row, column]
