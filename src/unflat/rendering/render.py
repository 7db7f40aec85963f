"""Rays through a field: edges, density and colour at the middles, quadrature.

``render`` makes pictures in chunks of rays; every ray is computed by itself, so the chunk size
never changes the result. (Matrix products inside a field's network may round their last bit
differently for another number of rows; nothing else does.)
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.fields.background import Background
from unflat.fields.field import Bounded, Field, Furnished
from unflat.geometry.camera import Camera
from unflat.geometry.rays import depth_per_distance, image_rays
from unflat.rendering.backends import Marched, Marching, Rays, pick
from unflat.rendering.guide import Guide
from unflat.rendering.occupancy import OccupancyGrid
from unflat.rendering.sampling import (
    Spacing,
    box_limits,
    even_edges,
    guided_edges,
    importance_edges,
    merge_edges,
    to_distance,
)


@dataclass(frozen=True, kw_only=True)
class RenderOptions:
    """How rays are cut into intervals and summed."""

    samples: int = 48
    """Intervals of the first pass, even in the chosen spacing."""
    fine_samples: int = 0
    """Further intervals, placed where the first pass found matter; all there are where a guide or
    a coarse picture tells where matter is."""
    coarse: int = 1
    """How many times smaller the side of the first pass's picture is. Above 1 its rays guide those
    of their neighborhood, which ask only ``fine_samples`` times. The error has no bound: details
    that the coarse picture misses and that are thinner than an interval can be lost."""
    near: float = 0.5
    """Distance at which rays are first looked at, world units."""
    far: float = 20.0
    """Distance at which they end, world units."""
    spacing: Spacing = "disparity"
    """Even in 1 / distance (scenes with a background) or in distance (objects)."""
    opaque_last: bool = True
    """The last interval takes all light that is left; otherwise the background shows."""
    background: tuple[float, ...] | Background | None = None
    """Behind rays that keep light: one colour, or one for each direction; black if absent. An
    opaque last interval leaves it nothing to light."""
    chunk: int = 16384
    """Rays computed at once, over all scenes of the batch: memory, never the result."""
    block: int = 8
    """Intervals asked at once, front to back; a ray is left when its light is spent."""
    least_light: float = 1e-3
    """Transmittance below which a ray ends early: colours change by at most this much. 0 follows
    every ray to its end."""
    occupancy: OccupancyGrid | None = None
    """Asks the field only where matter may be. The picture is the same up to what the grid left
    out; its class states the bound."""
    fit_box: bool = False
    """Cuts rays to the field's box (:class:`Bounded`), so that all samples lie inside it; rays that
    miss it are not marched. Nothing is lost, and intervals get shorter. Needs ``opaque_last``
    off: the end of the box is not the end of the world."""

    def __post_init__(self):
        if not 0 < self.near < self.far:
            raise ValueError(f"need 0 < near < far, got {self.near} and {self.far}")
        for name, least in (
            ("samples", 1),
            ("fine_samples", 0),
            ("coarse", 1),
            ("chunk", 1),
            ("block", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not 0 <= self.least_light < 1:
            raise ValueError(f"least_light is {self.least_light}; it must be in [0, 1)")
        if self.fit_box and self.opaque_last:
            raise ValueError("fit_box ends rays where the box ends: opaque_last must be False")
        if self.coarse > 1:
            self.check_guided(f"coarse is {self.coarse}")

    def check_guided(self, why: str) -> None:
        """Refuses what does not go together with a guide.

        Raises:
            ValueError: there are no fine samples to guide, or rays are cut to a box, each to its
                own limits.
        """
        if not self.fine_samples:
            raise ValueError(f"{why}: fine_samples must say how many intervals are guided")
        if self.fit_box:
            raise ValueError(f"{why}: fit_box must be False, for a guide knows one near and far")


class RayOutput(NamedTuple):
    """What rays through a field give."""

    features: Float[Tensor, "batch *rays channels"]
    """Expected colour, in [0, 1] where the field has three channels."""
    weights: Float[Tensor, "batch *rays n"]
    """Share of light that ends in each interval."""
    edges: Float[Tensor, "batch *rays n+1"]
    """Distances along the ray, world units."""

    @property
    def opacity(self) -> Float[Tensor, " batch *rays"]:
        """Sum of weights, in [0, 1]."""
        return self.weights.sum(-1)

    @property
    def middles(self) -> Float[Tensor, "batch *rays n"]:
        """Distances of the intervals' middles."""
        return 0.5 * (self.edges[..., 1:] + self.edges[..., :-1])


class RenderOutput(NamedTuple):
    """Pictures of a batch of scenes."""

    features: Float[Tensor, "batch channels height width"]
    """Colour in [0, 1] (three channels) or features."""
    depth: Float[Tensor, "batch height width"]
    """1 / disparity: depth along the optical axis, world units; far where nothing was hit."""
    disparity: Float[Tensor, "batch height width"]
    """Expected 1 / depth, 1 / world units; light that was left counts as 0."""
    opacity: Float[Tensor, "batch height width"]
    """Sum of weights, in [0, 1]."""
    termination_variance: Float[Tensor, "batch height width"]
    """Variance of 1 / depth under the weights, squared units of disparity."""

    @property
    def rgb(self) -> Float[Tensor, "batch 3 height width"]:
        """The colour.

        Raises:
            ValueError: the field gave another number of channels.
        """
        if self.features.shape[1] != 3:
            raise ValueError(f"the field has {self.features.shape[1]} channels, not a colour")
        return self.features


def render_rays(
    field: Field,
    origins: Float[Tensor, "batch *rays 3"],
    directions: Float[Tensor, "batch *rays 3"],
    edges: Float[Tensor, "batch *rays m"],
    opaque_last: bool = True,
    occupancy: OccupancyGrid | None = None,
) -> RayOutput:
    """Expected colour along rays, with the weights it came from.

    Where the field measures lengths in a warped space, intervals are as long as the straight line
    between the warped edges (specs: the projective map takes lines to lines).

    Args:
        field: asked at the middles of the intervals.
        origins: world units.
        directions: unit length.
        edges: distances, n + 1 per ray, never decreasing.
        opaque_last: the last interval takes all light that is left.
        occupancy: where matter may be; the field is asked there only.
    """
    batch, shape = edges.shape[0], edges.shape[:-1]
    marched = _march(
        field,
        origins.reshape(batch, -1, 3),
        directions.reshape(batch, -1, 3),
        edges.reshape(batch, -1, edges.shape[-1]),
        Marching(opaque_last=opaque_last, occupancy=occupancy),
    )
    return RayOutput(
        marched.features.reshape(*shape, -1), marched.weights.reshape(*shape, -1), edges
    )


@torch.no_grad()
def render(
    field: Field,
    camera: Camera,
    height: int,
    width: int,
    options: RenderOptions,
    guide: Guide | None = None,
) -> RenderOutput:
    """Pictures of a batch of scenes, each through its own camera.

    Args:
        field: of as many scenes as the camera has entries.
        camera: perspective or orthographic, with one batch axis; an orthographic ray begins in the
            plane through the camera's position.
        height: pixels.
        width: pixels.
        options: sampling; see :class:`RenderOptions`.
        guide: where light is expected to end, in place of the first pass: rays ask only
            ``options.fine_samples`` times.

    Raises:
        ValueError: the camera has no batch axis, or more than one; the background has another
            number of channels than the field; rays are to fit a box that the field does not
            have; the guide is of other scenes, or has nothing to guide.
    """
    if len(camera.batch_shape) != 1:
        raise ValueError(f"the camera's batch must be one axis, not {tuple(camera.batch_shape)}")
    rays = image_rays(camera, height, width)
    batch = rays.origins.shape[0]
    if guide is not None:
        options.check_guided("a guide is given")
        if len(guide.shares) != batch:
            raise ValueError(f"a guide of {len(guide.shares)} scenes for {batch} cameras")
    elif options.coarse > 1:
        guide = _coarse_guide(field, camera, height, width, options)
    wide = None if guide is None else guide.widened()
    origins, directions = rays.origins.flatten(1, 2), rays.directions.flatten(1, 2)
    forward = depth_per_distance(camera, rays).flatten(1)
    pixels = torch.arange(height * width, device=origins.device)
    parts: list[Tensor] = []
    for chosen in pixels.split(max(1, options.chunk // batch)):
        shares = None if wide is None else wide.at(chosen, height, width)
        light = _light_along(field, origins[:, chosen], directions[:, chosen], options, shares)
        parts.append(_seen(light, directions[:, chosen], forward[:, chosen], options))
    flat = torch.cat(parts, dim=1).unflatten(1, (height, width))
    disparity, variance, opacity = flat[..., -3], flat[..., -2], flat[..., -1]
    return RenderOutput(
        features=flat[..., :-3].permute(0, 3, 1, 2),
        depth=1 / disparity.clamp_min(1 / options.far),
        disparity=disparity,
        opacity=opacity,
        termination_variance=variance,
    )


def _coarse_guide(
    field: Field, camera: Camera, height: int, width: int, options: RenderOptions
) -> Guide:
    """Where light ends in a picture of a fraction of the side."""
    if isinstance(field, Furnished):
        raise ValueError(f"coarse: {type(field).__name__} has inner edges, a guide has even cells")
    size = (-(-height // options.coarse), -(-width // options.coarse))
    rays = image_rays(camera, *size)
    origins, directions = rays.origins.flatten(1, 2), rays.directions.flatten(1, 2)
    step = max(1, options.chunk // origins.shape[0])
    first = replace(options, coarse=1, fine_samples=0)
    parts = [
        _light_along(field, some, ways, first, None).weights
        for some, ways in zip(origins.split(step, 1), directions.split(step, 1), strict=True)
    ]
    return Guide(torch.cat(parts, dim=1).unflatten(1, size))


def _light_along(
    field: Field,
    origins: Tensor,
    directions: Tensor,
    options: RenderOptions,
    shares: Tensor | None,
) -> RayOutput:
    """Where light ends along a chunk of rays; shares are those of a guide."""
    if not options.fit_box:
        return _two_passes(field, origins, directions, options, shares, options.near, options.far)
    if not isinstance(field, Bounded):
        raise ValueError(f"fit_box: {type(field).__name__} has no bounds to cut rays to")
    near, far = box_limits(origins, directions, field.bounds, options.near, options.far)
    meets = (far > near).any(dim=0).nonzero().flatten()
    if len(meets) == 0:  # one is marched all the same, to learn how many channels there are
        meets = meets.new_zeros(1)
    part = _two_passes(
        field,
        origins[:, meets],
        directions[:, meets],
        options,
        None,
        near[:, meets, None],
        far[:, meets, None],
    )
    batch, count = near.shape
    features = part.features.new_zeros(batch, count, part.features.shape[-1])
    weights = part.weights.new_zeros(batch, count, part.weights.shape[-1])
    edges = part.edges.new_full((batch, count, part.edges.shape[-1]), options.far)
    features[:, meets], weights[:, meets], edges[:, meets] = part
    return RayOutput(features, weights, edges)


def _two_passes(
    field: Field,
    origins: Tensor,
    directions: Tensor,
    options: RenderOptions,
    shares: Tensor | None,
    near: float | Tensor,
    far: float | Tensor,
) -> RayOutput:
    """Even intervals, then more of them where matter was found; or guided ones at once."""
    how = Marching(
        opaque_last=options.opaque_last,
        least_light=options.least_light,
        block=options.block,
        occupancy=options.occupancy,
    )
    if shares is not None:
        s = guided_edges(shares, options.fine_samples)
    else:
        s = even_edges(options.samples, device=origins.device, dtype=origins.dtype)
        s = s.expand(*origins.shape[:-1], -1)
    if options.fine_samples and shares is None:
        edges = _distances(s, near, far, options.spacing)
        first = _march(field, origins, directions, edges, how)
        # One more edge is one more interval: as many edges as intervals are asked for.
        s = merge_edges(s, importance_edges(s, first.weights, options.fine_samples - 1))
    edges = _distances(s, near, far, options.spacing)
    if isinstance(field, Furnished):
        edges = _with_inner(edges, field.inner_edges(origins, directions))
    result = _march(field, origins, directions, edges, how)
    return RayOutput(result.features, result.weights, edges)


def _with_inner(edges: Tensor, inner: Tensor) -> Tensor:
    """All edges in order; what lies beyond the first or the last interval's begin is put there.

    The last interval stays as it is: where it takes all light that is left, its colour is that of
    the background, not of its end.
    """
    return merge_edges(edges, inner.clamp(min=edges[..., :1], max=edges[..., -2:-1]))


def _distances(s: Tensor, near: float | Tensor, far: float | Tensor, spacing: Spacing) -> Tensor:
    """Distances of positions in order, never decreasing where they are so close that they round."""
    return to_distance(s, near, far, spacing).cummax(dim=-1).values


def _seen(light: RayOutput, directions: Tensor, forward: Tensor, options: RenderOptions) -> Tensor:
    """Features, disparity, variance and opacity of a chunk of rays, side by side."""
    features, opacity = light.features, light.opacity
    if options.background is not None:
        behind = _behind(options.background, directions, features)
        features = features + (1 - opacity)[..., None] * behind
    inverse = 1 / (light.middles * forward[..., None])
    disparity = (light.weights * inverse).sum(-1)
    variance = (light.weights * (inverse - disparity[..., None]).square()).sum(-1)
    rest = torch.stack([disparity, variance, opacity], dim=-1)
    return torch.cat([features, rest], dim=-1)


def _behind(
    background: tuple[float, ...] | Background, directions: Tensor, features: Tensor
) -> Tensor:
    """What lies infinitely far away on each ray."""
    if isinstance(background, tuple):
        behind = features.new_tensor(background)
    else:
        behind = background(directions)
    if behind.shape[-1] != features.shape[-1]:
        raise ValueError(
            f"the background has {behind.shape[-1]} channels, the field {features.shape[-1]}"
        )
    return behind


def _march(
    field: Field, origins: Tensor, directions: Tensor, edges: Tensor, how: Marching
) -> Marched:
    """Light along rays, by the backend that the field and the device ask for."""
    rays = Rays(origins, directions, edges)
    return pick(field, rays).march(field, rays, how)
