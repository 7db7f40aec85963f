"""What the reference shows, as a volume that is turned to where the new camera looks from.

A transformable bottleneck (Olszewski et al., arXiv 1904.06458; GeNVS, 2304.02602, does it for
diffusion): features of the picture are spread along its rays, the volume is looked up along the
rays of the new camera, and what lies behind each pixel is told to the network that denoises it. So
it has not to learn what turning is. Turning needs to know how high the picture was taken, which is
guessed from the picture where nobody tells.

Both cameras look at the origin from about the distances of Zero-1-to-3's pictures; a volume's axes
are depth, row and column of the picture's view.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.geometry.pose import orbit_pose
from unflat.geometry.relative_pose import RelativePose
from unflat.nn.unet import Plain

FOCAL = 35 / 32
"""Of all pictures, in picture widths: 49.13 degrees."""
DISTANCE = 1.85
"""World units from the picture's camera to the object: the middle of 1.5 to 2.2."""
HALF_DEPTH = 0.7
"""World units before and behind the object's middle that a volume reaches."""


class Lift(nn.Module):
    """A picture and its tokens as a volume, and how high the picture was taken.

    Args:
        in_channels: of the picture.
        patch: pixels along a side that become one column of the volume.
        width: of what is computed in the plane.
        tokens: numbers of a token.
        channels: of the volume.
        depth: cells along each ray.
    """

    def __init__(
        self, in_channels: int, *, patch: int, width: int, tokens: int, channels: int, depth: int
    ) -> None:
        super().__init__()
        self.patch, self.channels, self.depth = patch, channels, depth
        self.stem = nn.Conv2d(in_channels * patch**2, width, 3, padding=1)
        self.told = nn.Conv2d(tokens, width, 1)
        self.body = Plain(width)
        self.spread = nn.Conv2d(width, channels * depth, 1)
        self.height = nn.Sequential(nn.Linear(tokens, tokens), nn.SiLU(), nn.Linear(tokens, 2))

    def forward(
        self,
        picture: Float[Tensor, "batch in_channels side side"],
        tokens: Float[Tensor, "batch n numbers"],
    ) -> Float[Tensor, "batch channels depth height width"]:
        """The volume.

        Args:
            picture: as it is encoded.
            tokens: the one for all of it, then one for each of its parts in raster order.
        """
        x = self.stem(functional.pixel_unshuffle(picture, self.patch))
        side = round((tokens.shape[1] - 1) ** 0.5)
        parts = tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        x = x + functional.interpolate(
            self.told(parts), size=x.shape[-2:], mode="bilinear", align_corners=False
        )
        return self.spread(self.body(x)).unflatten(1, (self.channels, self.depth))

    def guess(
        self, tokens: Float[Tensor, "batch n width"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """How high pictures were taken: radians, and the logarithm of their spread."""
        mean, spread = self.height(tokens[:, 0]).unbind(-1)
        return 0.5 * torch.pi * torch.tanh(mean), spread.clamp(-4.0, 1.0)


class Look(nn.Module):
    """A turned volume as features of the new picture.

    Args:
        channels: of the volume.
        depth: cells along each ray.
        width: of the features.
    """

    def __init__(self, *, channels: int, depth: int, width: int) -> None:
        super().__init__()
        self.collapse = nn.Conv2d(channels * depth, width, 1)
        self.body = Plain(width)

    def forward(
        self, turned: Float[Tensor, "batch channels depth height width"]
    ) -> Float[Tensor, "batch features height width"]:
        """What lies behind each of its columns."""
        return self.body(self.collapse(functional.silu(turned).flatten(1, 2)))


def turn(
    volume: Float[Tensor, "batch channels depth height width"],
    pose: RelativePose,
    elevation: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channels depth height width"]:
    """A volume along the rays of other cameras; zeros where the picture's own rays do not reach.

    Args:
        volume: along the rays of the picture.
        pose: of the other cameras.
        elevation: radians, how high the picture was taken.
    """
    grid = places(pose.to(elevation), elevation, volume.shape[-3], volume.shape[-1])
    return functional.grid_sample(volume, grid.to(volume), align_corners=False)


def places(
    pose: RelativePose, elevation: Float[Tensor, " batch"], depth: int, side: int
) -> Float[Tensor, "batch depth side side 3"]:
    """Where cells along the rays of other cameras lie in the picture's volume.

    Column, row and depth in [-1, 1], as grid_sample reads them.

    Args:
        pose: of the other cameras.
        elevation: radians, how high the picture was taken.
        depth: cells along a ray.
        side: rays along a side of the picture.
    """
    first = orbit_pose(elevation, torch.zeros_like(elevation), 1.0)[..., :3, :3]
    second = orbit_pose(elevation - pose.polar, pose.azimuth, 1.0)[..., :3, :3]
    middle = (torch.arange(side).to(elevation) + 0.5) / side - 0.5
    along = HALF_DEPTH * (2 * (torch.arange(depth).to(elevation) + 0.5) / depth - 1)
    z, v, u = torch.meshgrid(along, middle, middle, indexing="ij")
    far = (DISTANCE + pose.radius).clamp_min(0.2)[:, None, None, None] + z
    # axes of the camera about the object's middle: right, down, forward
    points = torch.stack([u / FOCAL * far, v / FOCAL * far, z.expand_as(far)], dim=-1)
    points = torch.einsum("bij,bzhwj->bzhwi", first.mT @ second, points)
    x, y, ahead = points.unbind(-1)
    distance = (DISTANCE + ahead).clamp_min(0.2)
    return torch.stack(
        [2 * FOCAL * x / distance, 2 * FOCAL * y / distance, ahead / HALF_DEPTH], dim=-1
    )
