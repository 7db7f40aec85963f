"""Scenes whose geometry is known: a wall, and a square before it, left of the middle."""

import torch

from unflat.data.voxelize import voxels_of_field
from unflat.fields import (
    DetailField,
    FieldOutput,
    HiddenSheet,
    ViewSpaceDecoder,
    ViewSpaceField,
    ViewSpacePlanes,
    VoxelField,
)
from unflat.geometry import Frame
from unflat.scene import Scene, SceneHeader

SIDE = 40
FRAME = Frame(b=-0.12)
WALL, SQUARE = 0.3, 0.8  # normalised disparity
HEADER = SceneHeader(system="vq3d", model="made", source="made.png", confidence=0.5)
RED, GREY, GREEN = (0.9, 0.2, 0.1), (0.5, 0.5, 0.6), (0.1, 0.8, 0.2)


def depth_of(normalised: float) -> float:
    disparity = FRAME.d_far + (FRAME.d_near - FRAME.d_far) * normalised
    return FRAME.a / (disparity - FRAME.b)


def square() -> torch.Tensor:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[12:28, 6:22] = True
    return mask


def base() -> ViewSpaceField:
    """A thick slab of the wall's colour at the wall's place."""
    torch.manual_seed(0)
    uv = torch.zeros(1, 9, 8, 8)
    uv[:, :3] = torch.tensor(GREY)[:, None, None]
    uv[:, 3] = WALL - 0.5
    uv[:, 4] = 3.0
    planes = ViewSpacePlanes(uv, torch.zeros(1, 4, 4, 8), torch.zeros(1, 4, 4, 8))
    return ViewSpaceField(planes, ViewSpaceDecoder(4), FRAME)


def room() -> Scene:
    """A grey wall with a red square before it; the wall goes on behind the square."""
    wall = torch.tensor(GREY)[:, None, None].expand(3, SIDE, SIDE)
    photo = torch.where(square(), torch.tensor(RED)[:, None, None], wall)[None]
    photo = (photo * 255).round() / 255
    disparity = torch.where(square(), SQUARE, WALL)[None, None]
    hidden = HiddenSheet(
        (wall[None] * 255).round() / 255,
        torch.full_like(disparity, WALL),
        square()[None, None].float(),
    )
    spread = torch.full_like(disparity, 0.004)
    return Scene(DetailField(base(), photo, disparity, spread, hidden), HEADER, max_angle=0.4)


class Ball:
    """A green ball of radius 1, dense enough to hide everything."""

    bounds = torch.tensor([[-1.2] * 3, [1.2] * 3])

    def __init__(self, density: float = 60.0):
        self.density = density

    def __call__(self, points, directions=None):
        inside = (1 - points.norm(dim=-1)).clamp(0, 0.08) / 0.08
        color = torch.tensor(GREEN).expand(points.shape)
        return FieldOutput(self.density * inside, color)


def ball(resolution: int = 60) -> VoxelField:
    return voxels_of_field(Ball(), resolution)
