"""Task "reconstruction": one picture in; how right are the scene's picture, depth and novel views.

::

    evaluation = evaluate_reconstruction("model.safetensors", [Path("scenes-val.tar")])
    evaluation.figures["tokens"]["novel_psnr"], evaluation.figures["warp_recon"]["novel_psnr"]

The protocol is stated in full in docs/metrics.md and, with this run's numbers, under ``protocol``.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unflat.data.dataset import PictureDataset
from unflat.data.posed import PosedScene, PosedScenes, resize_maps
from unflat.data.sample import Reject
from unflat.errors import UserError
from unflat.evaluation.baselines import BLEND, SUBPIXELS, warp
from unflat.evaluation.depth import DEPTH_COLUMNS, depth_figures, picture_of_map
from unflat.evaluation.networks import Distance
from unflat.evaluation.protocol import fingerprint
from unflat.evaluation.reconstructor import (
    Mode,
    Reconstruction,
    Reconstructor,
    align,
    true_disparity,
)
from unflat.evaluation.result import Column, Evaluation, Item, Progress, Table, mean_figures, means
from unflat.evaluation.views import novel_of, scene_at
from unflat.metrics import CodeCounts, psnr, ssim, ssim_uniform
from unflat.report import versions

FREE_CLASSES = ("fruit", "vegetable", "carton", "clothing", "glass", "metal", "plastic")
"""Classes of the photo sets whose licences allow a model trained on them to be shipped."""
FAR_DEG = 25.0
"""Views turned by more than this are "far" (30 in the set), the others "novel" (4 to 20)."""
BATCH = 8
"""Pictures encoded at once; the result does not depend on it."""

_NOVEL = Column(key="novel_psnr", label="novel PSNR dB")
_VIEWS = Table(
    title="Novel views: within 20 degrees, and at 30 degrees (far)",
    columns=(
        Column(key="canonical_psnr", label="canonical PSNR dB"),
        Column(key="canonical_ssim", label="canonical SSIM", form="{:.3f}"),
        _NOVEL,
        Column(key="novel_ssim", label="novel SSIM", form="{:.3f}"),
        Column(key="far_psnr", label="far PSNR dB"),
        Column(key="far_ssim", label="far SSIM", form="{:.3f}"),
    ),
)
_CODES = Table(
    title="Codes, fog, and photographs without cameras",
    columns=(
        Column(key="code_usage", label="codes used", form="{:.1%}"),
        Column(key="code_perplexity", label="perplexity", form="{:.0f}"),
        Column(
            key="termination_variance",
            label="termination variance",
            form="{:.5f}",
            better="lower",
        ),
        Column(key="photos_canonical_psnr", label="photos PSNR dB"),
        Column(key="photos_free_canonical_psnr", label="free classes PSNR dB"),
    ),
)


def evaluate_reconstruction(
    model: str | Path,
    data: Sequence[str | Path],
    *,
    photos: str | Path | Sequence[str | Path] | None = None,
    depth: str | None = None,
    limit: int | None = None,
    resolution: int | None = None,
    samples: int | None = None,
    device: str = "cpu",
    prior: str | None = None,
    seed: int = 0,
    distances: dict[str, Distance] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Figures of a model and of the baselines, with the protocol they were measured under.

    Args:
        model: a model's file, training folder or name, or ``copy``, ``mean-color``, ``depth-warp``.
        data: posed scenes (tars or folders).
        photos: pictures without cameras, for the canonical figures; tars or folders.
        depth: for ``depth-warp``: ``floor``, a folder of disparities, or a model.
        limit: only the first so many scenes, and photos.
        resolution: side in pixels at which all is compared; the model's own if not given.
        samples: intervals per ray; the system's default for evaluation if not given.
        device: where the model runs.
        prior: a model that draws what the photo does not show, for the mode ``completed``.
        seed: of the pixel pairs of ordinal accuracy.
        distances: further distances of two pictures by name, as ``lpips-vgg``.
        progress: is told how many of how many scenes and photo batches are done.

    Raises:
        UserError: no model, no posed scenes, or a resolution above that of the data.
    """
    from unflat.evaluation.load import load_reconstructor

    return evaluate_reconstructor(
        load_reconstructor(model, device, samples, depth, prior),
        data,
        photos=photos,
        limit=limit,
        resolution=resolution,
        seed=seed,
        distances=distances,
        progress=progress,
    )


def tables(distances: Sequence[str]) -> tuple[Table, Table, Table]:
    """Views, disparity, and the rest.

    Args:
        distances: names of further distances of two pictures.
    """
    further = [
        Column(key=f"{which}_{name}", label=f"{which} {name}", form="{:.3f}", better="lower")
        for name in distances
        for which in ("novel", "far")
    ]
    views = Table(title=_VIEWS.title, columns=[*_VIEWS.columns, *further])
    disparity = Table(title="Disparity of the canonical view", columns=DEPTH_COLUMNS)
    return views, disparity, _CODES


@torch.no_grad()
def evaluate_reconstructor(
    reconstructor: Reconstructor,
    data: Sequence[str | Path],
    *,
    photos: str | Path | Sequence[str | Path] | None = None,
    limit: int | None = None,
    resolution: int | None = None,
    seed: int = 0,
    distances: dict[str, Distance] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """`evaluate_reconstruction` for anything that keeps the `Reconstructor` protocol."""
    side = resolution or reconstructor.resolution
    sets = [PosedScenes(path) for path in data]
    if not sets:
        raise UserError("--data: names no posed scenes; give scenes-val.tar or a folder like it.")
    places = [(scenes, index) for scenes in sets for index in range(len(scenes))][:limit]
    pictures = _open_photos(photos, max(side, reconstructor.resolution))
    number = 0 if pictures is None else min(len(pictures), limit or len(pictures))
    total = len(places) + number
    tally = _Tally(reconstructor, side, seed, distances or {})
    tally.rejects += [reject for scenes in sets for reject in scenes.rejects]
    for start in range(0, len(places), BATCH):
        tally.add_scenes(places[start : start + BATCH])
        if progress is not None:
            progress(min(start + BATCH, len(places)), total)
    if not tally.items:
        raise UserError(f"{sets[0].path}: none of its scenes can be read; {_first(tally.rejects)}")
    for start in range(0, number, BATCH):
        assert pictures is not None  # there would be none to count
        tally.add_photos(pictures, range(start, min(start + BATCH, number)))
        if progress is not None:
            progress(len(places) + min(start + BATCH, number), total)
    return Evaluation(
        task="reconstruction",
        tables=tables(tally.names),
        figures=tally.figures(),
        protocol=_protocol(data, photos, limit, tally),
        items=tally.items,
        rank=(reconstructor.modes[-1], _NOVEL),
        sheet=tally.sheet,
        sheet_text="Photo, what the model makes of it, true disparity, the model's; below, two "
        "novel views as the model shows them and as they are.",
        rejected=tally.rejects,
        warnings=tally.warnings(),
    )


class _Tally:
    """Values of every scene and photo, method by method."""

    def __init__(
        self, reconstructor: Reconstructor, side: int, seed: int, distances: dict[str, Distance]
    ) -> None:
        self.reconstructor, self.side, self.seed = reconstructor, side, seed
        self.distances, self.names = distances, list(distances)
        self.items: list[Item] = []
        self.places: list[tuple[PosedScenes, int]] = []
        self.by_class: dict[str, dict[str, list[float]]] = {
            mode: defaultdict(list) for mode in reconstructor.modes
        }
        self.raised = dict.fromkeys(reconstructor.modes, 0)
        self.rejects: list[Reject] = []
        sizes = reconstructor.codebook_sizes
        self.codes = CodeCounts(sizes) if sizes else None

    def add_scenes(self, places: list[tuple[PosedScenes, int]]) -> None:
        """Everything that is measured on some scenes."""
        native = []
        for scenes, index in places:
            try:
                native.append(scenes[index].in_canonical_frame())
                self.places.append((scenes, index))
            except UserError as error:
                self.rejects.append(Reject(name=scenes.names[index], reason=str(error)))
        if not native:
            return
        scenes = [scene_at(scene, self.side) for scene in native]
        figures = [self._baselines(scene) for scene in scenes]
        alignments: list[dict[str, Any]] = [{} for _ in scenes]
        for mode in self.reconstructor.modes:
            made = self._reconstruct(native, scenes, mode)
            self._count(made, mode)
            for index, scene in enumerate(scenes):
                found = self._scene(made, index, scene, mode)
                alignments[index][mode] = found.pop("alignment")
                figures[index] |= {mode: found.pop("own"), **found}
        for scene, values, aligned in zip(scenes, figures, alignments, strict=True):
            ordered = {mode: values[mode] for mode in self.reconstructor.modes}
            facts = {
                "class": scene.class_name,
                "angles_deg": scene.angle_deg[1:].tolist(),
                "alignment": aligned,
            }
            self.items.append(Item(name=scene.name, figures={**ordered, **values}, facts=facts))

    def add_photos(self, pictures: PictureDataset, indices: range) -> None:
        """The canonical view of pictures without cameras."""
        batch = pictures.batch(list(indices))
        classes = [_class_of(pictures, label) for label in batch["label"].tolist()]
        names = [pictures.names[index] for index in indices]
        photos = resize_maps(batch["image"], self.side)
        images = resize_maps(batch["image"], self.reconstructor.resolution)
        for mode in self.reconstructor.modes:
            made = self.reconstructor.reconstruct(images, photos, mode, names)
            self._count(made, mode)
            values = psnr(made.image.cpu(), photos).tolist()
            for value, name in zip(values, classes, strict=True):
                self.by_class[mode][name].append(value)

    def figures(self) -> dict[str, dict[str, Any]]:
        """Means over pictures: of every scene's value, or of every view's."""
        figures: dict[str, dict[str, Any]] = dict(mean_figures(self.items))
        for mode in self.reconstructor.modes:
            figures[mode] |= self._mode_figures(mode)
        return figures

    @torch.no_grad()
    def sheet(self, index: int) -> Float[Tensor, "3 height width"]:
        """What was compared on a scene, in the reconstructor's last mode."""
        scenes, place = self.places[index]
        native = scenes[place].in_canonical_frame()
        scene = scene_at(native, self.side)
        made = self._reconstruct([native], [scene], self.reconstructor.modes[-1])
        true, disparity = scene.inverse_depth[0], made.disparity
        own = torch.zeros_like(true) if disparity is None else disparity[0].cpu()
        focal = scene.camera.intrinsics[0, 0].item()
        alignment, _ = align(own, true, focal)
        chosen = [1, len(scene.images) - 1]
        views = made.render(0, alignment, scene.camera[torch.tensor(chosen)]).cpu()
        upper = [scene.images[0], made.image[0].cpu(), picture_of_map(true), picture_of_map(own)]
        lower = [views[0], scene.images[chosen[0]], views[1], scene.images[chosen[1]]]
        return torch.cat([torch.cat(row, dim=2) for row in (upper, lower)], dim=1).clamp(0, 1)

    def warnings(self) -> list[str]:
        """What weakens the figures."""
        return [
            f"{mode}: the scale of {count} scenes had to be raised; their disparity runs against "
            "the true one"
            for mode, count in self.raised.items()
            if count
        ]

    def _reconstruct(
        self, native: Sequence[PosedScene], scenes: Sequence[PosedScene], mode: Mode
    ) -> Reconstruction:
        images = torch.stack([scene.images[0] for scene in native])
        photos = torch.stack([scene.images[0] for scene in scenes])
        images = resize_maps(images, self.reconstructor.resolution)
        names = [scene.name for scene in scenes]
        return self.reconstructor.reconstruct(images, photos, mode, names)

    def _mode_figures(self, mode: str) -> dict[str, Any]:
        """What is no mean over scenes: medians, codes, photographs."""
        figures: dict[str, Any] = {}
        known = [item.figures[mode].get("disparity_correlation") for item in self.items]
        correlations = [value for value in known if value is not None]
        if correlations:
            figures["disparity_correlation_median"] = float(np.median(correlations))
            figures["disparity_correlation_worst"] = min(correlations)
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
            figures["photos_canonical_psnr_by_class"] = means(dict(sorted(classes.items())))
        return figures

    def _count(self, made: Reconstruction, mode: str) -> None:
        if self.codes is not None and mode == "tokens" and made.indices is not None:
            self.codes.add(made.indices)

    def _baselines(self, scene: PosedScene) -> dict[str, dict[str, Any]]:
        """What needs no model."""
        image, depth = scene.images[0], scene.inverse_depth[0]
        color = image.mean(dim=(1, 2), keepdim=True).expand_as(image)
        sharp = warp(scene, image, depth, supersample=2)
        return {
            "copy": self._views(image.expand_as(scene.images[1:]), scene),
            "mean-color": {
                "canonical_psnr": psnr(color[None], image[None]).item(),
                **self._views(color.expand_as(scene.images[1:]), scene),
            },
            "true_depth_warp_input": self._views(warp(scene, image, depth), scene),
            "true_depth_warp_input_supersampled": self._views(sharp, scene),
        }

    def _scene(
        self, made: Reconstruction, index: int, scene: PosedScene, mode: Mode
    ) -> dict[str, Any]:
        """What one mode reaches on one scene (``own``), and what its own depth does by warping."""
        photo, true = scene.images[0], scene.inverse_depth[0]
        recon = made.image[index].cpu().clamp(0, 1)
        focal = scene.camera.intrinsics[0, 0].item()
        disparity = None if made.disparity is None else made.disparity[index].cpu()
        alignment, raised = align(
            torch.zeros_like(true) if disparity is None else disparity, true, focal
        )
        views = made.render(index, alignment, novel_of(scene.camera)).cpu()
        values: dict[str, Any] = {
            "canonical_psnr": psnr(recon[None], photo[None]).item(),
            "canonical_ssim": ssim(recon[None], photo[None]).item(),
            "canonical_ssim_uniform": ssim_uniform(recon[None], photo[None]).item(),
            **self._views(views, scene),
        }
        found: dict[str, Any] = {"own": values, "alignment": None}
        if made.termination_variance is not None:
            values["termination_variance"] = made.termination_variance[index].item()
        if disparity is None:
            return found
        self.raised[mode] += raised
        values |= depth_figures(disparity, true, scene.camera[:1], self.seed)
        found["alignment"] = {"scale": alignment.scale, "shift": alignment.shift}
        if self.reconstructor.modes == ("depth-warp",):
            return found  # it is the warp
        # the names without a mode are what the task compares a mode with: tokens with the warp of
        # their own picture, detail with the warp of the photo by its own depth
        own = true_disparity(disparity, alignment)
        plain = {"recon": "tokens", "input": self.reconstructor.modes[-1]}
        for what, image in (("input", photo), ("recon", recon)):
            name = f"warp_{what}" if mode == plain[what] else f"{mode}_depth_warp_{what}"
            found[name] = self._views(warp(scene, image, own), scene)
            if what == "input":
                sharp = warp(scene, image, own, supersample=2)
                found[f"{name}_supersampled"] = self._views(sharp, scene)
        if mode == "tokens":
            found["true_depth_warp_recon"] = self._views(warp(scene, recon, true), scene)
        return found

    def _views(
        self, views: Float[Tensor, "novel 3 side side"], scene: PosedScene
    ) -> dict[str, list[float]]:
        """A value for each view, near ones and far ones apart: ``novel_psnr``, ``far_psnr`` ..."""
        true, far = scene.images[1:], scene.angle_deg[1:] > FAR_DEG
        values = {"psnr": psnr(views, true), "ssim": ssim(views, true)}
        values |= {name: distance(views, true) for name, distance in self.distances.items()}
        return {
            f"{which}_{name}": value[chosen].tolist()
            for which, chosen in (("novel", ~far), ("far", far))
            for name, value in values.items()
        }


def _first(rejects: list[Reject]) -> str:
    return f"the first: {rejects[0].reason}" if rejects else "--limit leaves none."


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
    data: Sequence[str | Path],
    photos: str | Path | Sequence[str | Path] | None,
    limit: int | None,
    tally: _Tally,
) -> dict[str, Any]:
    """All that a number needs beside it to be compared with another."""
    reconstructor = tally.reconstructor
    pictures = [] if photos is None else [photos] if isinstance(photos, str | Path) else photos
    counts = [len(group) for group in next(iter(tally.by_class.values()), {}).values()]
    angles = [angle for item in tally.items for angle in item.facts["angles_deg"]]
    far = sum(angle > FAR_DEG for angle in angles)
    return {
        "task": "reconstruction",
        "model": {
            "name": reconstructor.name,
            "resolution": reconstructor.resolution,
            **reconstructor.describe(),
        },
        "files": [fingerprint(path) for path in [*data, *pictures]],
        "scenes": len(tally.items),
        "views": {"novel": len(angles) - far, "far": far},
        "view_angles_deg": {"least": min(angles), "most": max(angles), "far_above": FAR_DEG},
        "photos": sum(counts),
        "limit": limit,
        "resolution": tally.side,
        "psnr": "mean over pictures of each picture's PSNR; peak 1, sRGB values, clamped to [0, 1]",
        "ssim": "Gaussian window 11 x 11, sigma 1.5; canonical_ssim_uniform: 7 x 7 uniform",
        "alignment": "scale and shift per scene: least squares of the rendered disparity of the "
        "canonical view on the true 1/z over all its pixels, sky as 0; true focal length",
        "alignments_raised": tally.raised,
        "warp": f"{SUBPIXELS}x{SUBPIXELS} sub-points, z-buffer, colors within {BLEND} of the "
        "nearest averaged, holes from the farthest of four neighbors; supersampled: at twice the "
        "resolution, then area-averaged",
        "distances": tally.names,
        "seed": tally.seed,
        "versions": versions(),
    }
