"""Task "reconstruction": one picture in; how right are the scene's picture, depth and novel views.

::

    figures = evaluate_reconstruction("model.safetensors", [Path("scenes-val.tar")])["figures"]
    figures["tokens"]["novel_psnr"], figures["baselines"]["warp_recon_novel_psnr"]

The protocol is stated in full in docs/metrics.md and, with this run's numbers, under ``protocol``.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unflat.data.dataset import PictureDataset
from unflat.data.posed import PosedScene, PosedScenes, resize_maps
from unflat.data.sample import Reject
from unflat.errors import UserError
from unflat.evaluation.baselines import (
    BLEND,
    SUBPIXELS,
    copy_psnr,
    mean_color_psnr,
    warp_psnr,
)
from unflat.evaluation.reconstructor import (
    Mode,
    Reconstruction,
    Reconstructor,
    align,
    true_disparity,
)
from unflat.evaluation.views import novel_of, scene_at
from unflat.metrics import CodeCounts, disparity_correlation, psnr, ssim
from unflat.report import versions

FREE_CLASSES = ("fruit", "vegetable", "carton", "clothing", "glass", "metal", "plastic")
"""Classes of the photo sets whose licences allow a model trained on them to be shipped."""
FAR_DEG = 25.0
"""Views turned by more than this are "far" (30 in the set), the others "novel" (4 to 20)."""
BATCH = 8
"""Pictures encoded at once; the result does not depend on it."""

Progress = Callable[[int, int], None]


def evaluate_reconstruction(
    model: str | Path,
    data: Sequence[str | Path],
    *,
    photos: str | Path | Sequence[str | Path] | None = None,
    limit: int | None = None,
    resolution: int | None = None,
    samples: int | None = None,
    device: str = "cpu",
    per_scene: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Figures of a model and of the baselines, with the protocol they were measured under.

    Args:
        model: a model's file, training folder or name.
        data: posed scenes (tars or folders).
        photos: pictures without cameras, for the canonical figures; tars or folders.
        limit: only the first so many scenes, and photos.
        resolution: side in pixels at which all is compared; the model's own if not given.
        samples: intervals per ray; the system's default for evaluation if not given.
        device: where the model runs.
        per_scene: keep every scene's values under ``per_scene``.
        progress: is told how many of how many scenes and photo batches are done.

    Returns:
        ``figures`` (``tokens``, ``detail``, ``baselines``: flat objects of numbers), ``protocol``,
        and ``per_scene`` where asked.

    Raises:
        UserError: no model, no posed scenes, or a resolution above that of the data.
    """
    from unflat.evaluation.load import load_reconstructor

    reconstructor = load_reconstructor(model, device, samples)
    return evaluate_reconstructor(
        reconstructor,
        data,
        photos=photos,
        limit=limit,
        resolution=resolution,
        per_scene=per_scene,
        progress=progress,
    )


@torch.no_grad()
def evaluate_reconstructor(
    reconstructor: Reconstructor,
    data: Sequence[str | Path],
    *,
    photos: str | Path | Sequence[str | Path] | None = None,
    limit: int | None = None,
    resolution: int | None = None,
    per_scene: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """`evaluate_reconstruction` for anything that keeps the `Reconstructor` protocol."""
    side = resolution or reconstructor.resolution
    sets = [PosedScenes(path) for path in data]
    if not sets:
        raise UserError("--data: names no posed scenes; give scenes-val.tar or a folder like it.")
    places = [(scenes, index) for scenes in sets for index in range(len(scenes))][:limit]
    pictures = _open_photos(photos, max(side, reconstructor.resolution))
    number = 0 if pictures is None else min(len(pictures), limit or len(pictures))
    total = len(places) + number
    tally = _Tally(reconstructor)
    for start in range(0, len(places), BATCH):
        tally.add_scenes(_readable(places[start : start + BATCH], tally.rejects), side)
        if progress is not None:
            progress(min(start + BATCH, len(places)), total)
    if not tally.scenes:
        raise UserError(f"{sets[0].path}: none of its scenes can be read; {_first(tally.rejects)}")
    for start in range(0, number, BATCH):
        assert pictures is not None  # there would be none to count
        indices = list(range(start, min(start + BATCH, number)))
        batch = pictures.batch(indices)
        names = [_class_of(pictures, label) for label in batch["label"].tolist()]
        tally.add_photos(batch["image"], names, side)
        if progress is not None:
            progress(len(places) + indices[-1] + 1, total)
    result: dict[str, Any] = {
        "figures": tally.figures(),
        "protocol": _protocol(reconstructor, data, photos, side, limit, tally),
    }
    if per_scene:
        result["per_scene"] = tally.scenes
    return result


class _Tally:
    """Values of every picture, collected mode by mode, and their means."""

    def __init__(self, reconstructor: Reconstructor) -> None:
        self.reconstructor = reconstructor
        self.modes: dict[str, dict[str, list[float]]] = {
            mode: defaultdict(list) for mode in reconstructor.modes
        }
        self.baselines: dict[str, list[float]] = defaultdict(list)
        self.by_class: dict[str, dict[str, list[float]]] = {
            mode: defaultdict(list) for mode in reconstructor.modes
        }
        self.scenes: list[dict[str, Any]] = []
        self.raised = dict.fromkeys(reconstructor.modes, 0)
        self.views = {"novel": 0, "far": 0}
        self.rejects: list[Reject] = []
        sizes = reconstructor.codebook_sizes
        self.codes = CodeCounts(sizes) if sizes else None

    def add_scenes(self, native: list[PosedScene], side: int) -> None:
        """Everything that is measured on a batch of scenes, at one resolution."""
        if not native:
            return
        scenes = [scene_at(scene, side) for scene in native]
        photos = torch.stack([scene.images[0] for scene in scenes])
        images = resize_maps(
            torch.stack([scene.images[0] for scene in native]), self.reconstructor.resolution
        )
        rows = [self._baselines(scene) for scene in scenes]
        for mode in self.reconstructor.modes:
            made = self.reconstructor.reconstruct(images, photos, mode)
            self._count(made, mode)
            for index, scene in enumerate(scenes):
                values = self._scene(made, index, scene, mode)
                rows[index][mode] = values["own"]
                rows[index]["baselines"] |= values["baselines"]
        for row in rows:
            self._keep(row)

    def add_photos(self, pictures: Tensor, names: list[str], side: int) -> None:
        """The canonical view of pictures without cameras."""
        photos = resize_maps(pictures, side)
        images = resize_maps(pictures, self.reconstructor.resolution)
        for mode in self.reconstructor.modes:
            made = self.reconstructor.reconstruct(images, photos, mode)
            self._count(made, mode)
            for value, name in zip(psnr(made.image, photos).tolist(), names, strict=True):
                self.by_class[mode][name].append(value)

    def figures(self) -> dict[str, Any]:
        """Means over pictures: of every scene's value, or of every view's."""
        figures: dict[str, Any] = {mode: self._mode_figures(mode) for mode in self.modes}
        figures["baselines"] = _means(self.baselines)
        return figures

    def _mode_figures(self, mode: str) -> dict[str, Any]:
        values = self.modes[mode]
        figures: dict[str, Any] = _means(values)
        correlations = np.asarray(values["disparity_correlation"])
        figures["disparity_correlation_median"] = float(np.median(correlations))
        figures["disparity_correlation_worst"] = float(correlations.min())
        if self.codes is not None and mode == "tokens":
            figures["code_usage"] = self.codes.usage
            figures["code_perplexity"] = self.codes.perplexity
        classes = self.by_class[mode]
        if classes:
            free = [value for name in FREE_CLASSES for value in classes.get(name, [])]
            every = [value for group in classes.values() for value in group]
            figures["photos_canonical_psnr"] = float(np.mean(every))
            if free:
                figures["photos_free_canonical_psnr"] = float(np.mean(free))
            figures["photos_canonical_psnr_by_class"] = _means(dict(sorted(classes.items())))
        return figures

    def _count(self, made: Reconstruction, mode: str) -> None:
        if self.codes is not None and mode == "tokens" and made.indices is not None:
            self.codes.add(made.indices)

    def _baselines(self, scene: PosedScene) -> dict[str, Any]:
        """A scene's row, begun with what needs no model."""
        far = scene.angle_deg[1:] > FAR_DEG
        image, depth = scene.images[0], scene.inverse_depth[0]
        values: dict[str, Any] = {"mean_color_canonical_psnr": mean_color_psnr(scene).item()}
        values |= _split("copy", copy_psnr(scene), far)
        values |= _split("true_depth_warp_input", warp_psnr(scene, image, depth), far)
        sharp = warp_psnr(scene, image, depth, supersample=2)
        values |= _split("true_depth_warp_input_supersampled", sharp, far)
        return {
            "name": scene.name,
            "class": scene.class_name,
            "angles_deg": scene.angle_deg[1:].tolist(),
            "baselines": values,
        }

    def _scene(
        self, made: Reconstruction, index: int, scene: PosedScene, mode: Mode
    ) -> dict[str, dict[str, Any]]:
        """What one mode reaches on one scene, and what its own depth reaches by warping."""
        far = scene.angle_deg[1:] > FAR_DEG
        photo, true = scene.images[0], scene.inverse_depth[0]
        disparity = made.disparity[index].cpu()
        recon = made.image[index].cpu().clamp(0, 1)
        focal = scene.camera.intrinsics[0, 0].item()
        alignment, raised = align(disparity, true, focal)
        self.raised[mode] += raised
        own = true_disparity(disparity, alignment)
        views = made.render(index, alignment, novel_of(scene.camera)).cpu()
        values: dict[str, Any] = {
            "canonical_psnr": psnr(recon[None], photo[None]).item(),
            "canonical_ssim": ssim(recon[None], photo[None]).item(),
            "disparity_correlation": disparity_correlation(disparity[None], true[None]).item(),
            "alignment": {"scale": alignment.scale, "shift": alignment.shift},
        }
        if made.termination_variance is not None:
            values["termination_variance"] = made.termination_variance[index].item()
        values |= _split("", psnr(views, scene.images[1:]), far)
        # the names without a mode are what the task compares a mode with: tokens with the warp of
        # their own picture, detail with the warp of the photo by its own depth
        plain = {"recon": "tokens", "input": self.reconstructor.modes[-1]}
        baselines: dict[str, Any] = {}
        for what, image in (("input", photo), ("recon", recon)):
            name = f"warp_{what}" if mode == plain[what] else f"{mode}_depth_warp_{what}"
            baselines |= _split(name, warp_psnr(scene, image, own), far)
            if what == "input":
                sharp = warp_psnr(scene, image, own, supersample=2)
                baselines |= _split(f"{name}_supersampled", sharp, far)
        if mode == "tokens":
            truly = warp_psnr(scene, recon, true)
            baselines |= _split("true_depth_warp_recon", truly, far)
        return {"own": values, "baselines": baselines}

    def _keep(self, row: dict[str, Any]) -> None:
        self.scenes.append(row)
        for target, values in [(self.modes[m], row[m]) for m in self.modes] + [
            (self.baselines, row["baselines"])
        ]:
            for name, value in values.items():
                if isinstance(value, list):
                    target[name].extend(value)
                elif isinstance(value, float):
                    target[name].append(value)
        copied = row["baselines"]
        self.views["novel"] += len(copied["copy_novel_psnr"])
        self.views["far"] += len(copied["copy_far_psnr"])


def _readable(places: list[tuple[PosedScenes, int]], rejects: list[Reject]) -> list[PosedScene]:
    """Scenes in their canonical frame; those that cannot be read are listed instead."""
    found = []
    for scenes, index in places:
        try:
            found.append(scenes[index].in_canonical_frame())
        except UserError as error:
            rejects.append(Reject(name=scenes.names[index], reason=str(error)))
    return found


def _split(name: str, values: Tensor, far: Tensor) -> dict[str, list[float]]:
    """A value for each view as two lists: ``NAME_novel_psnr`` and ``NAME_far_psnr``."""
    prefix = f"{name}_" if name else ""
    return {
        f"{prefix}novel_psnr": values[~far].tolist(),
        f"{prefix}far_psnr": values[far].tolist(),
    }


def _first(rejects: list[Reject]) -> str:
    return f"the first: {rejects[0].reason}" if rejects else "--limit leaves none."


def _means(values: dict[str, list[float]]) -> dict[str, float]:
    return {name: float(np.mean(items)) for name, items in values.items() if items}


def _open_photos(
    photos: str | Path | Sequence[str | Path] | None, resolution: int
) -> PictureDataset | None:
    if photos is None:
        return None
    paths = [photos] if isinstance(photos, str | Path) else list(photos)
    return PictureDataset(paths, resolution, cache=False) if paths else None


def _class_of(pictures: PictureDataset, label: int) -> str:
    return pictures.classes[label] if label >= 0 else "unlabelled"


def _protocol(
    reconstructor: Reconstructor,
    data: Sequence[str | Path],
    photos: str | Path | Sequence[str | Path] | None,
    side: int,
    limit: int | None,
    tally: _Tally,
) -> dict[str, Any]:
    """All that a number needs beside it to be compared with another."""
    pictures = [] if photos is None else [photos] if isinstance(photos, str | Path) else photos
    files = [_fingerprint(Path(path)) for path in [*data, *pictures]]
    counts = [len(group) for group in next(iter(tally.by_class.values()), {}).values()]
    angles = [angle for scene in tally.scenes for angle in scene["angles_deg"]]
    return {
        "task": "reconstruction",
        "format": 1,
        "model": {
            "name": reconstructor.name,
            "resolution": reconstructor.resolution,
            **reconstructor.describe(),
        },
        "files": files,
        "scenes": len(tally.scenes),
        "rejected": [f"{reject.name}: {reject.reason}" for reject in tally.rejects],
        "views": tally.views,
        "view_angles_deg": {"least": min(angles), "most": max(angles), "far_above": FAR_DEG},
        "photos": sum(counts),
        "limit": limit,
        "resolution": side,
        "psnr": "mean over pictures of each picture's PSNR; peak 1, sRGB values, clamped to [0, 1]",
        "alignment": "scale and shift per scene: least squares of the rendered disparity of the "
        "canonical view on the true 1/z over all its pixels, sky as 0; true focal length",
        "alignments_raised": tally.raised,
        "warp": f"{SUBPIXELS}x{SUBPIXELS} sub-points, z-buffer, colours within {BLEND} of the "
        "nearest averaged, holes from the farthest of four neighbours; supersampled: at twice the "
        "resolution, then area-averaged",
        "seed": None,
        "versions": versions(),
    }


def _fingerprint(path: Path) -> dict[str, Any]:
    """Name, size and sha256 of a file; a folder has its name alone."""
    if not path.is_file():
        return {"name": path.name}
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest}
