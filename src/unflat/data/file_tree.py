"""A folder or an uncompressed tar as one tree of files, for layouts that may lie in either.

tree = open_tree("cars-srn.tar")
tree.folders("train"), tree.files("train/ca-01/rgb"), tree.read("instances.csv")
"""

import os
from pathlib import Path
from typing import Protocol, runtime_checkable

from unflat.data.sample import Reject
from unflat.data.shard import Shard


@runtime_checkable
class FileTree(Protocol):
    """A tree of files: names use slashes, and "" is the root."""

    rejects: list[Reject]
    """What was already found broken."""

    def folders(self, where: str) -> list[str]:
        """Names of the folders directly inside, sorted; none if there is no such folder."""
        ...

    def files(self, where: str) -> list[str]:
        """Names of the files directly inside, sorted; none if there is no such folder."""
        ...

    def read(self, name: str) -> bytes:
        """A file's content; raises `FileNotFoundError` if it is not there."""
        ...


def open_tree(path: Path) -> FileTree:
    """The tree of a folder or a tar; raises `unflat.errors.UserError` if it is neither."""
    return _FolderTree(path) if path.is_dir() else _TarTree(path)


class _FolderTree:
    """A folder on the disk, listed where it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path, self.rejects = path, []

    def folders(self, where: str) -> list[str]:
        return self._names(where, is_folder=True)

    def files(self, where: str) -> list[str]:
        return self._names(where, is_folder=False)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def _names(self, where: str, is_folder: bool) -> list[str]:
        try:
            with os.scandir(self.path / where) as entries:
                names = [entry.name for entry in entries if entry.is_dir() == is_folder]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if not name.startswith("."))


class _TarTree:
    """Members of an uncompressed tar."""

    def __init__(self, path: Path) -> None:
        self.shard = Shard(path)
        self.rejects = list(self.shard.rejects)
        self._files: dict[str, dict[str, tuple[int, str]]] = {}
        self._folders: dict[str, set[str]] = {}
        for index, entry in enumerate(self.shard.entries):
            folder, _, stem = entry.key.rpartition("/")
            if stem.startswith(".") or not stem:
                continue
            for ending in entry.members:
                name = f"{stem}.{ending}" if ending else stem
                self._files.setdefault(folder, {})[name] = (index, ending)
            while folder:
                folder, _, last = folder.rpartition("/")
                self._folders.setdefault(folder, set()).add(last)

    def folders(self, where: str) -> list[str]:
        return sorted(self._folders.get(where, ()))

    def files(self, where: str) -> list[str]:
        return sorted(self._files.get(where, ()))

    def read(self, name: str) -> bytes:
        folder, _, file = name.rpartition("/")
        if file not in self._files.get(folder, ()):
            raise FileNotFoundError(f"{name} is missing")
        index, ending = self._files[folder][file]
        return self.shard.read(index)[ending]
