"""A trained model as one small file: safetensors with a JSON header under the key ``unflat``.

    save_model("small.safetensors", networks, {"system": "vq3d", "config": {...}}, dtype="int8")
    weights, header = load_weights("small.safetensors")

Weights are float16, or int8 with one scale for each output channel (first axis): value = code x
scale, scale = largest absolute value / 127, so that no value moves by more than half a scale.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unflat.errors import UserError
from unflat.files import atomic_path

MODEL_FORMAT = 1
_SCALE = ".scale"
_SMALLEST_INT8 = 4096  # values; below, the scales and the loss are not worth the bytes


def save_model(
    path: Path | str,
    networks: nn.Module | dict[str, Tensor],
    header: dict[str, Any],
    dtype: Literal["float32", "float16", "int8"] = "float16",
) -> None:
    """Write a model file; an older one at ``path`` is replaced when the new one is whole.

    Args:
        path: where to.
        networks: a module, or its state (the averaged weights of a run).
        header: ``system`` and ``config`` (``Recipe.config_json()``), ``card`` and the like;
            ``format`` and ``kind`` are added.
        dtype: int8 keeps vectors and tensors below 4096 values in float16.
    """
    state = networks.state_dict() if isinstance(networks, nn.Module) else networks
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        value = value.detach().cpu()
        if not value.is_floating_point():
            tensors[name] = value.contiguous().clone()
        elif dtype == "int8" and value.ndim >= 2 and value.numel() >= _SMALLEST_INT8:
            tensors[name], tensors[name + _SCALE] = quantize_int8(value)
        else:
            half = value.half()
            fits = dtype != "float32" and bool(half.isfinite().all())  # counters may pass 65504
            tensors[name] = (half if fits else value.float()).contiguous().clone()
    full = {"format": MODEL_FORMAT, "kind": "model", **header, "dtype": dtype}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"unflat": json.dumps(full)})


def load_weights(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights of a model file in float32 (integers as they are), and its header.

    Raises:
        UserError: no such file, not a model of unflat's, cut in half, or of a newer unflat.
    """
    header = read_header(path)
    if header.get("kind") != "model":
        raise UserError(
            f"{path}: holds a {header.get('kind', 'thing')}, not a model; give a model file."
        )
    with safe_open(path, framework="pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state: dict[str, Tensor] = {}
    for name, value in stored.items():
        if name.endswith(_SCALE) and stored.get(name.removesuffix(_SCALE), value).dtype == (
            torch.int8
        ):
            continue
        if value.dtype == torch.int8 and name + _SCALE in stored:
            state[name] = dequantize_int8(value, stored[name + _SCALE])
        else:
            state[name] = value.float() if value.is_floating_point() else value
    return state, header


def load_part(
    network: nn.Module, weights: dict[str, Tensor], prefix: str, path: Path | str
) -> None:
    """Give a network its share of a file's weights.

    Args:
        network: in place.
        weights: of the whole file; other parts are left alone.
        prefix: of the part's names, as in ``generator.``.
        path: of the file, for messages.

    Raises:
        UserError: the weights do not fit the network.
    """
    own = {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        reason = str(error).split("\n")[1].strip() if "\n" in str(error) else str(error)
        raise UserError(f"{path}: its weights do not fit its config ({reason}).") from error


def read_header(path: Path | str) -> dict[str, Any]:
    """The header of one of unflat's safetensors files (model or scene), nothing else read.

    Raises:
        UserError: no such file, not unflat's, cut in half, or of a newer unflat.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: there is no such file; give the path of a model file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: is not a whole safetensors file (cut in half, or of another kind); "
            "copy or download it again."
        ) from error
    try:
        header = json.loads(metadata["unflat"])
        version = int(header["format"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: has no unflat header; give a file that unflat has written."
        ) from error
    if version > MODEL_FORMAT:
        raise UserError(
            f"{path}: written by a newer unflat (format {version}, this reads up to "
            f"{MODEL_FORMAT}); upgrade unflat."
        )
    return header


def model_hash(path: Path) -> str:
    """SHA-256 of a model file, for reports and scenes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def quantize_int8(value: Tensor) -> tuple[Tensor, Tensor]:
    """Codes in [-127, 127], and one float32 scale for each entry of the first axis."""
    flat = value.detach().float().reshape(len(value), -1)
    scale = flat.abs().amax(dim=1) / 127.0
    divisor = torch.where(scale > 0, scale, torch.ones_like(scale))
    codes = (flat / divisor[:, None]).round().clamp(-127, 127).to(torch.int8)
    return codes.reshape(value.shape), scale


def dequantize_int8(codes: Tensor, scale: Tensor) -> Tensor:
    """Float32 values from codes and scales."""
    return codes.float() * scale.float().reshape(-1, *[1] * (codes.ndim - 1))
