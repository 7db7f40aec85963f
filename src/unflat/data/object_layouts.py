"""Where each layout of posed objects keeps its objects, splits, pictures and cameras.

`unflat.data.posed_objects` says how the layouts look.
"""

import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch

from unflat.data.file_tree import FileTree
from unflat.data.pictures import PICTURE_SUFFIXES, picture_size
from unflat.errors import UserError
from unflat.geometry import Camera, camera_z_up_to_object, from_zero123

Layout = Literal["srn", "zero123", "turntable"]

USUAL_SPLITS = ("train", "val", "test")
"""In their usual order."""

_TRAIN_SHARE = 0.99  # of valid_paths.json, in the published loader


class Listed(NamedTuple):
    """An object that was found."""

    folder: str
    """From the root."""
    split: str | None
    """Where the layout tells it."""


class View(NamedTuple):
    """One view of an object."""

    picture: str
    """Its file."""
    camera: str
    """The file that tells its camera."""
    place: int
    """Its position among all views of the object."""


@runtime_checkable
class LayoutReader(Protocol):
    """What a layout knows.

    Damaged files raise what decoders raise, or an `unflat.errors.UserError` without a name.
    """

    layout: Layout

    def find(self, files: FileTree) -> list[Listed]:
        """All objects; none if this is another layout."""
        ...

    def views(self, files: FileTree, folder: str, resolution: int | None) -> list[View]:
        """All views of an object, of the stored size that suits the resolution."""
        ...

    def camera(self, files: FileTree, folder: str, views: Sequence[View]) -> Camera:
        """Cameras of some of an object's views, in the object world."""
        ...


class Srn:
    """Instances with ``rgb``, ``pose`` (camera-to-world, OpenCV axes) and ``intrinsics.txt``."""

    layout: Layout = "srn"

    def find(self, files: FileTree) -> list[Listed]:
        """See `LayoutReader`."""
        found = list(_srn_instances(files, "", 3))
        # cars_train is train, unless the set holds chairs_train as well.
        tops = {folder.split("/")[0] for folder in found if "/" in folder}
        short = {top: _split_word(top) for top in tops}
        if len(set(short.values())) < len(short):
            short = {top: top for top in tops}
        return [Listed(folder, short.get(folder.split("/")[0])) for folder in found]

    def views(self, files: FileTree, folder: str, resolution: int | None) -> list[View]:
        """See `LayoutReader`."""
        pictures = {_stem(name): name for name in _pictures(files, f"{folder}/rgb")}
        poses = {_stem(n): n for n in files.files(f"{folder}/pose") if n.endswith(".txt")}
        stems = _paired(pictures, poses)
        return [
            View(f"{folder}/rgb/{pictures[stem]}", f"{folder}/pose/{poses[stem]}", place)
            for place, stem in enumerate(stems)
        ]

    def camera(self, files: FileTree, folder: str, views: Sequence[View]) -> Camera:
        """See `LayoutReader`."""
        lines = files.read(f"{folder}/intrinsics.txt").decode().strip().splitlines()
        focal, cx, cy = (float(number) for number in lines[0].split()[:3])
        height, width = (float(number) for number in lines[-1].split())
        intrinsics = torch.tensor([focal / width, focal / height, cx / width, cy / height])
        poses = [np.array(files.read(v.camera).split(), np.float64).reshape(4, 4) for v in views]
        camera = Camera(
            camera_to_world=torch.from_numpy(np.stack(poses)),
            intrinsics=intrinsics.double().expand(len(views), 4),
        )
        return camera_z_up_to_object(camera).to(dtype=torch.float32)


class Zero123:
    """Folders of ``000.png`` and ``000.npy``; the files do not tell the field of view."""

    layout: Layout = "zero123"

    def find(self, files: FileTree) -> list[Listed]:
        """See `LayoutReader`."""
        top = files.files("")
        lists = {split: f"{split}.txt" for split in USUAL_SPLITS if f"{split}.txt" in top}
        if lists:
            return [
                Listed(uid, split)
                for split, name in lists.items()
                for uid in files.read(name).decode().split()
            ]
        if "valid_paths.json" in top:
            uids = [str(uid) for uid in json.loads(files.read("valid_paths.json"))]
            first = math.floor(len(uids) * _TRAIN_SHARE)
            return [Listed(u, "train" if i < first else "val") for i, u in enumerate(uids)]
        return [
            Listed(folder, None)
            for folder in files.folders("")
            if any(name.endswith(".npy") for name in files.files(folder))
        ]

    def views(self, files: FileTree, folder: str, resolution: int | None) -> list[View]:
        """See `LayoutReader`."""
        pictures = {_stem(name): name for name in _pictures(files, folder)}
        matrices = {_stem(n): n for n in files.files(folder) if n.endswith(".npy")}
        stems = _paired(pictures, matrices)
        return [
            View(f"{folder}/{pictures[stem]}", f"{folder}/{matrices[stem]}", place)
            for place, stem in enumerate(stems)
        ]

    def camera(self, files: FileTree, folder: str, views: Sequence[View]) -> Camera:
        """See `LayoutReader`."""
        matrices = [
            np.load(io.BytesIO(files.read(view.camera)), allow_pickle=False) for view in views
        ]
        stacked = torch.from_numpy(np.stack(matrices).astype(np.float64))
        return from_zero123(stacked).to(dtype=torch.float32)


class Turntable:
    """Folders with a ``meta.json``; K belongs to the smaller of the stored sizes."""

    layout: Layout = "turntable"

    def find(self, files: FileTree) -> list[Listed]:
        """See `LayoutReader`."""
        return [
            Listed(folder, None)
            for folder in files.folders("")
            if "meta.json" in files.files(folder)
            and b"cam2world_opencv" in files.read(f"{folder}/meta.json")
        ]

    def views(self, files: FileTree, folder: str, resolution: int | None) -> list[View]:
        """See `LayoutReader`."""
        meta, there = f"{folder}/meta.json", set(files.files(folder))
        stored = json.loads(files.read(meta))["views"]
        names = [str(view["file"]) for view in stored]
        lost = next((name for name in names if name not in there), None)
        if lost is not None or not names:
            raise UserError(f"picture {lost} is missing" if lost else "it has no view")
        side, _ = picture_size(files.read(f"{folder}/{names[0]}"))
        doubled = [f"_{2 * side}.".join(name.rsplit(".", 1)) for name in names]
        if resolution is not None and resolution > side and there.issuperset(doubled):
            names = doubled
        return [View(f"{folder}/{name}", meta, place) for place, name in enumerate(names)]

    def camera(self, files: FileTree, folder: str, views: Sequence[View]) -> Camera:
        """See `LayoutReader`."""
        stored = json.loads(files.read(f"{folder}/meta.json"))["views"]
        width, height = picture_size(files.read(f"{folder}/{stored[0]['file']}"))
        size = torch.tensor([width, height, width, height], dtype=torch.float64)
        chosen = [stored[view.place] for view in views]
        matrices = torch.tensor([view["K"] for view in chosen], dtype=torch.float64)
        pixels = [matrices[:, row, column] for row, column in ((0, 0), (1, 1), (0, 2), (1, 2))]
        poses = torch.tensor([v["cam2world_opencv"] for v in chosen], dtype=torch.float64)
        camera = Camera(camera_to_world=poses, intrinsics=torch.stack(pixels, dim=-1) / size)
        return camera_z_up_to_object(camera).to(dtype=torch.float32)


READERS: tuple[LayoutReader, ...] = (Srn(), Zero123(), Turntable())
"""In the order in which they are tried."""


def _srn_instances(files: FileTree, where: str, levels: int) -> Iterator[str]:
    """Folders that hold ``rgb`` or ``pose``, at most so many levels below."""
    for name in files.folders(where):
        folder = f"{where}/{name}" if where else name
        inner = files.folders(folder)
        if "rgb" in inner or "pose" in inner:
            yield folder
        elif levels > 1 and inner:
            yield from _srn_instances(files, folder, levels - 1)


def _split_word(folder: str) -> str:
    """``train`` for ``cars_train``."""
    return next((word for word in USUAL_SPLITS if folder.endswith(f"_{word}")), folder)


def _pictures(files: FileTree, folder: str) -> list[str]:
    return [name for name in files.files(folder) if name.lower().endswith(PICTURE_SUFFIXES)]


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0]


def _paired(pictures: dict[str, str], cameras: dict[str, str]) -> list[str]:
    """Stems that both have, in order."""
    alone = sorted(pictures.keys() ^ cameras.keys())
    if alone:
        counts = f"{len(pictures)} pictures and {len(cameras)} cameras"
        raise UserError(f"it has {counts}, and {alone[0]} is without its partner")
    if not pictures:
        raise UserError("it has no view")
    return sorted(pictures)
