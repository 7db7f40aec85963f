"""Where decoded pictures stay: in memory while they are few, else in a file of which rows are read.

A set that takes more than `IN_MEMORY` bytes is written to the user's cache folder and mapped, so
that a training touches the rows of its batch and no others; the next run finds it there. A folder
there is made whole under another name and then moved, and says of what files it was made: one whose
files have changed since is made anew.
"""

import hashlib
import json
import mmap
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

IN_MEMORY = 256 << 20
"""Bytes up to which pictures and masks of a set stay in memory."""

_FORMAT = 1
_HEADER, _IMAGES, _MASKS = "views.json", "images.u8", "masks.u8"
_TABLES = "tables.safetensors"
_FORGOTTEN = 24 * 3600  # seconds after which a killed run's unfinished folder is removed


class Slot(NamedTuple):
    """The place of a set's decoded pictures, and what they are made of."""

    folder: Path
    """In the cache; need not be there."""
    made_of: str
    """Changes with every file that the pictures come from."""


class Stored(NamedTuple):
    """Decoded pictures."""

    images: UInt8[Tensor, "n 3 side side"]
    masks: UInt8[Tensor, "n side side"] | None
    about: dict[str, Any]
    """What was kept beside them, ready for JSON."""
    tables: dict[str, Tensor]
    """And what of it has a row for each picture."""
    folder: Path | None
    """Where they are mapped from; None if they are in memory."""
    notes: list[str]
    """What went otherwise than it should have."""


def cache_folder() -> Path:
    """``UNFLAT_CACHE``, else ``unflat`` in ``XDG_CACHE_HOME``, else in ``~/.cache``."""
    named = os.environ.get("UNFLAT_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unflat"


def slot_of(
    path: Path, what: Iterable[object], files: Iterable[Path], *, room: str = "views"
) -> Slot:
    """The place of a set.

    Args:
        path: of the set.
        what: of it is kept, and how.
        files: from which its pictures come; names, sizes and times of change are looked at.
        room: folder of the cache.
    """
    choice = json.dumps([_FORMAT, str(path.resolve()), *map(str, what)])
    seen = hashlib.sha256()
    for file in files:
        try:
            status = file.stat()
            seen.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        except OSError:
            seen.update(f"{file}\0missing\n".encode())
    name = f"{path.stem[:40]}-{hashlib.sha256(choice.encode()).hexdigest()[:16]}"
    return Slot(cache_folder() / room / name, seen.hexdigest())


def find_stored(slot: Slot) -> Stored | None:
    """What an earlier run has stored, if it is whole and its files have not changed."""
    try:
        header = json.loads((slot.folder / _HEADER).read_text(encoding="utf-8"))
        if header["made_of"] != slot.made_of:
            return None
        shape = (int(header["pictures"]), 3, int(header["side"]), int(header["side"]))
        images = mapped_bytes(slot.folder / _IMAGES, shape)
        masks = None
        if header["has_masks"]:
            masks = mapped_bytes(slot.folder / _MASKS, (shape[0], *shape[2:]))
        tables = load_file(slot.folder / _TABLES)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    return Stored(images, masks, header["about"], tables, slot.folder, [])


class ViewStore:
    """Takes pictures one item after the other.

    Args:
        slot: where they go if they become many.
        side: of the pictures in pixels.
        in_memory: bytes of pictures and masks up to which they stay in memory.
    """

    def __init__(self, slot: Slot, side: int, in_memory: int = IN_MEMORY) -> None:
        self.slot, self.side, self.in_memory = slot, side, in_memory
        self.count, self.has_masks = 0, True
        self._images: list[Tensor] = []
        self._masks: list[Tensor] = []
        self._partial: Path | None = None
        self._open: list[IO[bytes]] = []
        self._notes: list[str] = []

    def __enter__(self) -> "ViewStore":
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def add(
        self,
        images: UInt8[Tensor, "views 3 side side"],
        masks: UInt8[Tensor, "views side side"] | None,
    ) -> None:
        """Pictures of an item; without masks of one item no masks are kept of any."""
        self.has_masks &= masks is not None
        # A mask keeps its row in the file even if it is not known, so that rows can be counted.
        masks = torch.zeros_like(images[:, 0]) if masks is None else masks
        self.count += len(images)
        self._images.append(images)
        self._masks.append(masks)
        if self._partial is not None or self._bytes() > self.in_memory:
            self._spill()

    def finish(self, about: dict[str, Any], tables: dict[str, Tensor]) -> Stored:
        """All pictures.

        Args:
            about: kept beside them, ready for JSON.
            tables: likewise, with a row for each picture.
        """
        if self._partial is not None:
            found = self._published(about, tables)
            if found is not None:
                return found
        images = _joined(self._images)
        masks = _joined(self._masks) if self.has_masks else None
        return Stored(images, masks, about, tables, None, self._notes)

    def _bytes(self) -> int:
        kept = 4 if self.has_masks else 3
        return kept * self.count * self.side**2 if not self._notes else 0

    def _spill(self) -> None:
        """Moves what is in memory to the end of the files."""
        try:
            if self._partial is None:
                self.slot.folder.parent.mkdir(parents=True, exist_ok=True)
                _remove_forgotten(self.slot.folder.parent)
                made = tempfile.mkdtemp(suffix=".partial", dir=self.slot.folder.parent)
                self._partial = Path(made)
                self._open = [(self._partial / name).open("wb") for name in (_IMAGES, _MASKS)]
            for file, rows in zip(self._open, (self._images, self._masks), strict=True):
                while rows:
                    file.write(rows[0].contiguous().numpy().tobytes())
                    file.flush()  # what does not fit has to be known while the row is still here
                    del rows[0]
        except OSError as error:
            self._return(error)

    def _return(self, error: OSError | SafetensorError) -> None:
        """Back to memory, since the disk does not take more."""
        reason = getattr(error, "strerror", None) or type(error).__name__
        self._notes.append(
            f"the pictures stay in memory ({self.slot.folder.parent}: {reason}); free some space, "
            "or name another folder by UNFLAT_CACHE"
        )
        if self._partial is not None:
            shapes = ((3, self.side, self.side), (self.side, self.side))
            for name, rows, shape in zip(
                (_IMAGES, _MASKS), (self._images, self._masks), shapes, strict=True
            ):
                whole = self.count - sum(len(row) for row in rows)
                path = self._partial / name
                if whole and path.exists():
                    values = np.fromfile(path, np.uint8, count=whole * int(np.prod(shape)))
                    rows.insert(0, torch.from_numpy(values.reshape(whole, *shape)))
        self._drop()

    def _published(self, about: dict[str, Any], tables: dict[str, Tensor]) -> Stored | None:
        """The files in their place; None if that failed."""
        assert self._partial is not None
        header = {
            "made_of": self.slot.made_of,
            "pictures": self.count,
            "side": self.side,
            "has_masks": self.has_masks,
            "about": about,
        }
        try:
            for file in self._open:
                file.close()
            if not self.has_masks:
                (self._partial / _MASKS).unlink()
            save_file(tables, self._partial / _TABLES)
            text = json.dumps(header)
            (self._partial / _HEADER).write_text(text, encoding="utf-8")
            if find_stored(self.slot) is None:  # else another process was faster
                shutil.rmtree(self.slot.folder, ignore_errors=True)
                with suppress(FileExistsError):
                    self._partial.rename(self.slot.folder)
        except (OSError, SafetensorError) as error:
            self._return(error)
            return None
        return find_stored(self.slot)

    def _drop(self) -> None:
        """Removes what is unfinished."""
        for file in self._open:
            with suppress(OSError):
                file.close()
        if self._partial is not None:
            shutil.rmtree(self._partial, ignore_errors=True)
        self._open, self._partial = [], None


def _joined(rows: list[Tensor]) -> Tensor:
    """All rows in one piece, each let go when it is copied: only then is nothing held twice."""
    whole = torch.empty((sum(len(row) for row in rows), *rows[0].shape[1:]), dtype=torch.uint8)
    start = 0
    rows.reverse()
    while rows:
        row = rows.pop()
        whole[start : start + len(row)] = row
        start += len(row)
    return whole


def mapped_bytes(path: Path, shape: tuple[int, ...]) -> UInt8[Tensor, "..."]:
    """A file's bytes as a tensor that reads them when they are asked for.

    Raises:
        OSError: there is no such file.
        ValueError: it is longer or shorter than the shape says.
    """
    if path.stat().st_size != int(np.prod(shape)):
        raise ValueError(f"{path} is not whole")
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_RANDOM"):  # rows of a batch lie anywhere: reading ahead is wasted
        content.madvise(mmap.MADV_RANDOM)
    values = np.frombuffer(content, np.uint8).reshape(shape)
    with warnings.catch_warnings():
        # That nobody may write here is meant; nothing of unflat changes pictures in place.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def _remove_forgotten(folder: Path) -> None:
    """Removes what runs that were killed have left unfinished."""
    for partial in folder.glob("*.partial"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > _FORGOTTEN:
                shutil.rmtree(partial, ignore_errors=True)
