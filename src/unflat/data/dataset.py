"""Pictures of many folders and tars, decoded once and kept in memory as bytes.

::

    dataset = PictureDataset(["scenes-train.tar", "photos/"], resolution=64)
    batch = dataset.batch([0, 1, 2])     # image, disparity, has_disparity, label
    dataset.counts, dataset.rejects      # what was found, what was left out and why

A 64-pixel picture with its disparity takes 16 kB, so a million of them 16 GB.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from PIL import Image
from torch import Tensor

from unflat.data.compcars import CompCarsSource, is_compcars
from unflat.data.disparity import read_disparity, square_disparity
from unflat.data.folder import FolderSource
from unflat.data.pictures import (
    center_square,
    open_picture,
    over_color,
    picture_size,
    resize_square,
    square_around,
)
from unflat.data.sample import PictureSource, Reject, Sample, joint_names, reason_of
from unflat.data.shard import ShardSource
from unflat.errors import UserError

NO_LABEL = -1
"""Label of a picture whose layout tells no class."""


def open_source(path: str | Path) -> PictureSource:
    """The reader for a folder or a tar, told by what is in it.

    A folder with a ``train.tar`` in it means that tar; one with ``image/`` and ``label/`` as
    CompCars has them is cut to its boxes; all others are folders of classes.

    Raises:
        UserError: no such path, or no data set.
    """
    path = Path(path)
    if (path / "train.tar").is_file():
        return ShardSource(path / "train.tar")
    if path.is_dir():
        return CompCarsSource(path) if is_compcars(path) else FolderSource(path)
    if path.suffix == ".tar":
        return ShardSource(path)
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder; check the spelling.")
    raise UserError(f"{path}: not a data set; give a folder of pictures or an uncompressed .tar.")


class Decoded(NamedTuple):
    """One sample at a resolution."""

    image: UInt8[np.ndarray, "3 side side"]
    """The centred square."""
    disparity: UInt8[np.ndarray, "side side"]
    """In 255ths, zeros if there is none."""
    is_enlarged: bool
    """Whether the picture was smaller than that."""


def decode(sample: Sample, side: int) -> Decoded:
    """The picture and the disparity of a sample, cut and reduced alike.

    Raises:
        UserError: one of them cannot be used.
    """
    square, box, size = square_picture(sample, 2 * side)
    image = np.asarray(resize_square(square, side)).transpose(2, 0, 1)
    disparity = np.zeros((side, side), np.uint8)
    if sample.disparity is not None:
        values = read_disparity(sample.disparity, sample.name)
        values = square_disparity(values, side, size, sample.name, box)
        disparity = np.rint(values * 255.0).astype(np.uint8)
    return Decoded(image, disparity, square.width < side)


def square_picture(
    sample: Sample, at_least: int
) -> tuple[Image.Image, tuple[int, int, int, int] | None, tuple[int, int]]:
    """The square that counts, its box in the picture (None: the centre), the picture's size.

    Args:
        sample: with or without a box of its object.
        at_least: the square may be reduced while decoding down to this side, pixels.

    Raises:
        UserError: the picture cannot be used, or its box lies outside it.
    """
    if sample.box is None:
        picture = over_color(open_picture(sample.image, name=sample.name, at_least=at_least))
        return center_square(picture), None, picture.size
    width, height = picture_size(sample.image)
    if sample.box[0] >= width or sample.box[1] >= height:
        raise UserError(f"{sample.name}: its box lies outside its {width}x{height} pixels.")
    box = square_around(sample.box, width, height)
    # The square is a part of the picture, which may be reduced by less for that.
    enough = -(-at_least * min(width, height) // (box[2] - box[0]))
    picture = over_color(open_picture(sample.image, name=sample.name, at_least=enough))
    scale = picture.width / width
    side = max(1, min(round((box[2] - box[0]) * scale), *picture.size))
    left = min(round(box[0] * scale), picture.width - side)
    top = min(round(box[1] * scale), picture.height - side)
    return picture.crop((left, top, left + side, top + side)), box, (width, height)


class PictureDataset:
    """Square pictures with optional disparity and class, of one resolution.

    The centred square of the shorter side (or the one around the object, where the layout tells its
    box) is area-averaged to the resolution; transparency is
    composited over white. Disparity is cut alike and normalised to [0, 1] for each picture. What
    cannot be read is left out and listed in `rejects`.

    Args:
        paths: folders and tars.
        resolution: side in pixels.
        classes: keep only these (``car``, or ``scene/car`` where two sources share a name).
        cache: keep decoded pictures in memory. Without it every access decodes again, after one
            pass that finds what is unreadable.
        margin: further pixels on each picture's side, from which the sampler cuts random windows of
            `resolution`.

    Raises:
        UserError: a path is no data set, no picture is left, or a class does not exist.
    """

    images: UInt8[np.ndarray, "n 3 side side"] | None
    """Decoded pictures, channels first; None without `cache`."""
    disparities: UInt8[np.ndarray, "n side side"] | None
    """Decoded disparities in 255ths, zeros where there is none; None without `cache`."""
    has_disparity: Bool[np.ndarray, " n"]
    """Whether a picture came with disparity."""
    labels: Int[np.ndarray, " n"]
    """Index into `classes`, or `NO_LABEL`."""
    classes: list[str]
    """Sorted names of the labels."""
    names: list[str]
    """Where each picture came from."""
    rejects: list[Reject]
    """What was left out, and why."""
    counts: dict[str, int]
    """``pictures, disparity, rejected, enlarged`` (smaller than `resolution`), ``class NAME``."""

    def __init__(
        self,
        paths: Sequence[str | Path] | str | Path,
        resolution: int,
        *,
        classes: Sequence[str] | None = None,
        cache: bool = True,
        margin: int = 0,
    ) -> None:
        paths = [paths] if isinstance(paths, str | Path) else list(paths)
        if not paths:
            raise UserError("--data: names no data set; give a folder of pictures or a .tar.")
        self.resolution, self.side = resolution, resolution + margin
        self.sources = [open_source(path) for path in paths]
        self.rejects = [reject for source in self.sources for reject in source.rejects]
        self._places: list[tuple[int, int]] = []  # (source, index within it)
        self.names, self.class_keys, self._enlarged = [], [], 0
        self.class_keys: list[tuple[str, str] | None]
        self._decode_all(set(classes) if classes is not None else None, cache)
        if not self.names:
            raise UserError(self._nothing_left(paths, classes))
        self._set_labels()
        if classes is not None:
            self._require_classes(classes)

    def __len__(self) -> int:
        """How many pictures are usable."""
        return len(self.names)

    def pixels(
        self, indices: Sequence[int] | Int[np.ndarray, " batch"]
    ) -> tuple[UInt8[np.ndarray, "batch 3 side side"], UInt8[np.ndarray, "batch side side"]]:
        """Pictures and disparities in 255ths, as kept: with the margin."""
        indices = np.asarray(indices, dtype=np.int64)
        if self.images is not None and self.disparities is not None:
            return self.images[indices], self.disparities[indices]
        decoded = [decode(self._read(int(index)), self.side) for index in indices]
        return np.stack([d.image for d in decoded]), np.stack([d.disparity for d in decoded])

    def batch(self, indices: Sequence[int] | Int[np.ndarray, " batch"]) -> dict[str, Tensor]:
        """Pictures unchanged, the centred window where there is a margin, as training gets them."""
        indices = np.asarray(indices, dtype=np.int64)
        images, disparities = self.pixels(indices)
        start = (self.side - self.resolution) // 2
        window = slice(start, start + self.resolution)
        return to_batch(
            images[:, :, window, window],
            disparities[:, window, window],
            self.has_disparity[indices],
            self.labels[indices],
        )

    def _decode_all(self, wanted: set[str] | None, cache: bool) -> None:
        images, disparities, has = [], [], []
        for number, source in enumerate(self.sources):
            for index in range(len(source)):
                name = f"{source.prefix}:{index}"
                try:
                    sample = source.read(index)
                    name = sample.name
                    if wanted is not None and not _is_wanted(sample, source.prefix, wanted):
                        continue
                    decoded = decode(sample, self.side)
                except UserError as error:
                    self.rejects.append(Reject(name=name, reason=reason_of(str(error), name)))
                    continue
                if cache:
                    images.append(decoded.image)
                    disparities.append(decoded.disparity)
                has.append(sample.disparity is not None)
                self._enlarged += decoded.is_enlarged
                self._places.append((number, index))
                self.names.append(name)
                key = None if sample.class_name is None else (source.prefix, sample.class_name)
                self.class_keys.append(key)
        self.images = np.stack(images) if images else None
        self.disparities = np.stack(disparities) if disparities else None
        self.has_disparity = np.asarray(has, dtype=bool)

    def _read(self, index: int) -> Sample:
        source, position = self._places[index]
        return self.sources[source].read(position)

    def _set_labels(self) -> None:
        names = joint_names(sorted({key for key in self.class_keys if key is not None}))
        self.classes = sorted(names.values())
        position = {name: index for index, name in enumerate(self.classes)}
        self.labels = np.asarray(
            [NO_LABEL if key is None else position[names[key]] for key in self.class_keys],
            dtype=np.int64,
        )
        self.counts = {
            "pictures": len(self.names),
            "disparity": int(self.has_disparity.sum()),
            "rejected": len(self.rejects),
            "enlarged": self._enlarged,
        }
        for index, name in enumerate(self.classes):
            self.counts[f"class {name}"] = int((self.labels == index).sum())

    def _require_classes(self, classes: Sequence[str]) -> None:
        known = {key[1] for key in self.class_keys if key is not None}
        known |= {"/".join(key) for key in self.class_keys if key is not None}
        missing = sorted(set(classes) - known)
        if missing:
            raise UserError(
                f"--classes {','.join(missing)}: no picture has this class; "
                f"found {', '.join(self.classes)}."
            )

    def _nothing_left(self, paths: Sequence[str | Path], classes: Sequence[str] | None) -> str:
        shown = ", ".join(str(path) for path in paths)
        if classes is not None and not self.rejects:
            return f"--classes {','.join(classes)}: no picture of {shown} has such a class."
        first = f" ({self.rejects[0].name}: {self.rejects[0].reason})" if self.rejects else ""
        return f"{shown}: none of its {len(self.rejects)} pictures can be used{first}."


def to_batch(
    images: UInt8[np.ndarray, "batch 3 height width"],
    disparities: UInt8[np.ndarray, "batch height width"],
    has_disparity: Bool[np.ndarray, " batch"],
    labels: Int[np.ndarray, " batch"],
) -> dict[str, Tensor]:
    """The training batch: ``image`` and ``disparity`` in [0, 1], ``has_disparity``, ``label``."""
    return {
        "image": torch.from_numpy(images.astype(np.float32) / 255.0),
        "disparity": torch.from_numpy(disparities[:, None].astype(np.float32) / 255.0),
        "has_disparity": torch.from_numpy(np.array(has_disparity, dtype=bool)),
        "label": torch.from_numpy(np.array(labels, dtype=np.int64)),
    }


def _is_wanted(sample: Sample, prefix: str, wanted: set[str]) -> bool:
    name = sample.class_name
    return name is not None and (name in wanted or f"{prefix}/{name}" in wanted)
