"""How alike two pictures are to the features of a network: LPIPS, and its form without heads.

lpips = Lpips(from_published(Vgg16, trunk_state), heads, name="lpips-vgg")
lpips(images, references)  # one value for each picture
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unflat.metrics.checks import refuse_nan

_SHIFT = (-0.030, -0.088, -0.188)  # of ImageNet's pictures in [-1, 1], as LPIPS 0.1 has them
_SCALE = (0.458, 0.448, 0.450)
_EPSILON = 1e-10  # keeps a position without any feature at zero


@runtime_checkable
class Trunk(Protocol):
    """A network that gives feature maps, as `unflat.nn.Vgg16` and `unflat.nn.AlexNet` do."""

    channels: tuple[int, ...]
    """Of each map."""
    smallest_side: int
    """Pixels that a picture needs."""

    def __call__(self, normalized: Tensor) -> list[Tensor]:
        """The maps, `batch channels h w` each."""
        ...


class Lpips(nn.Module):
    """Learned perceptual distance, LPIPS version 0.1; lower is better, 0 for equal pictures.

    Zhang et al., arXiv 1801.03924, eq. 1: at each position the features are brought to unit length
    over channels; their squared differences are weighted by the heads, averaged over positions,
    summed over layers. The paper's eq. 1 puts the weights inside the square; its code, which all
    published figures come from, outside. We follow the code.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        trunk: Trunk,
        heads: Sequence[Float[Tensor, " channels"]],
        *,
        name: str,
        sha256: Mapping[str, str] | None = None,
    ):
        """A trunk and its heads.

        Args:
            trunk: classifier of ImageNet without its last layers.
            heads: weights of the channels of each map, at least 0.
            name: as reports print it, as in "lpips-vgg".
            sha256: of the files, under "trunk" and "heads".

        Raises:
            ValueError: the heads do not fit the trunk, or one weighs a channel negatively.
        """
        super().__init__()
        sizes = tuple(len(head) for head in heads)
        if sizes != tuple(trunk.channels):
            raise ValueError(f"the trunk has maps of {trunk.channels} channels, heads of {sizes}")
        if any(float(head.min()) < 0 for head in heads):
            raise ValueError("heads of LPIPS weigh no channel negatively")
        self.trunk = trunk
        self.name = name
        self.sha256 = dict(sha256 or {})
        self.smallest_side = trunk.smallest_side
        for place, head in enumerate(heads):
            self.register_buffer(f"head{place}", head.detach().float())
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        references: Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, " batch"]:
        """The distance of each pair, on the network's device.

        Args:
            images: clamped to [0, 1] first, as they would be on a screen.
            references: in [0, 1].

        Raises:
            ValueError: the pictures are too small for the network, or hold NaN.
        """
        total = torch.zeros(len(images), device=self.shift.device)
        pairs = zip(self.maps(images), self.maps(references), strict=True)
        for place, (a, b) in enumerate(pairs):
            head = self.get_buffer(f"head{place}")
            difference = (_unit(a) - _unit(b)).square()
            total = total + torch.einsum("bchw,c->bhw", difference, head).mean((1, 2))
        return total

    def maps(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Feature maps of pictures in [0, 1], in LPIPS's scale; pairs share them."""
        if min(images.shape[-2:]) < self.smallest_side:
            raise ValueError(
                f"{self.name} needs pictures of at least {self.smallest_side} pixels a side, "
                f"got {tuple(images.shape)}"
            )
        refuse_nan(images, f"the input of {self.name}")
        images = images.to(self.shift).clamp(0, 1)
        return self.trunk((2 * images - 1 - self.shift) / self.scale)

    def describe(self) -> dict[str, str]:
        """What a report says about the network: its name, version and the hashes of its files."""
        files = {f"sha256_{part}": digest for part, digest in self.sha256.items()}
        return {"name": self.name, "version": "0.1", **files}


def feature_distance(
    maps_a: Sequence[Float[Tensor, "batch _ _ _"]], maps_b: Sequence[Float[Tensor, "batch _ _ _"]]
) -> Float[Tensor, " batch"]:
    """Distance of each pair of pictures by any network's maps, in [0, 4]; lower is better.

    LPIPS without heads: features of unit length over channels, squared difference summed over
    channels, mean over positions, mean over layers. At most 2 where no feature is negative. The
    figure belongs to the network and carries its name; it is never called LPIPS.

    Args:
        maps_a: of one set of pictures, `batch channels h w` from each layer.
        maps_b: of the other, in the same order.

    Raises:
        ValueError: no maps, or the two differ in number or shape.
    """
    shapes_a = [tuple(one.shape) for one in maps_a]
    shapes_b = [tuple(one.shape) for one in maps_b]
    if not shapes_a or shapes_a != shapes_b:
        raise ValueError(f"maps must come in pairs of one shape, got {shapes_a} and {shapes_b}")
    layers = [
        (_unit(a) - _unit(b)).square().sum(1).mean((1, 2))
        for a, b in zip(maps_a, maps_b, strict=True)
    ]
    return torch.stack(layers).mean(0)


def _unit(x: Tensor) -> Tensor:
    """Vectors of length 1 over channels."""
    return x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + _EPSILON)
