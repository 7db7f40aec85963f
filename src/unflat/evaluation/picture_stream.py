"""Pictures of folders and tars one batch at a time, so that any number of them fits in memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unflat.data.dataset import open_source
from unflat.data.pictures import center_square, open_picture, over_color
from unflat.data.sample import Reject, reason_of
from unflat.errors import UserError


class PictureStream:
    """Pictures decoded when they are asked for: center square, antialiased bicubic, 8 bits.

    Args:
        paths: folders and tars.
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
        self.sources = [open_source(path) for path in paths]
        self.rejects = [reject for source in self.sources for reject in source.rejects]
        self._starts = np.cumsum([0, *(len(source) for source in self.sources)])
        self._chosen = range(int(self._starts[-1])) if chosen is None else chosen

    def __len__(self) -> int:
        """How many pictures are listed; some may turn out to be unreadable."""
        return len(self._chosen)

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
        place = self._chosen[index]
        number = int(np.searchsorted(self._starts, place, side="right")) - 1
        sample = self.sources[number].read(place - int(self._starts[number]))
        picture = open_picture(sample.image, name=sample.name, at_least=2 * self.resolution)
        square = center_square(over_color(picture))
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

    def _reject(self, sentence: str) -> None:
        """Keep an unreadable picture once, however often it was asked for."""
        name = sentence.split(": ")[0]
        reject = Reject(name=name, reason=reason_of(sentence, name))
        if reject not in self.rejects:
            self.rejects.append(reject)
