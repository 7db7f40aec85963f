"""Folders of pictures: sub-folders are classes, a disparity may lie beside each picture.

::

    photos/cat/tom.jpg
    photos/cat/tom.disparity.png     8 or 16 bit, larger is nearer
    photos/dog/rex.jpg
    photos/dog/rex.npz               an array named disparity, inverse_depth or depth

Pictures directly in the folder have no class. Deeper folders belong to the class of the first
level. Hidden files and folders are passed over. Folders that are named as ImageNet names its
classes (``n01440764``) become words where a list of them is found; see `unflat.data.synsets`.
"""

from pathlib import Path

from unflat.data.pictures import PICTURE_SUFFIXES
from unflat.data.sample import Reject, Sample, prefix_of
from unflat.data.shard import DISPARITY_EXTENSIONS
from unflat.data.synsets import synset_names
from unflat.errors import UserError

_UNREADABLE_SUFFIXES = (".heic", ".heif", ".hif")  # pictures, but nothing here decodes them


class FolderSource:
    """Pictures of a folder in the order of their paths.

    Args:
        path: the folder.

    Raises:
        UserError: no such folder, or no picture in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(f"{path}: there is no such folder; check the spelling.")
        self.prefix = prefix_of(self.path.resolve().name)
        self.rejects: list[Reject] = []
        self.files: list[Path] = []
        for file in sorted(self.path.rglob("*")):
            relative = file.relative_to(self.path)
            if any(part.startswith(".") for part in relative.parts) or not file.is_file():
                continue
            if file.name.lower().endswith(".disparity.png"):
                continue
            suffix = file.suffix.lower()
            if suffix in PICTURE_SUFFIXES:
                self.files.append(file)
            elif suffix in _UNREADABLE_SUFFIXES:
                reason = "this file type is not readable; convert it to PNG or JPEG"
                self.rejects.append(Reject(name=str(file), reason=reason))
        if not self.files:
            raise UserError(
                f"{path}: holds no picture unflat can read (png, jpg, webp, tif, bmp, avif)."
            )

        self._names = synset_names(self.path, {self._folder(file) for file in self.files})

    def __len__(self) -> int:
        """How many pictures the folder holds."""
        return len(self.files)

    def read(self, index: int) -> Sample:
        """The files of one picture."""
        file = self.files[index]
        folder = self._folder(file)
        return Sample(
            name=str(file),
            image=read_file(file),
            disparity=disparity_beside(file),
            class_name=None if folder is None else self._names.get(folder, folder),
        )

    def _folder(self, file: Path) -> str | None:
        parts = file.relative_to(self.path).parts
        return parts[0] if len(parts) > 1 else None


def disparity_beside(file: Path) -> bytes | None:
    """The disparity file of a picture, if there is one."""
    for ending in DISPARITY_EXTENSIONS:
        neighbour = file.with_name(f"{file.stem}.{ending}")
        if neighbour.is_file():
            return read_file(neighbour)
    return None


def read_file(file: Path) -> bytes:
    """All bytes of a file.

    Raises:
        UserError: the disk does not give them.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{file}: cannot be read ({reason}); check its permissions.") from error
