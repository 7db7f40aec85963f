"""A radiance field over (u, v, disparity): planes that follow the picture's own pixels.

A point of the canonical camera's frame is looked up at q = (u, v, delta): u, v in half-widths of
the picture, delta the normalised disparity, 1 nearest and 0 farthest (WildFusion, arXiv 2311.13570,
works in such view space too). The field of view and the scale of disparity are numbers of the
:class:`~unflat.geometry.projective.Frame`, not of the planes: true cameras need no retraining.

Density comes per unit of delta, sigma_world = sigma / (z^2 (d_near - d_far)), so far intervals,
long in world units, need no huge logits.
"""

import math
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.fields.field import FieldOutput
from unflat.fields.planes import by_texel, sample_plane
from unflat.geometry.projective import Frame

SURFACE_CHANNELS = 5  # red, green, blue, surface, thickness
MARGIN = 1.25  # the (u, delta) and (v, delta) planes reach this far beyond the picture


class ViewSpacePlanes(NamedTuple):
    """Three distinct planes of a batch of scenes.

    The picture's plane begins with five channels of plain meaning: base colour (3), where the
    visible surface lies (delta - 1/2), and how thick it is (before softplus).
    """

    uv: Float[Tensor, "batch wide height width"]
    ud: Float[Tensor, "batch channels deep across"]
    vd: Float[Tensor, "batch channels deep down"]


class ViewSpaceDecoder(nn.Module):
    """Density and colour from looked-up features, without a viewing direction.

    h = A(u,v) (1 + e(delta)) + b(delta) + B(u,delta) + C(v,delta) + g(surface - delta), then a
    small MLP. A slab of matter of the given thickness stands behind the surface channel from the
    start, so learning depth begins as regression and the MLP has only to say where that is wrong.
    """

    OCTAVES = 6
    SOFTNESS = (0.03, 0.1, 0.3)  # of the surface's features, units of delta

    def __init__(self, channels: int, surface: bool = True):
        """Channels of every plane (the picture's has five more); surface=False drops the slab."""
        super().__init__()
        self.surface = surface
        self.modulate = nn.Linear(2 + 2 * self.OCTAVES, 2 * channels)
        self.nearness = nn.Linear(len(self.SOFTNESS), channels, bias=False)
        last = nn.Linear(channels, 4)
        layers = nn.SiLU(inplace=True), nn.Linear(channels, channels), nn.SiLU(inplace=True), last
        self.mlp = nn.Sequential(*layers)
        _start_small(self.modulate, 0.05)
        _start_small(last, 0.02)

    def forward(
        self,
        uv: Float[Tensor, "*#points wide"],
        ud: Float[Tensor, "*#points channels"],
        vd: Float[Tensor, "*#points channels"],
        delta: Float[Tensor, "*#points"],
    ) -> tuple[Float[Tensor, "*points"], Float[Tensor, "*points 3"]]:
        """Density per unit of delta, and colour; the arguments broadcast against each other."""
        base, features = uv.split([SURFACE_CHANNELS, uv.shape[-1] - SURFACE_CHANNELS], dim=-1)
        scale, shift = self.modulate(_encode(delta, self.OCTAVES)).chunk(2, dim=-1)
        ahead = base[..., 3] + 0.5 - delta  # above 0 behind the surface
        # Few temporaries: most of the time goes into moving these numbers to and fro.
        hidden = torch.addcmul(shift + ud, features, 1 + scale) + vd
        if self.surface:
            softness = torch.tensor(self.SOFTNESS, device=delta.device, dtype=delta.dtype)
            hidden = hidden.add_(self.nearness((ahead[..., None] / softness).tanh_()))
        out = self.mlp(hidden)
        logit = out[..., 0] - 1.5
        if self.surface:
            thickness = 0.02 + functional.softplus(base[..., 4] - 2)
            soft = self.SOFTNESS[0]
            slab = torch.sigmoid(ahead / soft) * torch.sigmoid((thickness - ahead) / soft)
            logit = logit - 3.5 + 8 * slab
        return 30 * functional.softplus(logit - 1), base[..., :3] + out[..., 1:]


class ViewSpaceField(nn.Module):
    """View-space planes with their decoder, placed in the world by a frame."""

    def __init__(self, planes: ViewSpacePlanes, decoder: ViewSpaceDecoder, frame: Frame):
        """Planes of a batch of scenes; one decoder and one frame for all."""
        super().__init__()
        self.uv: Tensor
        self.ud: Tensor
        self.vd: Tensor
        for name, plane in zip(("uv", "ud", "vd"), planes, strict=True):
            self.register_buffer(name, by_texel(plane), persistent=False)
        self.decoder = decoder
        self.frame = frame

    @property
    def planes(self) -> ViewSpacePlanes:
        """The three planes."""
        return ViewSpacePlanes(self.uv, self.ud, self.vd)

    def with_frame(self, frame: Frame) -> "ViewSpaceField":
        """The same scene under another field of view or disparity scale."""
        return ViewSpaceField(self.planes, self.decoder, frame)

    def scene(self, index: int) -> "ViewSpaceField":
        """One scene of the batch."""
        planes = ViewSpacePlanes(*(plane[index : index + 1] for plane in self.planes))
        return ViewSpaceField(planes, self.decoder, self.frame)

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
        """Density per unit of delta and unclamped colour at (u, v, delta)."""
        u, v, delta = q.unbind(-1)
        depth = 1 - 2 * delta  # planes store the nearest in row 0
        uv = sample_plane(self.uv, q[..., :2])
        ud = sample_plane(self.ud, torch.stack([u / MARGIN, depth], dim=-1))
        vd = sample_plane(self.vd, torch.stack([v / MARGIN, depth], dim=-1))
        return self.decoder(uv, ud, vd, delta)

    def on_grid(
        self,
        v: Float[Tensor, " rows"],
        u: Float[Tensor, " columns"],
        delta: Float[Tensor, " n"],
    ) -> tuple[
        Float[Tensor, "batch rows columns n"],
        Float[Tensor, "batch rows columns n 3"],
    ]:
        """What ``at`` gives on a product grid of canonical rays, with shared lookups.

        (u, v) is looked up once per pixel, (u, delta) once per column and depth, (v, delta) once
        per row and depth: some twenty times fewer lookups than point by point.
        """
        batch = self.uv.shape[0]
        rows, columns, n = len(v), len(u), len(delta)
        depth = 1 - 2 * delta
        uv_grid = torch.stack([u.expand(rows, -1), v[:, None].expand(-1, columns)], dim=-1)
        ud_grid = torch.stack([u[:, None].expand(-1, n) / MARGIN, depth.expand(columns, -1)], -1)
        vd_grid = torch.stack([v[:, None].expand(-1, n) / MARGIN, depth.expand(rows, -1)], -1)
        uv = sample_plane(self.uv, uv_grid.expand(batch, -1, -1, -1))
        ud = sample_plane(self.ud, ud_grid.expand(batch, -1, -1, -1))
        vd = sample_plane(self.vd, vd_grid.expand(batch, -1, -1, -1))
        return self.decoder(uv[:, :, :, None], ud[:, None], vd[:, :, None], delta)

    def warp(self, points: Float[Tensor, "batch *points 3"]) -> Float[Tensor, "batch *points 3"]:
        """Points in the frame's assumed space, where lengths are measured."""
        return assumed_points(points, self.frame)


@runtime_checkable
class InView(Protocol):
    """A field that can be asked in view space as well."""

    def at(
        self, q: Float[Tensor, "batch *points 3"]
    ) -> tuple[Float[Tensor, " batch *points"], Float[Tensor, "batch *points 3"]]:
        """Density per unit of delta and unclamped colour at (u, v, delta)."""
        ...


class CanonicalField(nn.Module):
    """A field asked at (u, v, delta) itself.

    There canonical rays are parallel to the axis of delta. Lengths of their intervals have to be
    given: a slanted ray is longer.
    """

    def __init__(self, base: InView):
        """The same scenes."""
        super().__init__()
        self.base = base

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """Density per unit of delta and unclamped colour at (u, v, delta)."""
        return FieldOutput(*self.base.at(points))


def view_coordinates(
    points: Float[Tensor, "*batch 3"], frame: Frame
) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch"]]:
    """(u, v, delta) of world points, and the factor from density per delta to per length.

    The factor is 1 / (z^2 (d_near - d_far)) at the point's depth z in the assumed space. It is 0
    for points behind the canonical camera or nearer than half the nearest depth: they have no
    coordinates, so nothing is there.
    """
    z = points[..., 2]
    inverse = 1 / z.clamp_min(1e-6)
    uv = points[..., :2] * inverse[..., None] * frame.focal_true
    disparity = frame.a * inverse + frame.b
    span = frame.d_near - frame.d_far
    delta = (disparity - frame.d_far) / span
    valid = (z > 1e-6) & (disparity < 2 * frame.d_near)
    lowest = disparity.clamp_min(0.2 * frame.d_far)
    factor = torch.where(valid, lowest.square() / span, 0.0)
    q = torch.cat([uv.clamp(-8, 8), delta.clamp(0, 1.5)[..., None]], dim=-1)
    return q, factor


def assumed_points(points: Float[Tensor, "*batch 3"], frame: Frame) -> Float[Tensor, "*batch 3"]:
    """World points in the assumed space, those beyond its farthest depth held there.

    :meth:`Frame.warp` away from the edges; what has disparity below d_far / 5 lies at or beyond
    the picture's true infinity and is kept at that depth.
    """
    inverse = 1 / points[..., 2].clamp_min(1e-6)
    disparity = (frame.a * inverse + frame.b).clamp(0.2 * frame.d_far, 4 * frame.d_near)
    uv = points[..., :2] * inverse[..., None] * (frame.focal_true / frame.focal_assumed)
    return (
        torch.cat([uv.clamp(-64, 64), torch.ones_like(inverse)[..., None]], -1)
        / (disparity[..., None])
    )


def stretch(
    points: Float[Tensor, "*batch 3"], directions: Float[Tensor, "*batch 3"], frame: Frame
) -> Float[Tensor, "*batch"]:
    """Assumed length per world length, at points along unit directions: |J d|, J of `Frame.warp`.

    Beyond the farthest depth of `assumed_points` the derivative there is meant.
    """
    z, forward = points[..., 2:], directions[..., 2:]
    w = torch.maximum(frame.a + frame.b * z, 0.2 * frame.d_far * z).clamp_min(1e-6)
    across = frame.focal_ratio * (directions[..., :2] * w - frame.b * points[..., :2] * forward)
    return torch.cat([across, frame.a * forward], dim=-1).norm(dim=-1) / w[..., 0].square()


def _start_small(layer: nn.Linear, std: float) -> None:
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)


def _encode(delta: Tensor, octaves: int) -> Tensor:
    """Delta, its square and sines and cosines of doubling frequency: 2 + 2 octaves numbers."""
    waves = delta[..., None] * (math.pi * 2.0 ** torch.arange(octaves, device=delta.device))
    return torch.cat(
        [delta[..., None], delta[..., None].square(), waves.sin(), waves.cos()], dim=-1
    )


def ray_limits(frame: Frame) -> tuple[float, float]:
    """Distances between which rays of nearby cameras find the scene, world units.

    The scene's own disparities with room for moves: 1.3 times the nearest, half the farthest.
    """
    nearest = 1.3 * (frame.d_near - frame.b) / frame.a
    farthest = max(0.5 * (frame.d_far - frame.b) / frame.a, 1e-3 * nearest)
    return 1 / nearest, 1 / farthest
