"""Reconstructors that know the truth, to test the protocol and nothing else."""

from dataclasses import dataclass

import torch

from unflat.evaluation.baselines import BLEND, SUBPIXELS
from unflat.evaluation.reconstructor import Alignment, true_disparity
from unflat.evaluation.views import scene_at
from unflat.geometry.camera import Camera
from unflat.rendering.forward_warp import fill_holes, forward_warp

SCALE, SHIFT = 0.37, 0.11  # of the space the oracles claim to work in


def flipped(cameras):
    """Every camera moved and turned the other way: a sign mistaken somewhere."""
    poses = torch.linalg.inv(cameras.camera_to_world)
    return Camera(camera_to_world=poses, intrinsics=cameras.intrinsics)


@dataclass
class Made:
    image: torch.Tensor
    disparity: torch.Tensor
    termination_variance: torch.Tensor | None
    indices: torch.Tensor | None
    views: object

    def render(self, index, alignment: Alignment, cameras: Camera):
        return self.views(index, alignment, cameras)


class Oracle:
    """Takes true depths in the order of the data set, and says what it sees by warping the photo.

    `seen` may replace that warp, `wrong` turns the cameras around.
    """

    name = "oracle"
    codebook_sizes = (4, 2)

    def __init__(self, scenes, resolution=48, modes=("tokens",), seen=None, wrong=False, sign=1):
        self.scenes, self.resolution, self.modes = scenes, resolution, modes
        self.seen, self.wrong, self.sign = seen, wrong, sign
        self.asked = dict.fromkeys(modes, 0)

    def describe(self):
        return {"samples": 0}

    def reconstruct(self, images, photos, mode, names=()):
        first = self.asked[mode]
        self.asked[mode] += len(photos)
        assert images.shape[-1] == self.resolution
        mine = [self.scenes[i] for i in range(first, first + len(photos)) if i < len(self.scenes)]
        side = photos.shape[-1]
        depths = [scene_at(scene, side).inverse_depth[0] for scene in mine]
        depths += [torch.zeros(side, side)] * (len(photos) - len(mine))  # photos have none
        disparity = self.sign * SCALE * torch.stack(depths) + SHIFT
        indices = torch.zeros(len(photos), 3, 2, dtype=torch.long)
        indices[:, 0, 0] = 1

        def views(index, alignment, cameras):
            cameras = flipped(cameras) if self.wrong else cameras
            if self.seen is not None:
                return self.seen(first + index, alignment, cameras, side)
            lens = cameras.intrinsics[:1]
            assert abs(lens[0, 0].item() - alignment.focal) < 1e-6
            many = len(cameras.intrinsics)
            warped = forward_warp(
                photos[index].expand(many, -1, -1, -1),
                true_disparity(disparity[index], alignment).expand(many, -1, -1),
                Camera(camera_to_world=torch.eye(4)[None], intrinsics=lens),
                cameras,
                SUBPIXELS,
                BLEND,
            )
            return fill_holes(warped).image

        variance = torch.full((len(photos),), 0.25)
        return Made(photos.clone(), disparity, variance, indices, views)
