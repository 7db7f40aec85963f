"""Pascal3D+ cars and ImageNet's categories with the poses of textured-3d-gan.

::

    p3d/p3d_car/detections.npy                    pickled array of {image_path, mask, bbox}
    p3d/p3d_car/poses_estimated_singletpl_perspective.bin
    p3d/PASCAL3D+_release1.1/Images/...           image_path, after "datasets/"
    imagenet/imagenet_zebra/detections.npy
    imagenet/imagenet_zebra/poses_estimated_multitpl_perspective.bin
    imagenet/images/n02391049/...

Of a pose's z0, s, t and quaternion R: F = 1 + exp(z0), a point X is at R X + (t/s, F/s) before the
camera (x right, y down, z forward), and F/2 is the focal length in widths of the whole photo padded
to a square. Pavllo et al., arXiv 2103.15627; as read by the code of arXiv 2211.11674. What is not
masked becomes white.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unflat.data.object_frame import to_object_world, upright_turn
from unflat.data.pictures import open_picture
from unflat.data.plain_pickle import read_object_array
from unflat.data.run_length import run_length_mask
from unflat.data.sample import Reject
from unflat.data.square_view import square_view
from unflat.data.view_plan import ItemViews, sound_camera
from unflat.errors import UserError
from unflat.geometry import Camera
from unflat.geometry.camera import invert_rigid, rigid
from unflat.geometry.quaternion import rotation_from_quaternion
from unflat.torch_file import read_torch_file

_DETECTIONS = "detections.npy"
_POSES = (
    "poses_estimated_singletpl_perspective.bin",
    "poses_estimated_multitpl_perspective.bin",
)
_WIDTHS = {"z0": 1, "s": 1, "t": 2, "R": 4}  # numbers of a pose
_HALF_SIDE = 1.4  # of the published generator's box, world units


class Textured3dPlan:
    """The pictures of a category, each its own object.

    Args:
        path: the category's folder, or one around it.
        folder: the category's folder.
        limit: keep only the first so many.

    Raises:
        UserError: the poses are missing, or a file is damaged, or they do not belong together.
    """

    items = "pictures"

    def __init__(self, path: Path, folder: Path, limit: int | None = None) -> None:
        self.path, self.part = path, f"{folder.name} {limit}"
        self.layout = "imagenet" if folder.name.startswith("imagenet") else "p3d"
        self.rejects: list[Reject] = []
        file = next((folder / name for name in _POSES if (folder / name).is_file()), None)
        if file is None:
            raise UserError(
                f"{folder}: holds {_DETECTIONS} but no {_POSES[0]} or {_POSES[1]}; add the poses "
                "of textured-3d-gan."
            )
        self._sources = [folder / _DETECTIONS, file]
        # image_path begins at the folder around "p3d" or "imagenet", whatever it is called here.
        self._base = folder.parent.parent
        detections = read_object_array(self._sources[0].read_bytes(), str(self._sources[0]))
        poses, chosen = _poses(file)
        if detections.ndim != 1 or int(chosen.max()) >= len(detections) or int(chosen.min()) < 0:
            raise UserError(
                f"{file}: has poses of {int(chosen.max()) + 1} detections, of which {_DETECTIONS} "
                f"lists {len(detections)}; take both from one source."
            )
        camera = _cameras(poses)
        self._turn = upright_turn(camera[_sound_rows(camera)])
        self._camera = camera[:limit]
        self._detections: list[Any] = [detections[row] for row in chosen[:limit].tolist()]
        self._places = chosen[:limit].tolist()

    def __len__(self) -> int:
        """How many pictures have a pose."""
        return len(self._detections)

    def label(self, index: int) -> str:
        """See `ViewPlan`."""
        return f"{self.path.name}:{self.name_of(index)}"

    def name_of(self, index: int) -> str:
        """See `ViewPlan`: each detection is its own object; a photo may show several."""
        stored = self._detections[index]
        named = stored.get("image_path") if isinstance(stored, dict) else None
        return f"{named or 'detection'}:{self._places[index]}"

    def read(self, index: int, resolution: int) -> ItemViews:
        """See `ViewPlan`."""
        stored = self._detections[index]
        if not isinstance(stored, dict) or "image_path" not in stored:
            raise UserError("its detection has no image_path")
        if stored.get("mask") is None:
            raise UserError("its detection has no mask")
        mask = run_length_mask(stored["mask"])
        camera = sound_camera(self._camera[index : index + 1])
        content = self._picture(str(stored["image_path"])).read_bytes()
        picture = open_picture(content, name=self.label(index))
        image, matte = square_view(picture, mask, resolution)
        assert matte is not None  # there is a mask
        camera = to_object_world(camera, self._turn, _HALF_SIDE).to(dtype=torch.float32)
        return ItemViews(images=image[None], masks=matte[None], camera=camera)

    def files(self) -> Iterator[Path]:
        """See `ViewPlan`."""
        yield from self._sources
        for stored in self._detections:
            if isinstance(stored, dict) and isinstance(stored.get("image_path"), str):
                try:
                    yield self._picture(stored["image_path"])
                except UserError:
                    continue  # it is told when the picture is read

    def _picture(self, image_path: str) -> Path:
        name = image_path.replace("\\", "/").removeprefix("datasets/")
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or ":" in parts[0]:
            raise UserError(f"its picture {image_path} lies outside of the data set")
        # The folder "p3d" or "imagenet" itself may have been given another name.
        places = (self._base / name, self._sources[0].parent.parent.joinpath(*parts[1:]))
        return next((place for place in places if place.is_file()), places[0])


def category_folder(path: Path) -> Path | None:
    """The folder of detections and poses that a path means; None if it is another layout.

    Raises:
        UserError: there are several.
    """
    if not path.is_dir():
        return None
    if (path / _DETECTIONS).is_file():
        return path.resolve()
    found = sorted(file.parent for file in path.glob(f"*/{_DETECTIONS}"))
    found = found or sorted(file.parent for file in path.glob(f"*/*/{_DETECTIONS}"))
    if len(found) > 1:
        names = ", ".join(str(folder) for folder in found)
        raise UserError(f"{path}: holds several categories; give one of {names}.")
    return found[0].resolve() if found else None


def _poses(file: Path) -> tuple[dict[str, Tensor], Tensor]:
    """Numbers of all poses, in float64, and to which detections they belong."""
    again = "download poses_perspective.zip of textured-3d-gan again"
    try:
        stored = read_torch_file(file, again)
    except UserError as error:
        raise UserError(
            f"{file}: the poses are damaged, or hold more than numbers; {again}."
        ) from error
    if not isinstance(stored, dict) or not {"indices", *_WIDTHS} <= stored.keys():
        raise UserError(f"{file}: does not hold indices, z0, s, t and R; {again}.")
    chosen = torch.as_tensor(stored["indices"]).long().flatten()
    poses = {name: torch.as_tensor(stored[name]).double() for name in _WIDTHS}
    for name, width in _WIDTHS.items():
        if width == 1 and poses[name].ndim == 1:
            poses[name] = poses[name][:, None]
        if not len(chosen) or tuple(poses[name].shape) != (len(chosen), width):
            shape = tuple(poses[name].shape)
            raise UserError(
                f"{file}: {name} has the shape {shape} for {len(chosen)} poses, and must be "
                f"({len(chosen)}, {width}); {again}."
            )
    return poses, chosen


def _cameras(poses: dict[str, Tensor]) -> Camera:
    """In the world of the poses; of the padded photos."""
    strength = 1 + poses["z0"].exp()
    position = torch.cat([poses["t"], strength], dim=1) / poses["s"]
    motion = rigid(rotation_from_quaternion(poses["R"]), position)
    half = torch.full_like(strength, 0.5)
    return Camera(
        camera_to_world=invert_rigid(motion),
        intrinsics=torch.cat([strength / 2, strength / 2, half, half], dim=1),
    )


def _sound_rows(camera: Camera) -> Tensor:
    """Which cameras are made of numbers."""
    return camera.camera_to_world.isfinite().flatten(1).all(1).nonzero()[:, 0]
