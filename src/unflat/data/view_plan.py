"""What a layout of pictures to train from tells before any of them is decoded."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import UInt8
from torch import Tensor

from unflat.data.file_tree import FileTree
from unflat.data.pictures import told
from unflat.data.sample import Reject
from unflat.errors import UserError
from unflat.geometry import Camera

_RIGID_TOLERANCE = 1e-3  # of products of a rotation's columns; files keep six digits or more


@dataclass(frozen=True, kw_only=True)
class ItemViews:
    """The pictures of an item."""

    images: UInt8[Tensor, "views 3 side side"]
    """Over white, in 255ths."""
    masks: UInt8[Tensor, "views side side"] | None
    """Share of each pixel that the object covers, in 255ths."""
    camera: Camera | None
    """One for each picture, in the object world."""


@runtime_checkable
class ViewPlan(Protocol):
    """The items of a data set, each one or more pictures of one object."""

    path: Path
    """As given."""
    layout: str
    """Its name."""
    part: str
    """Which part of the data set it is, as by split and limit."""
    items: str
    """What the items are called in messages, in the plural."""
    rejects: list[Reject]
    """What was already found unusable."""

    def __len__(self) -> int:
        """How many items there are."""
        ...

    def label(self, index: int) -> str:
        """What messages call an item."""
        ...

    def name_of(self, index: int) -> str:
        """The object that an item shows, once it is read; items of one name show the same."""
        ...

    def read(self, index: int, resolution: int) -> ItemViews:
        """An item's pictures; raises `unflat.errors.UserError` if it cannot be used."""
        ...

    def files(self) -> Iterator[Path]:
        """All files from which the pictures and cameras come, for noticing that one changed."""
        ...


def read_item(plan: ViewPlan, index: int, resolution: int) -> ItemViews:
    """An item's pictures, with every reason against it as a sentence that begins with its label.

    Raises:
        UserError: a file is missing or damaged, or what it holds is no camera or mask.
    """
    with told(plan.label(index), "it"):
        return plan.read(index, resolution)


def stored_at(path: Path, tree: FileTree, folders: list[str]) -> Iterator[Path]:
    """Files directly inside some folders of a tree; the tar itself if it is one."""
    if not path.is_dir():
        yield path
        return
    for folder in folders:
        yield from (path / folder / name for name in tree.files(folder))


def sound_camera(camera: Camera) -> Camera:
    """The camera, if it is one.

    Raises:
        UserError: numbers are not finite, the matrix is no rotation with a position, or a focal
            length is not positive; the sentence does not name the item.
    """
    if not bool(camera.camera_to_world.isfinite().all() & camera.intrinsics.isfinite().all()):
        raise UserError("its camera holds numbers that are not finite")
    rotation = camera.rotation.double()
    error = (rotation.mT @ rotation - torch.eye(3, dtype=rotation.dtype)).abs().max()
    if float(error) > _RIGID_TOLERANCE or bool((rotation.det() < 0).any()):
        raise UserError("its camera's matrix is not a rotation with a position")
    if bool((camera.intrinsics[..., :2] <= 0).any()):
        raise UserError("its camera's focal length or scale is not positive")
    return camera
