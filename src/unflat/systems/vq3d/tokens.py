"""Tokens of pictures, taken once and kept: what the second stage learns from.

    extract_tokens(model, datasets, "tokens", autoencoder="vq3d-small")
    tokens = TokenDataset("tokens")
    tokens.indices.shape, tokens.classes       # (15280, 64, 4), ["animal", "car", ...]

A folder of tokens:

    tokens.json                  what they are: tokenizer, classes, how they were cut
    00000.safetensors            indices (uint16), labels, flipped; of some pictures
    00001.safetensors            ...

The decoder of a model may be trained again without touching its tokens: they belong to whatever
has the same `fingerprint`.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt16
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from unflat.data import NO_LABEL, PictureDataset
from unflat.data.sampler import joint_labels
from unflat.errors import UserError
from unflat.files import atomic_path
from unflat.systems.vq3d.autoencoder import Autoencoder
from unflat.systems.vq3d.config import Levels
from unflat.systems.vq3d.recipe import render_canonical
from unflat.training.model_file import quantize_int8

FORMAT = 1
HEADER = "tokens.json"

_TOKENIZER = ("embed.", "encoder_positions", "encoder.", "to_code.", "skip_in.", "quantizer.table")
_LARGE = 4096  # values from which a tensor is kept in 8 bits in model files
_MOST_CODES = 2**16
_WORDS = {  # of the header's values, for who gives another one
    **dict.fromkeys(("pictures", "pictures_hash", "sequences", "shards"), "the pictures"),
    **dict.fromkeys(("autoencoder", "fingerprint", "resolution", "grid"), "the models"),
    **dict.fromkeys(("codebook_sizes", "levels"), "the models"),
    "classes": "the classes",
    "margin": "the margins",
    "crops": "the crops",
    "seed": "the seeds",
}
_PICTURES = 1024  # of a shard
_BATCH = 64


def fingerprint(model: Autoencoder) -> str:
    """What two models share that give the same tokens: 16 hex digits.

    A hash over encoder, quantiser and the layers between them, nothing of the decoder; as an
    8-bit model file would store them, so that a model keeps it when it is saved and loaded.
    """
    digest = hashlib.sha256()
    digest.update(repr((model.config.patch, model.config.grid, model.codebook_sizes)).encode())
    if model.config.quantizer == "fsq":
        digest.update(repr(model.config.levels).encode())
    for name, value in sorted(model.state_dict().items()):
        if not name.startswith(_TOKENIZER):
            continue
        value = value.detach().cpu()
        is_large = value.ndim >= 2 and value.numel() >= _LARGE
        stored = quantize_int8(value)[0] if is_large else value.half()
        digest.update(name.encode())
        digest.update(stored.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def extract_tokens(
    model: Autoencoder,
    datasets: Sequence[PictureDataset],
    out: Path | str,
    *,
    autoencoder: str,
    crops: int = 1,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> "TokenDataset":
    """Tokens of every picture and of its mirror image, as a folder; goes on where it was cut.

    Args:
        model: stage 1; its weights decide about the tokens.
        datasets: pictures at the model's resolution; a margin leaves room for ``crops``.
        out: the folder; one that holds these tokens already is left as it is.
        autoencoder: name or path of the model, kept in the header.
        crops: windows of each picture: the middle one, then random ones.
        seed: of the random windows.
        progress: told pictures done and in all.

    Raises:
        UserError: ``out`` holds something else, the model has no tokens that can be kept, or more
            windows are asked of pictures without margin.
    """
    out = Path(out)
    _refuse_model(model, crops, datasets)
    classes, labels = joint_labels(datasets)
    header = _header(model, datasets, classes, labels, autoencoder, crops, seed)
    _begin(out, header)
    pictures = [
        (number, place) for number, data in enumerate(datasets) for place in range(len(data))
    ]
    for shard in range(header["shards"]):
        path = out / f"{shard:05d}.safetensors"
        chosen = pictures[shard * _PICTURES : (shard + 1) * _PICTURES]
        if not _is_whole(path, header, 2 * crops * len(chosen)):
            tensors = _shard(model, datasets, labels, chosen, crops, seed)
            with atomic_path(path) as temporary:
                save_file(tensors, temporary)
        if progress is not None:
            progress(min(len(pictures), (shard + 1) * _PICTURES), len(pictures))
    _write_header(out, {**header, "is_whole": True})
    return TokenDataset(out)


class TokenDataset:
    """A folder of tokens, whole in memory (512 bytes for a picture of 64 tokens x 4 codes).

    Args:
        folder: as `extract_tokens` made it.

    Raises:
        UserError: it holds no tokens, or not all of them, or damaged ones.
    """

    indices: UInt16[np.ndarray, "n tokens codes"]
    """Codes of each token, coarse to fine."""
    labels: Int[np.ndarray, " n"]
    """Index into `classes`, or `NO_LABEL`."""
    flipped: Bool[np.ndarray, " n"]
    """Whether the picture was mirrored."""
    classes: list[str]
    """Names of the labels."""
    codebook_sizes: tuple[int, ...]
    """Of a token's codes."""
    levels: Levels
    """Of the numbers that a code packs; empty for learned codebooks."""
    grid: int
    """Tokens along a side."""
    fingerprint: str
    """Of the tokenizer, see `fingerprint`."""
    autoencoder: str
    """Name or path of the model that made them."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        header = read_header(self.folder)
        if not header["is_whole"]:
            raise UserError(
                f"{folder}: its tokens are not whole; run the same command again to go on."
            )
        self.classes, self.fingerprint = list(header["classes"]), str(header["fingerprint"])
        self.codebook_sizes = tuple(header["codebook_sizes"])
        self.levels = tuple(tuple(code) for code in header["levels"])
        self.grid, self.autoencoder = int(header["grid"]), str(header["autoencoder"])
        shards = [
            _read_shard(self.folder / f"{number:05d}.safetensors", header)
            for number in range(header["shards"])
        ]
        self.indices = np.concatenate([shard["indices"] for shard in shards])
        self.labels = np.concatenate([shard["labels"] for shard in shards]).astype(np.int64)
        self.flipped = np.concatenate([shard["flipped"] for shard in shards])

    def __len__(self) -> int:
        """How many sequences of tokens there are, mirrored ones counted."""
        return len(self.indices)

    @property
    def tokens(self) -> int:
        """Tokens of a picture."""
        return self.grid**2

    def batch(self, places: Sequence[int] | Int[np.ndarray, " batch"]) -> dict[str, Tensor]:
        """``indices`` and ``label`` of some sequences, int64."""
        chosen = np.asarray(places, dtype=np.int64)
        return {
            "indices": torch.from_numpy(self.indices[chosen].astype(np.int64)),
            "label": torch.from_numpy(self.labels[chosen]),
        }

    def require_like(self, other: "TokenDataset") -> None:
        """Refuse tokens that are not of the other's kind.

        Raises:
            UserError: of another tokenizer, or with other classes.
        """
        if self.fingerprint != other.fingerprint:
            raise UserError(
                f"{self.folder}: its tokens are of another tokenizer than those of "
                f"{other.folder}; extract both with the same model."
            )
        unknown = sorted(set(self.classes) - set(other.classes))
        if unknown:
            raise UserError(
                f"{self.folder}: has the class {unknown[0]}, which {other.folder} has not; "
                "extract both with the same classes."
            )
        self.relabel(other.classes)

    def relabel(self, classes: Sequence[str]) -> None:
        """Number the labels by another list that holds all of this one's names."""
        places = [list(classes).index(name) for name in self.classes]
        lookup = np.asarray([*places, NO_LABEL])
        self.labels, self.classes = lookup[self.labels], list(classes)


@torch.no_grad()
def canonical_pictures(
    model: Autoencoder, indices: Int[Tensor, "batch tokens codes"]
) -> Float[Tensor, "batch 3 side side"]:
    """What the canonical camera sees of the scenes that tokens describe, in [0, 1].

    Raises:
        ValueError: the model has no quantiser.
    """
    if model.quantizer is None:
        raise ValueError("a model without quantiser has no tokens")
    vectors = model.quantizer.decode(indices.to(model.embed.weight.device))
    field = model.field(model.decode(vectors))
    return render_canonical(field, model.config.resolution)[0].clamp(0, 1)


def require_same_tokenizer(expected: str, model: Autoencoder, prior: str, autoencoder: str) -> None:
    """Refuse a prior and a stage-1 model that do not speak of the same tokens.

    Args:
        expected: the prior's fingerprint.
        model: stage 1.
        prior: name of the prior, for the message.
        autoencoder: name of the stage-1 model, for the message.

    Raises:
        UserError: the fingerprints differ.
    """
    if fingerprint(model) != expected:
        raise UserError(
            f"{prior}: was trained on the tokens of another model than {autoencoder}; give the "
            "model that its tokens were extracted with, or train the prior again."
        )


def read_header(folder: Path | str) -> dict[str, Any]:
    """What ``tokens.json`` says.

    Raises:
        UserError: there is none, it is not readable, or of a newer unflat.
    """
    path = Path(folder) / HEADER
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        version = int(header["format"])
    except FileNotFoundError as error:
        raise UserError(
            f"{folder}: holds no tokens; give a folder that unflat data tokens has written."
        ) from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is not readable; extract the tokens again.") from error
    if version > FORMAT:
        raise UserError(
            f"{path}: written by a newer unflat (format {version}, this reads up to {FORMAT}); "
            "upgrade unflat."
        )
    return header


def _refuse_model(model: Autoencoder, crops: int, datasets: Sequence[PictureDataset]) -> None:
    if not model.codebook_sizes:
        raise UserError("--model: has no quantiser, so it has no tokens; give another.")
    if max(model.codebook_sizes) > _MOST_CODES:
        raise UserError(
            f"--model: has codebooks of {max(model.codebook_sizes)} codes; at most {_MOST_CODES} "
            "can be kept."
        )
    if crops < 1:
        raise UserError(f"--crops {crops}: must be at least 1.")
    if crops > 1 and any(data.side == data.resolution for data in datasets):
        raise UserError(f"--crops {crops}: needs a --margin, in which windows can differ.")


def _header(
    model: Autoencoder,
    datasets: Sequence[PictureDataset],
    classes: list[str],
    labels: Sequence[np.ndarray],
    autoencoder: str,
    crops: int,
    seed: int,
) -> dict[str, Any]:
    pictures = sum(len(data) for data in datasets)
    digest = hashlib.sha256()
    for data, numbers in zip(datasets, labels, strict=True):
        digest.update("\n".join([*data.names, ""]).encode())
        digest.update(numbers.astype(np.int64).tobytes())
    return {
        "format": FORMAT,
        "is_whole": False,
        "autoencoder": autoencoder,
        "fingerprint": fingerprint(model),
        "resolution": model.config.resolution,
        "grid": model.config.grid,
        "codebook_sizes": list(model.codebook_sizes),
        "levels": _lists(model.config.levels) if model.config.quantizer == "fsq" else [],
        "classes": classes,
        "pictures": pictures,
        "sequences": 2 * crops * pictures,
        "pictures_hash": digest.hexdigest()[:16],
        "margin": [data.side - data.resolution for data in datasets],
        "crops": crops,
        "seed": seed,
        "shards": -(-pictures // _PICTURES),
    }


def _begin(out: Path, header: dict[str, Any]) -> None:
    """Make the folder, or see that it holds a part of these tokens."""
    if not (out / HEADER).exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out}: holds something else already; choose another --out.")
        _write_header(out, header)
        return
    found = read_header(out)
    different = [name for name, value in header.items() if found.get(name) != value]
    different = [name for name in different if name != "is_whole"]
    if different:
        raise UserError(
            f"{out}: holds other tokens than these ({_WORDS[different[0]]} differ); "
            "choose another --out."
        )


def _write_header(out: Path, header: dict[str, Any]) -> None:
    with atomic_path(out / HEADER) as temporary:
        temporary.write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")


def _shard(
    model: Autoencoder,
    datasets: Sequence[PictureDataset],
    labels: Sequence[np.ndarray],
    chosen: Sequence[tuple[int, int]],
    crops: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Tokens of some pictures; each window is followed by its mirror image."""
    device = model.embed.weight.device
    indices = []
    for start in range(0, len(chosen), _BATCH):
        windows = []
        for number, place in chosen[start : start + _BATCH]:
            windows += _windows(datasets[number], number, place, crops, seed)
        images = torch.from_numpy(np.stack(windows)).to(device).float() / 255.0
        images = torch.stack([images, images.flip(-1)], dim=1).flatten(0, 1)
        indices.append(model.encode(images).quantized.indices.cpu().numpy().astype(np.uint16))
    own = np.asarray([labels[number][place] for number, place in chosen], dtype=np.int32)
    return {
        "indices": np.concatenate(indices),
        "labels": own.repeat(2 * crops),
        "flipped": np.tile([False, True], crops * len(chosen)),
    }


def _windows(
    dataset: PictureDataset, number: int, place: int, crops: int, seed: int
) -> list[np.ndarray]:
    picture = dataset.pixels([place])[0][0]
    side, room = dataset.resolution, dataset.side - dataset.resolution
    generator = np.random.default_rng([seed, number, place])
    corners = [(room // 2, room // 2)]
    corners += [tuple(generator.integers(0, room + 1, 2)) for _ in range(crops - 1)]
    return [picture[:, top : top + side, left : left + side] for top, left in corners]


def _is_whole(path: Path, header: dict[str, Any], sequences: int) -> bool:
    """Whether a shard of an extraction that was cut can stay."""
    if not path.exists():
        return False
    try:
        return len(_read_shard(path, header)["indices"]) == sequences
    except UserError:
        return False


def _read_shard(path: Path, header: dict[str, Any]) -> dict[str, np.ndarray]:
    try:
        shard = load_file(path)
        indices, labels = shard["indices"], shard["labels"]
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: is missing or damaged; extract the tokens again.") from error
    expected = (header["grid"] ** 2, len(header["codebook_sizes"]))
    fits = indices.shape[1:] == expected and len(indices) == len(labels) == len(shard["flipped"])
    if not fits or (indices >= np.asarray(header["codebook_sizes"])).any():
        raise UserError(f"{path}: holds other tokens than tokens.json says; extract them again.")
    return shard


def _lists(levels: Levels) -> list[list[int]]:
    return [list(code) for code in levels]
