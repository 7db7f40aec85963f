"""CARLA's cars as GRAF renders them: pictures on white, and a matrix for each.

::

    carla/<name>.png                                  square
    carla/carla_poses/<name>_extrinsics.npy           3x4: camera to world, x right, y up, z back
    carla/carla_poses/intrinsics.npy                  (1, 1, >=3, >=3): focal length, center; pixels

Schwarz et al., arXiv 2007.02442; as read by the code of arXiv 2211.11674. The world is z up; which
way cars look in it is not written down, so the object world's front may be their side.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from unflat.data.file_tree import FileTree
from unflat.data.object_frame import to_object_world
from unflat.data.pictures import DECODE_ERRORS, open_picture
from unflat.data.sample import Reject
from unflat.data.square_view import off_white, square_view
from unflat.data.view_plan import ItemViews, sound_camera, stored_at
from unflat.errors import UserError
from unflat.geometry import Camera
from unflat.geometry.camera import rigid
from unflat.geometry.frames import camera_z_up_to_object, flip_camera_axes

_PICTURES = ("", "carla", "images", "carla/images")
_POSES = ("carla_poses", "poses", "carla/carla_poses", "carla/poses")
_ENDING, _INTRINSICS = "_extrinsics.npy", "intrinsics.npy"
_HALF_SIDE = 3.0  # of the published generator's box, world units


class CarlaPlan:
    """All pictures, each its own object.

    Args:
        path: of the folder or tar.
        tree: what is in it.
        limit: keep only the first so many.

    Raises:
        UserError: the intrinsics are missing or damaged, or there is no picture.
    """

    layout, items = "carla", "pictures"

    def __init__(self, path: Path, tree: FileTree, limit: int | None = None) -> None:
        self.path, self.tree, self.part = path, tree, f"{limit}"
        self.rejects: list[Reject] = list(tree.rejects)
        self.poses = _pose_folder(tree) or _POSES[0]
        self.folder, names = next(
            ((folder, names) for folder in _PICTURES if (names := _pictures(tree, folder))),
            ("", []),
        )
        self.names = names[:limit]
        if not names:
            raise UserError(f"{path}: holds {self.poses}/ but no .png; add the pictures of CARLA.")
        label = f"{path.name}:{self.poses}/{_INTRINSICS}"
        try:
            content = tree.read(f"{self.poses}/{_INTRINSICS}")
            values = np.load(io.BytesIO(content), allow_pickle=False).astype(np.float64)
            self.focal, self.center = float(values[0, 0, 0, 0]), values[0, 0, :2, 2].tolist()
        except FileNotFoundError as error:
            raise UserError(f"{label}: is missing; unpack carla_poses.zip again.") from error
        except DECODE_ERRORS as error:
            raise UserError(
                f"{label}: holds no (1, 1, 3, 3) array or larger; unpack carla_poses.zip again."
            ) from error

    def __len__(self) -> int:
        """How many pictures."""
        return len(self.names)

    def label(self, index: int) -> str:
        """See `ViewPlan`."""
        return f"{self.path.name}:{self.name_of(index)}"

    def name_of(self, index: int) -> str:
        """See `ViewPlan`: each is its own."""
        return self.names[index].rsplit(".", 1)[0]

    def read(self, index: int, resolution: int) -> ItemViews:
        """See `ViewPlan`."""
        name = self.names[index]
        content = self.tree.read(f"{self.poses}/{self.name_of(index)}{_ENDING}")
        pose = np.load(io.BytesIO(content), allow_pickle=False)
        if pose.shape != (3, 4):
            raise UserError(f"its matrix has the shape {pose.shape}, not (3, 4)")
        where = f"{self.folder}/{name}" if self.folder else name
        picture = open_picture(self.tree.read(where), name=self.label(index))
        width, height = picture.size
        if width != height:
            raise UserError(f"its picture is {width}x{height}; it must be square")
        has_alpha = picture.mode == "RGBA" and np.asarray(picture.getchannel("A")).min() < 255
        image, mask = square_view(picture, None if has_alpha else off_white(picture), resolution)
        assert mask is not None  # by alpha or by white
        motion = torch.from_numpy(pose.astype(np.float64))
        numbers = [self.focal, self.focal, *self.center]
        camera = Camera(
            camera_to_world=flip_camera_axes(rigid(motion[:, :3], motion[:, 3]))[None],
            intrinsics=torch.tensor([numbers], dtype=torch.float64) / width,
        )
        camera = camera_z_up_to_object(sound_camera(camera))
        camera = to_object_world(camera, torch.eye(3), _HALF_SIDE).to(dtype=torch.float32)
        return ItemViews(images=image[None], masks=mask[None], camera=camera)

    def files(self) -> Iterator[Path]:
        """See `ViewPlan`."""
        yield from stored_at(self.path, self.tree, [self.folder, self.poses])


def is_carla(tree: FileTree) -> bool:
    """Whether there is a folder of such matrices."""
    return _pose_folder(tree) is not None


def _pose_folder(tree: FileTree) -> str | None:
    for folder in _POSES:
        names = tree.files(folder)
        if any(name.endswith(_ENDING) for name in names):
            return folder
    return None


def _pictures(tree: FileTree, folder: str) -> list[str]:
    return [name for name in tree.files(folder) if name.lower().endswith(".png")]
