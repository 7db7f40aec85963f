"""Pictures to train generators from, whatever the layout."""

from pathlib import Path

from unflat.data.eg3d_layout import LABEL_FILE, Eg3dPlan
from unflat.data.file_tree import open_tree
from unflat.data.layout_carla import CarlaPlan, is_carla
from unflat.data.layout_cub import CubPlan, cub_splits
from unflat.data.layout_textured3d import Textured3dPlan, category_folder
from unflat.data.layout_transforms import TransformsPlan, transforms_files
from unflat.data.posed_objects import splits_of_objects
from unflat.data.posed_views import ObjectPlan, PicturePlan, PosedViews, Progress
from unflat.data.view_plan import ViewPlan
from unflat.data.view_store import IN_MEMORY
from unflat.errors import UserError

OBJECTS_FILE = "objects.tar"
"""In a folder that `unflat data objects` wrote."""


def open_views(
    path: str | Path,
    resolution: int,
    split: str | None = None,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
    in_memory: int = IN_MEMORY,
) -> PosedViews:
    """The pictures of a data set to train from, with cameras where its files hold them.

    What is there tells the layout: a ``dataset.json`` (or a zip) is EG3D's, CARLA's, CUB's, those
    of Pascal3D+ and ImageNet, and ``transforms.json`` are known by their files (see the modules
    ``unflat.data.layout_*``), objects with cameras are those of `PosedObjects`, all else are
    pictures. A folder that `unflat data objects` wrote means the tar in it.

    Args:
        path: a folder, an uncompressed tar, or a zip.
        resolution: side in pixels.
        split: of layouts that have some; ``train`` if not given and there is one, else all.
        limit: keep only the first so many objects or pictures.
        progress: told after each object or picture.
        in_memory: bytes of pictures and masks up to which they are kept in memory, and not in a
            file of the user's cache folder.

    Raises:
        UserError: no such path, no such split, or nothing in it can be used.
    """
    path = Path(path)
    plan = posed_plan(path, split, limit=limit, resolution=resolution)
    if plan is None:
        _require_split(path, split, ())
        plan = PicturePlan(path, limit)
    return PosedViews.read(plan, resolution, progress=progress, in_memory=in_memory)


def posed_plan(
    path: Path, split: str | None = None, *, limit: int | None = None, resolution: int | None = None
) -> ViewPlan | None:
    """What is to be read of a data set with cameras; None if it has none.

    Args:
        path: see `open_views`.
        split: see `open_views`.
        limit: see `open_views`.
        resolution: to which `read` of the plan will be asked.

    Raises:
        UserError: no such path, no such split, or files that tell all cameras are damaged.
    """
    if (path / OBJECTS_FILE).is_file():
        path = path / OBJECTS_FILE
    if path.suffix == ".zip" or (path / LABEL_FILE).is_file():
        _require_split(path, split, ())
        return Eg3dPlan(path, limit)
    if not path.is_dir() and (path.suffix != ".tar" or not path.is_file()):
        return None
    if (plan := published_plan(path, split, limit)) is not None:
        return plan
    splits = splits_of_objects(path)
    if splits is None:
        return None
    split = split or ("train" if "train" in splits else None)
    return ObjectPlan(path, split, resolution=resolution, limit=limit)


def published_plan(
    path: Path, split: str | None = None, limit: int | None = None
) -> ViewPlan | None:
    """What is to be read of CARLA, CUB, Pascal3D+, ImageNet or ``transforms.json``; else None.

    Raises:
        UserError: no such split, or files that tell all cameras are damaged.
    """
    if not path.is_dir() and (path.suffix != ".tar" or not path.is_file()):
        return None
    tree = open_tree(path)  # before other layouts: CARLA's matrices would pass for Zero-1-to-3's
    if is_carla(tree):
        _require_split(path, split, ())
        return CarlaPlan(path, tree, limit)
    if splits := cub_splits(tree):
        chosen = split or ("train" if "train" in splits else splits[0])
        _require_split(path, chosen, splits)
        return CubPlan(path, tree, chosen, limit)
    if (folder := category_folder(path)) is not None:
        _require_split(path, split, ())
        return Textured3dPlan(path, folder, limit)
    if files := transforms_files(tree):
        splits = tuple(sorted({one.split for one in files if one.split is not None}))
        _require_split(path, split, splits)
        chosen = split or ("train" if "train" in splits else None)
        return TransformsPlan(path, tree, chosen, limit)
    return None


def _require_split(path: Path, split: str | None, splits: tuple[str, ...]) -> None:
    if split is None or split in splits:
        return
    if not splits:
        raise UserError(f"{path}: has no splits, but split {split} was asked for; leave it out.")
    raise UserError(f"{path}: has no split {split}; the splits there are: {', '.join(splits)}.")
