"""The near part of a reconstructed scene, as an object that can be put into another one.

A photo's subject stands before its background: what the canonical camera sees nearer than some
depth is kept, within a mask if one is given; the rest is empty. The cut is sharp where the photo's
own depth, or the mask, is.

    object = CutoutField(scene.field, farthest=0.4)
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unflat.fields.detail import OPTICAL_DEPTH, SHEET, DetailField
from unflat.fields.field import FieldOutput
from unflat.fields.planes import sample_plane
from unflat.fields.viewspace import ViewSpaceField, stretch, view_coordinates

_NEAREST = 1.1
"""Normalised disparity: the training's nearest is 1, single pixels lie before it."""
_BEHIND = 0.1
"""Of normalised disparity, kept behind the visible sheets: what small turns uncover."""


class CutoutField(nn.Module):
    """What a scene shows nearer than a depth; its density is per unit of true length."""

    def __init__(
        self,
        base: ViewSpaceField | DetailField,
        farthest: float,
        mask: Float[Tensor, "1 1 height width"] | None = None,
    ):
        """The near part of a field of one scene.

        Args:
            base: of one picture.
            farthest: normalised disparity below which nothing is kept, in [0, 1].
            mask: of the canonical picture, at any resolution: 1 where it is kept, else 0.

        Raises:
            ValueError: nothing of the scene is that near, or more than one scene is given.
        """
        super().__init__()
        self.base = base
        self.farthest = farthest
        if (base.photo if isinstance(base, DetailField) else base.uv).shape[0] != 1:
            raise ValueError("a cutout is made of one scene")
        kept = torch.ones(1, 1, 1, 1) if mask is None else mask
        if isinstance(base, DetailField):  # the silhouette is that of the visible surface
            kept = nn.functional.interpolate(kept, base.disparity.shape[-2:], mode="nearest")
            kept = kept * (base.disparity >= farthest)
        if not bool((kept > 0.5).any()):
            raise ValueError(f"nothing is nearer than {farthest}, or in the mask; keep more")
        self.mask: Tensor
        self.register_buffer("mask", kept, persistent=False)
        self._cut = self._deepest()
        self.bounds: Tensor
        self.register_buffer("bounds", self._box(), persistent=False)

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """Density per world unit of the scene it comes from, and its colour.

        Without directions the canonical camera's rays are meant.
        """
        density, rgb = self.base(points, directions)
        if directions is None:
            directions = nn.functional.normalize(points, dim=-1)
        density = density * stretch(points, directions, self.base.frame)
        return FieldOutput(torch.where(self._keeps(points), density, 0.0), rgb)

    def _keeps(self, points: Tensor) -> Bool[Tensor, " batch *points"]:
        q, _ = view_coordinates(points, self.base.frame)
        near = (q[..., 2] >= self._cut) & (q[..., :2].abs() <= 1).all(-1) & (points[..., 2] > 0)
        kept = sample_plane(self.mask, q[..., :2].flatten(1, -2), mode="nearest")[..., 0]
        return near & (kept > 0.5).unflatten(1, near.shape[1:])

    def _box(self) -> Float[Tensor, "2 3"]:
        """Around what is kept, in the scene's own world: the frustum of its pixels and depths."""
        frame = self.base.frame
        rows, columns = (self.mask[0, 0] > 0.5).nonzero().unbind(-1)
        u_low, u_high = _extent(columns, self.mask.shape[-1])
        v_low, v_high = _extent(rows, self.mask.shape[-2])
        nearest = _NEAREST
        if isinstance(self.base, DetailField):
            seen, spread = self.base.disparity[0, 0], self.base.spread[0, 0]
            # A soft sheet begins some spreads before its surface.
            nearest = float((seen + 8 * spread)[rows, columns].max())
        depths = [
            float(frame.true_depth(frame.depth_of_disparity(torch.tensor(share))))
            for share in (min(nearest, _NEAREST), self._cut)
        ]
        across = [side * z / frame.focal_true for side in (u_low, u_high) for z in depths]
        down = [side * z / frame.focal_true for side in (v_low, v_high) for z in depths]
        return torch.tensor(
            [[min(across), min(down), min(depths)], [max(across), max(down), max(depths)]]
        )

    def _deepest(self) -> float:
        """Where the kept part ends: at the cut, or a little behind the last visible sheet."""
        if not isinstance(self.base, DetailField):
            return self.farthest
        ends = self.base.disparity - SHEET - OPTICAL_DEPTH * self.base.spread
        return max(self.farthest, float(ends[self.mask > 0.5].min()) - _BEHIND)


def _extent(places: Tensor, count: int) -> tuple[float, float]:
    """Lowest and highest edge of pixels, in [-1, 1]."""
    return 2 * float(places.min()) / count - 1, 2 * float(places.max() + 1) / count - 1
