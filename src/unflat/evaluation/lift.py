"""Task "lift": the surface of an object, made from one picture.

::

    evaluation = evaluate_lift("relief", "objects-zero123.tar", "objects-val-meshes.tar")
    evaluation.figures["relief"]["chamfer"]

Surfaces are compared in the object world with the true ones, and their outlines with true masks of
views that no method has seen. Lengths are shares of the true object's longest side. Nothing is
aligned unless asked for: a surface of another size or turned another way pays for it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unflat.data.posed_objects import PosedObject, PosedObjects
from unflat.errors import UserError
from unflat.evaluation.estimators import DepthEstimator
from unflat.evaluation.lift_baselines import (
    HULL_VIEWS,
    PictureHull,
    Relief,
    Sphere,
    UnitBox,
    VisualHull,
)
from unflat.evaluation.lifter import Lifter, Picture
from unflat.evaluation.mesh_files import MeshFiles
from unflat.evaluation.protocol import fingerprint
from unflat.evaluation.result import Column, Evaluation, Item, Progress, Table, mean_figures
from unflat.geometry.camera import Camera
from unflat.metrics import (
    Surface,
    Triangles,
    align_icp,
    mask_iou,
    nearest_distances,
    sample_surface,
    volumetric_iou,
    watertightness,
)
from unflat.metrics.shape import triangles_of
from unflat.rendering import rasterize, silhouette
from unflat.report import versions

Alignment = Literal["none", "similarity-icp"]
"""Whether surfaces are moved onto the true ones before they are compared."""

BASELINES = ("sphere", "box", "relief", "hull-1-mask")
"""By name."""
HELD_OUT = 8
"""Views whose masks outlines are compared with."""
POINTS = 10_000
"""Drawn on each surface."""
THRESHOLDS = (0.01, 0.02, 0.05)
"""Of F-scores, shares of the true longest side."""
TRUTH = "true mesh"
"""What the figures are for the truth itself: the floor of drawn points, the ceiling of outlines."""

CHAMFER = Column(key="chamfer", label="Chamfer", form="{:.4f}", better="lower")
_SEED_STEP = 100_003  # keeps the draws of neighboring seeds apart
_SHOWN = 3  # views on a sheet


@torch.no_grad()
def evaluate_lift(
    model: str | Lifter,
    data: str | Path,
    meshes: str | Path,
    *,
    split: str = "val",
    depth: DepthEstimator | None = None,
    resolution: int = 64,
    alignment: Alignment = "none",
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Figures of a method and of all baselines.

    Args:
        model: what is asked for, or the name of a baseline.
        data: objects with cameras and masks, as `PosedObjects` reads them; view 0 is the input.
        meshes: the true surfaces, named after the objects, as `MeshFiles` reads them.
        split: whose objects are measured.
        depth: tells relative disparity to ``relief``; the outline's rounded front if not given.
        resolution: voxels along a side for the shared volume.
        alignment: ``similarity-icp`` moves, turns and scales each surface onto the true one.
        limit: only the first so many objects.
        seed: draws points, and whatever the methods draw.
        progress: is told how many of how many objects are done.

    Raises:
        UserError: no such data, meshes, split or model, or no object could be measured.
    """
    objects = PosedObjects(data, split, limit=limit)
    if objects.layout == "turntable":
        raise UserError(f"{data}: photographs have no masks; give objects of another layout.")
    run = _Run(_methods(model, depth), MeshFiles(meshes), resolution, alignment, seed)
    items: list[Item] = []
    places: list[int] = []
    for index in range(len(objects)):
        try:
            items.append(run.measure(_views(objects, index), index))
        except UserError as error:
            objects.reject(index, error)
            continue
        places.append(index)
        if progress is not None:
            progress(index + 1, len(objects))
    if not items:
        reason = f"; {objects.rejects[0].reason}" if objects.rejects else ""
        raise UserError(f"{data}: no object could be measured{reason}.")
    first = run.methods[0].name
    figures = mean_figures(items)
    return Evaluation(
        task="lift",
        tables=_tables(resolution),
        figures={
            **{name: v for name, v in figures.items() if name != TRUTH},
            TRUTH: figures[TRUTH],
        },
        protocol={
            "name": "unflat-lift/1",
            "data": fingerprint(objects.path),
            "meshes": fingerprint(meshes),
            "split": split,
            "limit": limit,
            "objects": len(items),
            "input": "view 0 of each object with its true mask and camera",
            "unit": "the true object's longest side",
            "alignment": "none: compared where the method puts it"
            if alignment == "none"
            else "similarity-icp: moved, turned and scaled by trimmed ICP onto the true surface",
            "points": f"{POINTS} on each surface by area, inner faces included",
            "chamfer": "half the sum of the mean unsquared distances both ways",
            "accuracy": "mean distance from the method's points to the nearest true one",
            "completeness": "mean distance from true points to the nearest of the method",
            "f_score": f"at {', '.join(map(str, THRESHOLDS))} of the unit",
            "iou": f"{resolution}^3 voxels of the smallest cube about both surfaces; inside as by "
            "a winding number seen along six directions, so that open surfaces have an inside",
            "closed_edges": "share of edges with exactly two faces, split vertices welded",
            "outline_iou": f"mean over {HELD_OUT} views spread over those that are not the input",
            "hull_views": f"{HULL_VIEWS}: the input and others that outlines are not compared "
            "with, as far as there are such",
            "truth": "the true mesh's own figures, from another draw of points: no method's "
            "Chamfer gets lower",
            "like_syncdreamer": "chamfer and iou at 64 correspond to its figures (arXiv "
            "2309.03453); there points are of the visible surface in 16 depth maps, thinned at "
            "0.01, inside is the sign of a 64^3 distance field, and true meshes are turned by hand",
            "failures": "an object without a mesh of the method, or with an empty one, is left out "
            "for all methods and listed",
            "methods": {method.name: method.describe() for method in run.methods},
            "seed": seed,
            "versions": versions(),
        },
        items=items,
        rank=(first, CHAMFER),
        sheet=lambda number: run.sheet(_views(objects, places[number]), places[number]),
        sheet_text="First row: the input, then three held-out views of the true mesh, shaded. "
        f"Below, the same views of {first} and of {VisualHull.name}.",
        rejected=list(objects.rejects),
    )


class _Run:
    """What is the same for every object."""

    def __init__(
        self,
        methods: Sequence[Lifter],
        meshes: MeshFiles,
        resolution: int,
        alignment: Alignment,
        seed: int,
    ) -> None:
        self.methods, self.meshes = methods, meshes
        self.resolution, self.alignment, self.seed = resolution, alignment, seed

    def measure(self, item: PosedObject, index: int) -> Item:
        """All methods on one object, and the truth on itself."""
        truth = self.meshes.read(item.name)
        unit = float(np.ptp(truth.vertices[np.unique(truth.faces)], axis=0).max())
        if not unit > 0:
            raise UserError(f"{self.meshes.path}: the mesh of {item.name} has no size.")
        seed = (self.seed * _SEED_STEP + index) % 2**31
        points = sample_surface(truth, POINTS, seed)
        figures: dict[str, dict[str, Any]] = {}
        for method in self.methods:
            made = self._lift(method, item, seed, points)
            figures[method.name] = self._figures(made, truth, points, unit, item, seed)
        figures[TRUTH] = self._figures(truth, truth, points, unit, item, seed)
        facts = {"class": item.class_name, "true_faces": len(truth.faces)}
        return Item(name=item.name, figures=figures, facts=facts)

    def sheet(self, item: PosedObject, index: int) -> Float[Tensor, "3 height width"]:
        """Shaded views of the truth over those of the first method and of the hull."""
        truth = self.meshes.read(item.name)
        seed = (self.seed * _SEED_STEP + index) % 2**31
        points = sample_surface(truth, POINTS, seed)
        hull = [method for method in self.methods[1:] if method.name == VisualHull.name]
        surfaces = [truth]
        surfaces += [self._lift(method, item, seed, points) for method in [self.methods[0], *hull]]
        side = item.images.shape[-1]
        views = _held_out(len(item.images))
        cameras = item.camera[torch.tensor(views[:: max(1, len(views) // _SHOWN)][:_SHOWN])]
        rows = []
        for number, surface in enumerate(surfaces):
            first = item.images[0] if number == 0 else torch.ones_like(item.images[0])
            rows.append(torch.cat([first, *shaded(surface, cameras, side)], dim=2))
        return torch.cat(rows, dim=1)

    def _lift(
        self, method: Lifter, item: PosedObject, seed: int, true_points: np.ndarray
    ) -> Triangles:
        """The method's surface, checked, and aligned where that is asked for."""
        assert item.masks is not None
        hull = torch.tensor(_hull_views(len(item.images)))
        picture = Picture(
            name=item.name,
            image=item.images[0],
            mask=item.masks[0],
            camera=item.camera[0],
            hull_masks=item.masks[hull],
            hull_cameras=item.camera[hull],
        )
        try:
            made = triangles_of(method.lift(picture, seed))
            points = sample_surface(made, POINTS, seed + 1)
        except ValueError as error:
            raise UserError(
                f"{method.name}: its surface of {item.name} cannot be measured ({error}); "
                "the model is broken, use another."
            ) from error
        if self.alignment == "none":
            return made
        motion = align_icp(points, true_points, seed=seed)
        return Triangles(motion.apply(made.vertices), made.faces)

    def _figures(
        self,
        made: Triangles,
        truth: Triangles,
        true_points: np.ndarray,
        unit: float,
        item: PosedObject,
        seed: int,
    ) -> dict[str, float]:
        """All figures of one surface."""
        assert item.masks is not None
        points, true = sample_surface(made, POINTS, seed + 1) / unit, true_points / unit
        distances = nearest_distances(points, true)
        found = distances.chamfer
        figures = {
            "chamfer": found.half_sum,
            "accuracy": found.accuracy,
            "completeness": found.completeness,
            "chamfer_squared_sum": found.squared_sum,
        }
        for threshold in THRESHOLDS:
            figures[f"f_{threshold}"] = distances.f_score(threshold).value
        figures["iou"] = volumetric_iou(made, truth, self.resolution)
        closed = watertightness(made)
        figures |= {"closed_edges": closed.share, "is_closed": float(closed.is_closed)}
        views = torch.tensor(_held_out(len(item.images)))
        outlines = silhouette(*_tensors(made), item.camera[views], *item.images.shape[-2:])
        covered = (outlines >= 0.5).to(outlines)  # half is in, as it is where mattes have 8 bits
        figures["outline_iou"] = mask_iou(covered, item.masks[views]).mean().item()
        return figures


def shaded(surface: Surface, cameras: Camera, side: int) -> Float[Tensor, "views 3 side side"]:
    """Gray pictures of a surface on white, lit from the camera, whichever way its faces wind."""
    vertices, faces = _tensors(surface)
    corner = vertices[faces]
    normals = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normals = torch.nn.functional.normalize(normals, dim=1)
    seen = rasterize(vertices, faces, cameras, 2 * side, 2 * side).face
    light = (normals[seen.clamp_min(0)] @ cameras.forward[:, None, :, None])[..., 0].abs()
    gray = torch.where(seen >= 0, 0.15 + 0.7 * light, 1.0)
    return torch.nn.functional.avg_pool2d(gray[:, None], 2).expand(-1, 3, -1, -1)


def _tensors(surface: Surface) -> tuple[Tensor, Tensor]:
    vertices = torch.from_numpy(np.array(surface.vertices, dtype=np.float32))
    return vertices, torch.from_numpy(np.array(surface.faces, dtype=np.int64))


def _held_out(count: int) -> list[int]:
    """Views spread over all but the first."""
    return (1 + np.arange(HELD_OUT) * (count - 1) // HELD_OUT).tolist()


def _hull_views(count: int) -> list[int]:
    """The input and views that are not held out; held-out ones only where the others run out."""
    held = _held_out(count)
    free = [view for view in range(count) if view not in held]
    return [*free, *held][:HULL_VIEWS]


def _views(objects: PosedObjects, index: int) -> PosedObject:
    count = objects.view_count(index)
    if count <= HELD_OUT:
        raise UserError(
            f"{objects.names[index]}: has {count} views and outlines are compared in {HELD_OUT} "
            f"beside the input; add views."
        )
    return objects[index]


def _methods(model: str | Lifter, depth: DepthEstimator | None) -> list[Lifter]:
    """The one that is asked for, then the baselines, then the reference that sees more."""
    known: list[Lifter] = [Relief(depth), Sphere(), UnitBox(), PictureHull(), VisualHull()]
    if not isinstance(model, str):
        return [model, *known]
    first = [method for method in known if method.name == model and model in BASELINES]
    if not first:
        raise UserError(
            f"--model {model}: is not known; choose from {', '.join(BASELINES)}, or give a folder "
            "of meshes."
        )
    return [*first, *(method for method in known if method is not first[0])]


def _tables(resolution: int) -> list[Table]:
    return [
        Table(
            title="Surface (shares of the true longest side)",
            columns=[
                CHAMFER,
                Column(key="accuracy", label="accuracy", form="{:.4f}", better="lower"),
                Column(key="completeness", label="completeness", form="{:.4f}", better="lower"),
                *(Column(key=f"f_{t}", label=f"F {t}", form="{:.1%}") for t in THRESHOLDS),
            ],
        ),
        Table(
            title="Volume, outline, closedness",
            columns=[
                Column(key="iou", label=f"IoU {resolution}^3", form="{:.3f}"),
                Column(key="outline_iou", label="outline IoU", form="{:.3f}"),
                Column(key="closed_edges", label="closed edges", form="{:.1%}", better=""),
                Column(key="is_closed", label="closed", form="{:.0%}", better=""),
            ],
        ),
    ]
