"""How far a rendered object is from its picture: by features, by opacity, by color.

The published loss is LPIPS alone, of the pair and of 15 random warps of it, the same for both
(arXiv 2211.11674, section 3.3): what a network sees of a turned or a larger picture differs, so
that the mean has fewer holes to fall into. Here opacity has a term of its own, since the outline is
what is known best, and fewer warps do.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unflat.nn.warp_picture import warp_picture
from unflat.systems.inversion.framing import Window, cut, window_of


class Seen(NamedTuple):
    """Single objects as the encoder and the fit see them."""

    image: Float[Tensor, "batch 3 side side"]
    """In [0, 1], before the background that the generator draws."""
    opacity: Float[Tensor, "batch 1 side side"]
    """Share of a pixel that is object."""
    window: Window
    """Where it was in the whole, square picture."""


def look(
    images: Float[Tensor, "batch 3 height width"],
    opacity: Float[Tensor, "batch height width"],
    side: int,
    background: float = 1.0,
    moved: Callable[[Window], Window] | None = None,
) -> Seen:
    """The windows around objects.

    Args:
        images: square pictures in [0, 1]; beside the objects they may show anything.
        opacity: which share of a pixel is object.
        side: of the windows' pictures, in pixels.
        background: what is put beside the objects.
        moved: changes the windows.
    """
    window = window_of(opacity)
    if moved is not None:
        window = moved(window)
    own = torch.cat([images * opacity[:, None], opacity[:, None]], dim=1)  # no color bleeds in
    small = cut(own, window, side)
    return Seen(small[:, :3] + (1 - small[:, 3:]) * background, small[:, 3:], window)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Weights of what makes pictures differ."""

    features: float = 1.0
    """Of the distance of features."""
    warps: int = 3
    """Random warps that it is taken of, beside the pair itself; published: 15."""
    opacity: float = 1.0
    """Of the mean squared difference of opacity."""
    color: float = 0.0
    """Of the mean absolute difference of colors."""
    turn: float = math.pi
    """Largest turn of a warp, radians."""
    scale: float = 0.2
    """Standard deviation of the binary logarithm of its size."""
    shift: float = 0.1
    """Of its place, in half sides."""


def difference(
    image: Float[Tensor, "batch 3 side side"],
    opacity: Float[Tensor, "batch 1 side side"],
    seen: Seen,
    distance: nn.Module,
    how: Comparison,
    generator: torch.Generator,
    background: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Of each picture; differentiable.

    Args:
        image: rendered, before the background.
        opacity: rendered.
        seen: what it should look like.
        distance: of pairs of pictures in [0, 1], as `unflat.losses.FeatureDistance`.
        how: weights and warps.
        generator: of the warps, on the CPU.
        background: grey value behind both.
    """
    total = torch.zeros_like(image[:, 0, 0, 0])
    if how.features:
        pairs = torch.cat([image, seen.image], dim=1)
        copies = [pairs]
        for _ in range(how.warps):
            draws = torch.randn(len(pairs), 3, generator=generator).to(pairs)
            turn = how.turn * (2 * torch.rand(len(pairs), generator=generator).to(pairs) - 1)
            scale = torch.exp2(how.scale * draws[:, 0])
            warp = (turn, scale, how.shift * draws[:, 1:])
            copies.append(warp_picture(pairs, *warp, outside=background))
        both = torch.cat(copies)
        far = distance(both[:, :3], both[:, 3:]).unflatten(0, (len(copies), -1))
        total = total + how.features * far.mean(0)
    if how.opacity:
        off = (opacity - seen.opacity).square().flatten(1).mean(1)
        total = total + how.opacity * off
    if how.color:
        total = total + how.color * (image - seen.image).abs().flatten(1).mean(1)
    return total
