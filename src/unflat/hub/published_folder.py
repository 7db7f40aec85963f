"""The folder of a model that transformers has saved: on this disk, or from the Hugging Face hub."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from unflat.errors import UserError, require_extra

_SETTINGS = ("config.json", "preprocessor_config.json")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


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
    if not _HUB_ID.fullmatch(str(source)):
        raise UserError(
            f"{source}: there is no such file or folder; give a path, or a hub id as in "
            "facebook/dinov2-base."
        )
    return _described(str(source).split("/")[1], _fetch(str(source), offline))


def _fetch(hub_id: str, offline: bool) -> Path:
    """The file of weights, the settings beside it."""
    hub = require_extra("huggingface_hub", "diffusion", hub_id)
    errors = require_extra("huggingface_hub.errors", "diffusion", hub_id)

    def fetch(name: str) -> Path:
        return Path(hub.hf_hub_download(hub_id, name, local_files_only=offline))

    try:
        for name in _SETTINGS:
            fetch(name)
        try:
            return fetch(_WEIGHTS[0])
        except errors.EntryNotFoundError:
            return fetch(_WEIGHTS[1])
    except errors.LocalEntryNotFoundError as error:
        network = "--offline is set" if offline else "the hub cannot be reached"
        raise UserError(
            f"{hub_id}: is not on this computer and {network}; give the path of its folder."
        ) from error
    except errors.EntryNotFoundError as error:
        raise UserError(
            f"{hub_id}: lacks a file that is needed ({', '.join(_SETTINGS)}, {_WEIGHTS[0]} or "
            f"{_WEIGHTS[1]}); choose another model."
        ) from error
    except (errors.HfHubHTTPError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:120]
        raise UserError(
            f"{hub_id}: cannot be downloaded ({reason}); check the name and the network, or give "
            "the path of its folder."
        ) from error


def _described(name: str, weights: Path) -> PublishedFolder:
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return PublishedFolder(path=weights.parent, name=name.lower(), sha256=sha256)
