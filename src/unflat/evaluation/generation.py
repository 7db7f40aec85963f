"""Task "generation": how near generated pictures are to real ones, from the front and turned.

::

    evaluation = evaluate_generation(generator, real, features, references=[flat])
    evaluation.figures["vq3d-small"]["kid-unflat_30"]

Sets are compared by features: their names stand in the figures' names, since figures of different
networks have nothing to do with each other.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.errors import UserError
from unflat.evaluation.class_figures import ClassTeller, class_figures
from unflat.evaluation.depth import picture_of_map
from unflat.evaluation.feature_sets import (
    CAPACITY,
    FeatureSet,
    RealPictures,
    Told,
    distances,
    frechet_name,
    see,
)
from unflat.evaluation.generator import GeneratedViews, Generator
from unflat.evaluation.picture_stream import PictureStream
from unflat.evaluation.protocol import fingerprint
from unflat.evaluation.result import Column, Evaluation, Item, Progress, Table, means
from unflat.metrics import (
    Features,
    density_coverage,
    non_flatness_score,
    precision_recall,
    reprojection_error,
)
from unflat.metrics.distribution import inception_score
from unflat.report import versions

PROTOCOL = "unflat-eval/1"
TURNS_DEG = (5.0, 15.0, 30.0)
"""Angles at which turned views are compared, to both sides; 0 is the canonical view."""
_BATCH = 16  # scenes at once
_LEAST_REAL, _LEAST_FAKE = 6, 4  # what the neighborhoods of density and precision need
_FEW = 100  # scenes below which shares and KID are rough
_CONSISTENCY_DEG = 15.0
_SIGNED = (0.0, *(sign * angle for angle in TURNS_DEG for sign in (-1.0, 1.0)))


@torch.no_grad()
def evaluate_generation(
    generator: Generator,
    real: PictureStream,
    features: Features,
    *,
    references: Sequence[Generator] = (),
    count: int | None = None,
    teller: ClassTeller | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Distances of generated pictures to real ones, canonical and turned.

    Args:
        generator: what is measured.
        real: pictures to be like, at the resolution of the comparison.
        features: network whose vectors are compared.
        references: further generators for the same table, as the flat one.
        count: scenes of each generator; all that it has if not given, at most 10,000.
        teller: tells classes, for the accuracy of those that scenes and real pictures have.
        seed: of samples and subsets.
        progress: is told how many of how many pictures are done.

    Raises:
        UserError: too few pictures to compare.
    """
    methods = [generator, *references]
    counts = [_count(method, count) for method in methods]
    if len(real) < _LEAST_REAL or min(counts) < _LEAST_FAKE:
        raise UserError(
            f"too few pictures to compare: {len(real)} real ones and {min(counts)} scenes; give at "
            f"least {_LEAST_REAL} and {_LEAST_FAKE}."
        )
    total = len(real) + sum(counts) * len(_SIGNED)
    told = Told(progress, total)
    known = RealPictures(real, features, seed, told)
    whole = known.whole
    found = {
        method.name: _measure(method, number, features, real.resolution, seed, told)
        for method, number in zip(methods, counts, strict=True)
    }
    figures = {name: tally.figures(whole, teller, seed) for name, tally in found.items()}
    figures["real, one half against the other"] = known.figures(teller, seed)
    first = found[generator.name]
    return Evaluation(
        task="generation",
        tables=_tables(features.name, found),
        figures=figures,
        protocol=_protocol(features, real, methods, found, known, teller, seed),
        items=first.items(whole),
        rank=(generator.name, _NEAREST),
        sheet=lambda index: first.sheet(index, real.resolution),
        sheet_text=f"From {min(_SIGNED):g} to {max(_SIGNED):g} degrees, then inverse depth.",
        rejected=[*real.rejects, *(reject for method in methods for reject in method.rejects)],
        warnings=_warnings(features, whole, found),
    )


_NEAREST = Column(
    key="nearest_real", label="distance to the nearest real", form="{:.3f}", better="lower"
)


class _Tally:
    """What one generator gave."""

    def __init__(self, generator: Generator, features: Features, seed: int) -> None:
        self.generator, self.features = generator, features
        self.sets = {angle: FeatureSet(features, seed) for angle in (0.0, *TURNS_DEG)}
        self.names: list[str] = []
        self.places: list[int] = []
        self.labels: list[str | None] = []
        self.values: dict[str, list[float]] = {}

    def add(self, views: GeneratedViews) -> None:
        """Some more scenes."""
        if not views.names:
            return
        for number, angle in enumerate(_SIGNED):
            self.sets[abs(angle)].add(see(self.features, views.images[:, number]))
        self.names += views.names
        self.places += views.numbers
        self.labels += views.labels or [None] * len(views.names)
        if views.inverse_depth is None or views.camera is None:
            return
        flatness = non_flatness_score(views.inverse_depth[:, 0])
        error, validity = _consistency(views)
        for name, value in (
            ("non_flatness", flatness),
            ("reprojection_error", error),
            ("reprojection_validity", validity),
        ):
            self.values.setdefault(name, []).extend(value.tolist())

    def figures(self, real: FeatureSet, teller: ClassTeller | None, seed: int) -> dict[str, Any]:
        """Distances of every angle, neighborhoods of the canonical view, means of the rest."""
        figures: dict[str, Any] = {}
        for angle, made in self.sets.items():
            figures |= distances(made, real, angle, seed)
        canonical = self.sets[0.0].sample.features
        known, label = real.sample.features, real.network.name
        near = precision_recall(known, canonical)
        dense = density_coverage(known, canonical)
        figures |= {
            f"precision-{label}": near.precision,
            f"recall-{label}": near.recall,
            f"density-{label}": dense.density,
            f"coverage-{label}": dense.coverage,
        }
        probabilities = self.sets[0.0].probabilities
        if probabilities is not None:
            score = inception_score(probabilities.features)
            figures |= {"inception_score": score.mean, "inception_score_std": score.std}
        labels = [self.labels[place] for place in self.sets[0.0].sample.places.tolist()]
        return {**figures, **class_figures(label, canonical, labels, teller), **means(self.values)}

    def items(self, real: FeatureSet) -> list[Item]:
        """Scenes of the sample, with the distance of the canonical view to the nearest real one."""
        sample, known = self.sets[0.0].sample, real.sample.features.float()
        nearest = [
            torch.cdist(block.float(), known).amin(dim=1) for block in sample.features.split(512)
        ]
        found = []
        for place, value in zip(sample.places.tolist(), torch.cat(nearest).tolist(), strict=True):
            own = {name: values[place] for name, values in self.values.items()}
            figures = {self.generator.name: {"nearest_real": value, **own}}
            facts = {"number": self.places[place], "class": self.labels[place]}
            found.append(Item(name=self.names[place], figures=figures, facts=facts))
        return found

    @torch.no_grad()
    def sheet(self, index: int, side: int) -> Float[Tensor, "3 height width"]:
        """All views of a scene in the order of their angles, and the canonical inverse depth."""
        place = self.sets[0.0].sample.places.tolist()[index]
        views = self.generator.generate([self.places[place]], _SIGNED, side)
        order = sorted(range(len(_SIGNED)), key=lambda number: _SIGNED[number])
        row = [views.images[0, number] for number in order]
        if views.inverse_depth is not None:
            row.append(picture_of_map(views.inverse_depth[0, 0]))
        return torch.cat(row, dim=2)


def _measure(
    generator: Generator, count: int, features: Features, side: int, seed: int, told: Told
) -> _Tally:
    tally = _Tally(generator, features, seed)
    for start in range(0, count, _BATCH):
        numbers = range(start, min(start + _BATCH, count))
        tally.add(generator.generate(numbers, _SIGNED, side))
        told.add(len(numbers) * len(_SIGNED))
    if not tally.names:
        reason = f"; the first: {generator.rejects[0].reason}" if generator.rejects else "."
        raise UserError(f"{generator.name}: made no picture{reason}")
    return tally


def _count(generator: Generator, count: int | None) -> int:
    most = CAPACITY if generator.count is None else generator.count
    return min(most, count or CAPACITY)


def _consistency(views: GeneratedViews) -> tuple[Tensor, Tensor]:
    """Reprojection error and validity between the canonical view and those at 15 degrees.

    Mean over both sides and both directions; EG3D's successors do likewise over five views. Void
    pairs, with too few valid pixels, count for the validity alone.
    """
    assert views.inverse_depth is not None
    assert views.camera is not None
    depth = 1 / views.inverse_depth.clamp_min(1e-9)
    depth = torch.where(views.inverse_depth > 0, depth, torch.inf)
    errors, shares = [], []
    for other in (_SIGNED.index(_CONSISTENCY_DEG), _SIGNED.index(-_CONSISTENCY_DEG)):
        for a, b in ((0, other), (other, 0)):
            pair = reprojection_error(
                views.images[:, a],
                depth[:, a],
                views.camera[:, a],
                views.images[:, b],
                depth[:, b],
                views.camera[:, b],
            )
            errors.append(torch.where(pair.is_void, torch.nan, pair.error))
            shares.append(pair.validity)
    return torch.stack(errors).nanmean(dim=0), torch.stack(shares).mean(dim=0)


def _tables(label: str, found: Mapping[str, _Tally]) -> tuple[Table, Table]:
    angles = ("canonical", *(f"{angle:g}" for angle in TURNS_DEG))
    titles = ("canonical", *(f"±{angle:g} deg" for angle in TURNS_DEG))
    distances = [
        column
        for angle, title in zip(angles, titles, strict=True)
        for column in (
            Column(key=f"kid-{label}_{angle}", label=title, form="{:.4f}", better="lower"),
            Column(key=f"kid-{label}_{angle}_error", label="±", form="{:.4f}", better=""),
        )
    ]
    rest = [
        Column(key=f"{name}-{label}", label=name, form="{:.3f}")
        for name in ("precision", "recall", "density", "coverage")
    ]
    moments = {frechet_name(label, len(tally.names)) for tally in found.values()}
    rest += [
        Column(key=f"{name}_canonical", label=name, form="{:.2f}", better="lower")
        for name in sorted(moments)
    ]
    if label == "inception":
        rest.append(Column(key="inception_score", label="IS"))
    rest += [
        Column(key=f"class_accuracy-{label}", label="class accuracy", form="{:.1%}"),
        Column(
            key=f"within_class_distance-{label}",
            label="distance within a class",
            form="{:.2f}",
            better="",
        ),
        Column(key="non_flatness", label="non-flatness", form="{:.1f}", better=""),
        Column(key="reprojection_error", label="reprojection", form="{:.4f}", better="lower"),
        Column(key="reprojection_validity", label="valid", form="{:.1%}", better=""),
    ]
    return (
        Table(title=f"kid-{label} to the real pictures, and its standard error", columns=distances),
        Table(title="Canonical view, and consistency with the views at 15 degrees", columns=rest),
    )


def _protocol(
    features: Features,
    real: PictureStream,
    methods: Sequence[Generator],
    found: dict[str, _Tally],
    known: RealPictures,
    teller: ClassTeller | None,
    seed: int,
) -> dict[str, Any]:
    return {
        "task": "generation",
        "name": PROTOCOL,
        "features": features.describe(),
        "resolution": real.resolution,
        "real": {
            "pictures": known.whole.moments.count,
            "files": [fingerprint(path) for path in real.paths],
            "halves": [half.moments.count for half in known.halves],
            "classes": dict(sorted(Counter(filter(None, known.labels)).items())),
        },
        "generated": {
            method.name: {"scenes": len(found[method.name].names), **method.describe()}
            for method in methods
        },
        "pictures": "center square, antialiased bicubic, not mirrored; both sides rounded to 8 bit",
        "cameras": "canonical, then turned to both sides about the point on the optical axis at "
        "the scene's median depth; both sides of an angle are one set",
        "angles_deg": [0.0, *TURNS_DEG],
        "kid": "unbiased squared MMD with (a.b/d + 1)^3, not scaled; the standard error is that "
        "of the whole sample",
        "frechet": "all pictures; named -debug below 10,000 of them: biased upwards for few",
        "kept_for_kid": CAPACITY,
        "classifier": None if teller is None else teller.describe(),
        "within_class_distance": "mean over classes of the mean distance of a class' pairs",
        "neighborhoods": "precision and recall k = 3, density and coverage k = 5",
        "reprojection": "canonical and 15 degrees, both sides and directions, mean absolute color "
        "difference where depths agree within 5 %; pairs with validity below a half are void",
        "seed": seed,
        "versions": versions(),
    }


def _warnings(features: Features, whole: FeatureSet, found: dict[str, _Tally]) -> list[str]:
    sentences = []
    if features.name.startswith("unflat"):
        sentences.append(
            f"kid-{features.name} is measured with a small network of unflat's own: it orders "
            "methods on the same pictures, and is not comparable with any KID or FID in a paper"
        )
    few = min(len(tally.names) for tally in found.values())
    if few < _FEW:
        sentences.append(
            f"only {few} scenes: precision, recall, density and coverage are rough, and so is KID, "
            "as its standard error tells"
        )
    for name, made in {"real": whole, **{n: t.sets[0.0] for n, t in found.items()}}.items():
        if made.moments.warning is not None:
            sentences.append(f"{name}: {made.moments.warning}")
    return sentences
