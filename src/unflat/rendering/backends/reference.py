"""Plain torch: any field, any device, any precision, derivatives of any order."""

import torch
from torch import Tensor

from unflat.fields.field import Field, Warped
from unflat.rendering.backends.contract import Marched, Marching, Rays
from unflat.rendering.quadrature import integrate, weights


class Reference:
    """The field asked point by point, as it is written."""

    name = "reference"

    def refuses(self, field: Field, rays: Rays) -> str | None:
        """Nothing."""
        return None

    def march(self, field: Field, rays: Rays, how: Marching) -> Marched:
        """All intervals at once, or in blocks front to back where rays may end early."""
        if how.least_light == 0 and (torch.is_grad_enabled() or rays.edges.shape[-1] <= how.block):
            return _whole(field, rays, how.opaque_last)
        return _in_blocks(field, rays, how)


def _whole(field: Field, rays: Rays, opaque_last: bool) -> Marched:
    """Expected features along rays, with the weights they came from."""
    origins, directions, edges, lengths = rays
    middles = 0.5 * (edges[..., 1:] + edges[..., :-1])
    points = origins[..., None, :] + middles[..., None] * directions[..., None, :]
    output = field(points, directions[..., None, :].expand_as(points))
    if lengths is None:
        lengths = interval_lengths(field, origins, directions, edges)
    shares = weights(output.density, lengths, opaque_last)
    return Marched(integrate(shares, output.features), shares)


def interval_lengths(field: Field, origins: Tensor, directions: Tensor, edges: Tensor) -> Tensor:
    """Lengths of intervals where the field measures them ("batch rays n").

    In a warped space that is the straight line between the warped edges (specs: the projective map
    takes lines to lines).
    """
    if not isinstance(field, Warped):
        return edges.diff(dim=-1)
    ends = field.warp(origins[..., None, :] + edges[..., None] * directions[..., None, :])
    return ends.diff(dim=-2).norm(dim=-1)


def _in_blocks(field: Field, rays: Rays, how: Marching) -> Marched:
    """Blocks of intervals, front to back, leaving rays whose light is spent."""
    origins, directions, edges, lengths = rays
    batch, count, n = edges.shape[0], edges.shape[1], edges.shape[2] - 1
    light = torch.ones(batch, count, device=edges.device, dtype=edges.dtype)
    shares = torch.zeros(batch, count, n, device=edges.device, dtype=edges.dtype)
    features: Tensor | None = None
    alive = torch.arange(count, device=edges.device)
    for start in range(0, n, how.block):
        stop = min(start + how.block, n)
        part = _whole(
            field,
            Rays(
                origins[:, alive],
                directions[:, alive],
                edges[:, alive, start : stop + 1],
                None if lengths is None else lengths[:, alive, start:stop],
            ),
            how.opaque_last and stop == n,
        )
        if features is None:
            features = torch.zeros(
                batch, count, part.features.shape[-1], device=edges.device, dtype=edges.dtype
            )
        carried = light[:, alive]
        features[:, alive] += carried[..., None] * part.features
        shares[:, alive, start:stop] = carried[..., None] * part.weights
        light[:, alive] = carried * (1 - part.weights.sum(-1)).clamp_min(0)
        alive = (light > how.least_light).any(dim=0).nonzero().flatten()
        if len(alive) == 0:
            break
    if features is None:
        raise ValueError("rays need at least one interval")
    return Marched(features, shares)
