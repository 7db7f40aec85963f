"""Pictures of folders and tars one batch at a time, so that any number of them fits in memory."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unflat.data.canonical_views import CanonicalViews, open_pictures
from unflat.data.dataset import square_picture
from unflat.data.sample import PictureSource, Reject, joint_names, reason_of
from unflat.errors import UserError
from unflat.evaluation.protocol import fingerprint


class PictureStream:
    """Pictures decoded when they are asked for: center square, antialiased bicubic, 8 bits.

    Args:
        paths: folders and tars; of posed scenes the canonical views are taken.
        resolution: side in pixels.
        chosen: numbers of the pictures to take, in order; all if not given.

    Raises:
        UserError: a path is no data set.
    """

    def __init__(
        self, paths: Sequence[str | Path], resolution: int, chosen: Sequence[int] | None = None
    ) -> None:
        if not paths:
            raise UserError("--data: names no pictures; give a folder of pictures or a .tar.")
        self.resolution, self.paths = resolution, [Path(path) for path in paths]
        self.classes: Sequence[str] = ()
        """By whose names `label` tells a picture's class."""
        self.sources = [open_pictures(path) for path in paths]
        self.rejects = [reject for source in self.sources for reject in source.rejects]
        self._starts = np.cumsum([0, *(len(source) for source in self.sources)])
        self._chosen = range(int(self._starts[-1])) if chosen is None else chosen

    def __len__(self) -> int:
        """How many pictures are listed; some may turn out to be unreadable."""
        return len(self._chosen)

    def describe(self) -> dict[str, object]:
        """Which files, by name and hash."""
        return {"files": [fingerprint(path) for path in self.paths]}

    def part(self, chosen: Sequence[int]) -> "PictureStream":
        """Some of the pictures, by their numbers here."""
        other = object.__new__(PictureStream)
        other.__dict__ |= self.__dict__
        other.rejects, other._chosen = [], [self._chosen[index] for index in chosen]
        return other

    def read(self, index: int) -> tuple[str, Float[Tensor, "3 side side"]]:
        """Name and picture, in [0, 1], of one of them.

        Raises:
            UserError: it cannot be read.
        """
        source, place = self._place(index)
        sample = source.read(place)
        square, _, _ = square_picture(sample, 2 * self.resolution)
        if square.width != self.resolution:
            square = square.resize((self.resolution, self.resolution), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(square, dtype=np.float32)).permute(2, 0, 1)
        return sample.name, pixels / 255

    def batch(
        self, indices: Sequence[int]
    ) -> tuple[list[str], list[int], Float[Tensor, "batch 3 side side"]]:
        """Names, numbers and pictures of the readable ones; the others are added to `rejects`."""
        names, numbers, pictures = [], [], []
        for index in indices:
            try:
                name, picture = self.read(index)
            except UserError as error:
                self._reject(str(error))
                continue
            names.append(name)
            numbers.append(int(index))
            pictures.append(picture)
        side = self.resolution
        empty = torch.empty(0, 3, side, side)
        return names, numbers, torch.stack(pictures) if pictures else empty

    def batches(self, size: int) -> Iterator[Float[Tensor, "batch 3 side side"]]:
        """All readable pictures."""
        for start in range(0, len(self), size):
            _, _, pictures = self.batch(range(start, min(start + size, len(self))))
            if len(pictures):
                yield pictures

    def class_pair(self, index: int) -> tuple[str, str] | None:
        """The prefix of a picture's source and the name of its class, where the files tell one."""
        source, place = self._place(index)
        try:
            name = source.read(place).class_name
        except UserError:
            return None  # it is listed when its picture is asked for
        return None if name is None else (source.prefix, name)

    def class_pairs(self) -> list[tuple[str, str] | None]:
        """`class_pair` of every picture."""
        return [self.class_pair(index) for index in range(len(self))]

    def of_classes(self, classes: Sequence[str]) -> "PictureStream":
        """The pictures of some classes, named as in `match_class`.

        Raises:
            UserError: there are none.
        """
        pairs = self.class_pairs()
        kept = [i for i, pair in enumerate(pairs) if match_class(pair, classes) is not None]
        if not kept:
            found = ", ".join(class_names(pairs)) or "none"
            raise UserError(
                f"{self.paths[0]}: has no picture of the classes {', '.join(classes)}; its own "
                f"are {found}."
            )
        return self.part(kept).named(classes)

    def halves(self) -> tuple["PictureStream", "PictureStream"]:
        """Every second picture of each class, and the others.

        Pictures without a class, and those that are alone in theirs, count as one class.
        """
        labels = [self.label(index) for index in range(len(self))]
        counts = Counter(labels)
        turns: dict[str | None, int] = {}
        parts: tuple[list[int], list[int]] = ([], [])
        for index, own in enumerate(labels):
            label = own if counts[own] > 1 else None
            turn = turns.get(label, 0)
            parts[turn].append(index)
            turns[label] = 1 - turn
        return self.part(parts[0]), self.part(parts[1])

    def named(self, classes: Sequence[str]) -> "PictureStream":
        """The same pictures; `label` tells which of the classes they have."""
        other = self.part(range(len(self)))
        other.rejects, other.classes = self.rejects, classes
        return other

    def label(self, index: int) -> str | None:
        """Which of `classes` a picture has; None if it has none of them."""
        return match_class(self.class_pair(index), self.classes) if self.classes else None

    def inverse_depth(self, index: int) -> Float[Tensor, "side side"] | None:
        """True 1 / depth of the canonical view of a posed scene; None for a mere picture."""
        source, place = self._place(index)
        if not isinstance(source, CanonicalViews):
            return None
        return source.inverse_depth(place, self.resolution)

    def _place(self, index: int) -> tuple[PictureSource, int]:
        place = self._chosen[index]
        number = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self.sources[number], place - int(self._starts[number])

    def _reject(self, sentence: str) -> None:
        """Keep an unreadable picture once, however often it was asked for."""
        name = sentence.split(": ")[0]
        reject = Reject(name=name, reason=reason_of(sentence, name))
        if reject not in self.rejects:
            self.rejects.append(reject)


def class_names(pairs: Sequence[tuple[str, str] | None]) -> list[str]:
    """Sorted names of classes; prefixed only where two sources share one (``scene/car``)."""
    return sorted(joint_names(sorted({pair for pair in pairs if pair is not None})).values())


def match_class(pair: tuple[str, str] | None, classes: Sequence[str]) -> str | None:
    """Which of the classes a picture has: by its full name ``scene/car`` first, then by ``car``."""
    if pair is None:
        return None
    return next((name for name in ("/".join(pair), pair[1]) if name in classes), None)
