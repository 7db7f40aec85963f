"""Sets of pictures as feature networks see them, and how far two of them are apart."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.evaluation.class_figures import ClassTeller, class_figures
from unflat.evaluation.picture_stream import PictureStream
from unflat.evaluation.result import Progress, means
from unflat.metrics import (
    FeatureMoments,
    Features,
    FeatureSample,
    frechet_distance,
    kid,
    non_flatness_score,
)
from unflat.metrics.features import Classifier

CAPACITY = 10_000
"""Feature vectors kept of each set for KID and neighborhoods; moments see all of them."""
DEBUG_BELOW = 10_000
"""With fewer pictures a Frechet distance is a smoke test, and says so in its name."""
_REAL_BATCH = 64


class Seen(NamedTuple):
    """What a network sees in some pictures."""

    vectors: Float[Tensor, "batch dim"]
    """Features."""
    probabilities: Float[Tensor, "batch classes"] | None
    """Of a network that tells classes."""

    def every_second(self, first: int) -> "Seen":
        """The pictures number first, first + 2, ..."""
        probabilities = None if self.probabilities is None else self.probabilities[first::2]
        return Seen(self.vectors[first::2], probabilities)


def see(features: Features, images: Float[Tensor, "batch 3 side side"]) -> Seen:
    """Pictures through the network, rounded to 8 bits first, as files would be."""
    images = (images.clamp(0, 1) * 255).round() / 255
    vectors = features(images)
    if not isinstance(features, Classifier):
        return Seen(vectors.cpu(), None)
    return Seen(vectors.cpu(), features.probabilities_of(vectors).cpu())


class FeatureSet:
    """What is kept of a stream of pictures: moments of all features, a sample of them."""

    def __init__(self, features: Features, seed: int) -> None:
        self.network = features
        self.moments = FeatureMoments(features.dim)
        self.sample = FeatureSample(CAPACITY, seed)
        self.probabilities = (
            FeatureSample(CAPACITY, seed) if isinstance(features, Classifier) else None
        )

    def add(self, seen: Seen) -> None:
        """What the network saw in some more pictures."""
        self.moments.add(seen.vectors)
        self.sample.add(seen.vectors)
        if self.probabilities is not None and seen.probabilities is not None:
            self.probabilities.add(seen.probabilities)


class Told:
    """Progress over several streams.

    Args:
        progress: is told how many of how many pictures are done.
        total: of all streams.
    """

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def add(self, number: int) -> None:
        """Some more are done."""
        self.done += number
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)


class RealPictures:
    """The real pictures: what the network sees, classes, and the truth's own non-flatness."""

    def __init__(self, real: PictureStream, features: Features, seed: int, told: Told) -> None:
        self.whole = FeatureSet(features, seed)
        self.halves = FeatureSet(features, seed), FeatureSet(features, seed)
        self.labels: list[str | None] = []
        self.non_flatness: list[float] = []
        for start in range(0, len(real), _REAL_BATCH):
            _, numbers, images = real.batch(range(start, min(start + _REAL_BATCH, len(real))))
            if not numbers:
                continue
            seen = see(features, images)
            self.whole.add(seen)
            for part, half in enumerate(self.halves):
                half.add(seen.every_second(part))
            self.labels += [real.label(number) for number in numbers]
            depths = [real.inverse_depth(number) for number in numbers]
            true = [depth for depth in depths if depth is not None]
            if true:
                self.non_flatness += non_flatness_score(torch.stack(true)).tolist()
            told.add(len(images))

    def figures(self, teller: ClassTeller | None, seed: int) -> dict[str, Any]:
        """Distances of one half to the other; of all, what is said of generated pictures too."""
        sample, network = self.whole.sample, self.whole.network.name
        labels = [self.labels[place] for place in sample.places.tolist()]
        return {
            **distances(*self.halves, 0.0, seed),
            **class_figures(network, sample.features, labels, teller),
            **means({"non_flatness": self.non_flatness}),
        }


def distances(made: FeatureSet, real: FeatureSet, angle: float, seed: int) -> dict[str, float]:
    """KID and Frechet distance of two sets, named after the network and the angle."""
    label, where = real.network.name, "canonical" if angle == 0 else f"{angle:g}"
    found = kid(made.sample.features, real.sample.features, seed=seed)
    return {
        f"kid-{label}_{where}": found.mean,
        f"kid-{label}_{where}_error": found.standard_error,
        f"{frechet_name(label, made.moments.count)}_{where}": frechet_distance(
            made.moments, real.moments
        ),
    }


def frechet_name(network: str, count: int) -> str:
    """``fid`` is only what Inception's features give; small counts stand in the name.

    Args:
        network: `Features.name`.
        count: of generated pictures.
    """
    name = "fid" if network == "inception" else f"frechet-{network}"
    return name if count >= DEBUG_BELOW else f"{name}{count}-debug"
