"""Where rays are cut into intervals: n+1 edges, never decreasing.

Edges are made in a normalised coordinate s in [0, 1] and mapped to distances, evenly in distance
or evenly in disparity (mip-NeRF 360, arXiv 2111.12077, eq. 11).
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry.box import intersect_box
from unflat.geometry.rays import Rays

Spacing = Literal["distance", "disparity"]


def to_distance(
    s: Float[Tensor, "*shape"],
    near: float | Float[Tensor, "*#shape"],
    far: float | Float[Tensor, "*#shape"],
    spacing: Spacing,
) -> Float[Tensor, "*shape"]:
    """Distances of normalised positions: s = 0 is near, s = 1 is far.

    Args:
        s: in [0, 1].
        near: above 0 for disparity spacing; world units; one for all, or one for each ray.
        far: above near; world units.
        spacing: even in distance, or even in 1 / distance.
    """
    if spacing == "distance":
        return near + (far - near) * s
    return 1.0 / ((1.0 - s) / near + s / far)


def from_distance(
    distance: Float[Tensor, "*shape"], near: float, far: float, spacing: Spacing
) -> Float[Tensor, "*shape"]:
    """Normalised positions of distances, the inverse of `to_distance`; in [0, 1] between limits.

    Args:
        distance: above 0 for disparity spacing; world units.
        near: above 0 for disparity spacing; world units.
        far: above near; world units.
        spacing: even in distance, or even in 1 / distance.
    """
    if spacing == "distance":
        return (distance - near) / (far - near)
    return (1.0 / near - 1.0 / distance) / (1.0 / near - 1.0 / far)


def box_limits(
    origins: Float[Tensor, "*rays 3"],
    directions: Float[Tensor, "*rays 3"],
    bounds: Float[Tensor, "2 3"],
    near: float,
    far: float,
) -> tuple[Float[Tensor, "*rays"], Float[Tensor, "*rays"]]:
    """Where each ray enters and leaves a box, held between near and far, world units.

    Both are far for a ray that misses the box, or meets it only before near or beyond far: nothing
    is left to look at.

    Args:
        origins: world units.
        directions: unit length.
        bounds: lowest and highest corner, world units.
        near: distance at which rays begin, world units.
        far: distance at which they end, world units.
    """
    hits = intersect_box(Rays(origins, directions), bounds)
    entry, leave = hits.near.clamp(near, far), hits.far.clamp(near, far)
    meets = leave > entry
    return entry.where(meets, far), leave.where(meets, far)


def even_edges(
    count: int, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> Float[Tensor, " edges"]:
    """Evenly spaced edges from 0 to 1 that bound ``count`` intervals."""
    return torch.linspace(0.0, 1.0, count + 1, device=device, dtype=dtype)


def stratified_edges(
    rays: int, count: int, generator: torch.Generator | None = None
) -> Float[Tensor, "rays edges"]:
    """Edges whose inner ones are jittered by up to half a cell each way; 0 and 1 stay.

    Args:
        rays: how many independent sets.
        count: intervals of each.
        generator: on the CPU; the global one if absent.
    """
    edges = even_edges(count).expand(rays, -1).clone()
    jitter = torch.rand(rays, count - 1, generator=generator) - 0.5
    edges[:, 1:-1] += jitter / count
    return edges


def importance_edges(
    edges: Float[Tensor, "*rays m"],
    weights: Float[Tensor, "*rays n"],
    count: int,
    generator: torch.Generator | None = None,
    blur: float = 0.01,
) -> Float[Tensor, "*rays k"]:
    """Edges (count + 1) where the weights are, by inverting their piecewise linear distribution.

    NeRF's hierarchical sampling (arXiv 2003.08934, section 5.2) on a step function: the share of
    light in interval i is (weights_i + blur / n), normalised.

    Args:
        edges: of the coarse pass, n + 1 per ray, never decreasing, any coordinate.
        weights: of the coarse pass, at least 0.
        count: intervals wanted.
        generator: jitters the quantiles; without one they are the middles of even cells.
        blur: share of the light spread evenly, so that no interval is lost.
    """
    n = weights.shape[-1]
    if edges.shape[-1] != n + 1:
        raise ValueError(f"{edges.shape[-1]} edges do not bound {n} intervals")
    shares = weights.detach() + blur / n
    shares = shares / shares.sum(-1, keepdim=True)
    cumulative = torch.cat([torch.zeros_like(shares[..., :1]), shares.cumsum(-1)], dim=-1)
    shape = (*weights.shape[:-1], count + 1)
    offset = torch.full(shape, 0.5, device=edges.device)
    if generator is not None:
        offset = torch.rand(shape, generator=generator).to(edges.device)
    quantiles = (torch.arange(count + 1, device=edges.device) + offset) / (count + 1)
    quantiles = quantiles.to(edges.dtype).contiguous()
    place = torch.searchsorted(cumulative.contiguous(), quantiles, right=True)
    below = (place - 1).clamp(0, n - 1)
    start, share = cumulative.gather(-1, below), shares.gather(-1, below)
    left, right = edges.gather(-1, below), edges.gather(-1, below + 1)
    return left + (right - left) * ((quantiles - start) / share).clamp(0, 1)


def guided_edges(
    shares: Float[Tensor, "*rays n"], count: int, blur: float = 0.02
) -> Float[Tensor, "*rays m"]:
    """Few edges (count + 1) from 0 to 1: close where light is expected to end, far apart elsewhere.

    The inner ones are quantiles of the shares' square roots, as in `importance_edges`: the roots
    leave samples for the little light that ends elsewhere, and gain up to 9 dB on solids at 12
    samples (benchmarks/skipping.py). One wide interval before and one behind them reach to 0 and
    1, so that no part of a ray is left out.

    Args:
        shares: of light expected to end in each of n even cells of [0, 1]; at least 0, and only
            their ratios matter.
        count: intervals, at least 1.
        blur: share of the intervals spread evenly, for what nobody expected.
    """
    roots, n = shares.sqrt(), shares.shape[-1]
    total = roots.sum(-1, keepdim=True)
    expected = torch.where(total > 0, roots / total.where(total > 0, 1), 1 / n)
    cells = even_edges(n, device=shares.device, dtype=shares.dtype).expand(*shares.shape[:-1], -1)
    inner = importance_edges(cells, expected, count - 2, blur=blur)
    first = torch.zeros_like(shares[..., :1])
    return torch.cat([first, inner, first + 1], dim=-1)


def merge_edges(
    first: Float[Tensor, "*rays m"], second: Float[Tensor, "*rays k"]
) -> Float[Tensor, "*rays total"]:
    """All edges of both sets, in order."""
    return torch.cat([first, second], dim=-1).sort(-1).values
