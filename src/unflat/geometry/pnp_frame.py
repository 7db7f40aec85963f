"""Matches of a picture in units that suit every picture, and poses in those units as cameras."""

import math
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unflat.geometry.camera import Camera, length, rigid
from unflat.geometry.pnp_refine import Matches, Poses, residuals

LEAST_MATCHES = 4
"""Three leave several poses."""
_FAR = 10.0
"""Half widths of the view between an orthographic camera and the object's middle."""
_FAR_OFF = 1e6
"""Coordinates in sizes of the object or picture widths; what is beyond is said to be there."""
_NEAR = 4.0
"""Multiple of the median distance from the middle that is not far."""
_FLAT = 1e-3
"""Second over first spread below which values count as on a line."""


@dataclass(frozen=True, kw_only=True)
class MatchFrame:
    """Matches as they were given, and the units they are worked in.

    The object's middle becomes the origin of space and its size the unit; the principal point that
    of the picture and the picture's width the unit. All in float64 on the CPU.
    """

    points: Float[Tensor, "n 3"]
    """As given, in world units."""
    uv: Float[Tensor, "n 2"]
    """As given; the picture spans [0, 1]."""
    weights: Float[Tensor, " n"]
    """As given, at least 0."""
    order: Int[Tensor, " usable"]
    """Indices of finite matches with a weight above 0, in an order of their own."""
    center: tuple[float, float]
    """The principal point in (u, v)."""
    aspect: float
    """Width over height of the picture."""
    middle: Float[Tensor, " 3"]
    """Of the object: medians of the coordinates."""
    size: float
    """Of the object: the median distance between its points."""

    def problem(self) -> str | None:
        """Why no pose can be told from these matches, in one sentence; None if one can."""
        if len(self.order) < LEAST_MATCHES:
            return f"{len(self.order)} usable matches; a pose needs at least {LEAST_MATCHES}."
        if not 0.0 < self.size < math.inf:
            return "most points are at one place; a pose needs points that differ."
        points, seen = self._worked()
        for name, values in (("points", points), ("pixels", seen)):
            if _is_on_a_line(values[self.order]):
                return f"all {name} are on a line; a pose needs some beside it."
        return None

    def matches(self, most: int, generator: torch.Generator) -> Matches:
        """The usable matches, or so many of them drawn at random; weights of mean 1."""
        order = self.order
        if len(order) > most:
            order = order[torch.randperm(len(order), generator=generator)[:most]]
        points, seen = self._worked()
        weights = self.weights[order] / self.weights[order].max()
        return Matches(points[order], seen[order], weights / weights.mean())

    def distances(self, poses: Poses) -> Float[Tensor, "poses n"]:
        """World units from every match to its ray; infinite if not finite or behind the camera."""
        points, seen = self._worked()
        matches = Matches(points, seen, torch.ones_like(points[:, 0]))
        found = residuals(poses, matches)
        distance = length(found.across) * self.size
        return torch.where(distance.isfinite() & ~found.is_behind, distance, torch.inf)

    def cameras(self, poses: Poses) -> Camera:
        """The cameras of poses in these units."""
        scale = poses.log_scale.exp() / self.size
        is_perspective = poses.log_focal is not None
        focal = poses.log_focal.exp() if poses.log_focal is not None else scale
        depth = focal / scale if is_perspective else 0.5 * _FAR / scale
        middle = torch.cat([poses.middle / scale[:, None], depth[:, None]], dim=-1)
        to_world = poses.rotation.mT
        position = self.middle - (to_world @ middle[..., None])[..., 0]
        focals = torch.stack([focal, focal * self.aspect], dim=-1)
        center = focal.new_tensor(self.center).expand(len(focal), 2)
        return Camera(
            camera_to_world=rigid(to_world, position),
            intrinsics=torch.cat([focals, center], dim=-1),
            kind="perspective" if is_perspective else "orthographic",
        )

    def poses(self, camera: Camera) -> Poses:
        """The poses of cameras with one leading axis; of the intrinsics, only fx counts."""
        camera = camera.to(device="cpu", dtype=torch.float64)
        middle = camera.to_camera(self.middle.expand(*camera.batch_shape, 1, 3))[:, 0]
        scale = focal = camera.intrinsics[:, 0]
        if camera.kind == "perspective":
            # Looking away from the object becomes looking at it from very near.
            scale = focal / middle[:, 2].clamp(min=1e-3 * self.size)
        log_focal = focal.log() if camera.kind == "perspective" else None
        place = middle[:, :2] * scale[:, None]
        return Poses(camera.rotation.mT, place, (scale * self.size).log(), log_focal)

    def _worked(self) -> tuple[Tensor, Tensor]:
        stretch = self.uv.new_tensor([1.0, 1.0 / self.aspect])
        seen = (self.uv - self.uv.new_tensor(self.center)) * stretch
        points = (self.points - self.middle) / self.size
        return points.clamp(-_FAR_OFF, _FAR_OFF), seen.clamp(-_FAR_OFF, _FAR_OFF)


def match_frame(
    points: Float[Tensor, "n 3"],
    uv: Float[Tensor, "n 2"],
    confidence: Float[Tensor, " n"] | None,
    center: tuple[float, float],
    aspect: float,
) -> MatchFrame:
    """The matches and their units; `MatchFrame.problem` says whether these make sense.

    Args:
        points: world units.
        uv: inside [0, 1] where the picture is.
        confidence: all alike if not given.
        center: the principal point in (u, v).
        aspect: width over height of the picture.

    Raises:
        ValueError: the shapes do not fit together, or the aspect is not above 0.
    """
    shapes = [tuple(part.shape) for part in (points, uv, confidence) if part is not None]
    n = len(points)
    if shapes != [(n, 3), (n, 2), (n,)][: len(shapes)]:
        raise ValueError(f"points, uv, confidence are {shapes}; they must be (n, 3), (n, 2), (n,)")
    if not 0.0 < aspect < math.inf:
        raise ValueError(f"aspect is {aspect}; it must be above 0")
    points, uv = (part.detach().to(device="cpu", dtype=torch.float64) for part in (points, uv))
    weights = torch.ones_like(points[:, 0]) if confidence is None else confidence.detach()
    weights = weights.to(device="cpu", dtype=torch.float64)
    is_usable = points.isfinite().all(dim=-1) & uv.isfinite().all(dim=-1)
    is_usable &= weights.isfinite() & (weights > 0.0)
    order = is_usable.nonzero()[:, 0]
    order = order[_order(torch.cat([uv, points, weights[:, None]], dim=-1)[order])]
    middle, size = points.new_zeros(3), 0.0
    if len(order):
        kept = points[order]
        middle = kept.median(dim=0).values
        size = float(length(kept - kept.roll(len(kept) // 2, dims=0)).median())
    return MatchFrame(
        points=points,
        uv=uv,
        weights=weights,
        order=order,
        center=center,
        aspect=aspect,
        middle=middle,
        size=size,
    )


def _order(rows: Tensor) -> Tensor:
    """An order of rows that does not depend on the one they come in: by column after column."""
    order = torch.arange(len(rows))
    for column in reversed(rows.unbind(dim=-1)):
        order = order[column[order].argsort(stable=True)]
    return order


def _is_on_a_line(values: Tensor) -> bool:
    """Whether what is not far from most of the values is on one line."""
    apart = values - values.median(dim=0).values
    away = length(apart)
    near = values[away <= _NEAR * away.median()]
    # torch's stubs leave this function untyped.
    spread = cast("Tensor", torch.linalg.svdvals(near - near.mean(dim=0)))  # pyright: ignore[reportUnknownMemberType]
    return len(near) < 2 or bool(spread[1] <= _FLAT * spread[0])
