"""What rays see that keep light after everything else: a colour for each direction.

sky = PanoramaBackground(torch.rand(1, 3, 64, 128))
render(field, camera, 64, 64, RenderOptions(opaque_last=False, background=sky))
"""

import math
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unflat.fields.planes import sample_plane


@runtime_checkable
class Background(Protocol):
    """Something infinitely far away, whose colour depends on the direction of travel alone."""

    def __call__(
        self, directions: Float[Tensor, "batch *rays 3"]
    ) -> Float[Tensor, "batch *rays channels"]:
        """Features seen by rays that travel in these directions; unit vectors."""
        ...


class PanoramaBackground(nn.Module):
    """An equirectangular picture around everything.

    The middle of the picture lies straight ahead, its left and right edges meet behind, its upper
    edge is all one point above. Rows are even in the angle of elevation, columns in azimuth.
    """

    def __init__(
        self,
        panorama: Float[Tensor, "batch channels height width"],
        world: Literal["scene", "object"] = "scene",
    ):
        """Panoramas of a batch of scenes; learned where they are an ``nn.Parameter``.

        Args:
            panorama: colours in [0, 1], or features.
            world: whose directions are asked: scene (y down, z ahead) or object (y up, -z ahead,
                the way a camera looks that stands in front of the object).
        """
        super().__init__()
        self.panorama: Tensor
        if isinstance(panorama, nn.Parameter):
            self.panorama = panorama
        else:
            self.register_buffer("panorama", panorama)
        self.world = world

    def forward(
        self, directions: Float[Tensor, "batch *rays 3"]
    ) -> Float[Tensor, "batch *rays channels"]:
        """Bilinear lookups, continuous across the seam behind."""
        x, y, z = directions.unbind(-1)
        if self.world == "object":
            y, z = -y, -z
        width = self.panorama.shape[-1]
        # One more column at either end, so that the seam is interpolated like everything else.
        around = torch.cat([self.panorama[..., -1:], self.panorama, self.panorama[..., :1]], dim=-1)
        column = torch.atan2(x, z) / math.pi * (width / (width + 2))
        row = torch.asin(y.clamp(-1, 1)) / (0.5 * math.pi)
        return sample_plane(around, torch.stack([column, row], dim=-1))
