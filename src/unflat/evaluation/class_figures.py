"""Classes of generated pictures: a classifier that learned from real ones, and how many there are.

Not another network's word: the classifier is linear on the vectors that everything else in the
task is measured with, learned from real pictures in the same run, and its accuracy on real
pictures that it has not seen stands beside that on generated ones.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.errors import UserError
from unflat.evaluation.picture_stream import PictureStream
from unflat.evaluation.protocol import fingerprint
from unflat.metrics import Features, fit_linear_classifier, within_class_distance

_BATCH = 64


class ClassTeller:
    """Tells the class of a picture from its features.

    Args:
        features: the network.
        pictures: real ones to learn from, of known classes; the others are left out.
        classes: names, as in `match_class`.

    Raises:
        UserError: the pictures show fewer than two of the classes.
    """

    def __init__(self, features: Features, pictures: PictureStream, classes: Sequence[str]) -> None:
        self.classes, self.paths = list(classes), pictures.paths
        chosen = pictures.of_classes(classes)
        vectors, labels = [], []
        for start in range(0, len(chosen), _BATCH):
            several = range(start, min(start + _BATCH, len(chosen)))
            _, numbers, images = chosen.batch(several)
            if numbers:
                vectors.append(features(images).cpu())
                labels += [self.classes.index(str(chosen.label(n))) for n in numbers]
        self.shown = sorted({self.classes[label] for label in labels})
        if len(self.shown) < 2:
            raise UserError(
                f"{self.paths[0]}: shows {' '.join(self.shown) or 'none'} of the classes; a "
                "classifier needs pictures of at least two."
            )
        self.pictures = len(labels)
        self._classify = fit_linear_classifier(
            torch.cat(vectors), torch.tensor(labels), len(self.classes)
        )

    def accuracy(
        self, vectors: Float[Tensor, "n dim"], labels: Sequence[str | None]
    ) -> float | None:
        """Share of the pictures with a class that are given it; None if none has one."""
        known = [place for place, label in enumerate(labels) if label is not None]
        if not known:
            return None
        told = self._classify(vectors[known])
        right = [
            self.classes[int(number)] == labels[place]
            for number, place in zip(told, known, strict=True)
        ]
        return sum(right) / len(right)

    def describe(self) -> dict[str, object]:
        """What the report keeps."""
        return {
            "kind": "multinomial logistic regression on the features, standardized",
            "classes": self.classes,
            "learned": self.shown,
            "pictures": self.pictures,
            "files": [fingerprint(path) for path in self.paths],
        }


def class_figures(
    network: str,
    vectors: Float[Tensor, "n dim"],
    labels: Sequence[str | None],
    teller: ClassTeller | None = None,
) -> dict[str, float]:
    """``class_accuracy`` and ``within_class_distance``, named after the network.

    Args:
        network: `Features.name`.
        vectors: of pictures.
        labels: the class that each is of, or was asked to be of; None where it is not known.
        teller: without one there is no accuracy.
    """
    names = sorted({label for label in labels if label is not None})
    known = [place for place, label in enumerate(labels) if label is not None]
    numbers = torch.tensor([names.index(str(labels[place])) for place in known], dtype=torch.long)
    found = {
        f"class_accuracy-{network}": None if teller is None else teller.accuracy(vectors, labels),
        f"within_class_distance-{network}": within_class_distance(vectors[known], numbers),
    }
    return {name: value for name, value in found.items() if value is not None}
