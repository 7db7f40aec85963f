"""What is in a data set: counts, sizes, what cannot be used and why, and a sheet to look at.

::

    report = check(["photos/", "scenes-train.tar"])
    report.class_counts, report.rejects
    report.sheet.save("sheet.png")
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from unflat.data.dataset import decode, open_source
from unflat.data.pictures import picture_size
from unflat.data.posed import PosedScenes
from unflat.data.posed_objects import PosedObjects, splits_of_objects
from unflat.data.sample import PictureSource, Reject, joint_names, prefix_of, reason_of
from unflat.data.shard import Shard
from unflat.data.view_layouts import OBJECTS_FILE, published_plan
from unflat.data.view_plan import ViewPlan, read_item
from unflat.data.view_rig import RigCheck
from unflat.errors import UserError
from unflat.geometry import Camera

_TILE = 64  # pixels of a picture on the sheet
_MOST_ROWS = 40  # classes on the sheet
_LABEL_HEIGHT = 14
_NO_CLASS = "(no class)"

ACROSS = 8
"""Tiles in a row of a sheet."""


@dataclass(kw_only=True)
class CheckReport:
    """What was found in one or more data sets."""

    paths: list[str]
    """As given."""
    pictures: int = 0
    """Usable pictures; views of posed scenes included."""
    scenes: int = 0
    """Posed scenes."""
    with_disparity: int = 0
    """Pictures with a usable disparity."""
    class_counts: dict[str, int] = field(default_factory=dict)
    """Pictures of each class, sorted by name; posed scenes count once."""
    size_counts: dict[str, int] = field(default_factory=dict)
    """Pictures of each ``width x height``, the most frequent first."""
    layouts: list[str] = field(default_factory=list)
    """A sentence on each data set with cameras: its layout, and what its cameras are."""
    cameras: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of each set of objects with cameras, by path: what pictures say of them, see `RigCheck`."""
    warnings: list[str] = field(default_factory=list)
    """What is usable and yet looks wrong."""
    rejects: list[Reject] = field(default_factory=list)
    """What cannot be used, and why."""
    sheet: Image.Image | None = None
    """Some pictures of every class, each above its disparity; None if nothing is usable. Below, the
    cameras of the first object of each set of objects, from above and from the side."""

    @property
    def without_disparity(self) -> int:
        """Pictures without disparity."""
        return self.pictures - self.with_disparity

    @property
    def reason_counts(self) -> dict[str, int]:
        """How often each reason led to a reject, the most frequent first."""
        return dict(Counter(reject.reason for reject in self.rejects).most_common())

    def to_json(self) -> dict[str, object]:
        """Everything but the sheet, ready for JSON."""
        values = {key: value for key, value in vars(self).items() if key != "sheet"}
        return {
            **values,
            "without_disparity": self.without_disparity,
            "reason_counts": self.reason_counts,
            "rejects": [asdict(reject) for reject in self.rejects],
        }


def check(
    paths: Sequence[str | Path] | str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """A report on folders, tars and posed scenes, every picture decoded once.

    Args:
        paths: one or more data sets.
        progress: told (done, all) after each picture or posed scene of a data set.

    Raises:
        UserError: a path is no data set, or an empty one.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    if not paths:
        raise UserError("PATH: names no data set; give a folder of pictures or a .tar.")
    report = CheckReport(paths=[str(path) for path in paths])
    sizes: Counter[str] = Counter()
    found: Counter[tuple[str, str]] = Counter()
    tiles: dict[tuple[str, str], list[np.ndarray]] = {}
    drawings: list[Image.Image] = []
    for path in paths:
        if _is_posed(Path(path)):
            _check_posed(Path(path), report, sizes, found, tiles, progress)
        elif (plan := published_plan(Path(path))) is not None:
            _check_views(plan, report, sizes, found, tiles, progress)
        elif (objects := _objects_of(Path(path))) is not None:
            drawings += _check_objects(objects, report, sizes, found, tiles, progress)
        else:
            _check_pictures(open_source(path), report, sizes, found, tiles, progress)
    names = joint_names(sorted(found))
    report.class_counts = dict(sorted((names[key], count) for key, count in found.items()))
    report.size_counts = dict(sizes.most_common())
    sheet = tile_sheet({names[key]: rows for key, rows in sorted(tiles.items())})
    report.sheet = sheet if sheet is None else _below(sheet, drawings)
    return report


def _check_pictures(
    source: PictureSource,
    report: CheckReport,
    sizes: Counter[str],
    found: Counter[tuple[str, str]],
    tiles: dict[tuple[str, str], list[np.ndarray]],
    progress: Callable[[int, int], None] | None,
) -> None:
    report.rejects.extend(source.rejects)
    for index in range(len(source)):
        name = f"{source.prefix}:{index}"
        try:
            sample = source.read(index)
            name = sample.name
            decoded = decode(sample, _TILE)
            width, height = picture_size(sample.image)
        except UserError as error:
            report.rejects.append(Reject(name=name, reason=reason_of(str(error), name)))
        else:
            report.pictures += 1
            report.with_disparity += sample.disparity is not None
            sizes[f"{width}x{height}"] += 1
            key = (source.prefix, sample.class_name or _NO_CLASS)
            found[key] += 1
            row = tiles.setdefault(key, [])
            if len(row) < ACROSS:
                row.append(picture_tile(decoded.image.transpose(1, 2, 0), decoded.disparity))
        if progress is not None:
            progress(index + 1, len(source))


def _check_posed(
    path: Path,
    report: CheckReport,
    sizes: Counter[str],
    found: Counter[tuple[str, str]],
    tiles: dict[tuple[str, str], list[np.ndarray]],
    progress: Callable[[int, int], None] | None,
) -> None:
    scenes = PosedScenes(path)
    for done, scene in enumerate(scenes, start=1):
        report.scenes += 1
        views, _, height, width = scene.images.shape
        report.pictures += views
        report.with_disparity += views
        sizes[f"{width}x{height}"] += views
        key = (prefix_of(path.stem), scene.class_name)
        found[key] += 1
        row = tiles.setdefault(key, [])
        if len(row) < ACROSS:
            image = _bytes(scene.images[0].permute(1, 2, 0).numpy())
            inverse = scene.inverse_depth[0].numpy()
            row.append(picture_tile(image, _bytes(inverse / max(float(inverse.max()), 1e-9))))
        if progress is not None:
            progress(done, len(scenes))
    report.rejects.extend(scenes.rejects)


def _check_views(
    plan: ViewPlan,
    report: CheckReport,
    sizes: Counter[str],
    found: Counter[tuple[str, str]],
    tiles: dict[tuple[str, str], list[np.ndarray]],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Pictures of a layout with cameras; of what is masked the rest is shown white."""
    report.rejects.extend(plan.rejects)
    cameras, masked, objects = [], 0, set()
    key = (prefix_of(plan.path.stem), plan.layout)
    for index in range(len(plan)):
        label = plan.label(index)
        try:
            item = read_item(plan, index, _TILE)
        except UserError as error:
            report.rejects.append(Reject(name=label, reason=reason_of(str(error), label)))
        else:
            report.pictures += len(item.images)
            masked += 0 if item.masks is None else len(item.images)
            objects.add(plan.name_of(index))
            cameras.append(item.camera)
            found[key] += len(item.images)
            row = tiles.setdefault(key, [])
            if len(row) < ACROSS:
                image = item.images[0].permute(1, 2, 0).numpy()
                row.append(picture_tile(image, np.zeros((_TILE, _TILE), np.uint8)))
        if progress is not None:
            progress(index + 1, len(plan))
    known = [camera for camera in cameras if camera is not None]
    if known:
        told = f"{plan.path}: {plan.layout}, {found[key]} pictures of {len(objects)} objects"
        report.layouts.append(f"{told}, {masked} with masks, {_seen_from(known)}")


def _objects_of(path: Path) -> PosedObjects | None:
    """Objects with cameras, in the layouts that `PosedObjects` reads."""
    made = path / OBJECTS_FILE
    path = made if made.is_file() else path
    is_set = path.is_dir() or (path.suffix == ".tar" and path.is_file())
    return PosedObjects(path) if is_set and splits_of_objects(path) is not None else None


def _check_objects(
    objects: PosedObjects,
    report: CheckReport,
    sizes: Counter[str],
    found: Counter[tuple[str, str]],
    tiles: dict[tuple[str, str], list[np.ndarray]],
    progress: Callable[[int, int], None] | None,
) -> list[Image.Image]:
    """Pictures and cameras of objects; gives the drawing of the first one's cameras."""
    rig = RigCheck(layout=objects.layout)
    cameras = []
    for index in range(len(objects)):
        try:
            item = objects[index]
        except UserError as error:
            objects.reject(index, error)
        else:
            views, _, height, width = item.images.shape
            report.pictures += views
            sizes[f"{width}x{height}"] += views
            key = (prefix_of(objects.path.stem), item.class_name or objects.layout)
            found[key] += views
            cameras.append(item.camera)
            rig.add(item)
            row = tiles.setdefault(key, [])
            if len(row) < ACROSS:
                image = _bytes(item.images[0].permute(1, 2, 0).numpy())
                row.append(picture_tile(image, np.zeros((_TILE, _TILE), np.uint8)))
        if progress is not None:
            progress(index + 1, len(objects))
    report.rejects.extend(objects.rejects)
    if not cameras:
        return []
    splits = f" (splits {', '.join(objects.splits)})" if objects.splits else ""
    told = f"{objects.path}: {objects.layout}, {len(cameras)} objects{splits}"
    report.layouts.append("; ".join([f"{told}, {_seen_from(cameras)}", *rig.sentences()]))
    report.cameras[str(objects.path)] = rig.figures()
    report.warnings += [f"{objects.path}: {sentence}" for sentence in rig.warnings()]
    drawing = rig.drawing()
    return [] if drawing is None else [drawing]


def _below(sheet: Image.Image, drawings: Sequence[Image.Image]) -> Image.Image:
    """A sheet and what is drawn beside it, one below the other."""
    parts = [sheet, *drawings]
    size = max(part.width for part in parts), sum(part.height for part in parts)
    whole, top = Image.new("RGB", size, (255, 255, 255)), 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    return whole


def _seen_from(cameras: Sequence[Camera]) -> str:
    """What kind cameras are, and where they stand."""
    kind = cameras[0].kind
    way = -torch.cat([camera.forward for camera in cameras])  # from the object to the camera
    height = torch.rad2deg(torch.asin(way[:, 1].clamp(-1, 1)))
    turn = torch.rad2deg(torch.atan2(way[:, 0], way[:, 2]))
    across = torch.cat([camera.intrinsics for camera in cameras])[:, 0]
    width = torch.rad2deg(2 * torch.atan(0.5 / across)), "degrees wide"
    if kind == "orthographic":
        width = 1 / across, "world units wide"
    ranges = [
        (f"{values.quantile(0.02):.3g} to {values.quantile(0.98):.3g} {unit}")
        for values, unit in (width, (height, "degrees high"), (turn, "degrees around"))
    ]
    return f"{kind} cameras {', '.join(ranges)}"


def _is_posed(path: Path) -> bool:
    if path.is_dir():
        return any(path.glob("*/meta.json"))
    if path.suffix != ".tar" or not path.is_file():
        return False
    return any(entry.key.endswith("/meta") for entry in Shard(path).entries)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)


def picture_tile(
    image: UInt8[np.ndarray, "height width 3"], disparity: UInt8[np.ndarray, "rows columns"]
) -> UInt8[np.ndarray, "tall wide 3"]:
    """Picture above disparity, each at 64 x 64; an empty disparity is left away."""
    parts = [image]
    if disparity.any():
        parts.append(np.repeat(disparity[..., None], 3, axis=2))
    tiles = [np.asarray(Image.fromarray(part).resize((_TILE, _TILE))) for part in parts]
    return np.concatenate(tiles)


def tile_sheet(
    rows: Mapping[str, Sequence[UInt8[np.ndarray, "tall wide 3"]]],
) -> Image.Image | None:
    """One named row of tiles below the other, at most 40; None without tiles.

    Args:
        rows: what `picture_tile` gives, at most `ACROSS` of a name.
    """
    if not rows:
        return None
    shown = list(rows.items())[:_MOST_ROWS]
    heights = [_LABEL_HEIGHT + max(len(tile) for tile in tiles) for _, tiles in shown]
    sheet = Image.new("RGB", (ACROSS * _TILE, sum(heights)), (255, 255, 255))
    draw, top = ImageDraw.Draw(sheet), 0
    for (name, tiles), height in zip(shown, heights, strict=True):
        draw.text((3, top + 1), name, fill=(0, 0, 0))
        for column, tile in enumerate(tiles):
            sheet.paste(Image.fromarray(tile), (column * _TILE, top + _LABEL_HEIGHT))
        top += height
    return sheet
