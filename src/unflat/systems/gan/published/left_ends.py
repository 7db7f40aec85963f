"""Pictures as nerf-from-image renders them (arXiv 2211.11674, its published code).

Its rule of quadrature is not ours: density and colour are those of an interval's beginning, the
last interval has no length, and a ray's samples begin on the face of the box. Trained weights know
no other rule, so that figures are compared in theirs; `unflat.rendering.render` shows the same
object, a little sharper.

    camera = from_nerf_from_image(stored, 128, 128)
    form = generator.form(codes)
    views = render_as_published(form.field, camera, 128, 128, samples="middle")
    picture = views.image(form.palette, background=0.5)
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unflat.fields.distance import mix
from unflat.fields.field import Field
from unflat.geometry.box import intersect_box
from unflat.geometry.camera import Camera
from unflat.geometry.rays import Rays, image_rays
from unflat.rendering.quadrature import integrate

Samples = Literal["beginning", "middle"] | torch.Generator
"""Where in its cell a sample lies: at its beginning (the published code without random numbers),
in its middle (reproducible, and on no face of the box), or anywhere (as the published code always
renders)."""

_NEAREST = 0.1  # world units: no ray begins before
_SHORTEST = 1e-3  # world units: no ray is shorter
_LEAST_WEIGHT = 0.01 + 1e-5  # of a coarse interval, so that fine samples go everywhere
_LEAST_SHARE = 1e-5  # of a ray's weight; intervals below it are not divided


class PublishedViews(NamedTuple):
    """Sums along rays, none divided by the opacity, as the published code leaves them."""

    choices: Float[Tensor, "batch k height width"]
    """What the field gives: choices among colours, or colours."""
    opacity: Float[Tensor, "batch height width"]
    """Sum of weights, in [0, 1]."""
    distance: Float[Tensor, "batch height width"]
    """Along the ray, world units; called depth there. Without gradients."""
    points: Float[Tensor, "batch 3 height width"]
    """World positions: its canonical map."""
    normals: Float[Tensor, "batch 3 height width"] | None
    """Unit slope of the distance, pointing out. Without gradients."""

    def image(
        self, colors: Float[Tensor, "batch k 3"] | None, background: float
    ) -> Float[Tensor, "batch 3 height width"]:
        """The picture in [0, 1], but for the thousandth by which colours may pass it.

        Args:
            colors: of the palette; none where the field gives colours.
            background: grey level behind the object.
        """
        seen = self.choices
        if colors is not None:
            seen = mix(seen.permute(0, 2, 3, 1), colors).permute(0, 3, 1, 2)
        return seen + (1 - self.opacity)[:, None] * background


def render_as_published(
    field: Field,
    camera: Camera,
    height: int,
    width: int,
    *,
    samples: Samples = "middle",
    coarse: int = 64,
    fine: int = 64,
    normals: bool = False,
    chunk: int = 8192,
) -> PublishedViews:
    """Views of a batch of objects, each through its own camera; differentiable.

    Args:
        field: with ``bounds``; with ``distance`` if normals are wanted.
        camera: one for each object; `unflat.geometry.from_nerf_from_image` gives theirs.
        height: pixels.
        width: pixels.
        samples: see `Samples`.
        coarse: samples of the first pass, even between the faces of the box.
        fine: further samples, where the first pass found matter.
        normals: whether they are rendered as well.
        chunk: rays at once, over the whole batch: memory, never the result.
    """
    rays = image_rays(camera, height, width)
    origins, directions = rays.origins.flatten(1, 2), rays.directions.flatten(1, 2)
    near, far = ray_ends(Rays(origins, directions), field.bounds)  # pyright: ignore[reportAttributeAccessIssue]
    parts = []
    pixels = torch.arange(height * width, device=origins.device)
    for chosen in pixels.split(max(1, chunk // len(origins))):
        part = Rays(origins[:, chosen], directions[:, chosen])
        ends = near[:, chosen, None], far[:, chosen, None]
        distances = _distances(field, part, *ends, samples, coarse, fine)
        parts.append(_sums(field, part, distances, normals))
    sums = torch.cat(parts, dim=1).unflatten(1, (height, width)).permute(0, 3, 1, 2)
    k = sums.shape[1] - (8 if normals else 5)
    return PublishedViews(
        choices=sums[:, :k],
        opacity=sums[:, k],
        distance=sums[:, k + 1],
        points=sums[:, k + 2 : k + 5],
        normals=sums[:, k + 5 :] if normals else None,
    )


@torch.no_grad()
def ray_ends(
    rays: Rays, bounds: Float[Tensor, "2 3"]
) -> tuple[Float[Tensor, "*rays"], Float[Tensor, "*rays"]]:
    """Distances between which rays are sampled: those of the box's faces.

    Rays that miss the box get the nearest beginning and the farthest end of the others; nothing is
    dense there.
    """
    hits = intersect_box(rays, bounds)
    near, far = hits.near, hits.far
    if bool(hits.hit.any()):
        near = near.where(hits.hit, near[hits.hit].min())
        far = far.where(hits.hit, far[hits.hit].max())
    near = near.clamp_min(_NEAREST)
    return near, far.clamp_min(_NEAREST).maximum(near + _SHORTEST)


@torch.no_grad()
def _distances(
    field: Field, rays: Rays, near: Tensor, far: Tensor, samples: Samples, coarse: int, fine: int
) -> Tensor:
    """Distances of all samples along each ray, in order."""
    shape = rays.origins.shape[:-1]
    first = near + (far - near) * _places(samples, coarse, shape, near, closed=False)
    if not fine:
        return first
    weights = _weights(_asked(field, rays, first)[0], first)
    # The mean over two neighbouring intervals of the larger of two: one interval of blur each way.
    wide = functional.max_pool1d(weights, 2, 1, padding=1)
    shares = functional.avg_pool1d(wide, 2, 1)[..., 1:-1] + _LEAST_WEIGHT
    edges = 0.5 * (first[..., 1:] + first[..., :-1])
    places = _places(samples, fine, shape, near, closed=True)
    return torch.cat([first, _quantiles(edges, shares, places)], dim=-1).sort(dim=-1).values


def _places(samples: Samples, count: int, shape: torch.Size, like: Tensor, closed: bool) -> Tensor:
    """Places in [0, 1] for each ray, one in each even cell.

    At the cells' beginnings 1 is left away for distances and reached (``closed``) for quantiles;
    random quantiles are drawn anywhere.
    """
    index = torch.arange(count, device=like.device, dtype=like.dtype)
    if isinstance(samples, torch.Generator):
        drawn = torch.rand(*shape, count, generator=samples).to(like)
        return drawn if closed else (index + drawn) / count
    if samples == "middle":
        return ((index + 0.5) / count).expand(*shape, count)
    return (index / (max(1, count - 1) if closed else count)).expand(*shape, count)


def _quantiles(edges: Tensor, shares: Tensor, places: Tensor) -> Tensor:
    """Where the piecewise linear distribution of the shares reaches the places."""
    shares = shares / shares.sum(-1, keepdim=True)
    cumulative = functional.pad(shares.cumsum(-1), (1, 0)).contiguous()
    after = torch.searchsorted(cumulative, places.contiguous(), right=True)
    low, high = (after - 1).clamp_min(0), after.clamp_max(shares.shape[-1])
    start, end = cumulative.gather(-1, low), cumulative.gather(-1, high)
    left, right = edges.gather(-1, low), edges.gather(-1, high)
    span = torch.where(end - start < _LEAST_SHARE, 1, end - start)
    return left + (right - left) * (places - start) / span


def _asked(field: Field, rays: Rays, distances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Density and features at samples, and where they are."""
    points = rays.at(distances)
    out = field(points, rays.directions[..., None, :].expand_as(points))
    return out.density, out.features, points


def _weights(density: Tensor, distances: Tensor) -> Tensor:
    """Share of light that ends in each interval, its density that of its beginning."""
    lengths = functional.pad(distances.diff(dim=-1), (0, 1))
    alpha = 1 - torch.exp(-density * lengths)
    left = functional.pad((1 - alpha + 1e-10).cumprod(-1)[..., :-1], (1, 0), value=1.0)
    return alpha * left


def _sums(field: Field, rays: Rays, distances: Tensor, normals: bool) -> Tensor:
    """Choices, opacity, distance, points and maybe normals, side by side."""
    density, features, points = _asked(field, rays, distances)
    weights = _weights(density, distances)
    fixed = weights.detach()
    sums = [
        integrate(weights, features),
        weights.sum(-1, keepdim=True),
        (fixed * distances).sum(-1, keepdim=True),
        integrate(weights, points),
    ]
    if normals:
        sums.append(integrate(fixed, _outward(field, points)))
    return torch.cat(sums, dim=-1)


def _outward(field: Field, points: Tensor) -> Tensor:
    """Unit slope of the distance, without gradients."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        distance = field.distance(points)  # pyright: ignore[reportAttributeAccessIssue]
        (slope,) = torch.autograd.grad(distance.sum(), points)
    return functional.normalize(slope, dim=-1)
