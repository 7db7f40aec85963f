"""What is measured of an inversion: its camera, the input, other views, and whole sets of these."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unflat.errors import UserError
from unflat.evaluation.feature_sets import FeatureSet, see
from unflat.evaluation.inversion_inputs import Parts
from unflat.evaluation.inverter import Inversion, Inverter
from unflat.evaluation.networks import Distance
from unflat.geometry.camera import Camera
from unflat.metrics import (
    Features,
    accuracy_within,
    focal_error,
    kid,
    mask_iou,
    psnr,
    ssim,
    ssim_uniform,
    symmetric_rotation_error,
    translation_error,
)

ANGLES = (15, 30)  # degrees
_LEAST_SIDE = 16  # pixels that networks want


class Measure:
    """Measures methods on inputs, and keeps what figures of whole sets need.

    Args:
        symmetries: turns of the object that change nothing.
        distances: of pairs of pictures, by name.
        features: what whole sets of other views are compared by; none leave that out.
        seed: of subsets.
    """

    def __init__(
        self,
        symmetries: Tensor,
        distances: Mapping[str, Distance],
        features: Features | None,
        seed: int,
    ) -> None:
        self.symmetries, self.distances = symmetries, distances
        self.features, self.seed = features, seed
        self.made: dict[str, FeatureSet] = {}
        self.seconds: dict[str, list[float]] = {}
        self.true = None if features is None else FeatureSet(features, seed)

    def add_truth(self, parts: Parts) -> None:
        """The views that methods are asked for, once for all of them."""
        if self.true is not None and self.features is not None and len(parts.images):
            self.true.add(see(self.features, parts.images))

    def figures(self, method: Inverter, parts: Parts, seed: int, name: str) -> dict[str, Any]:
        """All figures of one method on one input.

        Args:
            method: what is measured.
            parts: the input, and what is asked for.
            seed: of whatever the method draws.
            name: of the input, for messages.
        """
        begun = time.perf_counter()
        found = method.invert(parts.image, parts.mask, seed)
        self.seconds.setdefault(method.name, []).append(time.perf_counter() - begun)
        figures: dict[str, Any] = {}
        if method.has_pose:
            figures |= camera_figures(method, found.camera, parts.camera, self.symmetries)
        if found.camera is not None:
            image, mask = rendered(method, found, _batch(found.camera), parts.image, name)
            for key, values in self._of_pictures("front", image, parts.image[None]).items():
                figures[key] = values[0]
            if parts.mask is not None and mask is not None:
                figures["front_iou"] = mask_iou(mask, parts.mask[None]).item()
        if len(parts.images):
            images, _ = rendered(method, found, parts.cameras, parts.image, name)
            figures |= self._of_pictures("novel", images, parts.images)
            if self.features is not None:
                made = self.made.setdefault(method.name, FeatureSet(self.features, self.seed))
                made.add(see(self.features, images))
        return figures

    def of_sets(self) -> dict[str, dict[str, float]]:
        """Kernel distances of all other views that a method made to the true ones."""
        found: dict[str, dict[str, float]] = {}
        if self.true is None or self.features is None:
            return found
        for name, made in self.made.items():
            value = kid(made.sample.features, self.true.sample.features, seed=self.seed)
            key = f"kid-{self.features.name}"
            found[name] = {key: value.mean, f"{key}_error": value.standard_error}
        return found

    def _of_pictures(self, prefix: str, images: Tensor, true: Tensor) -> dict[str, list[float]]:
        """Of each view."""
        values = {
            f"{prefix}_psnr": psnr(images, true),
            f"{prefix}_ssim": ssim(images, true),
            f"{prefix}_ssim_uniform": ssim_uniform(images, true),
        }
        if min(true.shape[-2:]) >= _LEAST_SIDE:
            values |= {
                f"{prefix}_{name}": distance(images.clamp(0, 1), true)
                for name, distance in self.distances.items()
            }
        return {key: value.tolist() for key, value in values.items()}


def camera_figures(
    method: Inverter, estimated: Camera | None, true: Camera, symmetries: Tensor
) -> dict[str, float]:
    """Errors of an estimated camera; without one there is no error, but two misses."""
    if estimated is None:
        return {f"within_{angle}": 0.0 for angle in ANGLES}
    estimated = estimated.to("cpu", torch.float32)
    error = symmetric_rotation_error(estimated.rotation, true.rotation, symmetries)
    figures = {
        "rotation_error": error.item(),
        **{f"within_{a}": accuracy_within(error[None], float(a)).item() for a in ANGLES},
        "position_error": translation_error(estimated.position, true.position).item(),
    }
    if method.has_focal:
        focal = focal_error(estimated.intrinsics[..., :2], true.intrinsics[..., :2])
        figures["focal_error"] = focal.mean().item()
    return figures


def rendered(
    method: Inverter, found: Inversion, camera: Camera, like: Tensor, name: str
) -> tuple[Tensor, Tensor | None]:
    """Pictures and mattes of a method.

    Raises:
        UserError: what was rendered cannot be compared.
    """
    height, width = like.shape[-2:]
    image, mask = found.render(camera, height, width)
    expected = (*camera.batch_shape, 3, height, width)
    if image.shape != expected:
        raise ValueError(f"{method.name}: image is {tuple(image.shape)}, expected {expected}")
    image = image.cpu().float()
    if not bool(image.isfinite().all()):
        raise UserError(
            f"{method.name}: its picture of {name} holds numbers that are not finite; "
            "the model is broken, use another."
        )
    return image, None if mask is None else mask.cpu().float()


def _batch(camera: Camera) -> Camera:
    return Camera(
        camera_to_world=camera.camera_to_world[None],
        intrinsics=camera.intrinsics[None],
        kind=camera.kind,
    )
