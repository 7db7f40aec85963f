"""Pictures to learn from: whole pictures of a batch of objects, with gradients, in few samples.

    seen = cast(field, camera, 32, Casting(coarse=16, fine=16), jitter=torch.rand(4, 32 * 32))
    seen.features       # 4 channels 32 32, over nothing: premultiplied by opacity

`render` makes final pictures without gradients; this makes the ones in a training step. Rays are
cut to the field's box, or to given limits, and sampled hierarchically (NeRF, arXiv 2003.08934,
section 5.2).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.fields.field import Bounded, Field
from unflat.geometry.camera import Camera
from unflat.geometry.rays import depth_per_distance, image_rays
from unflat.rendering.occupancy import OccupancyGrid
from unflat.rendering.render import render_rays
from unflat.rendering.sampling import box_limits, even_edges, importance_edges, merge_edges


@dataclass(frozen=True, kw_only=True)
class Casting:
    """How rays are cut into intervals."""

    coarse: int = 24
    """Intervals of the first pass, even between where a ray begins and ends."""
    fine: int = 0
    """Further intervals, placed where the first pass found matter."""
    keep: Literal["fine", "both"] = "fine"
    """What the picture is made from. "fine": the first pass only says where to look, and costs no
    gradients; two wide intervals hold what is before and behind. "both": all intervals, as NeRF and
    EG3D do."""
    near: float | None = None
    """Where rays begin, world units; where they enter the field's box if not given."""
    far: float | None = None
    """Where they end; where they leave the box if not given."""
    spread: float = 0.1
    """Share of the fine intervals spread evenly, for what the first pass missed."""

    def __post_init__(self) -> None:
        if self.coarse < 1 or self.fine < 0 or self.fine == 1:
            raise ValueError(f"{self.coarse} coarse and {self.fine} fine intervals: too few")
        if (self.near is None) != (self.far is None):
            raise ValueError("near and far are given together or not at all")


class Cast(NamedTuple):
    """Pictures of a batch of objects over nothing: what is behind shows by 1 - opacity."""

    features: Float[Tensor, "pictures channels side side"]
    """Premultiplied by opacity."""
    opacity: Float[Tensor, "pictures 1 side side"]
    """In [0, 1]."""
    distance: Float[Tensor, "pictures 1 side side"]
    """Where light ends along the ray, premultiplied by opacity; world units."""
    depth: Float[Tensor, "pictures side side"]
    """Along the optical axis, world units, without gradients; infinite where nothing is."""


def cast(
    field: Field,
    camera: Camera,
    side: int,
    how: Casting,
    *,
    jitter: Float[Tensor, "pictures rays"] | None = None,
    occupancy: OccupancyGrid | None = None,
) -> Cast:
    """Square pictures of a batch of scenes, each through its own camera; differentiable.

    Args:
        field: of as many scenes as the camera has entries.
        camera: with one batch axis, or with two: scenes, and views of each. Views of one scene come
            one after the other in what is returned; one scene in many views costs less than many.
        side: pixels.
        how: how rays are sampled.
        jitter: in [0, 1), for each ray of each picture: moves its inner edges of the first pass by
            up to half an interval each way. They stay where they are if not given.
        occupancy: where matter may be; the field is asked there only.

    Raises:
        ValueError: the field has no box and no limits are given.
    """
    rays = image_rays(camera, side, side)
    origins, directions = rays.origins.flatten(1, -2), rays.directions.flatten(1, -2)
    near, far = _limits(field, origins, directions, how)
    s = _jittered(how.coarse, origins, jitter)
    if how.fine:
        with torch.no_grad() if how.keep == "fine" else torch.enable_grad():
            edges = near + (far - near) * s
            first = render_rays(
                field, origins.detach(), directions.detach(), edges, False, occupancy
            )
        s = _finer(s, first.weights, how)
    edges = near + (far - near) * s
    light = render_rays(field, origins, directions, edges, False, occupancy)
    opacity = light.opacity
    distance = (light.weights * light.middles).sum(-1)
    along = depth_per_distance(camera, rays).flatten(1)
    with torch.no_grad():
        depth = torch.where(opacity > 0.5, distance / opacity.clamp_min(1e-6) * along, torch.inf)
    count = camera.batch_shape.numel()
    return Cast(
        light.features.reshape(count, side, side, -1).permute(0, 3, 1, 2),
        opacity.reshape(count, 1, side, side),
        distance.reshape(count, 1, side, side),
        depth.reshape(count, side, side),
    )


def _limits(
    field: Field, origins: Tensor, directions: Tensor, how: Casting
) -> tuple[Tensor, Tensor]:
    """Where each ray begins and ends, with one axis more for its edges."""
    if how.near is not None and how.far is not None:
        near = origins.new_full((*origins.shape[:-1], 1), how.near)
        return near, torch.full_like(near, how.far)
    if not isinstance(field, Bounded):
        raise ValueError(f"{type(field).__name__} has no bounds: give near and far")
    # Without gradients, as nerf-from-image has it: where a ray is cut does not change what lies on
    # it, and the fused kernels that fitted cameras are rendered by know no gradients of cuts.
    near, far = box_limits(origins.detach(), directions.detach(), field.bounds, 0.0, torch.inf)
    meets = near < far  # a ray that misses gets no length, far away from everything
    return near.where(meets, 1.0)[..., None], far.where(meets, 1.0)[..., None]


def _jittered(count: int, origins: Tensor, jitter: Tensor | None) -> Tensor:
    """Edges in [0, 1], the inner ones moved together."""
    s = even_edges(count, device=origins.device, dtype=origins.dtype)
    s = s.expand(*origins.shape[:-1], -1)
    if jitter is None:
        return s
    moved = s[..., 1:-1] + (jitter.reshape(*s.shape[:-1], 1) - 0.5) / count
    return torch.cat([s[..., :1], moved, s[..., -1:]], dim=-1)


def _finer(s: Tensor, weights: Tensor, how: Casting) -> Tensor:
    """Edges of the second pass: where matter was found, or these between those of the first."""
    if how.keep == "both":
        return merge_edges(s, importance_edges(s, weights, how.fine - 1, blur=how.spread))
    inner = importance_edges(s, weights, how.fine - 2, blur=how.spread)
    return torch.cat([s[..., :1], inner, s[..., -1:]], dim=-1)
