"""Task "inversion": an object and its camera from one picture of a posed set.

::

    evaluation = evaluate_inversion("retrieval", Path("cars-srn.tar"), split="test")
    evaluation.figures["retrieval"]["rotation_error"]

Each input is inverted alone. The estimated camera is compared with the true one; the object is
rendered from the estimated camera and compared with the input, and from the true cameras of other
views and compared with those. Nothing is aligned.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.data.posed_objects import PosedObjects
from unflat.errors import UserError
from unflat.evaluation.inversion_baselines import BASELINES, References, open_baselines
from unflat.evaluation.inversion_figures import Measure, rendered
from unflat.evaluation.inversion_inputs import SEED_STEP, Novel, choose_views, parts_of
from unflat.evaluation.inverter import Inverter
from unflat.evaluation.networks import Distance
from unflat.evaluation.protocol import fingerprint
from unflat.evaluation.published import INVERSION
from unflat.evaluation.result import Column, Evaluation, Item, Progress, Table, mean_figures
from unflat.geometry.camera import Camera
from unflat.metrics import MAX_PSNR, Features, turns_about_up
from unflat.report import versions

ALL_SPLITS = "all"
"""In place of a split: every object of the set."""

ROTATION = Column(key="rotation_error", label="rotation deg", form="{:.1f}", better="lower")
NOVEL_PSNR = Column(key="novel_psnr", label="other views PSNR dB")
FRONT_PSNR = Column(key="front_psnr", label="input PSNR dB")
TABLES = (
    Table(
        title="Camera of the input",
        columns=(
            ROTATION,
            Column(key="rotation_median", label="median deg", form="{:.1f}", better="lower"),
            Column(key="within_15", label="within 15 deg", form="{:.1%}"),
            Column(key="within_30", label="within 30 deg", form="{:.1%}"),
            Column(key="position_error", label="position, units", form="{:.3f}", better="lower"),
            Column(key="focal_error", label="focal |ln|", form="{:.3f}", better="lower"),
            Column(key="seconds", label="s a picture", form="{:.2f}", better="lower"),
        ),
    ),
    Table(
        title="The input, from its estimated camera",
        columns=(
            Column(key="front_iou", label="mask IoU", form="{:.3f}"),
            FRONT_PSNR,
            Column(key="front_ssim", label="input SSIM", form="{:.3f}"),
            Column(key="front_ssim_uniform", label="input SSIM (uniform)", form="{:.3f}"),
        ),
    ),
    Table(
        title="Other views, from their true cameras",
        columns=(
            NOVEL_PSNR,
            Column(key="novel_ssim", label="SSIM", form="{:.3f}"),
            Column(key="novel_ssim_uniform", label="SSIM (uniform)", form="{:.3f}"),
        ),
    ),
)
"""What is shown of the figures."""


@torch.no_grad()
def evaluate_inversion(
    model: str | Inverter | Sequence[Inverter],
    data: str | Path,
    *,
    split: str = "test",
    views_per_object: int = 4,
    novel: Novel = "one",
    symmetry: int = 1,
    resolution: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    features: Features | None = None,
    distances: Mapping[str, Distance] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Figures of a method and of all baselines.

    Args:
        model: what is asked for, or several of it, or the name of a baseline.
        data: objects with cameras, as `PosedObjects` reads them.
        split: whose objects are measured, or ``all``. Baselines refer to the split ``train``.
        views_per_object: inputs of each object, drawn by seed; fewer where there are fewer.
        novel: which other views of each input are compared.
        symmetry: how often an object looks alike on its way about its up axis; rotation errors
            are the least over those turns.
        resolution: side in pixels of pictures and comparison; as stored if not given.
        limit: only the first so many objects.
        seed: draws inputs, single other views, and whatever the methods draw.
        features: by which whole sets of other views are compared; none leave that out.
        distances: further ones of pairs of pictures, by name.
        progress: is told how many of how many objects are done.

    Raises:
        UserError: no such data, split or model; or nothing of it could be measured.
    """
    objects = PosedObjects(
        data, None if split == ALL_SPLITS else split, resolution=resolution, limit=limit
    )
    warnings: list[str] = []
    references = _open_references(objects, split, seed, warnings)
    methods = _methods(model, open_baselines(references), objects.path)
    measure = Measure(turns_about_up(symmetry), distances or {}, features, seed)
    items: list[Item] = []
    places: list[tuple[int, int, list[int]]] = []
    single = 0
    for index in range(len(objects)):
        try:
            choice = choose_views(objects.view_count(index), views_per_object, novel, seed, index)
            wanted = sorted({*choice.inputs, *(view for one in choice.others for view in one)})
            item = objects.views(index, wanted)
        except UserError as error:
            objects.reject(index, error)
            continue
        single += not choice.others[0]
        for view, others in zip(choice.inputs, choice.others, strict=True):
            parts = parts_of(item, wanted.index(view), [wanted.index(other) for other in others])
            name = f"{item.name}/{view}"
            measure.add_truth(parts)
            figures = {
                method.name: measure.figures(method, parts, _seed_of(seed, index, view), name)
                for method in methods
            }
            items.append(Item(name=name, figures=figures, facts={"others": len(others)}))
            places.append((index, view, others))
        if progress is not None:
            progress(index + 1, len(objects))
    if not items:
        reason = f"; {objects.rejects[0].reason}" if objects.rejects else ""
        raise UserError(f"{data}: no object could be measured{reason}.")
    if single:
        warnings.append(f"{single} objects have one view: nothing else to compare with")
    protocol = {
        "data": fingerprint(objects.path),
        "layout": objects.layout,
        "split": split,
        "limit": limit,
        "objects": len({index for index, _, _ in places}),
        "inputs": len(items),
        "inputs_per_object": f"at most {views_per_object}, drawn by seed",
        "other_views": sum(len(others) for _, _, others in places),
        "other_views_per_input": "all" if novel == "all" else "one, drawn by seed",
        "resolution": resolution or "as stored",
        "object_symmetry": f"order {symmetry} about up" if symmetry > 1 else "none assumed",
        "alignment": "none: cameras and objects are compared in the set's own object world",
        "mask_given": objects.layout != "turntable",
        "psnr": f"mean over views, at most {MAX_PSNR:g} dB (the published code caps at 60)",
        "ssim": "Gaussian 11 x 11, sigma 1.5",
        "ssim_uniform": "7 x 7, scikit-image's default, as published",
        "methods": {method.name: method.describe() for method in methods},
        "features": None if features is None else features.describe(),
        "kid": "of all other views; unbiased squared MMD with (a.b/d + 1)^3, not scaled",
        "seed": seed,
        "versions": versions(),
    }
    return Evaluation(
        task="inversion",
        tables=_tables(measure),
        figures=_summary(items, methods, measure),
        protocol=protocol,
        items=items,
        rank=(methods[0].name, _rank_column(items, methods[0].name)),
        sheet=lambda number: _sheet(objects, methods[0], places[number], seed),
        sheet_text="From left to right: the input; what was found, from its estimated camera (the "
        "true one where none is estimated); the same from the camera of the last view; that view.",
        published=INVERSION,
        rejected=list(objects.rejects),
        warnings=warnings,
    )


def _tables(measure: Measure) -> tuple[Table, ...]:
    """With columns for networks that were given."""
    camera, front, novel = TABLES
    columns = {
        prefix: [
            Column(key=f"{prefix}_{name}", label=name, form="{:.3f}", better="lower")
            for name in measure.distances
        ]
        for prefix in ("front", "novel")
    }
    if measure.features is not None:
        key = f"kid-{measure.features.name}"
        columns["novel"] += [
            Column(key=key, label=key, form="{:.3f}", better="lower"),
            Column(key=f"{key}_error", label="±", form="{:.3f}", better=""),
        ]
    return (
        camera,
        replace(front, columns=(*front.columns, *columns["front"])),
        replace(novel, columns=(*novel.columns, *columns["novel"])),
    )


def _summary(
    items: Sequence[Item], methods: Sequence[Inverter], measure: Measure
) -> dict[str, dict[str, Any]]:
    """Means over inputs and views; medians of rotation errors and of seconds."""
    figures: dict[str, dict[str, Any]] = mean_figures(items)
    for name, values in measure.of_sets().items():
        figures[name] |= values
    for method in methods:
        figures[method.name]["seconds"] = statistics.median(measure.seconds[method.name])
        errors = [item.figures[method.name].get("rotation_error") for item in items]
        known = [error for error in errors if error is not None]
        if known:
            figures[method.name]["rotation_median"] = statistics.median(known)
        if method.has_pose:
            figures[method.name]["cameras_found"] = len(known)
    return figures


def _rank_column(items: Sequence[Item], method: str) -> Column:
    """Other views decide; where there are none, the camera, or the input itself."""
    keys = {key for item in items for key, value in item.figures[method].items() if value != []}
    return next(
        (column for column in (NOVEL_PSNR, ROTATION, FRONT_PSNR) if column.key in keys), NOVEL_PSNR
    )


def _sheet(
    objects: PosedObjects, method: Inverter, place: tuple[int, int, list[int]], seed: int
) -> Float[Tensor, "3 height width"]:
    """Input, reconstruction, another view and its truth, side by side."""
    index, view, others = place
    last = others[-1:] or [view]
    parts = parts_of(objects.views(index, [view, *last]), 0, [1])
    found = method.invert(parts.image, parts.mask, _seed_of(seed, index, view))
    camera = _batch(parts.camera if found.camera is None else found.camera)
    name = f"{objects.names[index]}/{view}"
    front, _ = rendered(method, found, camera, parts.image, name)
    novel, _ = rendered(method, found, parts.cameras, parts.image, name)
    return torch.cat([parts.image, front[0], novel[0], parts.images[0]], dim=2)


def _open_references(
    objects: PosedObjects, split: str, seed: int, warnings: list[str]
) -> References | None:
    """The training split, if the set has one that is not what is measured."""
    if split in ("train", ALL_SPLITS) or "train" not in objects.splits:
        warnings.append(
            "mean-pose and retrieval are left out: they need a training split beside what is "
            "measured"
        )
        return None
    references = References(
        PosedObjects(objects.path, "train", resolution=objects.resolution), seed
    )
    lost = len(references.objects.rejects)
    if lost:
        warnings.append(f"{lost} objects of the training split could not be read")
    return references


def _methods(
    model: str | Inverter | Sequence[Inverter], baselines: list[Inverter], path: Path
) -> list[Inverter]:
    """The one that is asked for, then the others."""
    if not isinstance(model, str):
        return [*(model if isinstance(model, Sequence) else [model]), *baselines]
    first = [method for method in baselines if method.name == model]
    if first:
        return [*first, *(method for method in baselines if method is not first[0])]
    if model in BASELINES:
        raise UserError(
            f"--model {model}: needs a split train beside what is measured, which {path} does not "
            "give; choose copy or mean-color."
        )
    raise UserError(f"--model {model}: is not known; choose from {', '.join(BASELINES)}.")


def _batch(camera: Camera) -> Camera:
    return Camera(
        camera_to_world=camera.camera_to_world[None],
        intrinsics=camera.intrinsics[None],
        kind=camera.kind,
    )


def _seed_of(seed: int, index: int, view: int) -> int:
    """Its own for every input, whatever else is measured."""
    return ((seed * SEED_STEP + index) * SEED_STEP + view) % 2**31
