"""Pictures in EG3D's layout: a folder or a zip with the cameras of all pictures in one file.

``dataset.json`` holds ``{"labels": [["00000/img0.png", [25 numbers]], ...]}``.
"""

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from unflat.data.pictures import (
    DECODE_ERRORS,
    center_square,
    open_picture,
    over_color,
    resize_square,
)
from unflat.data.view_plan import ItemViews
from unflat.errors import UserError
from unflat.geometry import Camera, from_eg3d

LABEL_FILE = "dataset.json"
"""By which the layout is known."""

_LABEL_NUMBERS = 25
_RIGID_TOLERANCE = 1e-4  # of products of a rotation's columns
_MOST_BYTES = 1 << 29  # of one file in a zip: a small archive cannot ask for all memory


class Eg3dPlan:
    """Pictures in EG3D's layout, each its own object.

    ``dataset.json`` holds ``{"labels": [[file, [25 numbers]], ...]}``: numbers are those
    of `unflat.geometry.from_eg3d`; its world is taken as it is. The centred square of a picture
    counts. Masks are there if every picture has transparency. A picture that cannot be read is left
    out; a label that is no camera is refused, for the others are then likely wrong as well.

    Args:
        path: a folder or a zip with ``dataset.json``.
        limit: keep only the first so many pictures.

    Raises:
        UserError: no such path, no labels, or a label that is no camera.
    """

    layout, items = "eg3d", "pictures"

    def __init__(self, path: str | Path, limit: int | None = None) -> None:
        self.path, self.part, self.rejects = Path(path), f"{limit}", []
        self._open = ExitStack()  # a zip's list of files is long: it is read once
        self._read = self._open.enter_context(_eg3d_files(self.path))
        self.names, self.camera = _eg3d_labels(self._read, self.path, limit)

    def __len__(self) -> int:
        """How many pictures."""
        return len(self.names)

    def label(self, index: int) -> str:
        """See `ViewPlan`."""
        return f"{self.path.name}:{self.names[index]}"

    def name_of(self, index: int) -> str:
        """See `ViewPlan`: each is its own."""
        return self.names[index]

    def read(self, index: int, resolution: int) -> ItemViews:
        """See `ViewPlan`."""
        name = self.names[index]
        image, mask = _square_picture(self._read, self.label(index), name, resolution)
        masks = None if mask is None else mask[None]
        return ItemViews(images=image[None], masks=masks, camera=self.camera[index : index + 1])

    def files(self) -> Iterator[Path]:
        """See `ViewPlan`."""
        if self.path.is_dir():
            yield from (self.path / name for name in (LABEL_FILE, *self.names))
        else:
            yield self.path


@contextmanager
def _eg3d_files(path: Path) -> Iterator[Callable[[str], bytes]]:
    """Reads files of a folder or zip by name; `FileNotFoundError` for those that are not there."""
    if path.is_dir():
        yield lambda name: (path / name).read_bytes()
        return
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder; check the spelling.")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path}: is no whole zip; copy or download it again.") from error

    def read(name: str) -> bytes:
        try:
            size = archive.getinfo(name).file_size
        except KeyError as error:
            raise FileNotFoundError(name) from error
        if size > _MOST_BYTES:
            raise ValueError(f"it unpacks to {size >> 20} MB")
        try:
            return archive.read(name)
        except zipfile.BadZipFile as error:
            raise OSError("it is damaged in the zip") from error

    with archive:
        yield read


def _eg3d_labels(
    read: Callable[[str], bytes], path: Path, limit: int | None
) -> tuple[list[str], Camera]:
    """Names and cameras of all pictures."""
    label = f"{path.name}:{LABEL_FILE}"
    try:
        rows = json.loads(read(LABEL_FILE))["labels"]
        rows = sorted((str(name), numbers) for name, numbers in rows)[:limit]
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: holds no {LABEL_FILE}, which tells the cameras; add it, or give a folder or "
            "tar of pictures."
        ) from error
    except DECODE_ERRORS as error:
        raise UserError(
            f"{label}: cannot be read ({_short(error)}); it must hold labels, a list of file and "
            f"{_LABEL_NUMBERS} numbers each."
        ) from error
    if not rows:
        raise UserError(f"{label}: lists no picture; write it again.")
    for name, numbers in rows:
        if not _is_row_of_numbers(numbers):
            raise UserError(
                f"{label}: the label of {name} is no camera; it must be {_LABEL_NUMBERS} numbers, "
                "as EG3D writes them."
            )
    labels = torch.tensor([numbers for _, numbers in rows], dtype=torch.float64)
    _require_cameras(labels, [name for name, _ in rows], label)
    return [name for name, _ in rows], from_eg3d(labels).to(dtype=torch.float32)


def _is_row_of_numbers(values: object) -> bool:
    return (
        isinstance(values, list)
        and len(values) == _LABEL_NUMBERS
        and all(isinstance(value, int | float) for value in values)
    )


def _require_cameras(labels: Float[Tensor, "n 25"], names: Sequence[str], label: str) -> None:
    """Refuse labels that no camera has, with the name of the first picture."""
    poses, inner = labels[:, :16].unflatten(1, (4, 4)), labels[:, 16:].unflatten(1, (3, 3))
    rotation = poses[:, :3, :3]
    is_square = (rotation.mT @ rotation - torch.eye(3)).abs().amax((1, 2)) <= _RIGID_TOLERANCE
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=labels.dtype)
    is_rigid = is_square & (torch.linalg.det(rotation) > 0) & (poses[:, 3] == last).all(1)
    zeros = inner.flatten(1)[:, [1, 3, 6, 7]]
    is_plain = (zeros == 0).all(1) & (inner[:, 2, 2] == 1) & (inner[:, [0, 1], [0, 1]] > 0).all(1)
    reasons = {
        "numbers that are not finite": labels.isfinite().all(1),
        "a matrix that is not a rotation with a position": is_rigid,
        "intrinsics with a skew, or a focal length that is not positive": is_plain,
    }
    for reason, is_good in reasons.items():
        if not bool(is_good.all()):
            name = names[int((~is_good).nonzero()[0, 0])]
            raise UserError(f"{label}: the label of {name} holds {reason}; write it again.")


def _square_picture(
    read: Callable[[str], bytes], label: str, name: str, side: int
) -> tuple[UInt8[Tensor, "3 side side"], UInt8[Tensor, "side side"] | None]:
    """A picture over white, and its matte where it has one."""
    try:
        content = read(name)
    except FileNotFoundError as error:
        raise UserError(f"{label}: the picture is missing.") from error
    except DECODE_ERRORS as error:
        raise UserError(f"{label}: cannot be read ({_short(error)}).") from error
    picture = center_square(open_picture(content, name=label))
    color = np.array(resize_square(over_color(picture), side))
    mask = None
    if picture.mode == "RGBA":
        mask = torch.from_numpy(np.array(resize_square(picture.getchannel("A"), side)))
    return torch.from_numpy(color).permute(2, 0, 1), mask


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0][:80]
