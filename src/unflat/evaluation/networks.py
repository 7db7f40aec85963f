"""From the files a person gives to the networks that metrics need; nothing is guessed."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from unflat.errors import UserError
from unflat.hub.published_folder import published_folder
from unflat.hub.registry import FEATURES, find
from unflat.hub.weight_files import FID_FILE, WeightFile, read_weight_file
from unflat.metrics.features import (
    Features,
    InceptionFeatures,
    OwnFeatures,
    TransformersFeatures,
)
from unflat.metrics.perceptual import Lpips
from unflat.nn.alexnet import AlexNet
from unflat.nn.inception import FidInception
from unflat.nn.published import from_published
from unflat.nn.vgg import Vgg16
from unflat.systems.features import load
from unflat.training import read_header

Distance = Callable[[Tensor, Tensor], Tensor]
"""A value for each pair of pictures; lower is better."""

_HEADS_OF = {"vgg16": "lpips-vgg-heads", "alexnet": "lpips-alex-heads"}
_NAMES = {"vgg16": "lpips-vgg", "alexnet": "lpips-alex"}
_HEADS_FILES = {"vgg16": "vgg.pth", "alexnet": "alex.pth"}
_TRUNKS = {"vgg16": Vgg16, "alexnet": AlexNet}


def open_features(
    choice: str, device: str | torch.device = "cpu", offline: bool = False
) -> Features:
    """The network that distribution metrics are measured with.

    Args:
        choice: ``unflat``, the bundled network, or the file of another one that
            ``unflat train features`` has written; the path of FID's Inception; or a CLIP or
            DINOv2 model, as a folder or a hub id.
        device: where it runs.
        offline: whether downloads are ruled out.

    Raises:
        UserError: nothing of that name, or it is something else; no other network steps in.
    """
    path = Path(choice)
    if choice == "unflat":
        return _own_features(find(FEATURES, offline=offline), "unflat", device)
    if path.is_file() and _is_own(path):
        return _own_features(path, f"unflat-{_title(path)}", device)
    if path.is_file():
        file = read_weight_file(path)
        if file.kind != "inception-fid":
            raise UserError(f"{choice}: holds {file.kind}; give {FID_FILE} to measure FID.")
        module = from_published(FidInception, file.state).to(device)
        return InceptionFeatures(module, sha256=file.sha256)
    folder = published_folder(choice, offline=offline)
    return TransformersFeatures.open_folder(
        folder.path, name=folder.name, sha256=folder.sha256, device=device
    )


def open_lpips(paths: Sequence[Path], device: str | torch.device = "cpu") -> dict[str, Lpips]:
    """LPIPS by name, "lpips-vgg" and "lpips-alex", whichever the files are for.

    Args:
        paths: trunks and heads, in any order.
        device: where they run.

    Raises:
        UserError: a trunk without heads or the other way round, two files of one kind, or a file
            of another network.
    """
    files: dict[str, WeightFile] = {}
    for path in paths:
        file = read_weight_file(path)
        if file.kind in files:
            raise UserError(
                f"{path}: holds {file.kind}, as {files[file.kind].path} does; give one."
            )
        if file.kind not in (*_HEADS_OF, *_HEADS_OF.values()):
            raise UserError(f"{path}: holds {file.kind}, which LPIPS does not use; leave it out.")
        files[file.kind] = file
    opened: dict[str, Lpips] = {}
    for kind, heads_kind in _HEADS_OF.items():
        trunk, heads = files.get(kind), files.get(heads_kind)
        if trunk is None and heads is None:
            continue
        if heads is None:
            raise UserError(
                f"{files[kind].path}: LPIPS needs its heads too; give {_HEADS_FILES[kind]} of "
                "lpips 0.1 as well."
            )
        if trunk is None:
            raise UserError(
                f"{heads.path}: LPIPS needs the network too; give torchvision's {kind} as well."
            )
        opened[_NAMES[kind]] = _lpips(trunk, heads).to(device)
    return opened


def open_distances(
    paths: Sequence[Path] = (), device: str | torch.device = "cpu"
) -> dict[str, Distance]:
    """Distances of two pictures by name: ``perceptual-unflat``, and LPIPS where its files are.

    Args:
        paths: for `open_lpips`; none leave LPIPS out.
        device: where they run.

    Raises:
        UserError: as `open_lpips`.
    """
    own = _own_features(find(FEATURES), "unflat", device)
    return {f"perceptual-{own.name}": own.distance, **open_lpips(paths, device)}


def _own_features(path: Path, name: str, device: str | torch.device) -> OwnFeatures:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return OwnFeatures(load(path).to(device), name=name, sha256=digest)


def _title(path: Path) -> str:
    """A file's name, or that of its run."""
    return path.resolve().parent.name if path.stem == "model" else path.stem


def _is_own(path: Path) -> bool:
    """Whether a file is one that unflat wrote; what it holds is checked when it is read."""
    try:
        read_header(path)
    except UserError:
        return False
    return True


def _lpips(trunk: WeightFile, heads: WeightFile) -> Lpips:
    try:
        return Lpips(
            from_published(_TRUNKS[trunk.kind], trunk.state),
            heads.heads(),
            name=_NAMES[trunk.kind],
            sha256={"trunk": trunk.sha256, "heads": heads.sha256},
        )
    except ValueError as error:
        raise UserError(f"{heads.path}: {error}; give those of lpips 0.1.") from error
