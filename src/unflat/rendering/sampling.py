"""Where rays are cut into intervals: n+1 edges, never decreasing.

Edges are made in a normalised coordinate s in [0, 1] and mapped to distances, evenly in distance
or evenly in disparity (mip-NeRF 360, arXiv 2111.12077, eq. 11).
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Spacing = Literal["distance", "disparity"]


def to_distance(
    s: Float[Tensor, "*shape"], near: float, far: float, spacing: Spacing
) -> Float[Tensor, "*shape"]:
    """Distances of normalised positions: s = 0 is near, s = 1 is far.

    Args:
        s: in [0, 1].
        near: above 0 for disparity spacing; world units.
        far: above near; world units.
        spacing: even in distance, or even in 1 / distance.
    """
    if spacing == "distance":
        return near + (far - near) * s
    return 1.0 / ((1.0 - s) / near + s / far)


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


def merge_edges(
    first: Float[Tensor, "*rays m"], second: Float[Tensor, "*rays k"]
) -> Float[Tensor, "*rays total"]:
    """All edges of both sets, in order."""
    return torch.cat([first, second], dim=-1).sort(-1).values
