"""The paper's own parametrisation: three planes over contracted space, as in EG3D."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.fields.contraction import contract
from unflat.fields.field import FieldOutput
from unflat.fields.planes import sample_triplane
from unflat.fields.viewspace import assumed_points, view_coordinates
from unflat.geometry.projective import Frame

CENTER = 4.0  # depth of the contraction's centre in the assumed space (depths run from 1 to 10)
SCALE = 3.0  # assumed units inside the uncontracted unit ball


class TriplaneDecoder(nn.Module):
    """Density per unit of normalised disparity and colour from summed plane features."""

    def __init__(self, channels: int):
        super().__init__()
        last = nn.Linear(48, 4)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), last
        )
        nn.init.zeros_(last.bias)

    def forward(
        self, features: Float[Tensor, "*points channels"]
    ) -> tuple[Float[Tensor, "*points"], Float[Tensor, "*points 3"]]:
        """Density and colour (sigmoid, widened by 0.001 as EG3D does)."""
        out = self.mlp(features)
        density = 30 * functional.softplus(out[..., 0] - 3)
        return density, torch.sigmoid(out[..., 1:]) * 1.002 - 0.001


class TriplaneHead(nn.Module):
    """Tokens to three planes: every token writes one patch of each."""

    def __init__(self, width: int, grid: int, channels: int, resolution: int):
        super().__init__()
        self.grid = grid
        self.channels = channels
        self.patch = resolution // grid
        self.to_planes = nn.Linear(width, 3 * channels * self.patch**2)

    def forward(
        self, tokens: Float[Tensor, "batch n dim"], base: Tensor | None = None
    ) -> Float[Tensor, "batch 3 channels height width"]:
        """Planes; a base colour has no place in contracted space and is ignored."""
        texels = self.to_planes(tokens).mT.unflatten(2, (self.grid, self.grid))
        return functional.pixel_shuffle(texels, self.patch).unflatten(1, (3, self.channels))


class ContractedTriplaneField(nn.Module):
    """Tri-planes over the contracted assumed space of a frame."""

    def __init__(
        self,
        planes: Float[Tensor, "batch 3 channels height width"],
        decoder: TriplaneDecoder,
        frame: Frame,
    ):
        super().__init__()
        self.planes: Tensor
        self.register_buffer("planes", planes, persistent=False)
        self.decoder = decoder
        self.frame = frame

    def with_frame(self, frame: Frame) -> "ContractedTriplaneField":
        """The same scene under another field of view or disparity scale."""
        return ContractedTriplaneField(self.planes, self.decoder, frame)

    def forward(
        self,
        points: Float[Tensor, "batch *points 3"],
        directions: Float[Tensor, "batch *points 3"] | None = None,
    ) -> FieldOutput:
        """Density per unit of length in the assumed space, and colour in [0, 1]."""
        _, to_world = view_coordinates(points, self.frame)
        density, rgb = self._inside(self.warp(points))
        return FieldOutput(density * to_world, rgb.clamp(0, 1))

    def at(
        self, q: Float[Tensor, "batch *points 3"]
    ) -> tuple[Float[Tensor, " batch *points"], Float[Tensor, "batch *points 3"]]:
        """Density per unit of delta and colour at (u, v, delta)."""
        span = self.frame.d_near - self.frame.d_far
        depth = 1 / (self.frame.d_far + span * q[..., 2])
        across = q[..., :2] / self.frame.focal_assumed
        return self._inside(
            torch.cat([across, torch.ones_like(depth)[..., None]], -1) * (depth[..., None])
        )

    def on_grid(
        self,
        v: Float[Tensor, " rows"],
        u: Float[Tensor, " columns"],
        delta: Float[Tensor, " n"],
    ) -> tuple[
        Float[Tensor, "batch rows columns n"],
        Float[Tensor, "batch rows columns n 3"],
    ]:
        """What ``at`` gives on a product grid of canonical rays."""
        vs, us, ds = torch.meshgrid(v, u, delta, indexing="ij")
        q = torch.stack([us, vs, ds], dim=-1)
        return self.at(q.expand(self.planes.shape[0], -1, -1, -1, -1))

    def warp(self, points: Float[Tensor, "batch *points 3"]) -> Float[Tensor, "batch *points 3"]:
        """Points in the frame's assumed space, where lengths are measured."""
        return assumed_points(points, self.frame)

    def _inside(self, points: Tensor) -> tuple[Tensor, Tensor]:
        center = torch.tensor([0.0, 0.0, CENTER], device=points.device)
        return self.decoder(sample_triplane(self.planes, contract((points - center) / SCALE) / 2))
