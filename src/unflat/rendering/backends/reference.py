"""Plain torch: any field, any device, any precision, derivatives of any order."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unflat.fields.field import Field, FieldOutput, Warped
from unflat.rendering.backends.contract import Marched, Marching, Rays
from unflat.rendering.occupancy import OccupancyGrid
from unflat.rendering.quadrature import integrate, weights


class Reference:
    """The field asked point by point, as it is written."""

    name = "reference"

    def refuses(self, field: Field, rays: Rays) -> str | None:
        """Nothing."""
        return None

    def pays(self, field: Field, rays: Rays) -> bool:
        """Always."""
        return True

    def march(self, field: Field, rays: Rays, how: Marching) -> Marched:
        """All intervals at once, or in blocks front to back where rays may end early."""
        if how.least_light == 0 and (torch.is_grad_enabled() or rays.edges.shape[-1] <= how.block):
            return _whole(field, rays, how.opaque_last, how.occupancy)
        return _in_blocks(field, rays, how)

    def pays_to_ask(self, field: Field, points: Tensor) -> bool:
        """Always."""
        return True

    def ask(self, field: Field, points: Tensor) -> FieldOutput:
        """What the field itself says."""
        return field(points)


def _whole(field: Field, rays: Rays, opaque_last: bool, occupancy: OccupancyGrid | None) -> Marched:
    """Expected features along rays, with the weights they came from."""
    origins, directions, edges, lengths = rays
    middles = 0.5 * (edges[..., 1:] + edges[..., :-1])
    points = origins[..., None, :] + middles[..., None] * directions[..., None, :]
    travel = directions[..., None, :].expand_as(points)
    if occupancy is None:
        output = field(points, travel)
    else:
        wanted = occupancy.at(points)
        if opaque_last:  # its color is seen whether or not anything is there
            wanted[..., -1] = True
        output = ask_where(field, points, travel, wanted)
    if lengths is None:
        lengths = interval_lengths(field, origins, directions, edges)
    shares = weights(output.density, lengths, opaque_last)
    return Marched(integrate(shares, output.features), shares)


def ask_where(
    field: Field,
    points: Float[Tensor, "batch *points 3"],
    directions: Float[Tensor, "batch *points 3"],
    wanted: Bool[Tensor, " batch *points"],
) -> FieldOutput:
    """What the field says at the wanted points, and 0 at the others, where it is not asked.

    Scenes want different numbers of points; those with fewer ask about their first one again.
    """
    if bool(wanted.all()):
        return field(points, directions)
    shape, flat = wanted.shape[1:], wanted.flatten(1)
    counts = flat.sum(dim=1, keepdim=True)
    most = max(1, int(counts.max()))  # at least one, to learn how many channels there are
    used = torch.arange(most, device=flat.device) < counts
    asked, travel = points.flatten(1, -2), directions.flatten(1, -2)
    packed, packed_travel = (every[:, :1].repeat(1, most, 1) for every in (asked, travel))
    packed[used], packed_travel[used] = asked[flat], travel[flat]
    answer = field(packed, packed_travel)
    density = answer.density.new_zeros(flat.shape)
    features = answer.features.new_zeros(*flat.shape, answer.features.shape[-1])
    density[flat], features[flat] = answer.density[used], answer.features[used]
    return FieldOutput(density.unflatten(1, shape), features.unflatten(1, shape))


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
            how.occupancy,
        )
        if features is None:
            features = torch.zeros(
                batch, count, part.features.shape[-1], device=edges.device, dtype=edges.dtype
            )
        carried = light[:, alive]
        features[:, alive] += carried[..., None] * part.features
        shares[:, alive, start:stop] = carried[..., None] * part.weights
        left = carried * (1 - part.weights.sum(-1)).clamp_min(0)
        # A ray of one scene ends by itself, though it is asked on along with another scene's.
        light[:, alive] = torch.where(left > how.least_light, left, 0)
        alive = (light > 0).any(dim=0).nonzero().flatten()
        if len(alive) == 0:
            break
    if features is None:
        raise ValueError("rays need at least one interval")
    return Marched(features, shares)
