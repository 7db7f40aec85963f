"""Task "objects": how good a generative model of objects is, and whether its objects are 3D.

::

    held, train = (PosedViews("cars-srn.tar", split, resolution=64) for split in ("val", "train"))
    evaluation = evaluate_objects(maker, held, train, features)
    evaluation.figures[maker.name]["kid-unflat"]

Pictures are compared as sets, through the cameras of the held-out ones; objects with themselves,
from two cameras; and, where the category is made up, with true objects. Beside every figure stand
those of cards, which are no objects, and of real pictures.
"""

from collections.abc import Sequence
from typing import Any

import torch

from unflat.data.posed_views import PosedViews
from unflat.errors import UserError
from unflat.evaluation.feature_sets import CAPACITY, Told, frechet_name
from unflat.evaluation.object_baselines import FlatCard, TurningCard
from unflat.evaluation.object_bench import SURFACES, Bench, Figures, Work
from unflat.evaluation.object_family import STEP_DEG, chance_within
from unflat.evaluation.object_maker import ObjectMaker
from unflat.evaluation.object_pairs import ANGLES_DEG, pair_table
from unflat.evaluation.object_surface import NEAR, RESOLUTION, TABLE
from unflat.evaluation.result import Column, Evaluation, Progress, Table
from unflat.metrics import Features
from unflat.report import versions

PROTOCOL = "unflat-objects/1"
OBJECTS = 64
"""Objects of each maker in everything but the comparison of sets."""
_LEAST = 4  # pictures of each side
_FEW = 100  # pictures, or objects, below which KID is rough


@torch.no_grad()
def evaluate_objects(
    maker: ObjectMaker,
    held: PosedViews,
    train: PosedViews,
    features: Features,
    *,
    truth: ObjectMaker | None = None,
    count: int | None = None,
    objects: int = OBJECTS,
    fit_azimuth: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Figures of a maker of objects, of cards, and of real pictures.

    Args:
        maker: what is measured.
        held: pictures that it did not learn from, with cameras.
        train: pictures that it learned from, at the same resolution.
        features: network whose vectors are compared.
        truth: true objects of the category, where it is made up; they are compared with each other
            as well, which is the best that can be reached.
        count: pictures of each maker in the comparison of sets; as many as held-out ones if not
            given, at most 10,000.
        objects: of each maker in everything else.
        fit_azimuth: turn a maker's objects by the one angle that suits the true objects best before
            they are compared; for models that were trained without poses, whose front is anywhere.
        seed: of the cameras' order and of subsets.
        progress: is told how many of how many pictures are done.

    Raises:
        UserError: no cameras, another resolution, or too few pictures.
    """
    _require(held, train)
    cards = [FlatCard(train), TurningCard(train, seed)]
    makers = [maker, *(card for card in cards if card.name != maker.name)]
    number = min(count or len(held), CAPACITY)
    bench = Bench(held, train, features, truth, number, objects, fit_azimuth, seed)
    measured = [*makers, *([truth] if truth is not None and truth is not maker else [])]
    work = [Work(one, bench) for one in measured]
    told = Told(progress, bench.own_pictures + sum(one.pictures for one in work))
    bench.prepare(told)
    figures = {one.maker.name: one.run(told) for one in work}
    figures |= bench.real_figures()
    first = work[0]
    return Evaluation(
        task="objects",
        tables=_tables(features.name, number, bench),
        figures=figures,
        protocol=_protocol(bench, makers),
        items=first.items(),
        rank=(maker.name, _RANK if bench.family else _PAIR_RANK),
        sheet=first.sheet,
        sheet_text="Above, the object from cameras all around; its depth below it"
        + (", and the true object with the most alike outlines." if bench.family else "."),
        rejected=[*held.rejects, *train.rejects],
        warnings=_warnings(bench, figures),
    )


_RANK = Column(key="silhouette_iou", label="silhouette IoU", form="{:.3f}")
_PAIR_RANK = Column(key=f"depth_agreement_{ANGLES_DEG[0]:g}", label="depths agree", form="{:.1%}")
_POSE_TABLE = Table(
    title="Against true objects",
    columns=(
        _RANK,
        Column(key="silhouette_iou_error", label="±", form="{:.3f}", better=""),
        Column(key="azimuth_median", label="azimuth deg, median", form="{:.0f}", better="lower"),
        Column(key="azimuth_within_15", label="within 15 deg", form="{:.1%}"),
        Column(key="azimuth_within_30", label="within 30 deg", form="{:.1%}"),
        Column(key="azimuth_fitted", label="fitted turn deg", form="{:.0f}", better=""),
    ),
)


def _require(held: PosedViews, train: PosedViews) -> None:
    for views in (held, train):
        if views.camera is None:
            raise UserError(
                f"{views.name}: has no cameras; objects are compared through those of a set."
            )
        if len(views) < _LEAST:
            raise UserError(
                f"{views.name}: has only {len(views)} pictures; give at least {_LEAST}."
            )
    if held.resolution != train.resolution:
        raise ValueError(
            f"held-out pictures of {held.resolution} and training ones of {train.resolution} pixels"
        )


def _tables(label: str, count: int, bench: Bench) -> list[Table]:
    counts = sorted({count, len(bench.held), len(bench.train)})
    moments = dict.fromkeys(frechet_name(label, number) for number in counts)
    sets = Table(
        title="Distance to the held-out pictures",
        columns=(
            Column(key=f"kid-{label}", label=f"kid-{label}", form="{:.4f}", better="lower"),
            Column(key=f"kid-{label}_error", label="±", form="{:.4f}", better=""),
            *(Column(key=name, label=name, form="{:.2f}", better="lower") for name in moments),
        ),
    )
    return [sets, pair_table(), _POSE_TABLE, TABLE]


def _protocol(bench: Bench, makers: Sequence[ObjectMaker]) -> dict[str, Any]:
    family = bench.family
    protocol: dict[str, Any] = {
        "task": "objects",
        "name": PROTOCOL,
        "features": bench.features.describe(),
        "resolution": bench.side,
        "held_out": bench.held.counts,
        "training": bench.train.counts,
        "made": {maker.name: {**maker.describe(), "rendered": bench.count} for maker in makers},
        "objects": bench.objects,
        "pictures": "over white, not mirrored; all sides rounded to 8 bit",
        "cameras": "those of the held-out pictures, shuffled by the seed and cycled; another "
        "object in each picture, cycled where a maker has fewer",
        "kid": "unbiased squared MMD with (a.b/d + 1)^3, not scaled; the standard error is that "
        "of the whole sample",
        "frechet": "all pictures; named -debug below 10,000 of them: biased upwards for few",
        "kept_for_kid": CAPACITY,
        "nearest": "of the training pictures, for each held-out one, that of the nearest features",
        "pairs": f"a held-out camera and the same {' and '.join(f'{a:g}' for a in ANGLES_DEG)} "
        "degrees of azimuth further, both directions; surface where opacity is at least a half. "
        "Depths agree within 5 % of the other view's depth at one of the four pixels around; "
        "hidden pixels are not compared. Reprojection: mean absolute color difference, the white "
        "behind the object taken out, where "
        "depths agree; pairs with validity below a half are void",
        "surface": f"{SURFACES} objects; marching cubes, {RESOLUTION} points along the longest "
        "side of the box, closed where that cuts an object; parts hang together by edges; |grad d| "
        f"at random up to {NEAR:g} of that side from the surface",
        "seed": bench.seed,
        "versions": versions(),
    }
    if family is not None:
        protocol["truth"] = family.truth.describe()
        protocol["silhouettes"] = (
            f"mean IoU over {len(bench.around.intrinsics)} cameras, of the true object with the "
            f"highest of {len(family)}; true objects without themselves"
        )
        protocol["azimuth"] = (
            f"of the true object and azimuth, every {STEP_DEG:g} degrees, of the least mean "
            "squared color difference at 32 px over what either covers, less the camera's; from "
            f"{len(family.pose_places)} of the cameras; by chance within 15: "
            f"{chance_within(15.0):.1%}, within 30: {chance_within(30.0):.1%}; "
            + ("one turn fitted for each maker" if bench.fit_azimuth else "nothing fitted")
        )
    return protocol


def _warnings(bench: Bench, figures: dict[str, Figures]) -> list[str]:
    sentences, name = [], bench.features.name
    if name.startswith("unflat"):
        sentences.append(
            f"kid-{name} is measured with a small network of unflat's own: it orders methods on "
            "the same pictures, and is not comparable with any KID or FID in a paper"
        )
    few = min(bench.count, len(bench.held))
    if few < _FEW:
        sentences.append(f"only {few} pictures: KID is rough, as its standard error tells")
    if len(bench.held.names) < _FEW:
        sentences.append(
            f"only {len(bench.held.names)} held-out objects: pictures of one object are alike, "
            "which the standard errors do not know"
        )
    if bench.real.moments.warning is not None:
        sentences.append(f"held-out pictures: {bench.real.moments.warning}")
    if bench.family is None:
        sentences.append(
            "no true objects of this category: silhouettes and poses are not measured, and a card "
            "that stands still passes the test of two cameras"
        )
    for maker, values in figures.items():
        if values.get("empty", 0) > 0:
            sentences.append(f"{maker}: {values['empty']:.1%} of its views are empty")
    return sentences
