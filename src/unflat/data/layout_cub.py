"""CUB's birds with the annotations of CMR: weak perspective cameras and masks in MATLAB files.

::

    cub/data/{train,val,test}_cub_cleaned.mat     images: rel_path, bbox, mask
    cub/sfm/anno_{train,val,test}.mat             sfm_anno: rot 3x3, trans 2, scale
    cub/CUB_200_2011/images/<rel_path>

A point X falls on pixel scale * (rot X)[:2] + trans of the whole picture, x right and y down.
Kanazawa et al., arXiv 1803.07549; as read by the code of arXiv 2211.11674, whose frame this is: the
whole photo padded to a square. What is not masked becomes white.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unflat.data.file_tree import FileTree
from unflat.data.matlab import read_structs
from unflat.data.object_frame import to_object_world, upright_turn
from unflat.data.object_layouts import USUAL_SPLITS
from unflat.data.pictures import DECODE_ERRORS, open_picture
from unflat.data.sample import Reject
from unflat.data.square_view import padded_box, square_view
from unflat.data.view_plan import ItemViews, sound_camera
from unflat.errors import UserError
from unflat.geometry import Camera
from unflat.geometry.camera import rigid

_ROOTS = ("", "cub/")
_HALF_SIDE = 2.0  # of the published generator's box, world units
_AWAY = 10.0  # half widths of the view between camera and origin, as in the published code


class CubPlan:
    """The pictures of a split, each its own object.

    Args:
        path: of the folder or tar.
        tree: what is in it.
        split: one of `cub_splits`.
        limit: keep only the first so many.

    Raises:
        UserError: a MATLAB file is missing, damaged, or the two do not belong together.
    """

    layout, items = "cub", "pictures"

    def __init__(self, path: Path, tree: FileTree, split: str, limit: int | None = None) -> None:
        self.path, self.tree, self.part = path, tree, f"{split} {limit}"
        self.rejects: list[Reject] = list(tree.rejects)
        self.root = next(root for root in _ROOTS if _splits_below(tree, root))
        self._annotations = (_images_file(split), f"sfm/anno_{split}.mat")
        pictures, poses = (
            _structs(path, tree, f"{self.root}{file}", key)
            for file, key in zip(self._annotations, ("images", "sfm_anno"), strict=True)
        )
        if len(pictures) != len(poses):
            raise UserError(
                f"{path}: {self._annotations[0]} has {len(pictures)} pictures and "
                f"{self._annotations[1]} {len(poses)} poses; take both from one source."
            )
        self._turn = upright_turn(_all_poses(poses))
        self.names = [str(picture.get("rel_path")).replace("\\", "/") for picture in pictures]
        self.names = self.names[:limit]
        self._poses = poses[:limit]
        # Masks of all pictures come in one piece: as bits they take an eighth of it.
        self._masks = [_packed(picture.get("mask")) for picture in pictures[:limit]]

    def __len__(self) -> int:
        """How many pictures."""
        return len(self.names)

    def label(self, index: int) -> str:
        """See `ViewPlan`."""
        return f"{self.path.name}:{self.names[index]}"

    def name_of(self, index: int) -> str:
        """See `ViewPlan`: each is its own."""
        return self.names[index].rsplit(".", 1)[0]

    def read(self, index: int, resolution: int) -> ItemViews:
        """See `ViewPlan`."""
        packed = self._masks[index]
        if packed is None:
            raise UserError("it has no mask")
        bits, shape = packed
        mask = np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).astype(bool)
        content = self.tree.read(f"{self.root}CUB_200_2011/images/{self.names[index]}")
        picture = open_picture(content, name=self.label(index))
        image, matte = square_view(picture, mask, resolution)
        assert matte is not None  # there is a mask
        camera = sound_camera(_camera(self._poses[index], *picture.size))
        camera = to_object_world(camera, self._turn, _HALF_SIDE).to(dtype=torch.float32)
        return ItemViews(images=image[None], masks=matte[None], camera=camera)

    def files(self) -> Iterator[Path]:
        """See `ViewPlan`."""
        if not self.path.is_dir():
            yield self.path
            return
        pictures = (f"CUB_200_2011/images/{name}" for name in self.names)
        yield from (self.path / f"{self.root}{name}" for name in (*self._annotations, *pictures))


def cub_splits(tree: FileTree) -> tuple[str, ...]:
    """Splits whose pictures are listed; none if this is another layout."""
    return next((splits for root in _ROOTS if (splits := _splits_below(tree, root))), ())


def _splits_below(tree: FileTree, root: str) -> tuple[str, ...]:
    there = tree.files(f"{root}data")
    return tuple(split for split in USUAL_SPLITS if _images_file(split)[5:] in there)


def _images_file(split: str) -> str:
    return f"data/{split}_cub_cleaned.mat"


def _structs(path: Path, tree: FileTree, file: str, key: str) -> list[dict[str, Any]]:
    label = f"{path.name}:{file}"
    try:
        content = tree.read(file)
    except FileNotFoundError as error:
        raise UserError(f"{label}: is missing; add CMR's annotations of CUB.") from error
    return read_structs(content, key, label)


def _packed(mask: Any) -> tuple[np.ndarray, tuple[int, int]] | None:
    values = np.asarray(mask)
    if mask is None or values.ndim != 2 or not values.size or values.dtype.kind not in "biuf":
        return None
    return np.packbits(values != 0), (values.shape[0], values.shape[1])


def _numbers(pose: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, float]:
    """Rotation, shift and scale in pixels."""
    rotation, shift, scale = (
        np.asarray(pose[key], np.float64) for key in ("rot", "trans", "scale")
    )
    if rotation.shape != (3, 3) or shift.size != 2 or scale.size != 1:
        raise UserError(
            f"its rot, trans and scale have the shapes {rotation.shape}, {shift.shape}, "
            f"{scale.shape}; they must be (3, 3), (2,), ()"
        )
    return rotation, shift.reshape(2), float(scale.reshape(()))


def _camera(pose: dict[str, Any], width: int, height: int) -> Camera:
    """The camera of the padded picture, in the annotations' world."""
    rotation, shift, scale = _numbers(pose)
    left, top, side = padded_box(width, height)
    half = 2 * scale / side  # half sides of the square that a world unit spans
    right, down = 2 * (shift - (left, top)) / side - 1
    if not half > 0:
        raise UserError("its scale is not positive")
    # The shift is the camera's, so that the principal point stays in the middle.
    moved = torch.tensor([right, down, _AWAY], dtype=torch.float64) / half
    turn = torch.from_numpy(rotation)
    return Camera(
        camera_to_world=rigid(turn.mT, -(turn.mT @ moved))[None],
        intrinsics=torch.tensor([[half / 2, half / 2, 0.5, 0.5]], dtype=torch.float64),
        kind="orthographic",
    )


def _all_poses(poses: list[dict[str, Any]]) -> Camera:
    """How all readable cameras are turned."""
    turns = []
    for pose in poses:
        try:
            turns.append(sound_camera(_camera(pose, 1, 1)).camera_to_world)
        except (UserError, *DECODE_ERRORS):
            continue  # it is told when its picture is read
    if not turns:
        raise UserError("cub: none of its poses is a rotation, a shift and a scale; take CMR's.")
    every = torch.cat(turns)
    return Camera(
        camera_to_world=every,
        intrinsics=every.new_tensor([1.0, 1.0, 0.5, 0.5]).expand(len(every), 4),
        kind="orthographic",
    )
