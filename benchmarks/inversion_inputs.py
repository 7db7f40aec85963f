"""Held-out pictures, all at once, and what is measured of models on them: for inversion."""

from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unflat.data.posed_objects import PosedObjects
from unflat.geometry import Camera
from unflat.geometry.published_pose import ObjectPose, camera_from_pose
from unflat.hub import find
from unflat.hub.registry import FEATURES
from unflat.losses import FeatureDistance, frozen
from unflat.metrics import mask_iou, psnr, rotation_error
from unflat.systems.features import load as load_features
from unflat.systems.inversion.compare import Seen, look
from unflat.systems.inversion.fit import FitConfig, Unknowns
from unflat.systems.inversion.pipeline import InversionModel

FULL, BATCH = 128, 16  # side of the measured pictures; pictures refined at once


class Inputs(NamedTuple):
    """Held-out views, all at once."""

    image: Tensor
    mask: Tensor
    camera: Camera


def held_out(data: Path, views: int = 4) -> Inputs:
    """Some views of each object of the split val, drawn by seed."""
    images, masks, cameras = [], [], []
    draws = torch.Generator().manual_seed(0)
    for item in PosedObjects(data, "val", resolution=FULL):
        assert item.masks is not None
        chosen = torch.randperm(len(item.images), generator=draws)[:views]
        images.append(item.images[chosen])
        masks.append(item.masks[chosen])
        cameras.append(item.camera[chosen])
    return Inputs(
        torch.cat(images),
        torch.cat(masks),
        Camera(
            camera_to_world=torch.cat([camera.camera_to_world for camera in cameras]),
            intrinsics=torch.cat([camera.intrinsics for camera in cameras]),
        ),
    )


def seen_of(model: InversionModel, inputs: Inputs) -> Seen:
    """The windows of all inputs."""
    return look(inputs.image, inputs.mask, model.side, model.objects.generator.background)


def feature_distance() -> FeatureDistance:
    """What pictures are compared by."""
    return frozen(FeatureDistance(load_features(find(FEATURES))))


def refined(
    model: InversionModel,
    start: Unknowns,
    seen: Seen,
    distance: torch.nn.Module,
    config: FitConfig,
) -> Unknowns:
    """All pictures after some steps, some at a time."""
    parts = torch.arange(len(seen.image)).split(BATCH)
    return _joined(
        [
            model.refine(_rows(start, part), _seen_rows(seen, part), distance, config).unknowns
            for part in parts
        ]
    )


@torch.no_grad()
def compared(
    model: InversionModel, unknowns: Unknowns, inputs: Inputs, distance: torch.nn.Module
) -> dict[str, float]:
    """Whole pictures from found cameras against the inputs, and these cameras against the truth."""
    rotation = rotation_error(camera_from_pose(unknowns.pose).rotation, inputs.camera.rotation)
    values: dict[str, list[float]] = {"iou": [], "psnr": [], "perceptual": []}
    for part in torch.arange(len(inputs.image)).split(BATCH):
        made = model.render(_rows(unknowns, part), None, FULL)
        image = made.image.clamp(0, 1)
        values["iou"] += mask_iou(made.opacity[:, 0], inputs.mask[part]).tolist()
        values["psnr"] += psnr(image, inputs.image[part]).tolist()
        values["perceptual"] += distance(image, inputs.image[part]).tolist()
    return rotation_figures(rotation) | {name: mean(one) for name, one in values.items()}


def rotation_figures(errors: Tensor) -> dict[str, float]:
    """Degrees, and the share within 30."""
    return {
        "rotation": median(errors.tolist()),
        "rotation_mean": float(errors.mean()),
        "within_30": float((errors < 30).float().mean()),
    }


def _rows(unknowns: Unknowns, part: Tensor) -> Unknowns:
    turn, shift, scale, zoom = unknowns.pose
    zoom = None if zoom is None else zoom[part]
    pose = ObjectPose(turn[part], shift[part], scale[part], zoom)
    palette = None if unknowns.palette is None else unknowns.palette[part]
    return Unknowns(unknowns.codes[part], pose, palette)


def _seen_rows(seen: Seen, part: Tensor) -> Seen:
    window = type(seen.window)(*(each[part] for each in seen.window))
    return Seen(seen.image[part], seen.opacity[part], window)


def _joined(parts: list[Unknowns]) -> Unknowns:
    def together(values: list[Any]) -> Any:
        return None if values[0] is None else torch.cat(values)

    poses = zip(*(one.pose for one in parts), strict=True)
    pose = type(parts[0].pose)(*(together(list(each)) for each in poses))
    palette = together([one.palette for one in parts])
    return Unknowns(torch.cat([one.codes for one in parts]), pose, palette)
