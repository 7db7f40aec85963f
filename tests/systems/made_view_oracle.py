"""A model of new views that knows the object: what it takes for the clean picture is the truth."""

import math

import torch
from torch import Tensor

from unflat.fields.distance_voxels import DistanceVoxelField
from unflat.geometry.camera import Camera
from unflat.geometry.hull import cell_centers
from unflat.geometry.pose import orbit_pose
from unflat.geometry.rays import image_rays
from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.model import Tensors, Views
from unflat.systems.zero123.schedule import NoiseSchedule, Prediction


def true_distance(points: Tensor) -> Tensor:
    """A slab with a ball on its right end: no side of it looks like another."""
    slab = (points - points.new_tensor([-0.05, -0.1, 0.0])).abs() - points.new_tensor(
        [0.35, 0.15, 0.22]
    )
    outside = slab.clamp_min(0).norm(dim=-1) + slab.amax(-1).clamp_max(0)
    ball = (points - points.new_tensor([0.2, 0.1, 0.05])).norm(dim=-1) - 0.22
    return torch.minimum(outside, ball)


def true_color(points: Tensor) -> Tensor:
    """Red to the right, green upwards, blue to the front."""
    return (0.5 + 0.8 * points).clamp(0.05, 0.95)


def true_field(resolution: int = 48) -> DistanceVoxelField:
    bounds = torch.tensor([[-0.6] * 3, [0.6] * 3])
    points = cell_centers(bounds, (resolution,) * 3)
    colors = true_color(points).permute(3, 0, 1, 2)
    return DistanceVoxelField(true_distance(points)[None], colors[None], bounds, 0.006)


def true_camera(elevation: float = 0.35, radius: float = 1.9) -> Camera:
    pose = orbit_pose(torch.tensor(elevation), torch.tensor(0.0), torch.tensor(radius))
    return Camera.from_fov(math.radians(49.13), pose)


class ViewOracle:
    """Implements `ViewModel` in red, green, blue and opacity, all in [-1, 1]."""

    name = "oracle"
    foreground = 0.8
    guidance_scale = 1.0
    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, side: int = 24, prediction: Prediction = "noise"):
        self.side, self.prediction = side, prediction
        self.latent_shape = (4, side, side)
        self.schedule = NoiseSchedule.scaled_linear()
        self.camera = true_camera()

    @torch.no_grad()
    def shot(self, camera: Camera) -> Views:
        """Exact up to the steps of a ray: where it first is inside, of four rays a pixel."""
        rays = image_rays(camera, 2 * self.side, 2 * self.side)
        reach = camera.position.norm(dim=-1)[:, None, None, None]
        along = (reach + torch.linspace(-0.75, 0.75, 100)).expand(*rays.origins.shape[:-1], 100)
        inside = true_distance(rays.at(along)) < 0
        first = along.gather(-1, inside.int().argmax(-1, keepdim=True))
        color = true_color(rays.at(first))[..., 0, :].permute(0, 3, 1, 2)
        there = inside.any(-1)[:, None].float()
        image, opacity = (
            torch.nn.functional.avg_pool2d(each, 2) for each in (there * color + (1 - there), there)
        )
        return Views(image, opacity[:, 0])

    def make_views(self, poses: RelativePose, seed: int) -> Views:
        return self.shot(poses.cameras(self.camera))

    def reference(self, image: Tensor, opacity: Tensor, elevation: Tensor | None = None) -> Tensors:
        assert image.shape[-1] == self.side
        return Tensors({"image": image})

    def condition(self, reference: Tensors, pose: RelativePose) -> Tensors:
        clean = self.encode(*self.shot(pose.cameras(self.camera)))
        return Tensors({"clean": clean})

    def null(self, condition: Tensors) -> Tensors:
        return condition

    def predict(self, noisy: Tensor, timestep: Tensor, condition: Tensors) -> Tensor:
        clean = condition.parts["clean"].to(noisy)
        keep, add = (value.view(-1, 1, 1, 1) for value in self.schedule.at(timestep, noisy))
        noise = (noisy - keep * clean) / add
        return noise if self.prediction == "noise" else keep * noise - add * clean

    def encode(self, image: Tensor, opacity: Tensor) -> Tensor:
        return 2 * torch.cat([image, opacity[:, None]], dim=1) - 1

    def decode(self, latent: Tensor) -> Views:
        return Views(0.5 * (latent[:, :3] + 1), 0.5 * (latent[:, 3] + 1))


def volume_iou(field: DistanceVoxelField, resolution: int = 32) -> float:
    """Of a field's inside with the truth."""
    bounds = torch.tensor([[-0.6] * 3, [0.6] * 3])
    points = cell_centers(bounds, (resolution,) * 3).reshape(1, -1, 3)
    with torch.no_grad():
        ours, truth = field.distance(points)[0] < 0, true_distance(points[0]) < 0
    return float((ours & truth).sum()) / float((ours | truth).sum())
