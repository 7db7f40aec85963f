"""The photo itself as a plane of the field: what the canonical camera sees looks like the photo.

In (u, v, disparity) coordinates a photo is a (u, v) plane. A sheet of matter stands where the
visible surface is believed to be and has the photo's own colour; in front of it is nothing, for the
canonical camera looked through; behind it the base field goes on with what is hidden. Where the
surface is unsure the sheet is softer: its termination along a canonical ray is a logistic
distribution of the given spread, so a wrong guess blurs instead of tearing.

Beside steps in depth a second sheet may stand behind the first: what was painted in there from the
surroundings, where a field learned from few pictures would show the object's own ghost. A third may
stand around the picture, where no photo tells anything: what was invented there.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.fields.field import FieldOutput
from unflat.fields.planes import by_texel, sample_plane
from unflat.fields.viewspace import ViewSpaceField, assumed_points, view_coordinates
from unflat.geometry.projective import Frame

SHEET = 0.04  # least thickness of the sheet, units of normalised disparity
OPTICAL_DEPTH = 7.0  # of the sheet along a canonical ray: it lets 0.1 % of the light pass


class HiddenSheet(NamedTuple):
    """A surface behind the visible one, where there is one."""

    rgb: Float[Tensor, "batch 3 height width"]
    """sRGB in [0, 1]."""
    disparity: Float[Tensor, "batch 1 height width"]
    """Normalised; below the visible surface's where the mask holds."""
    mask: Float[Tensor, "batch 1 height width"]
    """1 where it exists, else 0."""


class DetailField(nn.Module):
    """A view-space field whose visible surface is the photo."""

    def __init__(
        self,
        base: ViewSpaceField,
        photo: Float[Tensor, "batch 3 height width"],
        disparity: Float[Tensor, "batch 1 height width"],
        spread: Float[Tensor, "batch 1 height width"],
        hidden: HiddenSheet | None = None,
        *,
        around: HiddenSheet | None = None,
        reach: float = 1.0,
        jump: float = 0.05,
    ):
        """A sheet over a base field.

        Args:
            base: what is hidden.
            photo: sRGB in [0, 1], at any resolution.
            disparity: normalised disparity of the visible surface, 1 nearest.
            spread: softness of the sheet there, in the same units, above 0.
            hidden: what stands behind it, at the same resolution.
            around: what stands beside the picture, at any resolution.
            reach: half-widths of the picture from its middle to the border of ``around``, at
                least 1.
            jump: neighbouring pixels that differ by more are two surfaces: no sheet joins them.
        """
        super().__init__()
        self.base = base
        self.jump = jump
        self.photo: Tensor
        self.disparity: Tensor
        self.spread: Tensor
        self.joined: Tensor
        self.sheet: Tensor  # disparity, spread and joined, looked up together
        self.register_buffer("photo", by_texel(photo), persistent=False)
        self.register_buffer("disparity", disparity, persistent=False)
        self.register_buffer("spread", spread, persistent=False)
        joined = _joined(disparity, jump)
        self.register_buffer("joined", joined, persistent=False)
        sheet = torch.cat([disparity, spread, joined.to(disparity)], dim=1)
        self.register_buffer("sheet", by_texel(sheet), persistent=False)
        self.behind: Tensor | None
        behind = None if hidden is None else torch.cat(list(hidden), dim=1)
        self.register_buffer("behind", behind, persistent=False)
        self.reach = reach
        self.beside: Tensor | None
        beside = None
        if around is not None:
            whole = functional.max_pool2d(1 - around.mask, 3, 1, 1) < 0.5
            smooth = whole & _joined(around.disparity, jump)
            beside = torch.cat([*around, smooth.to(around.mask)], dim=1)
        self.register_buffer("beside", beside, persistent=False)

    @property
    def frame(self) -> Frame:
        """Field of view and disparity scale, shared with the base field."""
        return self.base.frame

    @property
    def hidden(self) -> HiddenSheet | None:
        """The second sheet."""
        if self.behind is None:
            return None
        return HiddenSheet(*self.behind.split([3, 1, 1], dim=1))

    @property
    def around(self) -> HiddenSheet | None:
        """The sheet beside the picture."""
        if self.beside is None:
            return None
        return HiddenSheet(*self.beside[:, :5].split([3, 1, 1], dim=1))

    def with_frame(self, frame: Frame) -> "DetailField":
        """The same scene under another field of view or disparity scale."""
        return DetailField(
            self.base.with_frame(frame),
            self.photo,
            self.disparity,
            self.spread,
            self.hidden,
            around=self.around,
            reach=self.reach,
            jump=self.jump,
        )

    def with_sheets(
        self, hidden: HiddenSheet | None, around: HiddenSheet | None, reach: float = 1.0
    ) -> "DetailField":
        """The same photo with something else behind it and beside it."""
        return DetailField(
            self.base,
            self.photo,
            self.disparity,
            self.spread,
            hidden,
            around=around,
            reach=reach,
            jump=self.jump,
        )

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """Density per unit of length in the frame's assumed space, and colour in [0, 1]."""
        q, to_world = view_coordinates(points, self.frame)
        density, rgb = self.at(q)
        return FieldOutput(density * to_world, rgb.clamp(0, 1))

    def at(
        self, q: Float[Tensor, "batch *points 3"]
    ) -> tuple[Float[Tensor, " batch *points"], Float[Tensor, "batch *points 3"]]:
        """Density per unit of delta and colour at (u, v, delta)."""
        shape = q.shape[1:-1]
        q = q.flatten(1, -2)
        uv, delta = q[..., :2], q[..., 2]
        smooth = sample_plane(self.sheet, uv)[..., :2]
        nearest = sample_plane(self.sheet, uv, mode="nearest")
        surface, soft = torch.where(nearest[..., 2:] > 0.5, smooth, nearest[..., :2]).unbind(-1)
        inside = (uv.abs() <= 1).all(-1)
        ahead = surface - delta  # above 0 behind the surface
        thickness = SHEET + OPTICAL_DEPTH * soft
        within = inside & (ahead < thickness) & (ahead > -8 * soft)
        density = torch.where(within, torch.sigmoid(ahead / soft) / soft, 0.0)
        rgb = torch.zeros(*delta.shape, 3, device=q.device, dtype=q.dtype)
        beyond = ~inside | (ahead >= thickness)
        for scene in range(q.shape[0]):  # the costly lookups only where they are needed
            seen = within[scene].nonzero().flatten()
            rgb[scene, seen] = sample_plane(self.photo[scene : scene + 1], uv[scene, seen][None])[0]
            left = beyond[scene].nonzero().flatten()
            if len(left):
                extra, color = self._beyond(scene, q[scene, left], inside[scene, left])
                density[scene, left] = extra
                rgb[scene, left] = color
        return density.unflatten(1, shape), rgb.unflatten(1, shape)

    def _beyond(
        self, scene: int, q: Float[Tensor, "points 3"], inside: Bool[Tensor, " points"]
    ) -> tuple[Float[Tensor, " points"], Float[Tensor, "points 3"]]:
        """What is outside the picture or behind its visible sheet: the second sheet, the base."""
        density, rgb = q.new_zeros(len(q)), q.new_zeros(len(q), 3)
        from_base = torch.ones_like(inside)
        for plane, uv, here in self._sheets(scene, q[:, :2], inside):
            there = sample_plane(plane, uv[None], mode="nearest")[0]
            exists = here & (there[:, 4] > 0.5)
            is_beside = plane.shape[1] > 5
            if is_beside:  # smooth within a surface
                smooth = sample_plane(plane, uv[None])[0]
                there = torch.where(there[:, 5:] > 0.5, smooth, there)
            ahead = there[:, 3] - q[:, 2]
            sheet = exists & (ahead >= 0) & (ahead < SHEET)
            density = torch.where(sheet, OPTICAL_DEPTH / SHEET, density)
            # A ray that ends before a far sheet still asks for the color of what is there.
            colored = exists & (ahead < SHEET) if is_beside else sheet
            rgb = torch.where(colored[:, None], there[:, :3], rgb)
            from_base &= ~exists | (ahead >= SHEET)
        chosen = from_base.nonzero().flatten()
        if len(chosen):
            base = self.base if len(self.photo) == 1 else self.base.scene(scene)
            extra, color = base.at(q[chosen][None])
            density[chosen], rgb[chosen] = extra[0], color[0]
        return density, rgb

    def _sheets(
        self, scene: int, uv: Float[Tensor, "points 2"], inside: Bool[Tensor, " points"]
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The other sheets of a scene, where to look them up, and which points they are for."""
        found = []
        if self.behind is not None:
            found.append((self.behind[scene : scene + 1], uv, inside))
        if self.beside is not None:
            place = uv / self.reach
            near = ~inside & (place.abs() <= 1).all(-1)
            found.append((self.beside[scene : scene + 1], place, near))
        return found

    def warp(self, points: Float[Tensor, "batch *points 3"]) -> Float[Tensor, "batch *points 3"]:
        """Points in the frame's assumed space, where lengths are measured."""
        return assumed_points(points, self.frame)


class DetailSheets(nn.Module):
    """The two sheets alone, with gradients: what the detail mode learns from.

    As `DetailField`, but what lies behind both sheets has the photo's color, and beyond the
    picture its border goes on.
    """

    def __init__(
        self,
        photo: Float[Tensor, "batch 3 height width"],
        disparity: Float[Tensor, "batch 1 height width"],
        spread: Float[Tensor, "batch 1 height width"],
        hidden: HiddenSheet,
        frame: Frame,
        *,
        jump: float = 0.05,
    ):
        """Arguments as of `DetailField`."""
        super().__init__()
        self.photo, self.frame = photo, frame
        self.sheet = torch.cat([disparity, spread], dim=1)
        self.joined = _joined(disparity.detach(), jump).to(disparity)
        self.behind = torch.cat(list(hidden), dim=1)

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """Density per unit of length in the frame's assumed space, and color in [0, 1]."""
        q, to_world = view_coordinates(points, self.frame)
        uv, delta = q[..., :2], q[..., 2]
        smooth = sample_plane(self.sheet, uv)
        nearest = sample_plane(self.sheet, uv, mode="nearest")
        joined = sample_plane(self.joined, uv, mode="nearest") > 0.5
        surface, soft = torch.where(joined, smooth, nearest).unbind(-1)
        ahead = surface - delta
        density = torch.sigmoid(ahead / soft) / soft
        rgb = sample_plane(self.photo, uv)
        there = sample_plane(self.behind, uv, mode="nearest")
        deep = ahead > SHEET + OPTICAL_DEPTH * soft
        exists = there[..., 4] > 0.5
        hidden = deep & exists
        wall = OPTICAL_DEPTH / SHEET
        density = torch.where(deep, wall * (~exists | (there[..., 3] > delta)), density)
        rgb = torch.where(hidden[..., None], there[..., :3], rgb)
        return FieldOutput(density * to_world, rgb)

    def warp(self, points: Float[Tensor, "batch *points 3"]) -> Float[Tensor, "batch *points 3"]:
        """Points in the frame's assumed space, where lengths are measured."""
        return assumed_points(points, self.frame)


def _joined(
    disparity: Float[Tensor, "batch 1 height width"], jump: float
) -> Bool[Tensor, "batch 1 height width"]:
    """Pixels whose eight neighbours belong to the same surface."""
    highest = functional.max_pool2d(disparity, 3, 1, 1)
    lowest = -functional.max_pool2d(-disparity, 3, 1, 1)
    return highest - lowest < jump
