"""Posed scenes as single pictures: the canonical view of each, with its class and true depth.

What is generated is held against pictures; `scenes-val.tar` holds scenes.
"""

import json
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from unflat.data.dataset import open_source
from unflat.data.pictures import DECODE_ERRORS
from unflat.data.posed import PosedScenes
from unflat.data.sample import PictureSource, Reject, Sample, prefix_of
from unflat.data.shard import Shard
from unflat.errors import UserError


class CanonicalViews:
    """View 0 of every scene; keeps `PictureSource`.

    Args:
        path: an uncompressed tar, or a folder of scene folders.

    Raises:
        UserError: no such file, or no scene in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.scenes = PosedScenes(path)
        self.rejects: list[Reject] = list(self.scenes.rejects)
        self.prefix = prefix_of(self.scenes.path.resolve().stem)

    def __len__(self) -> int:
        """How many scenes were found."""
        return len(self.scenes)

    def read(self, index: int) -> Sample:
        """The picture file of one scene's canonical view; disparity is left to `inverse_depth`."""
        name = self.scenes.names[index]
        label = f"{self.scenes.path.name}:{name}"
        try:
            meta = json.loads(self.scenes.file(f"{name}/meta.json"))
            class_name = str(meta["cls"])
        except (*DECODE_ERRORS, KeyError) as error:
            raise UserError(f"{label}: its meta.json cannot be read.") from error
        return Sample(name=label, image=self.scenes.picture_file(name, 0), class_name=class_name)

    def inverse_depth(self, index: int, side: int) -> Float[Tensor, "side side"]:
        """1 / depth of the canonical view, per world unit, area-averaged; 0 is sky."""
        return self.scenes.inverse_depth(index, 0, side)


def holds_scenes(path: str | Path) -> bool:
    """Whether a tar or a folder holds posed scenes rather than pictures."""
    path = Path(path)
    if path.is_dir():
        return next(path.glob("*/meta.json"), None) is not None
    if path.suffix != ".tar" or not path.is_file():
        return False
    return any(entry.key.endswith("/meta") for entry in Shard(path).entries)


def open_pictures(path: str | Path) -> PictureSource:
    """`open_source`, where posed scenes count as their canonical views.

    Raises:
        UserError: the path is no data set.
    """
    return CanonicalViews(path) if holds_scenes(path) else open_source(path)
