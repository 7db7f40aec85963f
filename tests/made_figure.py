"""An object in closed form: a red ball on a blue block, with a yellow nose and a green knob.

Which way is up and which is front can be told from the colours: the ball is above (+y), the yellow
nose in front (+z), and a green knob on the object's left, which is on the right of the picture that
a camera at +z takes (+x).
"""

import math

import torch
from torch import Tensor, nn

from unflat.fields import FieldOutput
from unflat.geometry import Camera, orbit_pose

RED, BLUE, YELLOW, GREEN = (0.9, 0.1, 0.1), (0.1, 0.2, 0.9), (0.9, 0.8, 0.1), (0.1, 0.8, 0.2)
BOX = torch.tensor([[-0.8, -1.0, -0.6], [0.8, 1.0, 0.7]])
BALL, RADIUS = (0.0, 0.45, 0.0), 0.4
BLOCK, HALF = (0.0, -0.4, 0.0), (0.5, 0.3, 0.4)
NOSE, NOSE_RADIUS = (0.0, 0.45, 0.4), 0.12
KNOB, KNOB_RADIUS = (0.5, -0.4, 0.0), 0.15


class Figure(nn.Module):
    """Signed distance of the union, and the colour of the nearest part."""

    def __init__(self, bounds: Tensor = BOX, sharpness: float = 200.0) -> None:
        super().__init__()
        self.bounds: Tensor
        self.register_buffer("bounds", bounds)
        self.sharpness = sharpness

    def parts(self, points: Tensor) -> Tensor:
        ball = (points - points.new_tensor(BALL)).norm(dim=-1) - RADIUS
        nose = (points - points.new_tensor(NOSE)).norm(dim=-1) - NOSE_RADIUS
        knob = (points - points.new_tensor(KNOB)).norm(dim=-1) - KNOB_RADIUS
        beyond = (points - points.new_tensor(BLOCK)).abs() - points.new_tensor(HALF)
        block = beyond.clamp_min(0).norm(dim=-1) + beyond.amax(dim=-1).clamp_max(0)
        return torch.stack([ball, block, nose, knob], dim=-1)

    def distance(self, points: Tensor) -> Tensor:
        return self.parts(points).amin(dim=-1)

    def forward(self, points: Tensor, directions: Tensor | None = None) -> FieldOutput:
        parts = self.parts(points)
        colors = points.new_tensor([RED, BLUE, YELLOW, GREEN])[parts.argmin(dim=-1)]
        inside = ((points >= self.bounds[0]) & (points <= self.bounds[1])).all(dim=-1)
        density = self.sharpness * torch.sigmoid(-self.sharpness * parts.amin(dim=-1))
        return FieldOutput(torch.where(inside, density, 0.0), colors)


class Cloud(nn.Module):
    """The same figure without a distance: density alone."""

    def __init__(self, figure: Figure | None = None) -> None:
        super().__init__()
        self.figure = Figure() if figure is None else figure
        self.bounds = self.figure.bounds

    def forward(self, points: Tensor, directions: Tensor | None = None) -> FieldOutput:
        return self.figure(points)


def front_camera(azimuth: float = 0.0, elevation: float = 0.2, radius: float = 3.0) -> Camera:
    pose = orbit_pose(elevation, azimuth, radius)
    return Camera.from_fov(math.radians(45), pose[None])
