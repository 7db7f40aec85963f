"""A model of views that knows the truth: a colored box, as the camera of each pose sees it."""

import torch

from box_object import FOV, box, views_of
from unflat.geometry import Camera, orbit_pose
from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.model import Tensors, Views
from unflat.systems.zero123.schedule import NoiseSchedule

RADIUS = 1.85


class BoxViews:
    """Says the clean picture, whatever the noise; the null is gray."""

    name, prediction, foreground, guidance_scale = "box", "clean", 0.61, 1.0

    def __init__(self, elevation=0.0, extents=(1.0, 0.4, 0.6), side=32):
        self.elevation, self.vertices, self.side = elevation, box(extents), side
        self.latent_shape = (4, side, side)
        self.schedule = NoiseSchedule.cosine()
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.calls = 0

    def camera(self):
        pose = orbit_pose(torch.tensor(float(self.elevation)), 0.0, RADIUS)
        return Camera.from_fov(FOV, pose)

    def truth(self, pose):
        rgba = views_of(self.vertices, pose.cameras(self.camera()), self.side)
        opacity = rgba[:, 3]
        return Views(opacity[:, None] * rgba[:, :3] + 1 - opacity[:, None], opacity)

    def shown(self):
        seen = self.truth(RelativePose.from_degrees(torch.zeros(1), torch.zeros(1)))
        return seen.image[0], seen.opacity[0]

    def reference(self, image, opacity, elevation=None):
        return Tensors({"picture": self.encode(image, opacity)})

    def condition(self, reference, pose):
        return Tensors({"clean": self.encode(*self.truth(pose))})

    def null(self, condition):
        return Tensors({"clean": torch.zeros_like(condition.parts["clean"])})

    def predict(self, noisy, timestep, condition):
        self.calls += 1
        return condition.parts["clean"]

    def encode(self, image, opacity):
        return 2 * torch.cat([image, opacity[:, None]], dim=1) - 1

    def decode(self, latent):
        values = 0.5 * (latent + 1)
        return Views(values[:, :3], values[:, 3])
