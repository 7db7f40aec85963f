"""A model of new views, lifted, as the task "lift" asks it."""

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unflat.errors import UserError
from unflat.evaluation.lifter import Picture
from unflat.evaluation.zero123_views import resized
from unflat.geometry.camera import Camera
from unflat.geometry.pose import orbit_coordinates, orbit_pose
from unflat.geometry.relative_pose import RelativePose
from unflat.metrics import Triangles
from unflat.systems.zero123.lift.lift import Method, Preset, lift
from unflat.systems.zero123.make import make_views
from unflat.systems.zero123.model import ViewModel, Views
from unflat.systems.zero123.sampler import Sampler


class ModelLifter:
    """Surfaces of single pictures by a model of new views; keeps `Lifter`.

    Args:
        model: makes the views, or is asked at every step.
        method: how it is lifted.
        preset: how long that may take.
        file: of the model, for its hash.
    """

    def __init__(
        self, model: ViewModel, *, method: Method, preset: Preset, file: Path | None = None
    ) -> None:
        self.model, self.file = model, file
        self.method: Method = method
        self.preset: Preset = preset
        self.name = f"{model.name} ({method})"

    def describe(self) -> dict[str, Any]:
        """How, and by what."""
        found: dict[str, Any] = {
            "method": self.method,
            "preset": self.preset,
            "told": "the input's camera: its elevation and its distance",
        }
        if self.file is not None and self.file.is_file():
            found["sha256"] = hashlib.sha256(self.file.read_bytes()).hexdigest()
        return found

    def lift(self, picture: Picture, seed: int) -> Triangles:
        """See `Lifter`."""
        model = self.model
        size = (model.side, model.side)
        image = resized(picture.image[None], size)[0]
        opacity = resized(picture.mask[None, None], size)[0, 0]
        elevation, azimuth, radius = orbit_coordinates(picture.camera.position)
        # lifted as if seen from the front, then turned to where it was seen from
        front = Camera(
            camera_to_world=orbit_pose(elevation, torch.zeros_like(azimuth), radius),
            intrinsics=picture.camera.intrinsics,
        )
        sampler = Sampler(guidance_scale=model.guidance_scale)
        device = model.device
        with torch.no_grad():
            reference = model.reference(
                image[None].to(device), opacity[None].to(device), elevation[None].to(device)
            )

        def make(poses: RelativePose, seed: int) -> Views:
            views = make_views(model, reference, poses, sampler, seed=seed)
            told = None if views.opacity is None else views.opacity.cpu()
            return Views(views.image.cpu(), told)

        with torch.enable_grad():  # evaluations run without
            found = lift(
                model,
                image,
                opacity,
                method=self.method,
                preset=self.preset,
                elevation=float(elevation),
                seed=seed,
                make_views=make,
                camera=front,
            )
        if not len(found.mesh.faces):
            raise UserError(f"{picture.name}: nothing was left of it when it was lifted.")
        angle = float(azimuth)
        turn = np.array(
            [
                [math.cos(angle), 0.0, math.sin(angle)],
                [0.0, 1.0, 0.0],
                [-math.sin(angle), 0.0, math.cos(angle)],
            ]
        )
        vertices = found.mesh.vertices.astype(np.float64) @ turn.T
        return Triangles(vertices, found.mesh.faces.astype(np.int64))
