"""Pictures to train generators from, whatever the layout."""

from pathlib import Path

from unflat.data.eg3d_layout import LABEL_FILE, eg3d_views
from unflat.data.posed_objects import splits_of_objects
from unflat.data.posed_views import PosedViews, Progress, picture_views
from unflat.errors import UserError

_OBJECTS_FILE = "objects.tar"  # in a folder that `unflat data objects` wrote


def open_views(
    path: str | Path,
    resolution: int,
    split: str | None = None,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> PosedViews:
    """The pictures of a data set to train from, with cameras where its files hold them.

    What is there tells the layout: a ``dataset.json`` (or a zip) is EG3D's, objects with cameras
    are those of `PosedObjects`, all else are pictures. A folder that `unflat data objects` wrote
    means the tar in it.

    Args:
        path: a folder, an uncompressed tar, or a zip.
        resolution: side in pixels.
        split: of posed objects; ``train`` if not given and there is one, else all objects.
        limit: keep only the first so many objects or pictures.
        progress: told after each object or picture, but not of pictures without cameras.

    Raises:
        UserError: no such path, no such split, or nothing in it can be used.
    """
    path = Path(path)
    if (path / _OBJECTS_FILE).is_file():
        path = path / _OBJECTS_FILE
    is_eg3d = path.suffix == ".zip" or (path / LABEL_FILE).is_file()
    if not is_eg3d and path.exists() and (splits := splits_of_objects(path)) is not None:
        split = split or ("train" if "train" in splits else None)
        return PosedViews(path, split, resolution=resolution, limit=limit, progress=progress)
    if split is not None:
        raise UserError(f"{path}: has no splits, but split {split} was asked for; leave it out.")
    if is_eg3d:
        return eg3d_views(path, resolution, limit=limit, progress=progress)
    return picture_views(path, resolution, limit=limit)
