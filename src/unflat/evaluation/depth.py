"""Task "depth": how right is the disparity that a method sees in one picture.

::

    evaluation = evaluate_depth(["vq3d-small"], [Path("scenes-val.tar")])
    evaluation.figures["vq3d-small detail"]["disparity_correlation"]
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unflat.data.posed import PosedScene, PosedScenes
from unflat.data.sample import Reject
from unflat.errors import UserError
from unflat.evaluation.estimators import DepthEstimator, FloorDepth
from unflat.evaluation.protocol import fingerprint
from unflat.evaluation.result import Column, Evaluation, Item, Progress, Table, mean_figures
from unflat.evaluation.views import scene_at
from unflat.geometry.camera import Camera
from unflat.metrics import (
    absolute_relative_error,
    align_disparity,
    delta_accuracy,
    disparity_correlation,
    forward_backward_cycle,
    inner_pixels,
    mean_angle_deviation,
    non_flatness_score,
    normals_from_depth,
    ordinal_accuracy,
    scale_and_shift_invariant_error,
    scale_invariant_depth_error,
    standardized_depth_error,
)
from unflat.report import versions

CORRELATION = Column(key="disparity_correlation", label="correlation", form="{:.3f}")
DEPTH_COLUMNS = (
    CORRELATION,
    Column(key="disparity_correlation_median", label="median", form="{:.3f}"),
    Column(key="aligned_rms", label="aligned RMS", form="{:.3f}", better="lower"),
    Column(key="ordinal_accuracy", label="ordinal", form="{:.1%}"),
    Column(key="side", label="SIDE", form="{:.3f}", better="lower"),
    Column(key="absolute_relative_error", label="abs. rel.", form="{:.3f}", better="lower"),
    Column(key="normals_mad_deg", label="normals MAD deg", form="{:.1f}", better="lower"),
    Column(key="non_flatness", label="non-flatness", form="{:.1f}", better=""),
    Column(key="true_non_flatness", label="the truth's", form="{:.1f}", better=""),
)
"""What tables show of a disparity."""
_FURTHER = Table(
    title="Further figures",
    columns=(
        Column(key="disparity_correlation_worst", label="worst correlation", form="{:.3f}"),
        Column(key="aligned_mae", label="aligned MAE", form="{:.3f}", better="lower"),
        Column(key="delta_accuracy", label="delta < 1.25", form="{:.1%}"),
        Column(
            key="standardized_depth_error",
            label="standardized error",
            form="{:.3f}",
            better="lower",
        ),
        Column(key="cycle_psnr", label="cycle PSNR dB"),
        Column(key="cycle_validity", label="seen both ways", form="{:.1%}", better=""),
    ),
)
BATCH = 8
"""Pictures asked for at once; the result does not depend on it."""
_LEAST_SHARE = 1e-3  # of the nearest true disparity: aligned maps are kept from infinity


def depth_figures(
    disparity: Float[Tensor, "height width"],
    true: Float[Tensor, "height width"],
    camera: Camera,
    seed: int = 0,
) -> dict[str, float]:
    """All figures of one disparity map against the truth.

    Those that need depth (SIDE, absolute relative error, delta, normals) see the map after scale
    and shift were fitted to the true disparity, and only where there is a surface.

    Args:
        disparity: in a scale and with a shift of its own, near is large.
        true: 1 / depth, sky as 0.
        camera: of the picture, a batch of one; gives the points whose normals are compared.
        seed: of the pixel pairs of ordinal accuracy.
    """
    made, truth = disparity[None].double(), true[None].double()
    surface = truth > 0
    aligned = align_disparity(made, truth)
    error = scale_and_shift_invariant_error(made, truth)
    depth = 1 / aligned.clamp_min(_LEAST_SHARE * truth.max().item())
    true_depth = torch.where(surface, 1 / truth.clamp_min(1e-12), torch.nan)
    inner = inner_pixels(surface)
    own_camera = Camera(
        camera_to_world=camera.camera_to_world.double(), intrinsics=camera.intrinsics.double()
    )
    normals = normals_from_depth(depth, own_camera)
    true_normals = normals_from_depth(true_depth, own_camera)
    return {
        "disparity_correlation": disparity_correlation(made, truth).item(),
        "aligned_rms": error.root_mean_square.item(),
        "aligned_mae": error.mean_absolute.item(),
        "ordinal_accuracy": ordinal_accuracy(made, truth, seed=seed).item(),
        "side": scale_invariant_depth_error(depth, true_depth, surface).item(),
        "absolute_relative_error": absolute_relative_error(made, truth, surface).item(),
        "delta_accuracy": delta_accuracy(made, truth, surface).item(),
        "standardized_depth_error": standardized_depth_error(made, truth).item(),
        "normals_mad_deg": mean_angle_deviation(normals, true_normals, inner).item(),
        "non_flatness": non_flatness_score(made).item(),
        "true_non_flatness": non_flatness_score(truth).item(),
    }


@torch.no_grad()
def evaluate_depth(
    estimators: Sequence[DepthEstimator],
    data: Sequence[str | Path],
    *,
    limit: int | None = None,
    resolution: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Figures of some methods, of the floor baseline and of the mean map of the other scenes.

    Args:
        estimators: the methods, the one to rank by first.
        data: posed scenes (tars or folders); their canonical views are used.
        limit: only the first so many scenes.
        resolution: side in pixels of pictures and of the comparison.
        seed: of the pixel pairs of ordinal accuracy.
        progress: is told how many of how many scenes are done.

    Raises:
        UserError: no scenes, or a resolution above theirs.
    """
    sets = [PosedScenes(path) for path in data]
    places = [(scenes, index) for scenes in sets for index in range(len(scenes))][:limit]
    methods = [*estimators, *([] if _has_floor(estimators) else [FloorDepth()])]
    tally = _Tally(methods, resolution, seed)
    tally.rejects += [reject for scenes in sets for reject in scenes.rejects]
    for start in range(0, len(places), BATCH):
        tally.add(places[start : start + BATCH])
        if progress is not None:
            progress(min(start + BATCH, len(places)), len(places))
    if not tally.items:
        reason = tally.rejects[0].reason if tally.rejects else "--limit leaves none."
        raise UserError(f"{data[0]}: none of its scenes can be read; the first: {reason}")
    tally.add_mean_map()
    return Evaluation(
        task="depth",
        tables=(Table(title="Disparity of single pictures", columns=DEPTH_COLUMNS), _FURTHER),
        figures=tally.figures(),
        protocol={
            "task": "depth",
            "methods": {method.name: method.describe() for method in methods},
            "files": [fingerprint(path) for path in data],
            "scenes": len(tally.items),
            "resolution": resolution,
            "limit": limit,
            "alignment": "least squares of scale and shift in disparity over all pixels, sky as 0",
            "pixels": "correlation, aligned errors, ordinal, standardized, non-flatness: all; "
            "SIDE, absolute relative error, delta, normals: where there is a surface",
            "non_flatness": "exp of the entropy of a histogram of 64 bins, disparity from its "
            "least to its greatest value in the picture; rewards noise: read it with the rest",
            "cycle": f"picture warped {_CYCLE_DEG:g} degrees to the right about the point of "
            "median depth by the aligned disparity, and back; PSNR where seen both ways",
            "mean_map": "mean true disparity of all other scenes measured here",
            "seed": seed,
            "versions": versions(),
        },
        items=tally.items,
        rank=(methods[0].name, CORRELATION),
        sheet=tally.sheet,
        sheet_text=f"Picture, true disparity, then: {', '.join(m.name for m in methods)}.",
        rejected=tally.rejects,
    )


_CYCLE_DEG = 15.0


def picture_of_map(values: Float[Tensor, "height width"]) -> Float[Tensor, "3 height width"]:
    """A map from its least (black) to its greatest value (white)."""
    low, high = values.min(), values.max()
    return ((values - low) / (high - low).clamp_min(1e-9)).float().expand(3, -1, -1)


class _Tally:
    """Figures of every scene by every method."""

    def __init__(self, methods: Sequence[DepthEstimator], side: int, seed: int) -> None:
        self.methods, self.side, self.seed = methods, side, seed
        self.items: list[Item] = []
        self.places: list[tuple[PosedScenes, int]] = []
        self.rejects: list[Reject] = []
        self.sum = torch.zeros(side, side, dtype=torch.float64)

    def add(self, places: Sequence[tuple[PosedScenes, int]]) -> None:
        """Some more scenes."""
        scenes = []
        for group, index in places:
            try:
                scenes.append(self._scene(group, index))
                self.places.append((group, index))
            except UserError as error:
                self.rejects.append(Reject(name=group.names[index], reason=str(error)))
        if not scenes:
            return
        pictures = torch.stack([scene.images[0] for scene in scenes])
        names = [scene.name for scene in scenes]
        maps = {method.name: method.disparity(pictures, names) for method in self.methods}
        for index, scene in enumerate(scenes):
            figures = {name: self._figures(found[index], scene) for name, found in maps.items()}
            facts = {"class": scene.class_name}
            self.items.append(Item(name=scene.name, figures=figures, facts=facts))
            self.sum += scene.inverse_depth[0].double()

    def add_mean_map(self) -> None:
        """The mean of all other scenes' true disparities as a method: the scenes a second time."""
        if len(self.items) < 2:
            return
        for item, (group, index) in zip(self.items, self.places, strict=True):
            scene = self._scene(group, index)
            others = (self.sum - scene.inverse_depth[0].double()) / (len(self.items) - 1)
            figures = {**item.figures, "mean map": self._figures(others.float(), scene)}
            self.items[self.items.index(item)] = Item(
                name=item.name, figures=figures, facts=item.facts
            )

    def figures(self) -> dict[str, dict[str, Any]]:
        """Means over scenes, and the median and the worst of the correlations."""
        figures: dict[str, dict[str, Any]] = dict(mean_figures(self.items))
        for name, values in figures.items():
            known = [item.figures[name]["disparity_correlation"] for item in self.items]
            values["disparity_correlation_median"] = float(np.median(known))
            values["disparity_correlation_worst"] = float(min(known))
        return figures

    @torch.no_grad()
    def sheet(self, index: int) -> Float[Tensor, "3 height width"]:
        """Picture, truth and every method's map of a scene."""
        scene = self._scene(*self.places[index])
        found = [m.disparity(scene.images[:1], [scene.name])[0] for m in self.methods]
        maps = [picture_of_map(values) for values in (scene.inverse_depth[0], *found)]
        return torch.cat([scene.images[0], *maps], dim=2)

    def _scene(self, group: PosedScenes, index: int) -> PosedScene:
        return scene_at(group[index].in_canonical_frame(), self.side)

    def _figures(self, disparity: Tensor, scene: PosedScene) -> dict[str, float]:
        true, camera = scene.inverse_depth[0], scene.camera[:1]
        figures = depth_figures(disparity, true, camera, self.seed)
        aligned = align_disparity(disparity[None].double(), true[None].double()).float()
        cycle = forward_backward_cycle(
            scene.images[:1], aligned.clamp_min(0), camera, _turned(camera, scene.median_depth)
        )
        return {
            **figures,
            "cycle_psnr": cycle.psnr.item(),
            "cycle_validity": cycle.validity.item(),
        }


def _turned(camera: Camera, pivot_depth: float) -> Camera:
    """The canonical camera turned to the right about the pivot."""
    from unflat.geometry import turn_about_pivot

    angle = torch.deg2rad(torch.tensor([_CYCLE_DEG]))
    poses = turn_about_pivot(angle, torch.zeros(1), pivot_depth)
    return Camera(camera_to_world=poses, intrinsics=camera.intrinsics)


def _has_floor(estimators: Sequence[DepthEstimator]) -> bool:
    return any(estimator.name == FloorDepth.name for estimator in estimators)
