"""Task "views": pictures of an object from other sides, made from one picture.

::

    evaluation = evaluate_views("depth-warp", Path("objects-zero123.tar"), split="val")
    evaluation.figures["depth-warp"]["psnr_masked"]

Every object gives one input and several targets under a frozen protocol. Whole-frame figures count
the white background, which every method gets right, so each figure stands twice: over the frame,
and over the object (the true mask of the target).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.data.posed_objects import PosedObject, PosedObjects
from unflat.errors import UserError
from unflat.evaluation.estimators import DepthEstimator
from unflat.evaluation.feature_sets import CAPACITY, FeatureSet, see
from unflat.evaluation.networks import Distance
from unflat.evaluation.protocol import fingerprint
from unflat.evaluation.published import VIEWS
from unflat.evaluation.result import Column, Evaluation, Item, Progress, mean_figures, means
from unflat.evaluation.view_baselines import Copy, DepthWarp, MeanColor, MeanImage, Retrieval
from unflat.evaluation.view_figures import ANGLES, LEAST_CROP, by_angle, compare
from unflat.evaluation.view_following import (
    AZIMUTHS,
    WHITE,
    azimuth_from,
    by_azimuth,
    intervals,
    outlines,
    pose_following,
)
from unflat.evaluation.view_maker import ViewMaker, turned_deg
from unflat.evaluation.view_protocols import PROTOCOLS, ViewProtocol
from unflat.evaluation.view_tables import view_tables
from unflat.geometry.camera import Camera
from unflat.metrics import Features, kid, mask_iou
from unflat.metrics.visual_hull import HullGrid
from unflat.report import versions

BASELINES = ("copy", "mean-color", "depth-warp", "mean-image", "retrieval")
"""By name; the last two need a training split."""
ALL_SPLITS = "all"
"""In place of a split: every object of the set."""

_SEED_STEP = 100_003  # keeps the draws of neighboring seeds apart
_SHOWN = 3  # targets on a sheet


@torch.no_grad()
def evaluate_views(
    model: str | ViewMaker,
    data: str | Path,
    *,
    split: str = "val",
    protocol: str = "unflat-views/1",
    depth: DepthEstimator | None = None,
    distances: Mapping[str, Distance] | None = None,
    features: Features | None = None,
    resolution: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Figures of a method and of all baselines.

    Args:
        model: what is asked for, or the name of a baseline.
        data: objects with cameras, as `PosedObjects` reads them.
        split: whose objects are measured, or ``all``. The mean picture and retrieval refer to the
            split ``train``.
        protocol: a name from `PROTOCOLS`.
        depth: tells relative disparity to ``depth-warp``; the outline's rounded front if not given.
        distances: by name, of two batches of pictures; lower is better.
        features: what all made views and all true ones are compared by as sets; not if not given.
        resolution: side in pixels in place of the protocol's; noted as a departure from it.
        limit: only the first so many objects.
        seed: first of the protocol's seeds.
        progress: is told how many of how many objects are done.

    Raises:
        UserError: no such data, split, protocol or model, or no object could be measured.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"--protocol {protocol}: is not known; choose from {', '.join(PROTOCOLS)}.")
    rules = PROTOCOLS[protocol]
    side = resolution or rules.resolution
    most = min((n for n in (limit, rules.objects) if n is not None), default=None)
    objects = PosedObjects(
        data, None if split == ALL_SPLITS else split, resolution=side, limit=most
    )
    warnings = _departures(rules, objects, resolution, limit)
    methods = _methods(model, objects, split, depth, warnings)
    run = _Run(methods, rules, dict(distances or {}), features, seed)
    items: list[Item] = []
    places: list[int] = []
    for index in range(len(objects)):
        try:
            item = _chosen(objects, index, rules)
        except UserError as error:
            objects.reject(index, error)
            continue
        items.append(run.measure(item, index))
        places.append(index)
        if progress is not None:
            progress(index + 1, len(objects))
    if not items:
        reason = f"; {objects.rejects[0].reason}" if objects.rejects else ""
        raise UserError(f"{data}: no object could be measured{reason}.")
    return Evaluation(
        task="views",
        tables=view_tables(tuple(run.distances), None if features is None else features.name),
        figures=run.summary(items),
        protocol={
            "name": rules.name,
            "text": rules.text,
            "not_reproduced": rules.unlike or "nothing: it is our own",
            "data": fingerprint(objects.path),
            "split": split,
            "limit": limit,
            "objects": len(items),
            "targets": sum(item.facts["targets"] for item in items),
            "targets_by_angle": _count_angles(items),
            "resolution": side or "as stored",
            "background": "as photographed"
            if objects.layout == "turntable"
            else "white, in inputs, targets and what methods make",
            "masked": "psnr: error weighted by the true matte; similarity and distances: both "
            "pictures white outside the true mask, cropped to its box made square, at least "
            f"{LEAST_CROP} px",
            "outline_iou": "true mask against the pixels made with a channel below "
            f"{WHITE:.3f}: masked figures alone do not see what spills over the outline",
            "pose_following": "share of pairs of a target and another target of its object in "
            "which the made view fits the true view of its own pose better; ties one half, chance "
            "0.5. outline: IoU; color: squared error over the union of outlines. Ranges: azimuth "
            "of the asked camera from the input's, without sign; 95 % intervals over objects",
            "pose_targets_by_azimuth": _count_azimuths(items),
            "hull_agreement": "share of each made outline that the visual hull of all of them "
            "fills (48 voxels a side, 32 px); says nothing of truth",
            "hull_agreement_of_true_views": means(run.of_truth).get("agreement"),
            "outline_iou_of_true_views": means(run.of_truth).get("iou"),
            "features": None if features is None else features.describe(),
            "kid": "all made views, every seed's, against all true targets; unbiased squared MMD "
            "with (a.b/d + 1)^3, not scaled",
            "kept_for_kid": CAPACITY,
            "angle": "between the optical axes of input and target",
            "ssim": "Gaussian 11 x 11, sigma 1.5",
            "ssim_uniform": "7 x 7, scikit-image's default",
            "seeds": [seed + i for i in range(rules.seeds)],
            "deterministic": "one run, since seeds change nothing: "
            + (", ".join(m.name for m in methods if not m.is_random) or "none"),
            "best": f"of {rules.seeds} seeds, by masked PSNR over an object's targets",
            "distances": {name: _described(one) for name, one in run.distances.items()},
            "methods": {method.name: method.describe() for method in methods},
            "seed": seed,
            "versions": versions(),
        },
        items=items,
        rank=(methods[0].name, Column(key="psnr_masked", label="PSNR dB, object")),
        sheet=lambda number: run.sheet(_chosen(objects, places[number], rules), places[number]),
        sheet_text="First row: the input, then true views at growing angles from it. Below, the "
        f"same views as made by {' and '.join(m.name for m in run.shown)}.",
        published=VIEWS,
        rejected=list(objects.rejects),
        warnings=warnings,
    )


class _Run:
    """What is the same for every object, and what is known of all of them together."""

    def __init__(
        self,
        methods: Sequence[ViewMaker],
        rules: ViewProtocol,
        distances: dict[str, Distance],
        features: Features | None,
        seed: int,
    ) -> None:
        self.methods, self.rules, self.distances, self.seed = methods, rules, distances, seed
        others = [method for method in methods[1:] if method.name == DepthWarp.name]
        self.shown = [methods[0], *others]
        self.features = features
        self.made: dict[str, FeatureSet] = {}
        self.true = None if features is None else FeatureSet(features, seed)
        self.of_truth: dict[str, list[float]] = {"agreement": [], "iou": []}

    def measure(self, item: PosedObject, index: int) -> Item:
        """All methods on one object."""
        angles = turned_deg(item.camera[0], item.camera[1:])
        azimuths = azimuth_from(item.camera[0], item.camera[1:])
        grid = None  # without masks there is no outline, and so no hull
        if item.masks is not None:
            grid = HullGrid(item.camera[1:])
            true = outlines(item.images[1:]).float()
            self.of_truth["agreement"] += grid.agreement(true).tolist()
            self.of_truth["iou"] += mask_iou(true, item.masks[1:]).tolist()
        if self.true is not None and self.features is not None:
            self.true.add(see(self.features, item.images[1:]))
        figures = {
            method.name: self._figures(method, item, angles, azimuths, grid, index)
            for method in self.methods
        }
        facts = {
            "class": item.class_name,
            "targets": len(angles),
            "angles_deg": [round(angle, 3) for angle in angles.tolist()],
            "azimuths_deg": [round(azimuth, 3) for azimuth in azimuths.tolist()],
        }
        return Item(name=item.name, figures=figures, facts=facts)

    def summary(self, items: Sequence[Item]) -> dict[str, dict[str, Any]]:
        """Means over targets, intervals, and figures of whole sets."""
        figures: dict[str, dict[str, Any]] = mean_figures(items)
        for name, values in figures.items():
            values |= intervals(items, name, self.seed)
            if self.true is not None and self.features is not None:
                made, true = (one.sample.features for one in (self.made[name], self.true))
                if min(len(made), len(true)) < 2:
                    continue
                found, key = kid(made, true, seed=self.seed), f"kid-{self.features.name}"
                values |= {key: found.mean, f"{key}_error": found.standard_error}
        return figures

    def sheet(self, item: PosedObject, index: int) -> Float[Tensor, "3 height width"]:
        """True views over those made by the first method and by a warp."""
        angles = turned_deg(item.camera[0], item.camera[1:])
        order = angles.argsort()
        steps = torch.linspace(0, len(order) - 1, min(_SHOWN, len(order)) + 2).round().long()
        chosen = (order[steps[1:-1]] + 1).tolist()
        cameras = item.camera[torch.tensor(chosen)]
        rows = [torch.cat([item.images[0], *item.images[chosen]], dim=2)]
        for method in self.shown:
            views = self._make(method, item, cameras, self._seed(index, 0))
            rows.append(torch.cat([torch.ones_like(item.images[0]), *views], dim=2))
        return torch.cat(rows, dim=1)

    def _figures(
        self,
        method: ViewMaker,
        item: PosedObject,
        angles: Tensor,
        azimuths: Tensor,
        grid: HullGrid | None,
        index: int,
    ) -> dict[str, Any]:
        """Lists of values, one for each target and seed, and the best seed's means."""
        figures: dict[str, list[float]] = {}
        runs = []
        for number in range(self.rules.seeds if method.is_random else 1):
            made = self._make(method, item, item.camera[1:], self._seed(index, number))
            values = compare(made, item, self.distances)
            runs.append(values)
            values = values | by_angle(values, angles)
            if grid is not None:
                values |= by_azimuth(pose_following(made, item.images[1:]), azimuths)
                values["hull_agreement"] = grid.agreement(outlines(made).float()).tolist()
            for key, many in values.items():
                figures.setdefault(key, []).extend(many)
            if self.features is not None:
                known = self.made.setdefault(method.name, FeatureSet(self.features, self.seed))
                known.add(see(self.features, made))
        if len(runs) > 1:
            best = max(runs, key=lambda values: _mean(values["psnr_masked"]))
            figures |= {f"best_{key}": best[key] for key in ("psnr", "psnr_masked")}
        return figures

    def _make(self, method: ViewMaker, item: PosedObject, cameras: Camera, seed: int) -> Tensor:
        image = item.images[0]
        mask = torch.ones_like(image[0]) if item.masks is None else item.masks[0]
        made = method.make(image, mask, item.camera[0], cameras, seed)
        expected = (*cameras.batch_shape, *image.shape)
        if tuple(made.shape) != expected:
            raise ValueError(f"{method.name}: made {tuple(made.shape)}, expected {expected}")
        made = made.cpu().float()
        if not bool(made.isfinite().all()):
            raise UserError(
                f"{method.name}: its picture of {item.name} holds numbers that are not finite; "
                "the model is broken, use another."
            )
        return made.clamp(0, 1)

    def _seed(self, index: int, number: int) -> int:
        """Its own for every object and run, whatever else is measured."""
        return ((self.seed + number) * _SEED_STEP + index) % 2**31


def _count_angles(items: Sequence[Item]) -> dict[str, int]:
    angles = [angle for item in items for angle in item.facts["angles_deg"]]
    counts, below = {}, 0
    for above in ANGLES:
        counts[str(above)] = sum(
            (below < angle or not below) and angle <= above for angle in angles
        )
        below = above
    return counts


def _count_azimuths(items: Sequence[Item]) -> dict[str, int]:
    azimuths = torch.tensor([a for item in items for a in item.facts["azimuths_deg"]])
    place = torch.bucketize(azimuths.clamp(max=180), torch.tensor(AZIMUTHS).to(azimuths))
    return {str(upper): int((place == number).sum()) for number, upper in enumerate(AZIMUTHS)}


def _chosen(objects: PosedObjects, index: int, rules: ViewProtocol) -> PosedObject:
    """The views of an object that the protocol uses, the input first."""
    count = objects.view_count(index)
    needed = rules.views or 2
    if count < needed:
        raise UserError(
            f"{objects.names[index]}: has {count} views and protocol {rules.name} needs {needed}; "
            f"choose another --protocol."
        )
    return objects.views(index, list(range(rules.views or count)))


def _departures(
    rules: ViewProtocol, objects: PosedObjects, resolution: int | None, limit: int | None
) -> list[str]:
    """What makes the figures others than the protocol's."""
    found = []
    if rules.unlike:
        found.append(f"protocol {rules.name} is not reproduced whole: {rules.unlike}")
    if resolution is not None and resolution != rules.resolution:
        found.append(f"--resolution {resolution} departs from protocol {rules.name}")
    if rules.objects is not None and len(objects) < rules.objects and limit is None:
        found.append(
            f"protocol {rules.name} takes {rules.objects} objects; here are {len(objects)}"
        )
    if objects.layout == "turntable":
        found.append(
            "photographs have no masks: the whole frame counts as the object, to methods too"
        )
    return found


def _methods(
    model: str | ViewMaker,
    objects: PosedObjects,
    split: str,
    depth: DepthEstimator | None,
    warnings: list[str],
) -> list[ViewMaker]:
    """The one that is asked for, then the baselines."""
    known: list[ViewMaker] = [Copy(), MeanColor(), DepthWarp(depth)]
    if split in ("train", ALL_SPLITS) or "train" not in objects.splits:
        warnings.append(
            "mean-image and retrieval are left out: they need a training split beside what is "
            "measured"
        )
    else:
        train = PosedObjects(objects.path, "train", resolution=objects.resolution)
        known += [MeanImage(train), Retrieval(train)]
        if train.rejects:
            warnings.append(f"{len(train.rejects)} training objects could not be read")
    if not isinstance(model, str):
        return [model, *known]
    first = [method for method in known if method.name == model]
    if first:
        return [*first, *(method for method in known if method is not first[0])]
    if model in BASELINES:
        raise UserError(
            f"--model {model}: needs a split train beside what is measured, which {objects.path} "
            "does not give; choose copy, mean-color or depth-warp."
        )
    raise UserError(f"--model {model}: is not known; choose from {', '.join(BASELINES)}.")


def _described(distance: Distance) -> object:
    describe = getattr(distance, "describe", None)
    return describe() if describe is not None else {}


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("-inf")
