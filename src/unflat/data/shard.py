"""WebDataset tars, read at random through an index of offsets.

Members that share everything before the first dot of their file name are one sample:
``000017.webp``, ``000017.disparity.png``, ``000017.cls``. Headers are walked once; after that a
sample costs one seek a member. Nothing stays open between reads, so a shard may be used from forked
workers and may be pickled.
"""

import io
import json
import os
import tarfile
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

from unflat.data.pictures import PICTURE_SUFFIXES
from unflat.data.sample import Reject, Sample, prefix_of
from unflat.errors import UserError

DISPARITY_EXTENSIONS = ("disparity.png", "disparity.npz", "npz")
"""Endings under which a disparity lies beside its picture, first match wins."""

_END_BLOCK = 512  # bytes of zeros that close a tar


@dataclass(frozen=True)
class Entry:
    """Where the members of one sample lie: ending -> (offset, size) in bytes."""

    key: str
    """The shared name, folder included."""
    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    """``{"webp": (512, 3400), "cls": (4608, 3)}``."""


class Shard:
    """All samples of one uncompressed tar, in the archive's order.

    Args:
        path: the tar.

    Raises:
        UserError: no such file, compressed, or not a tar at all. A tar that is cut short keeps its
            whole samples and lists the rest in `rejects`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rejects: list[Reject] = []
        self.entries: list[Entry] = _index(self.path, self.rejects)

    def __len__(self) -> int:
        """How many samples are whole."""
        return len(self.entries)

    def read(self, index: int) -> dict[str, bytes]:
        """The members of one sample by their ending: ``{"webp": ..., "cls": ...}``.

        Raises:
            UserError: the disk does not give the bytes.
        """
        entry = self.entries[index]
        try:
            with self.path.open("rb") as file:
                return {end: _read_at(file, *place) for end, place in entry.members.items()}
        except OSError as error:
            reason = error.strerror or type(error).__name__
            label = f"{self.path.name}:{entry.key}"
            raise UserError(f"{label}: cannot be read ({reason}).") from error


class ShardSource:
    """Pictures, disparities and class names of one tar.

    ``.cls`` holds a class name, or a number that the ``classes`` list of the neighbouring
    ``<stem>-ranges.json`` turns into a name (without that file the number is the name).

    Of a tar of posed objects only the pictures of its train split are given: the folder ``train``
    (SRN layout), or the folders that its ``train.txt`` lists (Objaverse layout).
    """

    positions: list[int]
    """Where each picture's sample is among the shard's entries."""

    def __init__(self, path: str | Path) -> None:
        self.shard = Shard(path)
        self.prefix = prefix_of(self.shard.path.stem)
        self.rejects = list(self.shard.rejects)
        self._class_names = _class_list(self.shard.path)
        self.positions = []
        if any(entry.key.endswith("/meta") for entry in self.shard.entries):
            raise UserError(
                f"{path}: holds posed scenes to evaluate on; give pictures to train from."
            )
        for index, entry in _train_split(self.shard):
            if _picture_ending(entry.members) is None:
                self.rejects.append(Reject(name=self._name(index), reason="holds no picture"))
            else:
                self.positions.append(index)

    def __len__(self) -> int:
        """How many samples hold a picture."""
        return len(self.positions)

    def read(self, index: int) -> Sample:
        """The files of one sample."""
        position = self.positions[index]
        members = self.shard.read(position)
        ending = _picture_ending(members)
        assert ending is not None  # samples without a picture are not listed
        disparity = next((members[e] for e in DISPARITY_EXTENSIONS if e in members), None)
        return Sample(
            name=self._name(position),
            image=members[ending],
            disparity=disparity,
            class_name=self._class_name(members.get("cls")),
        )

    def _name(self, position: int) -> str:
        return f"{self.shard.path.name}:{self.shard.entries[position].key}"

    def _class_name(self, content: bytes | None) -> str | None:
        if content is None:
            return None
        text = content.decode("utf-8", errors="replace").strip()
        if text.isdecimal() and int(text) < len(self._class_names):
            return self._class_names[int(text)]
        return text or None


def _train_split(shard: Shard) -> list[tuple[int, Entry]]:
    """The samples to train from, with their places: all, unless the tar has splits."""
    entries = list(enumerate(shard.entries))
    lists = {entry.key: index for index, entry in entries if "txt" in entry.members}
    if "train" in lists:
        listed = set(shard.read(lists["train"])["txt"].decode("utf-8", errors="replace").split())
        return [(i, entry) for i, entry in entries if entry.key.split("/")[0] in listed]
    splits = {entry.key.split("/")[0] for _, entry in entries if entry.key.count("/") >= 2}
    if "train" in splits and splits & {"val", "test"}:
        return [(i, e) for i, e in entries if e.key.startswith("train/") and "/rgb/" in e.key]
    return entries


def _index(path: Path, rejects: list[Reject]) -> list[Entry]:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; check the spelling.")
    size = path.stat().st_size
    entries: dict[str, Entry] = {}
    broken: set[str] = set()
    end = 0
    try:
        with tarfile.open(path, "r:") as archive:
            while True:
                try:
                    member = archive.next()
                except tarfile.ReadError:
                    break  # the last member's data is cut short; found below by its size
                if member is None:
                    break
                # tarfile would keep every header in memory
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue] no public way
                if not member.isreg():
                    continue
                key, ending = split_name(member.name)
                end = member.offset_data + member.size
                if end > size:
                    broken.add(key)
                entry = entries.setdefault(key, Entry(key))
                entry.members[ending] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise UserError(
            f"{path}: not a tar that unflat can read; it must be whole and uncompressed."
        ) from error
    if not _is_closed(path, end, size):
        if entries and not broken:  # cut between members: the last sample may lack some of them
            broken.add(next(reversed(entries)))
        rejects.extend(
            Reject(name=f"{path.name}:{key}", reason="the archive is cut short or damaged here")
            for key in sorted(broken)
        )
    whole = [entry for key, entry in entries.items() if key not in broken]
    if not whole:
        raise UserError(f"{path}: holds no whole sample; download it again.")
    return whole


def split_name(name: str) -> tuple[str, str]:
    """Key and ending of a member: ``a/0001.disparity.png`` is ``("a/0001", "disparity.png")``."""
    folder, _, file = name.removeprefix("./").rpartition("/")
    stem, _, ending = file.partition(".")
    return (f"{folder}/{stem}" if folder else stem), ending.lower()


def add_file(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Append a member that depends on nothing but its name and content."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _is_closed(path: Path, end: int, size: int) -> bool:
    padded = -(-end // _END_BLOCK) * _END_BLOCK
    if padded + _END_BLOCK > size:
        return False
    with path.open("rb") as file:
        file.seek(padded)
        return not any(file.read(_END_BLOCK))


def _read_at(file: io.BufferedReader, offset: int, size: int) -> bytes:
    file.seek(offset, os.SEEK_SET)
    return file.read(size)


def _picture_ending(members: Container[str]) -> str | None:
    return next((s[1:] for s in PICTURE_SUFFIXES if s[1:] in members), None)


def _class_list(path: Path) -> list[str]:
    neighbour = path.with_name(f"{path.stem}-ranges.json")
    if not neighbour.is_file():
        return []
    try:
        names = json.loads(neighbour.read_text(encoding="utf-8"))["classes"]
        return [str(name) for name in names]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{neighbour}: holds no list of class names; delete it or write it again."
        ) from error
