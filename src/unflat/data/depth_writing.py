"""Disparities for a whole data set, each beside its picture, as the readers here find them.

::

    target = FolderTarget("photos/")                       # photos/cat/tom.disparity.png, ...
    target = ShardTarget("photos.tar", Path("maps"))       # maps/000017.disparity.png, ...
    written = write_disparities(target, lambda picture: estimator(picture.image))
    assemble(target, "photos-depth.tar")                   # of a tar only

What is there already is left as it is, so a run that was stopped is continued by running it again.
"""

import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from unflat.data.check import ACROSS, picture_tile
from unflat.data.depth_maps import (
    MAP_SUFFIXES,
    Meaning,
    encode_disparity,
    normalized_disparity,
    read_map,
)
from unflat.data.disparity import cut_map
from unflat.data.folder import FolderSource
from unflat.data.pictures import open_picture, over_color
from unflat.data.sample import Reject, Sample, reason_of
from unflat.data.shard import DISPARITY_EXTENSIONS, ShardSource
from unflat.errors import UserError
from unflat.files import atomic_path

ENDING = DISPARITY_EXTENSIONS[0]
"""Of what is written."""

MAP_NAMES = ("{}", "{}_depth", "{}-depth", "{}.depth", "{}_disparity", "{}-disparity")
"""What other programs call the map of ``{}``, each with an ending of `MAP_SUFFIXES`."""

_LEAST_MAPS = 8  # fewer pictures tell nothing of what is usual
_TURNED_ROUND = -0.1  # mean correlation with the row below which maps are suspected


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture that wants a disparity."""

    sample: Sample
    """Its files, and its name for messages."""
    key: str
    """Where it is in the data set, without its ending: ``cat/tom``."""
    image: UInt8[np.ndarray, "height width 3"]
    """Upright, transparency over white, reduced to the run's resolution."""
    size: tuple[int, int]
    """Width and height as stored and upright, pixels."""


@runtime_checkable
class Target(Protocol):
    """A data set, and where its disparities go."""

    source: FolderSource | ShardSource
    """The pictures."""

    def key(self, index: int) -> str:
        """Where a picture is in the data set, without its ending."""
        ...

    def has(self, index: int) -> bool:
        """Whether a picture came with a disparity, or was given one."""
        ...

    def place(self, index: int) -> Path:
        """Where its disparity is written; `UserError` if it cannot have one."""
        ...


class FolderTarget:
    """A folder; disparities go beside its pictures.

    Args:
        path: of the folder.

    Raises:
        UserError: no such folder, or no picture in it.
    """

    def __init__(self, path: str | Path) -> None:
        if (Path(path) / "train.tar").is_file():
            raise UserError(f"{path}: stands for its train.tar; give that tar itself.")
        source = FolderSource(path)
        self.source: FolderSource | ShardSource = source
        self.folder, self.files = source.path, source.files
        self._named = Counter(file.with_suffix("") for file in self.files)

    def key(self, index: int) -> str:
        """Path within the folder, without its ending."""
        return self.files[index].relative_to(self.folder).with_suffix("").as_posix()

    def has(self, index: int) -> bool:
        """Whether any of `DISPARITY_EXTENSIONS` lies beside the picture."""
        file = self.files[index]
        return any(file.with_name(f"{file.stem}.{e}").is_file() for e in DISPARITY_EXTENSIONS)

    def place(self, index: int) -> Path:
        """``tom.disparity.png`` beside ``tom.jpg``."""
        file = self.files[index]
        if self._named[file.with_suffix("")] > 1:
            raise UserError(
                f"{file}: shares its name with a picture of another ending, and one disparity "
                "cannot belong to both; rename one of them."
            )
        return file.with_name(f"{file.stem}.{ENDING}")


class ShardTarget:
    """A tar; disparities go into a folder, from which `assemble` makes a new tar.

    Args:
        path: of the tar.
        work: the folder, by places in the tar.

    Raises:
        UserError: no such tar, or it cannot be read.
    """

    def __init__(self, path: str | Path, work: Path) -> None:
        self.shards = ShardSource(path)
        self.source: FolderSource | ShardSource = self.shards
        self.work = work

    def key(self, index: int) -> str:
        """The shared name of the sample's members."""
        return self.shards.shard.entries[self.shards.positions[index]].key

    def has(self, index: int) -> bool:
        """Whether the tar holds a disparity, or the folder does."""
        entry = self.shards.shard.entries[self.shards.positions[index]]
        return any(e in entry.members for e in DISPARITY_EXTENSIONS) or self.place(index).is_file()

    def place(self, index: int) -> Path:
        """By the sample's place in the tar: names in a tar may lead anywhere."""
        return self.work / f"{self.shards.positions[index]:08d}.{ENDING}"


@dataclass(kw_only=True)
class Written:
    """How a run went."""

    written: int = 0
    """Pictures that were given a disparity."""
    kept: int = 0
    """Pictures that had one."""
    rejects: list[Reject] = field(default_factory=list)
    """Pictures that could not be given one, and why."""
    tiles: dict[str, list[UInt8[np.ndarray, "tall wide 3"]]] = field(default_factory=dict)
    """Some pictures above their disparities, by class."""
    floor_correlations: list[float] = field(default_factory=list)
    """Of each written map with the row: above 0 if what is lower in the picture is nearer."""

    @property
    def floor_correlation(self) -> float | None:
        """Mean over the maps; photographs mostly have the near below."""
        return float(np.mean(self.floor_correlations)) if self.floor_correlations else None

    @property
    def looks_turned_round(self) -> bool:
        """Whether the maps tell that the upper parts of pictures are near, taken together."""
        mean = self.floor_correlation
        return mean is not None and self.written >= _LEAST_MAPS and mean < _TURNED_ROUND


def write_disparities(
    target: Target,
    disparity_of: Callable[[Picture], Float[np.ndarray, "height width"]],
    *,
    resolution: int,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Disparity of every picture that has none: normalised, 16-bit PNG, 65535 nearest.

    Args:
        target: the pictures and the places.
        disparity_of: larger is nearer, of the whole picture, at any size and in any scale;
            `UserError` leaves the picture out.
        resolution: longer side of pictures and maps, pixels; smaller ones are not enlarged.
        force: write again what is there.
        progress: told (done, all) after each picture.
    """
    done = Written(rejects=list(target.source.rejects))
    count = len(target.source)
    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    mine = range(count)[rank::processes]
    for number, index in enumerate(mine, start=1):
        if target.has(index) and not force:
            done.kept += 1
        else:
            _write(target, index, disparity_of, resolution, done)
        if progress is not None:
            progress(number, len(mine))
    return done


def from_maps(
    folder: Path, meaning: Meaning
) -> Callable[[Picture], Float[np.ndarray, "height width"]]:
    """Finds maps that another program wrote, in a folder built like the data set.

    The map of ``cat/tom.jpg`` is ``cat/tom.png``, or any other of `MAP_NAMES` and `MAP_SUFFIXES`.

    Args:
        folder: of the maps.
        meaning: of their values.

    Raises:
        UserError: there is no such folder; later, a picture has no map, several, or a bad one.
    """
    if not folder.is_dir():
        raise UserError(f"--maps {folder}: there is no such folder; check the spelling.")

    def find(picture: Picture) -> Float[np.ndarray, "height width"]:
        stem = folder / picture.key
        names = [form.format(stem.name) + end for form in MAP_NAMES for end in MAP_SUFFIXES]
        found = [stem.with_name(name) for name in names if stem.with_name(name).is_file()]
        label = picture.sample.name
        if not found:
            raise UserError(f"{label}: has no map in {folder}; add {picture.key}.png or .npy.")
        if len(found) > 1:
            raise UserError(
                f"{label}: has {found[0].name} and {found[1].name}; leave only one of them."
            )
        values = read_map(found[0], meaning)
        cut_map(values, picture.size, label)  # refuses another shape than the picture's
        return values

    return find


def assemble(target: ShardTarget, out: str | Path) -> Path:
    """A new tar: every whole sample as it was, with the disparity that was written for it.

    The list of class names beside the old tar is copied beside the new one; the folder of
    disparities is removed once the tar is whole.

    Args:
        target: of the run.
        out: where to; whole or not at all.
    """
    out, shard = Path(out), target.shards.shard
    with atomic_path(out) as temporary, tarfile.open(temporary, "w") as archive:
        for position, entry in enumerate(shard.entries):
            members = shard.read(position)
            added = target.work / f"{position:08d}.{ENDING}"
            if added.is_file():
                members[ENDING] = added.read_bytes()
            for ending, content in members.items():
                info = tarfile.TarInfo(f"{entry.key}.{ending}" if ending else entry.key)
                info.size = len(content)
                archive.addfile(info, BytesIO(content))
    classes = shard.path.with_name(f"{shard.path.stem}-ranges.json")
    if classes.is_file():
        with atomic_path(out.with_name(f"{out.stem}-ranges.json")) as temporary:
            shutil.copyfile(classes, temporary)
    shutil.rmtree(target.work, ignore_errors=True)
    return out


def _write(
    target: Target,
    index: int,
    disparity_of: Callable[[Picture], Float[np.ndarray, "height width"]],
    resolution: int,
    done: Written,
) -> None:
    name = f"{target.source.prefix}:{target.key(index)}"
    try:
        sample = target.source.read(index)
        name = sample.name
        place = target.place(index)
        picture = _opened(sample, target.key(index), resolution)
        disparity = disparity_of(picture)
        if float(np.ptp(disparity)) <= 1e-6 * float(np.abs(disparity).max(initial=0.0)):
            raise UserError(f"{name}: its disparity came out the same everywhere.")
        disparity = normalized_disparity(_reduced(disparity, resolution))
    except UserError as error:
        done.rejects.append(Reject(name=name, reason=reason_of(str(error), name)))
        return
    with atomic_path(place) as temporary:
        temporary.write_bytes(encode_disparity(disparity))
    done.written += 1
    rows = np.broadcast_to(np.arange(len(disparity))[:, None], disparity.shape)
    done.floor_correlations.append(float(np.corrcoef(disparity.ravel(), rows.ravel())[0, 1]))
    row = done.tiles.setdefault(sample.class_name or "", [])
    if len(row) < ACROSS:
        row.append(picture_tile(picture.image, np.rint(disparity * 255).astype(np.uint8)))


def _opened(sample: Sample, key: str, resolution: int) -> Picture:
    whole = over_color(open_picture(sample.image, name=sample.name))
    size = whole.size
    factor = resolution / max(size)
    if factor < 1:
        smaller = (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
        whole = whole.resize(smaller, Image.Resampling.LANCZOS)
    return Picture(sample=sample, key=key, image=np.asarray(whole), size=size)


def _reduced(
    disparity: Float[np.ndarray, "height width"], resolution: int
) -> Float[np.ndarray, "rows columns"]:
    """At most the resolution on its longer side, area-averaged."""
    height, width = disparity.shape
    factor = resolution / max(height, width)
    if factor >= 1:
        return disparity.astype(np.float64)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    image = Image.fromarray(disparity.astype(np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BOX), dtype=np.float64)
