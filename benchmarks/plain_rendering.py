"""Tri-planes rendered in plain PyTorch, as EG3D and nerf-from-image do: what ours is compared with.

Written as one would from the papers (arXiv 2112.07945, 2211.11674): all points of all rays at once,
three `grid_sample` lookups, their sum (or mean), a network with one hidden softplus layer, colours
added up with a running product of what each interval lets pass. Everything is differentiable.

It makes the same picture as `TriplaneField` with `FeatureDecoder` at the same edges, so that times
can be compared; `assert_same_picture` holds it to that.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unflat.fields.triplane import FeatureDecoder, TriplaneField
from unflat.rendering.backends import Rays
from unflat.rendering.render import render_rays

TOLERANCE = 1e-4  # of colours in [0, 1]


def look_up(
    planes: Float[Tensor, "3 channels height width"],
    points: Float[Tensor, "points 3"],
    padding: Literal["zeros", "border"] = "border",
) -> Float[Tensor, "3 points channels"]:
    """Features of each plane (XY, XZ, YZ) at points in [-1, 1]^3."""
    x, y, z = points.unbind(-1)
    pairs = torch.stack([torch.stack(pair, -1) for pair in ((x, y), (x, z), (y, z))])
    found = functional.grid_sample(
        planes, pairs[:, None], mode="bilinear", padding_mode=padding, align_corners=False
    )
    return found[:, :, 0].permute(0, 2, 1)


def composite(
    alpha: Float[Tensor, "rays n"], color: Float[Tensor, "rays n channels"]
) -> tuple[Float[Tensor, "rays channels"], Float[Tensor, "rays n"]]:
    """Colour of rays, and the share of light that each interval takes."""
    passed = torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-10], 1)
    shares = alpha * passed.cumprod(1)[:, :-1]
    return (shares[..., None] * color).sum(1), shares


def plain_rays(
    field: TriplaneField,
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    edges: Float[Tensor, "rays m"],
    chunk: int | None = None,
) -> Float[Tensor, "rays out"]:
    """Colours of rays through the first scene of a field that lies in a box.

    Args:
        field: its planes, its decoder's weights and its box are used, nothing else of it.
        origins: world units.
        directions: unit length.
        edges: distances of the n + 1 ends of intervals; all points asked lie in the box.
        chunk: rays at once; all if absent.
    """
    step = chunk or len(origins)
    rays = zip(origins.split(step), directions.split(step), edges.split(step), strict=True)
    return torch.cat([_chunk(field, *part) for part in rays])


def _chunk(field: TriplaneField, origins: Tensor, directions: Tensor, edges: Tensor) -> Tensor:
    middles = (edges[:, 1:] + edges[:, :-1]) / 2
    points = origins[:, None] + middles[..., None] * directions[:, None]
    low, high = field.bounds
    places = 2 * (points.reshape(-1, 3) - low) / (high - low) - 1
    features = look_up(field.planes[0], places).sum(0)
    density, color = plain_decoder(field.decoder, features)
    alpha = 1 - torch.exp(-density.reshape(middles.shape) * edges.diff(dim=1))
    return composite(alpha, color.reshape(*middles.shape, -1))[0]


def plain_decoder(decoder: torch.nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
    """Density and colour of points, with the weights of a `FeatureDecoder`."""
    assert isinstance(decoder, FeatureDecoder)
    hidden = functional.softplus(decoder.into(features))
    raw = decoder.out(hidden)
    color = (torch.sigmoid(raw[:, 1:]) * (1 + 2 * 0.001) - 0.001).clamp(0, 1)
    return functional.softplus(raw[:, 0] - 1), color


@torch.no_grad()
def assert_same_picture(field: TriplaneField, rays: Rays) -> float:
    """The largest difference between plain rendering and ours, in colours of [0, 1].

    Raises:
        AssertionError: it is above TOLERANCE: times would compare different things.
    """
    plain = plain_rays(field, rays.origins[0], rays.directions[0], rays.edges[0])
    ours = render_rays(field, rays.origins, rays.directions, rays.edges, opaque_last=False)
    difference = float((plain - ours.features[0]).abs().max())
    assert difference <= TOLERANCE, f"plain and ours differ by {difference:.2g}"
    assert float(plain.std()) > 100 * TOLERANCE, "the picture shows nothing to compare"
    return difference
