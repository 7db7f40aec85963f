"""A scene whose every export can be told apart: colours say which way is up and which is front."""

import math

import pytest
import torch

from unflat.export import Layer
from unflat.geometry.camera import Camera

SIZE = 48
WALL, SQUARE = 4.0, 2.0
RED, GREEN, BLUE, WHITE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0)


@pytest.fixture(scope="session")
def camera() -> Camera:
    return Camera.from_fov(math.radians(50))


@pytest.fixture(scope="session")
def marked_layers() -> list[Layer]:
    """A wall (top red, bottom green, leftmost eighth white) and a blue square in front of it.

    The first layer is what the camera sees; the second is the whole wall.
    """
    rgb = torch.empty(SIZE, SIZE, 3)
    rgb[: SIZE // 2] = torch.tensor(RED)
    rgb[SIZE // 2 :] = torch.tensor(GREEN)
    rgb[:, : SIZE // 8] = torch.tensor(WHITE)
    depth = torch.full((SIZE, SIZE), WALL)
    everywhere = torch.ones(SIZE, SIZE, dtype=torch.bool)
    wall = Layer(rgb, depth, everywhere)
    middle = slice(SIZE // 3, 2 * SIZE // 3)
    seen_rgb, seen_depth = rgb.clone(), depth.clone()
    seen_rgb[middle, middle] = torch.tensor(BLUE)
    seen_depth[middle, middle] = SQUARE
    return [Layer(seen_rgb, seen_depth, everywhere), wall]
