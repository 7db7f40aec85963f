"""What makers of objects are held against in the task "objects", and one of them measured."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.data.posed_views import PosedViews
from unflat.evaluation.feature_sets import FeatureSet, Told, frechet_name, see
from unflat.evaluation.object_family import TrueFamily, fit_offset, pictures_of_one, pose_places
from unflat.evaluation.object_maker import ObjectMaker, ObjectViews, Turned, one_view
from unflat.evaluation.object_pairs import ANGLES_DEG, pair_cameras, pair_figures
from unflat.evaluation.object_surface import surface_figures
from unflat.evaluation.result import Item, means
from unflat.evaluation.view_maker import as_batch
from unflat.geometry import Camera
from unflat.metrics import Features, frechet_distance, kid

SURFACES = 16
"""Objects of which a mesh is made."""
SILHOUETTES = 8
"""Cameras from which outlines are compared."""
_BATCH = 16  # objects at once
_REAL_BATCH = 64

Figures = dict[str, Any]
"""Of one method, by key."""


class Bench:
    """What all makers are held against."""

    def __init__(
        self,
        held: PosedViews,
        train: PosedViews,
        features: Features,
        truth: ObjectMaker | None,
        count: int,
        objects: int,
        fit_azimuth: bool,
        seed: int,
    ) -> None:
        assert held.camera is not None
        self.held, self.train, self.features, self.seed = held, train, features, seed
        self.count, self.objects, self.fit_azimuth = count, objects, fit_azimuth
        self.side = held.resolution
        order = torch.randperm(len(held), generator=torch.Generator().manual_seed(seed))
        self.camera = held.camera[order]  # so that any first few are of all kinds
        own = torch.nonzero(held.objects == held.objects[0]).flatten()
        even = torch.linspace(0, len(own) - 1, min(SILHOUETTES, len(own))).round().long()
        self.around = held.camera[own[even]]
        self.truth = truth
        self.family: TrueFamily | None = None
        self.own_pictures = len(held) + len(train)
        if truth is not None:
            self.own_pictures += (truth.count or 0) * pictures_of_one(self.around)

    def cameras(self, numbers: Sequence[int]) -> Camera:
        """Held-out cameras by number, shuffled and cycled."""
        return self.camera[torch.tensor([number % len(self.held) for number in numbers])]

    def prepare(self, told: Told) -> None:
        """The true objects' pictures, and features of the real pictures and of their mean."""
        if self.truth is not None:
            self.family = TrueFamily(self.truth, self.around, self.side, told.add)
        self.real = self._seen(self.held, told)
        self.known = self._seen(self.train, told)
        self.mean = FeatureSet(self.features, self.seed)
        parts = self.train.images.split(_REAL_BATCH)
        total = sum((part.double().sum(0) for part in parts[1:]), parts[0].double().sum(0))
        middle = (total / len(self.train)).float() / 255
        vectors = see(self.features, middle[None])
        for start in range(0, self.count, _REAL_BATCH):
            many = min(_REAL_BATCH, self.count - start)
            self.mean.add(vectors._replace(vectors=vectors.vectors.expand(many, -1)))

    def real_figures(self) -> dict[str, Figures]:
        """Of the mean picture, of the training pictures nearest to held-out ones, and of all."""
        held, known = self.real.sample.features.float(), self.known.sample.features
        nearest = FeatureSet(self.features, self.seed)
        for block in held.split(512):
            rows = torch.cdist(block, known.float()).argmin(dim=1)
            nearest.moments.add(known[rows])
            nearest.sample.add(known[rows])
        return {
            "mean training picture": self.distances(self.mean),
            "nearest training pictures": self.distances(nearest),
            "training pictures": self.distances(self.known),
        }

    def distances(self, made: FeatureSet) -> Figures:
        """Kernel and Fréchet distance to the held-out pictures."""
        label = self.features.name
        found = kid(made.sample.features, self.real.sample.features, seed=self.seed)
        moments = frechet_distance(made.moments, self.real.moments)
        return {
            f"kid-{label}": found.mean,
            f"kid-{label}_error": found.standard_error,
            frechet_name(label, made.moments.count): moments,
        }

    def _seen(self, views: PosedViews, told: Told) -> FeatureSet:
        kept = FeatureSet(self.features, self.seed)
        for images in views.images.split(_REAL_BATCH):
            kept.add(see(self.features, images.float() / 255))
            told.add(len(images))
        return kept


class Work:
    """One maker on the bench."""

    def __init__(self, maker: ObjectMaker, bench: Bench) -> None:
        self.maker, self.bench = maker, bench
        most = bench.objects if maker.count is None else maker.count
        self.numbers = range(min(bench.objects, most))
        self.is_truth = bench.truth is maker
        self.values: dict[str, list[float]] = {}
        self.alike: list[int] = []
        self.turn = 0.0

    @property
    def pictures(self) -> int:
        """How many it makes."""
        bench, each = self.bench, 1 + len(ANGLES_DEG)
        if bench.truth is not None:
            each += len(bench.around.intrinsics)
            each += len(pose_places(bench.around)) * (bench.fit_azimuth and not self.is_truth)
        return bench.count + each * len(self.numbers)

    def run(self, told: Told) -> Figures:
        """All of its figures."""
        figures = self.bench.distances(self._compare_sets(told))
        self._compare_pairs(told)
        if self.bench.family is not None:
            figures |= self._compare_truth(self.bench.family, told)
        figures |= surface_figures(self.maker, self.numbers[:SURFACES], seed=self.bench.seed)
        return {**figures, **means(self.values)}

    def items(self) -> list[Item]:
        """Its objects."""
        keys = {key: values for key, values in self.values.items() if key != "empty"}
        return [
            Item(
                name=f"object {number}",
                figures={self.maker.name: {key: values[place] for key, values in keys.items()}},
                facts={"number": number},
            )
            for place, number in enumerate(self.numbers)
        ]

    def sheet(self, index: int) -> Float[Tensor, "3 height width"]:
        """An object from all around, its depth, and the true object most like it."""
        bench = self.bench
        made = self._turned().make([self.numbers[index]], as_batch(bench.around), bench.side)
        maps = [_picture_of_depth(one) for one in made.surface_depth[0]]
        rows = [torch.cat(list(made.images[0]), dim=2), torch.cat(maps, dim=2)]
        if bench.family is not None:
            true = bench.family.truth.make([self.alike[index]], as_batch(bench.around), bench.side)
            rows.append(torch.cat(list(true.images[0]), dim=2))
        return torch.cat(rows, dim=1).clamp(0, 1)

    def _compare_sets(self, told: Told) -> FeatureSet:
        bench, made = self.bench, FeatureSet(self.bench.features, self.bench.seed)
        for start in range(0, bench.count, _BATCH):
            places = list(range(start, min(start + _BATCH, bench.count)))
            numbers = [place % (self.maker.count or bench.count) for place in places]
            cameras = bench.cameras(places)
            views = self.maker.make(numbers, one_view(cameras), bench.side)
            made.add(see(bench.features, views.images[:, 0]))
            told.add(len(places))
        return made

    def _compare_pairs(self, told: Told) -> None:
        bench = self.bench
        for start in range(0, len(self.numbers), _BATCH):
            numbers = self.numbers[start : start + _BATCH]
            cameras = pair_cameras(bench.cameras(numbers))
            views = self.maker.make(numbers, cameras, bench.side)
            found = pair_figures(views, cameras)
            found["empty"] = (~views.solid.flatten(2).any(2)).float().mean(1)
            for name, value in found.items():
                self.values.setdefault(name, []).extend(value.tolist())
            told.add(views.opacity.shape[0] * views.opacity.shape[1])

    def _compare_truth(self, family: TrueFamily, told: Told) -> Figures:
        fits = self.bench.fit_azimuth and not self.is_truth
        if fits:
            views = family.camera[torch.tensor(family.pose_places)]
            every = []
            for number in self.numbers:
                every.append(family.azimuths(self._made(self.maker, number, views)))
                told.add(len(views.intrinsics))
            self.turn = fit_offset(torch.stack(every))
        errors, maker = [], self._turned()
        for number in self.numbers:
            but = number if self.is_truth else None
            made = self._made(maker, number, family.camera)
            iou, alike = family.likeness(made.solid[0], but)
            self.alike.append(alike)
            self.values.setdefault("silhouette_iou", []).append(iou)
            off = family.azimuths(made.some(family.pose_places), but).abs()
            errors.append(off.nan_to_num(math.inf))  # nothing is nowhere
            self.values.setdefault("azimuth_error", []).append(errors[-1].mean().item())
            told.add(len(family.camera.intrinsics))
        off = torch.cat(errors)
        ious = torch.tensor(self.values["silhouette_iou"])
        return {
            "silhouette_iou_error": (ious.std() / len(ious) ** 0.5).item(),
            "azimuth_median": off.quantile(0.5, interpolation="nearest").item(),
            "azimuth_within_15": (off < 15).float().mean().item(),
            "azimuth_within_30": (off < 30).float().mean().item(),
            **({"azimuth_fitted": self.turn} if fits else {}),
        }

    def _turned(self) -> ObjectMaker:
        return Turned(self.maker, self.turn) if self.turn else self.maker

    def _made(self, maker: ObjectMaker, number: int, camera: Camera) -> ObjectViews:
        return maker.make([number], as_batch(camera), self.bench.side)


def _picture_of_depth(depth: Float[Tensor, "side side"]) -> Float[Tensor, "3 side side"]:
    """The nearest white, the farthest gray, and black where nothing is."""
    there = depth.isfinite()
    if not bool(there.any()):
        return torch.zeros_like(depth).expand(3, -1, -1)
    near, far = depth[there].min(), depth[there].max()
    light = 1 - 0.75 * (depth - near) / (far - near).clamp_min(1e-6)
    return torch.where(there, light, 0.0).expand(3, -1, -1)
