"""Scenes of several views with known cameras and depths, for evaluation.

A tar or a folder of scene folders::

    0007/rgb_0.webp ...      view 0 is canonical, the others are turned about the pivot
    0007/invdepth_0.png ...  16 bit: 1/z = value * 4 / 65535, z along the optical axis; 0 is sky
    0007/mask_0.png ...      optional: 255 where the object is
    0007/normal_0.png ...    optional: unit normals in world axes, (normal + 1) / 2 * 255; 0 is sky
    0007/meta.json           class, intrinsics in pixels, pivot, and a camera for each view
"""

import io
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from unflat.data.pictures import DECODE_ERRORS, open_picture, over_color
from unflat.data.sample import Reject, reason_of
from unflat.data.shard import Shard
from unflat.errors import UserError
from unflat.geometry import Camera, invert_rigid

INVERSE_DEPTH_UNIT = 4.0 / 65535.0
"""1/z per step of a 16-bit ``invdepth`` file; surfaces nearer than 0.25 cannot be stored."""

_PICTURE_ENDINGS = ("webp", "png", "jpg", "jpeg")


@dataclass(frozen=True, kw_only=True)
class PosedScene:
    """Views of one static scene, first the canonical one."""

    name: str
    """Folder of the scene."""
    class_name: str
    """What the scene shows."""
    images: Float[Tensor, "views 3 height width"]
    """Pictures, [0, 1]."""
    inverse_depth: Float[Tensor, "views height width"]
    """1/z along each view's optical axis, per world unit; 0 where there is no surface."""
    camera: Camera
    """One camera for each view, in the world of `pivot`."""
    angle_deg: Float[Tensor, " views"]
    """How far each view is turned from the canonical one, degrees."""
    pivot: Float[Tensor, "3"]
    """Point about which the cameras turn, on the canonical optical axis."""
    median_depth: float
    """Depth of the pivot in the canonical view, world units."""
    masks: Float[Tensor, "views height width"] | None = None
    """Share of each pixel that the object covers, where the files tell."""
    normals: Float[Tensor, "views 3 height width"] | None = None
    """Unit normals in world axes (averages where pixels were merged), where the files tell."""

    def in_canonical_frame(self) -> "PosedScene":
        """The same scene in scene world: the canonical camera at the identity."""
        motion = invert_rigid(self.camera.camera_to_world[0])
        normals = self.normals
        if normals is not None:
            normals = torch.einsum("ij,vjhw->vihw", motion[:3, :3], normals)
        camera = Camera(
            camera_to_world=motion @ self.camera.camera_to_world,
            intrinsics=self.camera.intrinsics,
        )
        pivot = motion[:3, :3] @ self.pivot + motion[:3, 3]
        return replace(self, camera=camera, pivot=pivot, normals=normals)


class PosedScenes:
    """All scenes of a tar or folder at one resolution, decoded as they are asked for.

    Going through them leaves out what cannot be read and lists it in `rejects`.

    Args:
        path: an uncompressed tar, or a folder of scene folders.
        resolution: side in pixels; pictures and 1/z are area-averaged. As stored if not given.
        limit: keep only the first so many scenes.

    Raises:
        UserError: no such file, or no scene in it.
    """

    def __init__(
        self, path: str | Path, resolution: int | None = None, *, limit: int | None = None
    ) -> None:
        self.path, self.resolution = Path(path), resolution
        self._broken: list[Reject] = []
        self._files = _list_files(self.path, self._broken)
        metas = [name for name in self._files if name.endswith("/meta.json")]
        names = sorted(name.removesuffix("/meta.json") for name in metas)
        if not names:
            raise UserError(
                f"{path}: holds no posed scene; every scene needs a folder with a meta.json."
            )
        self.names = names[:limit]
        self.rejects: list[Reject] = list(self._broken)

    def __len__(self) -> int:
        """How many scenes were found."""
        return len(self.names)

    def __iter__(self) -> Iterator[PosedScene]:
        """All readable scenes in the order of their names."""
        self.rejects = list(self._broken)
        for index, name in enumerate(self.names):
            try:
                yield self[index]
            except UserError as error:
                label = f"{self.path.name}:{name}"
                self.rejects.append(Reject(name=label, reason=reason_of(str(error), label)))

    def __getitem__(self, index: int) -> PosedScene:
        """One scene; raises `unflat.errors.UserError` if a file is missing or damaged."""
        name = self.names[index]
        label = f"{self.path.name}:{name}"
        try:
            meta = json.loads(self._files[f"{name}/meta.json"]())
            views = sorted(meta["views"], key=lambda view: view["index"])
            return PosedScene(
                name=name,
                class_name=str(meta["cls"]),
                images=torch.stack([self._picture(name, view["index"]) for view in views]),
                inverse_depth=self._maps(name, "invdepth", views)[:, 0] * INVERSE_DEPTH_UNIT,
                camera=_camera(meta, views),
                angle_deg=torch.tensor([float(view["angle_deg"]) for view in views]),
                pivot=torch.tensor(meta["pivot"], dtype=torch.float32),
                median_depth=float(meta["median_depth"]),
                masks=self._optional(name, "mask", views),
                normals=self._optional(name, "normal", views),
            )
        except (*DECODE_ERRORS, KeyError) as error:
            detail = f"{type(error).__name__}: {error}".split("\n")[0][:80]
            raise UserError(f"{label}: the scene cannot be read ({detail}).") from error

    def file(self, name: str) -> bytes:
        """The bytes of a file by its path within the tar or folder.

        Raises:
            UserError: there is none.
        """
        if name not in self._files:
            raise UserError(f"{self.path.name}:{name}: there is no such file; copy the set again.")
        return self._files[name]()

    def picture_file(self, name: str, view: int) -> bytes:
        """The picture file of a scene's view.

        Raises:
            UserError: there is none.
        """
        for ending in _PICTURE_ENDINGS:
            if f"{name}/rgb_{view}.{ending}" in self._files:
                return self.file(f"{name}/rgb_{view}.{ending}")
        raise UserError(f"{self.path.name}:{name}: has no picture of view {view}.")

    def inverse_depth(
        self, index: int, view: int, side: int | None = None
    ) -> Float[Tensor, "height width"]:
        """1 / depth of one view alone, per world unit, area-averaged; 0 where there is no surface.

        Raises:
            UserError: the file is missing or damaged.
        """
        name = f"{self.names[index]}/invdepth_{view}.png"
        try:
            stored = _read_map(self.file(name))[None]
        except DECODE_ERRORS as error:
            raise UserError(f"{self.path.name}:{name}: cannot be read; copy it again.") from error
        return resize_maps(stored, side or self.resolution)[0, 0] * INVERSE_DEPTH_UNIT

    def _picture(self, name: str, view: int) -> Tensor:
        content = self.picture_file(name, view)
        picture = open_picture(content, name=f"{self.path.name}:{name}")
        pixels = torch.from_numpy(np.array(over_color(picture), dtype=np.float32))
        return resize_maps(pixels.permute(2, 0, 1)[None] / 255.0, self.resolution)[0]

    def _maps(self, name: str, kind: str, views: list[dict]) -> Tensor:
        maps = [_read_map(self._files[f"{name}/{kind}_{view['index']}.png"]()) for view in views]
        return resize_maps(torch.stack(maps), self.resolution)

    def _optional(self, name: str, kind: str, views: list[dict]) -> Tensor | None:
        if f"{name}/{kind}_0.png" not in self._files:
            return None
        if kind == "mask":
            return self._maps(name, kind, views)[:, 0] / 255.0
        maps = [_read_map(self._files[f"{name}/{kind}_{view['index']}.png"]()) for view in views]
        stored = torch.stack(maps)
        is_surface = stored.sum(dim=1, keepdim=True) > 0
        normals = torch.where(is_surface, stored / 127.5 - 1.0, torch.zeros_like(stored))
        return resize_maps(normals, self.resolution)


def resize_maps(
    maps: Float[Tensor, "views channels height width"], side: int | None
) -> Float[Tensor, "views channels new_height new_width"]:
    """Square maps at another side: area-averaged when reduced, bilinear when enlarged."""
    if side is None or maps.shape[-1] == side:
        return maps
    if side < maps.shape[-1]:
        return functional.interpolate(maps, size=(side, side), mode="area")
    return functional.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)


def _read_map(content: bytes) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = Image.open(io.BytesIO(content), formats=["PNG"])
        values = np.asarray(picture).astype(np.float32)
    values = values[..., None] if values.ndim == 2 else values
    return torch.from_numpy(values.transpose(2, 0, 1).copy())


def _camera(meta: dict, views: list[dict]) -> Camera:
    width, height = float(meta["width"]), float(meta["height"])
    intrinsics = [meta["fl_x"] / width, meta["fl_y"] / height, meta["cx"] / width]
    intrinsics = torch.tensor([*intrinsics, meta["cy"] / height], dtype=torch.float32)
    poses = torch.tensor([view["cam2world"] for view in views], dtype=torch.float32)
    return Camera(camera_to_world=poses, intrinsics=intrinsics.expand(len(views), 4))


def _list_files(path: Path, broken: list[Reject]) -> dict[str, Callable[[], bytes]]:
    if path.is_dir():
        return {file.relative_to(path).as_posix(): file.read_bytes for file in path.glob("*/*.*")}
    shard = Shard(path)
    broken.extend(shard.rejects)
    return {
        f"{entry.key}.{ending}": partial(_member, shard, index, ending)
        for index, entry in enumerate(shard.entries)
        for ending in entry.members
    }


def _member(shard: Shard, index: int, ending: str) -> bytes:
    return shard.read(index)[ending]
