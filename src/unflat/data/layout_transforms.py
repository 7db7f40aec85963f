"""Pictures with cameras in JSON: NeRF's and Blender's ``transforms.json``.

::

    car/transforms.json                 or transforms_train.json, transforms_val.json ...
    car/train/r_0.png                   file_path of a frame, with or without its ending
    cars/<object>/transforms.json       many objects; cars/train/<object>/ if there are splits

    {"camera_angle_x": 0.69,            or fl_x, fl_y, cx, cy in pixels of w and h
     "frames": [{"file_path": "./train/r_0", "transform_matrix": [[...], ...]}]}

A frame's own values go before the file's. ``transform_matrix`` is camera to world, the camera's x
right, y up, looking along -z, in a world with z up and front -y (Mildenhall et al., arXiv
2003.08934, its code; Blender). Beyond that: ``ortho_scale``, the width of an orthographic view in
world units as in Blender; ``mask_path``; ``object``, which object a frame shows, where a file holds
several; ``camera_to_world`` in place of the matrix, in our object world and OpenCV's axes, with
``intrinsics`` of the padded picture, as ``unflat invert`` writes both. What that verb has written
is read as it is, beside the pictures: ``car.jpg`` with ``car/pose.json`` or ``car.json``. Pictures
are padded to squares.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from unflat.data.file_tree import FileTree
from unflat.data.object_layouts import USUAL_SPLITS
from unflat.data.pictures import DECODE_ERRORS, PICTURE_SUFFIXES, open_picture
from unflat.data.sample import Reject
from unflat.data.square_view import padded_camera, square_view
from unflat.data.view_plan import ItemViews, sound_camera
from unflat.errors import UserError
from unflat.geometry import Camera
from unflat.geometry.frames import camera_z_up_to_object, flip_camera_axes

_FILE = "transforms"
_BENT = ("k1", "k2", "k3", "k4", "p1", "p2")  # distortion of a lens
_LEVELS = 3  # folders between the root and an object's file


class Listed(NamedTuple):
    """A file of cameras."""

    file: str
    """Its place in the tree."""
    split: str | None
    """Where its name or folder tells one."""
    picture: str | None = None
    """Whose camera it is, where it is that of one picture alone."""


class _Frame(NamedTuple):
    folder: str
    values: dict[str, Any]
    object: str


class TransformsPlan:
    """All pictures of such files; those of one file show one object, unless it tells otherwise.

    Args:
        path: of the folder or tar.
        tree: what is in it.
        split: keep only these files; all if not given.
        limit: keep only the first so many objects.

    Raises:
        UserError: no file can be read.
    """

    layout, items = "transforms", "pictures"

    def __init__(
        self, path: Path, tree: FileTree, split: str | None = None, limit: int | None = None
    ) -> None:
        self.path, self.tree, self.part = path, tree, f"{split} {limit}"
        self.rejects: list[Reject] = list(tree.rejects)
        self._listings: dict[str, set[str]] = {}
        files = [one for one in transforms_files(tree) if split in (None, one.split)]
        frames = [frame for file in files for frame in self._frames(file)]
        kept = list(dict.fromkeys(frame.object for frame in frames))[:limit]
        self.frames = [frame for frame in frames if frame.object in set(kept)]
        self._read_from = [one.file for one in files]
        if not self.frames:
            first = f" ({self.rejects[0].name}: {self.rejects[0].reason})" if self.rejects else ""
            raise UserError(
                f"{path}: none of its {len(files)} files of cameras lists a frame{first}."
            )

    def __len__(self) -> int:
        """How many pictures."""
        return len(self.frames)

    def label(self, index: int) -> str:
        """See `ViewPlan`."""
        frame = self.frames[index]
        return f"{self.path.name}:{_joined(frame.folder, str(frame.values.get('file_path')))}"

    def name_of(self, index: int) -> str:
        """See `ViewPlan`."""
        return self.frames[index].object

    def read(self, index: int, resolution: int) -> ItemViews:
        """See `ViewPlan`."""
        frame = self.frames[index]
        file = self._stored(frame, str(frame.values["file_path"]))
        picture = open_picture(self.tree.read(file), name=self.label(index))
        mask = None
        if frame.values.get("mask_path"):
            file = self._stored(frame, str(frame.values["mask_path"]))
            grey = open_picture(self.tree.read(file), name=file).convert("L")
            mask = np.asarray(grey) > 127
        image, matte = square_view(picture, mask, resolution)
        camera = sound_camera(_camera(frame.values, *picture.size)).to(dtype=torch.float32)
        return ItemViews(
            images=image[None], masks=None if matte is None else matte[None], camera=camera
        )

    def files(self) -> Iterator[Path]:
        """See `ViewPlan`."""
        if not self.path.is_dir():
            yield self.path
            return
        yield from (self.path / file for file in self._read_from)
        for frame in self.frames:
            for key in ("file_path", "mask_path"):
                if frame.values.get(key):
                    try:
                        yield self.path / self._stored(frame, str(frame.values[key]))
                    except UserError:
                        continue  # it is told when the picture is read

    def _frames(self, listed: Listed) -> list[_Frame]:
        """What a file lists, each frame with the file's values; none if it is damaged."""
        file = listed.file
        folder = file.rpartition("/")[0]
        try:
            stored = json.loads(self.tree.read(file))
            if listed.picture is not None:
                values = {**stored, "file_path": listed.picture}
                return [_Frame("", values, listed.picture.rsplit(".", 1)[0])]
            shared = {key: value for key, value in stored.items() if key != "frames"}
            rows = [{**shared, **frame} for frame in stored["frames"]]
        except DECODE_ERRORS as error:
            reason = f"it cannot be read ({type(error).__name__}: {error})"[:120]
            self.rejects.append(Reject(name=f"{self.path.name}:{file}", reason=reason))
            return []
        own = folder or self.path.stem
        return [
            _Frame(folder, row, _joined(own, str(row["object"])) if "object" in row else own)
            for row in rows
        ]

    def _stored(self, frame: _Frame, named: str) -> str:
        """The place of a frame's file in the tree."""
        file = _joined(frame.folder, named)
        if ".." in file.split("/") or file.startswith("/"):
            raise UserError(f"its file {named} lies outside of the data set")
        folder, _, name = file.rpartition("/")
        if folder not in self._listings:
            self._listings[folder] = set(self.tree.files(folder))
        there = self._listings[folder]
        names = (name, *(f"{name}{ending}" for ending in PICTURE_SUFFIXES))
        found = next((one for one in names if one in there), None)
        if found is None:
            raise UserError(f"its picture {file} is missing")
        return _joined(folder, found)


def transforms_files(tree: FileTree) -> list[Listed]:
    """All such files; none if this is another layout."""
    return list(_files_below(tree, "", None, _LEVELS)) or _beside_pictures(tree)


def _beside_pictures(tree: FileTree) -> list[Listed]:
    """Poses of single pictures, as they are written by ``unflat invert``."""
    names, folders = tree.files(""), set(tree.folders(""))
    found = []
    for name in names:
        stem = name.rsplit(".", 1)[0]
        if not name.lower().endswith(PICTURE_SUFFIXES):
            continue
        if f"{stem}.json" in names:
            found.append(Listed(f"{stem}.json", None, name))
        elif stem in folders and "pose.json" in tree.files(stem):
            found.append(Listed(f"{stem}/pose.json", None, name))
    is_pose = bool(found) and b'"camera_to_world"' in tree.read(found[0].file)
    return found if is_pose else []


def _files_below(tree: FileTree, folder: str, split: str | None, levels: int) -> Iterator[Listed]:
    """Files of a folder, else of those inside."""
    names = [name for name in tree.files(folder) if _is_transforms(name)]
    for name in names:
        word = name.removesuffix(".json").removeprefix(_FILE).strip("_")
        yield Listed(_joined(folder, name), word or split)
    if not names and levels:
        for name in tree.folders(folder):
            inner = name if name in USUAL_SPLITS else split
            yield from _files_below(tree, _joined(folder, name), inner, levels - 1)


def _is_transforms(name: str) -> bool:
    stem = name.removesuffix(".json")
    return name.endswith(".json") and (stem == _FILE or stem.startswith(f"{_FILE}_"))


def _joined(folder: str, name: str) -> str:
    parts = [part for part in name.replace("\\", "/").split("/") if part != "."]
    return "/".join(([folder] if folder else []) + parts)


def _camera(values: dict[str, Any], width: int, height: int) -> Camera:
    """The camera of the padded picture, in the object world."""
    if "camera_to_world" in values:
        inner = values["intrinsics"]
        numbers = [inner[key] for key in ("fx", "fy", "cx", "cy")]
        is_flat = values.get("kind") == "orthographic" or values.get("zoom", 0) is None
        return Camera(
            camera_to_world=_matrix(values["camera_to_world"]),
            intrinsics=torch.tensor([numbers], dtype=torch.float64),
            kind="orthographic" if is_flat else "perspective",
        )
    bent = [name for name in _BENT if values.get(name)]
    if bent:
        raise UserError(f"its lens bends lines ({bent[0]} is not 0); undistort the pictures first")
    is_flat = values.get("ortho_scale") is not None
    camera = Camera(
        camera_to_world=flip_camera_axes(_matrix(values["transform_matrix"])),
        intrinsics=_lens(values, width, height),
        kind="orthographic" if is_flat else "perspective",
    )
    return padded_camera(camera_z_up_to_object(camera), width, height)


def _lens(values: dict[str, Any], width: int, height: int) -> torch.Tensor:
    """Intrinsics of the picture."""
    # Pictures may be stored at another size than the lens was written down for.
    wide, high = float(values.get("w") or width), float(values.get("h") or height)
    if abs(wide * height - high * width) > max(width, height) + max(wide, high):
        raise UserError(f"its picture is {width}x{height}, its camera for {wide:g}x{high:g}")
    if values.get("ortho_scale") is not None:
        across = wide / float(values["ortho_scale"])  # pixels per world unit
        down = across
    elif values.get("fl_x") is not None:
        across = float(values["fl_x"])
        down = float(values.get("fl_y") or across)
    elif values.get("camera_angle_x") is not None:
        across = 0.5 * wide / np.tan(0.5 * float(values["camera_angle_x"]))
        angle = values.get("camera_angle_y")
        down = across if angle is None else 0.5 * high / np.tan(0.5 * float(angle))
    else:
        raise UserError("its camera has no camera_angle_x, fl_x or ortho_scale")
    center = [
        float(values[key]) / size if values.get(key) is not None else 0.5
        for key, size in (("cx", wide), ("cy", high))
    ]
    numbers = [across / wide, down / high, *center]
    return torch.tensor([numbers], dtype=torch.float64)


def _matrix(rows: Any) -> torch.Tensor:
    matrix = torch.tensor(rows, dtype=torch.float64)
    if matrix.shape != (4, 4):
        raise UserError(f"its matrix has the shape {tuple(matrix.shape)}, not (4, 4)")
    return matrix[None]
