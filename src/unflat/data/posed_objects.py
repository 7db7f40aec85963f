"""Objects seen from several known cameras: the layouts of SRN, of Zero-1-to-3, and turntables.

A tar or a folder; what is in it tells the layout::

    train/<instance>/rgb/000000.png       srn: white background; test/ and val/ beside train/, or
    train/<instance>/pose/000000.txt      cars_train/ and cars_test/, with one more level or none
    train/<instance>/intrinsics.txt
    instances.csv                         optional

    <uid>/000.png, <uid>/000.npy          zero123: RGBA, and world-to-camera 3x4 of Blender's axes
    train.txt, val.txt                    or valid_paths.json, whose last hundredth is val
    objects.csv                           optional, with a column class

    <object>/000.webp ... meta.json       turntable: photographs; K and cam2world_opencv of each

All worlds are z up with front -y in the files and y up with front +z here.

    for item in PosedObjects("cars-srn.tar", "test"):
        item.images, item.camera
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unflat.data.file_tree import FileTree, open_tree
from unflat.data.object_layouts import READERS, USUAL_SPLITS, Layout, LayoutReader, Listed
from unflat.data.pictures import DECODE_ERRORS, open_picture, told
from unflat.data.posed import resize_maps
from unflat.data.sample import Reject, reason_of
from unflat.errors import UserError
from unflat.geometry import Camera

_RIGID_TOLERANCE = 1e-3  # of products of a rotation's columns; files keep six digits or more


@dataclass(frozen=True, kw_only=True)
class PosedObject:
    """Views of one object."""

    name: str
    """Folder of the object: instance, uid, or what was photographed."""
    class_name: str | None
    """What the object is, where the set's table has a column ``class``."""
    images: Float[Tensor, "views 3 height width"]
    """Pictures, [0, 1]; what is transparent in the files lies over white."""
    masks: Float[Tensor, "views height width"] | None
    """Share of each pixel that the object covers; of srn, 1 where any channel is below white.

    None where the files do not tell: photographs on a turntable.
    """
    camera: Camera
    """One camera for each view, in the object world: y up, front +z.

    A turntable's front is not known; its first view is at azimuth 90 degrees.
    """


class PosedObjects:
    """All objects of a tar or folder, decoded as they are asked for.

    Going through them leaves out what cannot be read and lists it in `rejects`.

    Args:
        path: an uncompressed tar, or a folder.
        split: as in `splits`; all objects if not given.
        resolution: side in pixels to which square pictures are area-averaged (smaller ones are
            enlarged bilinearly). As stored if not given.
        limit: keep only the first so many objects.

    Raises:
        UserError: no such file, no objects in it, or no such split.
    """

    def __init__(
        self,
        path: str | Path,
        split: str | None = None,
        *,
        resolution: int | None = None,
        limit: int | None = None,
    ) -> None:
        self.path, self.resolution = Path(path), resolution
        self._files = open_tree(self.path)
        detected = _detect(self._files, path)
        if detected is None:
            raise UserError(
                f"{path}: holds no objects with cameras; looked for folders with rgb/ and "
                "pose/ (SRN), with 000.png and 000.npy (Zero-1-to-3), and with a meta.json of a "
                "turntable."
            )
        self._reader, found = detected
        self.layout: Layout = self._reader.layout
        self.splits: tuple[str, ...] = _ordered({item.split for item in found})
        if split is not None:
            if split not in self.splits:
                there = ", ".join(self.splits) if self.splits else "none"
                raise UserError(f"{path}: has no split {split}; the splits there are: {there}.")
            found = [item for item in found if item.split == split]
        self._items = found[:limit]
        self.names = [item.folder.split("/")[-1] for item in self._items]
        self._classes = _classes(self._files)
        self._listed_rejects = list(self._files.rejects)
        self.rejects: list[Reject] = list(self._listed_rejects)

    def __len__(self) -> int:
        """How many objects were found."""
        return len(self.names)

    def __iter__(self) -> Iterator[PosedObject]:
        """All readable objects, in the order of their names or of the set's lists."""
        self.rejects = list(self._listed_rejects)
        for index in range(len(self)):
            try:
                yield self[index]
            except UserError as error:
                self.reject(index, error)

    def __getitem__(self, index: int) -> PosedObject:
        """All views of an object; `UserError` if a file is missing or damaged."""
        return self._read(index, None)

    def view_count(self, index: int) -> int:
        """How many views an object has, without decoding them.

        Raises:
            UserError: views without a camera, or cameras without a picture.
        """
        with told(self.label(index), "the object"):
            return len(self._reader.views(self._files, self._items[index].folder, None))

    def views(self, index: int, chosen: Sequence[int]) -> PosedObject:
        """Some views of an object, in the order asked for; only these are decoded.

        Raises:
            UserError: a file is missing or damaged.
            IndexError: there is no such view.
        """
        return self._read(index, chosen)

    def reject(self, index: int, error: UserError) -> None:
        """Adds an object to `rejects`, for those who go through the objects by index."""
        label = self.label(index)
        self.rejects.append(Reject(name=label, reason=reason_of(str(error), label)))

    def label(self, index: int) -> str:
        """What messages call an object."""
        return f"{self.path.name}:{self._items[index].folder}"

    def folder(self, index: int) -> str:
        """An object's folder from the root."""
        return self._items[index].folder

    def _read(self, index: int, chosen: Sequence[int] | None) -> PosedObject:
        folder, label = self._items[index].folder, self.label(index)
        with told(label, "the object"):
            views = self._reader.views(self._files, folder, self.resolution)
        if chosen is not None:
            views = [views[view] for view in chosen]
        with told(label, "the object"):
            camera = self._reader.camera(self._files, folder, views)
            _require_rigid(camera, label)
            pictures = [self._picture(view.picture, label) for view in views]
            if len({picture.shape for picture in pictures}) > 1:
                raise UserError(f"{label}: its pictures differ in size.")
            stacked = torch.stack(pictures)
            return PosedObject(
                name=self.names[index],
                class_name=self._classes.get(self.names[index]),
                images=stacked[:, :3],
                masks=stacked[:, 3] if self.layout != "turntable" else None,
                camera=camera,
            )

    def _picture(self, name: str, label: str) -> Float[Tensor, "4 height width"]:
        """Color over white, and matte."""
        pixels = np.asarray(open_picture(self._files.read(name), name=label), dtype=np.float32)
        values = torch.from_numpy(pixels.transpose(2, 0, 1) / 255.0)
        height, width = values.shape[1:]
        if self.resolution is not None and height != width:
            raise UserError(f"{label}: its pictures are {width}x{height}; they must be square.")
        alpha = values[3:] if len(values) == 4 else torch.ones_like(values[:1])
        color = values[:3] * alpha + (1.0 - alpha)
        if self.layout == "srn":
            alpha = (color < 1.0).any(dim=0, keepdim=True).float()
        return resize_maps(torch.cat([color, alpha])[None], self.resolution)[0]


def splits_of_objects(path: str | Path) -> tuple[str, ...] | None:
    """Splits of a tar or folder of posed objects; None if it holds none.

    Raises:
        UserError: no such file, or its lists cannot be read.
    """
    detected = _detect(open_tree(Path(path)), path)
    return None if detected is None else _ordered({item.split for item in detected[1]})


def _detect(files: FileTree, path: str | Path) -> tuple[LayoutReader, list[Listed]] | None:
    """The layout and what is in it; None if it is none of those known."""
    for reader in READERS:
        try:
            found = reader.find(files)
        except DECODE_ERRORS as error:
            raise UserError(f"{path}: its lists cannot be read ({error}).") from error
        if found:
            return reader, found
    return None


def _ordered(splits: set[str | None]) -> tuple[str, ...]:
    named = {split for split in splits if split is not None}
    usual = [split for split in USUAL_SPLITS if split in named]
    return (*usual, *sorted(named.difference(usual)))


def _require_rigid(camera: Camera, label: str) -> None:
    rotation = camera.rotation
    if not bool(camera.camera_to_world.isfinite().all() & camera.intrinsics.isfinite().all()):
        raise UserError(f"{label}: a camera holds numbers that are not finite.")
    error = (rotation.mT @ rotation - torch.eye(3)).abs().max()
    if error > _RIGID_TOLERANCE or bool((torch.linalg.det(rotation) < 0).any()):
        raise UserError(f"{label}: a camera's matrix is not a rotation with a position.")
    if bool((camera.intrinsics[:, :2] <= 0).any()):
        raise UserError(f"{label}: a camera's focal length is not positive.")


def _classes(files: FileTree) -> dict[str, str]:
    """Class by name, from the set's table where it has that column."""
    for table in ("objects.csv", "instances.csv"):
        if table in files.files(""):
            rows = csv.DictReader(io.StringIO(files.read(table).decode("utf-8", "replace")))
            fields = rows.fieldnames or ()
            if "class" in fields:
                name = next(iter(fields))  # instance or uid
                return {row[name]: row["class"] for row in rows if row["class"]}
    return {}
