"""Procedural scenes as data sets: a tar to train from and a tar of posed views to evaluate on."""

import json
import math
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from unflat.data.pictures import picture_bytes
from unflat.data.posed import INVERSE_DEPTH_UNIT
from unflat.data.shard import add_file
from unflat.data.synthetic import (
    CLASSES,
    ProceduralScene,
    View,
    make_scene,
    novel_cameras,
    render_view,
)
from unflat.errors import UserError
from unflat.files import atomic_folder
from unflat.geometry import Camera

_NEAR_DEG, _FAR_DEG = (4.0, 20.0), 30.0
_TRAIN_STREAM, _VAL_STREAM = 0, 1  # validation scenes are never among the training scenes
_NEAREST_DEPTH = 0.3  # world units
_SMALLEST_COVER, _SMALLEST_OBJECT = 0.35, 0.02  # shares of the picture: surfaces, object


@dataclass(frozen=True, kw_only=True)
class ProceduralFiles:
    """What was written."""

    train: Path
    """Unposed pictures with disparity."""
    val: Path
    """Posed views with inverse depth, masks and normals."""
    train_count: int
    """Pictures in `train`."""
    val_count: int
    """Scenes in `val`."""


def write_procedural(
    out: str | Path,
    count: int = 512,
    resolution: int = 64,
    seed: int = 0,
    views: int = 8,
    *,
    val_count: int | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ProceduralFiles:
    """A folder with ``train.tar``, ``train-ranges.json`` and ``val.tar``, whole or not at all.

    ``train.tar`` holds ``NNNNNN.webp``, ``NNNNNN.disparity.png`` at half the resolution and
    ``NNNNNN.cls``; ``val.tar`` the posed layout of `unflat.data.posed`, of other scenes. The same
    arguments give the same bytes with the same library versions.

    Args:
        out: folder to make.
        count: training pictures.
        resolution: side in pixels, even.
        seed: of the scenes.
        views: further views of each posed scene; a quarter of them turned by 30 degrees, the others
            by 4 to 20.
        val_count: posed scenes; a tenth of `count` (at least 4) if not given.
        force: replace an older result.
        progress: told (done, all) after each scene.

    Raises:
        UserError: a number that cannot be, `out` holds something already, or the disk is full.
    """
    if count < 1:
        raise UserError(f"--count {count}: must be at least 1.")
    if resolution < 8 or resolution % 2:
        raise UserError(f"--resolution {resolution}: must be even and at least 8.")
    if views < 1:
        raise UserError(f"--views {views}: must be at least 1.")
    val_count = max(4, count // 10) if val_count is None else val_count
    out, total, done = Path(out), count + val_count, 0

    def tell() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    with atomic_folder(out, force, shown_by="train.tar") as folder:
        ranges = {}
        with tarfile.open(folder / "train.tar", "w") as archive:
            for index in range(count):
                ranges[f"{index:06d}"] = _add_training_picture(archive, index, seed, resolution)
                tell()
        names = {
            "classes": list(CLASSES),
            "counts": {c: len(range(k, count, len(CLASSES))) for k, c in enumerate(CLASSES)},
            "disparity_min_max": ranges,
        }
        (folder / "train-ranges.json").write_text(json.dumps(names), encoding="utf-8")
        with tarfile.open(folder / "val.tar", "w") as archive:
            for index in range(val_count):
                _add_posed_scene(archive, index, seed, resolution, views)
                tell()
    return ProceduralFiles(
        train=out / "train.tar", val=out / "val.tar", train_count=count, val_count=val_count
    )


def seen_scene(index: int, seed: int, stream: int) -> tuple[ProceduralScene, np.random.Generator]:
    """Scene number `index` of a data set, one that its camera sees well, and its random numbers."""
    generator = np.random.default_rng([seed, stream, index])
    while True:
        scene = make_scene(CLASSES[index % len(CLASSES)], generator)
        look = render_view(scene, scene.camera, 16, rays=1)
        is_surface = look.inverse_depth > 0
        if (
            is_surface.mean() >= _SMALLEST_COVER
            and look.inverse_depth.max() <= 1.0 / _NEAREST_DEPTH
            and look.mask.mean() > _SMALLEST_OBJECT
        ):
            return scene, generator


def _add_training_picture(
    archive: tarfile.TarFile, index: int, seed: int, resolution: int
) -> list[float]:
    scene, _ = seen_scene(index, seed, _TRAIN_STREAM)
    view = render_view(scene, scene.camera, resolution)
    half = resolution // 2
    disparity = view.inverse_depth.reshape(half, 2, half, 2).mean(axis=(1, 3))
    low, high = float(disparity.min()), float(disparity.max())
    stored = np.rint(255.0 * (disparity - low) / (high - low)).astype(np.uint8)
    key = f"{index:06d}"
    add_file(archive, f"{key}.webp", picture_bytes(_bytes(view.rgb), "WEBP", quality=90, method=4))
    add_file(archive, f"{key}.disparity.png", picture_bytes(stored, "PNG"))
    add_file(archive, f"{key}.cls", str(index % len(CLASSES)).encode("ascii"))
    return [round(low, 5), round(high, 5)]


def _add_posed_scene(
    archive: tarfile.TarFile, index: int, seed: int, resolution: int, views: int
) -> None:
    scene, generator = seen_scene(index, seed, _VAL_STREAM)
    canonical = render_view(scene, scene.camera, resolution)
    surface = canonical.inverse_depth[canonical.inverse_depth > 0]
    pivot_depth = float(np.median(1.0 / surface))
    far = views // 4
    near = generator.uniform(*_NEAR_DEG, views - far)
    angles = [*near, *[_FAR_DEG] * far]
    cameras = novel_cameras(scene, pivot_depth, [math.radians(a) for a in angles], generator)
    poses = torch.cat([scene.camera.camera_to_world[None], cameras.camera_to_world])
    shown = [canonical, *(render_view(scene, cameras[k], resolution) for k in range(views))]
    for number, view in enumerate(shown):
        _add_view(archive, f"{index:04d}", number, view)
    pivot = scene.camera.position + pivot_depth * scene.camera.forward
    meta = {
        "cls": scene.class_name,
        "cls_index": CLASSES.index(scene.class_name),
        **_intrinsics(scene.camera, resolution),
        "pivot": pivot.tolist(),
        "median_depth": pivot_depth,
        "views": [
            {"index": number, "angle_deg": angle, "cam2world": pose.tolist()}
            for number, (angle, pose) in enumerate(zip([0.0, *angles], poses, strict=True))
        ],
    }
    add_file(archive, f"{index:04d}/meta.json", json.dumps(meta).encode("utf-8"))


def _add_view(archive: tarfile.TarFile, scene: str, number: int, view: View) -> None:
    steps = np.rint(view.inverse_depth / INVERSE_DEPTH_UNIT)
    stored = np.clip(steps, 0, 65535).astype(np.uint16)
    is_surface = (view.inverse_depth > 0)[..., None]
    normal = np.where(is_surface, np.rint(127.5 * (view.normal + 1.0)), 0.0).astype(np.uint8)
    add_file(archive, f"{scene}/rgb_{number}.png", picture_bytes(_bytes(view.rgb), "PNG"))
    add_file(archive, f"{scene}/invdepth_{number}.png", picture_bytes(stored, "PNG"))
    add_file(
        archive,
        f"{scene}/mask_{number}.png",
        picture_bytes(view.mask.astype(np.uint8) * 255, "PNG"),
    )
    add_file(archive, f"{scene}/normal_{number}.png", picture_bytes(normal, "PNG"))


def _intrinsics(camera: Camera, resolution: int) -> dict[str, float | int]:
    fx, fy, cx, cy = (float(value) * resolution for value in camera.intrinsics)
    fov_deg = math.degrees(2.0 * math.atan(0.5 * resolution / fx))
    size = {"fov_deg": fov_deg, "width": resolution, "height": resolution}
    return {**size, "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy}


def _bytes(rgb: np.ndarray) -> np.ndarray:
    return np.rint(rgb * 255.0).astype(np.uint8)
