"""EG3D's renderer in plain PyTorch (arXiv 2112.07945): what unflat's speed is compared with.

Tri-planes looked up with `grid_sample`, the mean of the three, a network 32-64-33 with softplus,
48 coarse and 48 further samples of every ray, colours and densities between neighbouring samples
averaged. Written from the paper's description as one would write it: no chunks, every point of
every ray at once, no early end. ``chunk`` computes so many rays at once instead.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.plain_rendering import composite, look_up

NEAR, FAR = 2.25, 3.3  # of EG3D's faces: the camera stands 2.7 from the middle of the box
BOX = 1.0  # side of the box that the planes span
FOV_FOCAL = 4.2647  # in picture widths


class Eg3dRenderer(nn.Module):
    """Pictures of 32 channels from tri-planes."""

    def __init__(self, channels: int = 32, hidden: int = 64):
        super().__init__()
        self.into = nn.Linear(channels, hidden)
        self.out = nn.Linear(hidden, 1 + channels)

    def ask(
        self, planes: Float[Tensor, "3 channels height width"], points: Float[Tensor, "points 3"]
    ) -> tuple[Float[Tensor, "points channels"], Float[Tensor, " points"]]:
        """Colour features and raw density of points."""
        features = look_up(planes, points * (2 / BOX), "zeros").mean(0)
        raw = self.out(functional.softplus(self.into(features)))
        return torch.sigmoid(raw[:, 1:]) * (1 + 2 * 0.001) - 0.001, raw[:, 0]

    @torch.no_grad()
    def forward(
        self,
        planes: Float[Tensor, "3 channels height width"],
        side: int,
        coarse: int = 48,
        fine: int = 48,
        chunk: int | None = None,
    ) -> Float[Tensor, "side side channels"]:
        """A picture from the front; ``fine`` = 0 leaves the second pass out."""
        place = (torch.arange(side) + 0.5) / side - 0.5
        v, u = torch.meshgrid(place, place, indexing="ij")
        directions = torch.stack([u / FOV_FOCAL, v / FOV_FOCAL, torch.ones_like(u)], -1)
        directions = functional.normalize(directions, dim=-1).reshape(-1, 3)
        parts = [
            self._rays(planes, part, coarse, fine)
            for part in directions.split(chunk or len(directions))
        ]
        return torch.cat(parts).reshape(side, side, -1)

    def _rays(self, planes: Tensor, directions: Tensor, coarse: int, fine: int) -> Tensor:
        distances = torch.linspace(NEAR, FAR, coarse).expand(len(directions), -1)
        color, density = self._along(planes, directions, distances)
        if fine:
            shares = march(color, density, distances)[1]
            more = by_importance(distances, shares, fine)
            extra_color, extra_density = self._along(planes, directions, more)
            distances, order = torch.cat([distances, more], 1).sort(1)
            color = torch.cat([color, extra_color], 1)
            color = color.gather(1, order[..., None].expand(-1, -1, color.shape[-1]))
            density = torch.cat([density, extra_density], 1).gather(1, order)
        return march(color, density, distances)[0]

    def _along(
        self, planes: Tensor, directions: Tensor, distances: Tensor
    ) -> tuple[Tensor, Tensor]:
        origin = torch.tensor([0.0, 0.0, -2.7])
        points = origin + distances[..., None] * directions[:, None]
        color, density = self.ask(planes, points.reshape(-1, 3))
        return color.unflatten(0, distances.shape), density.unflatten(0, distances.shape)


def march(color: Tensor, density: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Colour of rays and shares of the intervals between neighbouring samples."""
    lengths = distances.diff(dim=1)
    middle_color = (color[:, :-1] + color[:, 1:]) / 2
    middle_density = functional.softplus((density[:, :-1] + density[:, 1:]) / 2 - 1)
    alpha = 1 - torch.exp(-middle_density * lengths)
    return composite(alpha, middle_color)


def by_importance(distances: Tensor, shares: Tensor, count: int) -> Tensor:
    """Further samples where the first pass found something, its shares widened and blurred."""
    wide = functional.max_pool1d(shares[:, None], 2, stride=1, padding=1)
    wide = functional.avg_pool1d(wide, 2, stride=1)[:, 0] + 0.01
    chances = wide[:, 1:-1] + 1e-5
    bins = (distances[:, :-1] + distances[:, 1:]) / 2
    sums = (chances / chances.sum(1, keepdim=True)).cumsum(1)
    sums = torch.cat([torch.zeros_like(sums[:, :1]), sums], 1)
    drawn = torch.rand(len(distances), count)
    above = torch.searchsorted(sums, drawn, right=True)
    below = (above - 1).clamp_min(0)
    above = above.clamp_max(sums.shape[1] - 1)
    low, high = sums.gather(1, below), sums.gather(1, above)
    width = high - low
    share = (drawn - low) / torch.where(width < 1e-5, 1.0, width)
    start, end = bins.gather(1, below), bins.gather(1, above)
    return start + share * (end - start)
