"""The folder of a model that transformers has saved: on this disk, or from the Hugging Face hub."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from unflat.errors import UserError
from unflat.hub.hub_file import HUB_ID, hub_file

_SETTINGS = ("config.json", "preprocessor_config.json")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, kw_only=True)
class PublishedFolder:
    """Settings and weights beside each other."""

    path: Path
    """Of the folder."""
    name: str
    """Last part of the hub id or of the path, in small letters."""
    sha256: str
    """Of the file of weights."""


def published_folder(source: str | Path, *, offline: bool = False) -> PublishedFolder:
    """The folder behind a path or a hub id.

    Args:
        source: a folder, or as in "facebook/dinov2-base"; a folder that exists comes first.
        offline: whether only what was downloaded before may be used.

    Raises:
        UserError: there is no such folder or model, a file of it is missing, or the network is
            needed and ruled out or not there.
    """
    folder = Path(source)
    if folder.is_dir():
        folder = folder.resolve()  # "." has a name too
        weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
        if weights is None:
            raise UserError(
                f"{source}: holds neither {_WEIGHTS[0]} nor {_WEIGHTS[1]}; give the folder of a "
                "model as transformers saves it."
            )
        return _described(folder.name, weights)
    if not HUB_ID.fullmatch(str(source)):
        raise UserError(
            f"{source}: there is no such file or folder; give a path, or a hub id as in "
            "facebook/dinov2-base."
        )
    return _described(str(source).split("/")[1], _fetch(str(source), offline))


def _fetch(hub_id: str, offline: bool) -> Path:
    """The file of weights, the settings beside it."""
    for name in _SETTINGS:
        hub_file(hub_id, [name], offline=offline)
    return hub_file(hub_id, _WEIGHTS, offline=offline)


def _described(name: str, weights: Path) -> PublishedFolder:
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return PublishedFolder(path=weights.parent, name=name.lower(), sha256=sha256)
