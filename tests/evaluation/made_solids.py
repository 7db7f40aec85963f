"""A category in closed form: three balls of a size and color each, no two sides alike.

A large gray ball in the middle, a red one in front, a green one on the object's left (+x) and
above. Colors do not depend on the light, so that a picture is known where a ball is hit.
"""

from dataclasses import dataclass

import torch

from unflat.data.posed_views import PosedViews
from unflat.geometry import Camera, image_rays, orbit_pose

RADIUS, FOCAL = 1.3, 1.1


@dataclass
class Seen:
    rgb: torch.Tensor
    mask: torch.Tensor
    depth: torch.Tensor


class Balls:
    """Objects that differ in sizes, places and shades."""

    def __init__(self, count, seed=0):
        self.count, self.seed = count, seed

    def __len__(self):
        return self.count

    def parts(self, index):
        """Centers, radii and colors."""
        random = torch.Generator().manual_seed(1000 * self.seed + index)

        def about(values, spread):
            values = torch.tensor(values)
            return values + spread * (2 * torch.rand(values.shape, generator=random) - 1)

        centers = about([[0.0, 0.0, 0.0], [0.0, -0.08, 0.28], [0.28, 0.15, -0.05]], 0.03)
        radii = about([0.22, 0.12, 0.1], 0.02)
        colors = about([[0.5, 0.5, 0.5], [0.8, 0.1, 0.1], [0.1, 0.7, 0.2]], 0.08)
        return centers, radii, colors

    def view(self, index, camera, side):
        parts = self.parts(index)
        color, mask, _ = hits(parts, camera, 2 * side)
        blocks = torch.nn.functional.avg_pool2d(torch.cat([color, mask[:, None]], 1), 2)
        _, _, depth = hits(parts, camera, side)
        return Seen(blocks[:, :3], blocks[:, 3], depth)


def hits(parts, camera, side):
    """Color over white, hit or not, and depth, a ray for each pixel."""
    centers, radii, colors = parts
    rays = image_rays(camera, side, side)
    offset = rays.origins[..., None, :] - centers  # views side side balls 3
    along = (offset * rays.directions[..., None, :]).sum(-1)
    square = along.square() - offset.square().sum(-1) + radii.square()
    far = torch.where(square > 0, -along - square.clamp_min(0).sqrt(), torch.inf)
    distance, which = far.min(-1)
    hit = distance.isfinite()
    color = torch.where(hit[..., None], colors[which], 1.0).permute(0, 3, 1, 2)
    forward = camera.forward[:, None, None]
    return color, hit.float(), distance * (rays.directions * forward).sum(-1)


def cameras(count, seed=0, spread=True):
    """Around the object, a little above; at random or spread evenly."""
    random = torch.Generator().manual_seed(seed)
    turn = torch.arange(count) * 2.39996 if spread else 6.2832 * torch.rand(count, generator=random)
    rise = torch.linspace(0.1, 0.7, count)
    poses = orbit_pose(rise, turn, RADIUS)
    return Camera(
        camera_to_world=poses, intrinsics=torch.tensor([FOCAL, FOCAL, 0.5, 0.5]).expand(count, 4)
    )


def posed_views(solids, views, side, name="balls", spread=True):
    """All objects from as many cameras each, the same for all if they are spread."""
    seen, every = [], []
    for index in range(len(solids)):
        camera = cameras(views, seed=index, spread=spread)
        seen.append(solids.view(index, camera, side))
        every.append(camera)
    return PosedViews.of(
        torch.cat([(255 * one.rgb).round().byte() for one in seen]),
        name=name,
        masks=torch.cat([(255 * one.mask).round().byte() for one in seen]),
        camera=Camera(
            camera_to_world=torch.cat([one.camera_to_world for one in every]),
            intrinsics=torch.cat([one.intrinsics for one in every]),
        ),
        objects=torch.arange(len(solids)).repeat_interleave(views),
    )
