"""What ``--model`` and ``--depth`` name: a depth network of any make, or one picture's map."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unflat.data.depth_maps import (
    MAP_SUFFIXES,
    DepthSource,
    Meaning,
    normalized_disparity,
    read_map,
)
from unflat.data.depth_writing import Picture
from unflat.data.disparity import cut_map
from unflat.data.prepare import Prepared
from unflat.errors import UserError
from unflat.hub.registry import MODELS, find
from unflat.systems.depth.estimator import DepthEstimator, estimate_picture
from unflat.systems.depth.pipeline import load
from unflat.systems.depth.published import open_published
from unflat.training.model_file import read_header

SURFACE_TAIL = 0.005
"""Share of pixels clipped at either end of a map that becomes a visible surface: outliers alone."""

_SYSTEM = "depth"


def open_estimator(
    source: str | Path,
    *,
    meaning: Meaning | None = None,
    device: str = "cpu",
    offline: bool = False,
) -> DepthEstimator:
    """A depth network: our own model by name or file, or one of transformers by folder or hub id.

    Args:
        source: as a person names it.
        meaning: of what a network of transformers gives; told by its kind if not given.
        device: where the network runs.
        offline: use no network connection.

    Raises:
        UserError: there is no such model, it sees no depth, or it cannot be read.
    """
    path = Path(source)
    is_folder_of_ours = path.is_dir() and not (path / "config.json").is_file()
    is_folder_of_ours = is_folder_of_ours and (path / "model.safetensors").is_file()
    if not (path.is_file() or is_folder_of_ours or str(source) in MODELS):
        return open_published(source, meaning=meaning, device=device, offline=offline)
    file = find(source, offline=offline)
    system = read_header(file).get("system")
    if system != _SYSTEM:
        raise UserError(f"{source}: is a model of {system}, which is no depth model; give another.")
    return load(file, device)


def depth_source(
    source: str | Path,
    *,
    meaning: Meaning | None = None,
    device: str = "cpu",
    offline: bool = False,
) -> DepthSource:
    """The visible surface that a map file or a depth network tells.

    A map belongs to the whole picture, at any size, and is cut like it. A network sees the photo's
    square. Either is normalised between two quantiles (see `SURFACE_TAIL`).

    Args:
        source: a map (png, npy, npz, pfm), or as `open_estimator` takes it.
        meaning: of the map (disparity if not given), or of a network's answer.
        device: where a network runs.
        offline: use no network connection.

    Raises:
        UserError: the file or model cannot be used. What is called later raises it for a map of
            another aspect ratio than the picture's, and for one that is flat within the square.
    """
    if is_map(source):
        return _of_map(Path(source), meaning or "disparity")
    estimator = open_estimator(source, meaning=meaning, device=device, offline=offline)

    def estimated(prepared: Prepared) -> Tensor:
        return _surface(estimate_picture(estimator, prepared.image).cpu().numpy(), str(source))

    sha256 = getattr(estimator, "sha256", "")
    return DepthSource(str(source), sha256 or _hash_of(source), estimated)


def sees_picture(
    estimator: DepthEstimator,
) -> Callable[[Picture], Float[np.ndarray, "height width"]]:
    """What `unflat.data.depth_writing.write_disparities` asks for, from a depth network."""

    def estimated(picture: Picture) -> Float[np.ndarray, "height width"]:
        values = torch.from_numpy(picture.image.transpose(2, 0, 1).astype(np.float32) / 255.0)
        found = estimate_picture(estimator, values).cpu().numpy()
        if not np.isfinite(found).all():
            name = picture.sample.name
            raise UserError(f"{name}: the depth model gives values that are not finite.")
        return found

    return estimated


def is_map(source: str | Path) -> bool:
    """Whether what is named is the map of one picture, not a model."""
    return Path(source).suffix.lower() in MAP_SUFFIXES and not Path(source).is_dir()


def _of_map(path: Path, meaning: Meaning) -> DepthSource:
    values = read_map(path, meaning)

    def cut(prepared: Prepared) -> Tensor:
        return _surface(cut_map(values, prepared.source_size, str(path)), str(path))

    return DepthSource(path.name, _hash_of(path), cut)


def _surface(disparity: Float[np.ndarray, "height width"], name: str) -> Tensor:
    low, high = float(disparity.min()), float(disparity.max())
    if high - low <= 1e-6 * max(abs(high), abs(low)):
        raise UserError(f"{name}: is the same everywhere in the photo's square; it tells no depth.")
    found = normalized_disparity(disparity.astype(np.float64), SURFACE_TAIL)
    return torch.from_numpy(found.astype(np.float32))[None, None]


def _hash_of(source: str | Path) -> str:
    if not Path(source).is_file():
        return ""
    with Path(source).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
