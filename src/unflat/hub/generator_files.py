"""Files of generators: ours, and those that others have published, told apart by what is in them.

    file = read_generator_file("g_p3d_car_pretrained/checkpoint_latest.pth")
    file.system, file.licence           # "nerf-from-image", "Apache-2.0 (...)"

No code in a file is run. What a system makes of the weights is its own affair.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from unflat.errors import UserError
from unflat.hub.torch_file import read_torch_file
from unflat.training.model_file import load_weights

NERF_FROM_IMAGE = "nerf-from-image"
EG3D = "eg3d-published"

LICENCES = {
    NERF_FROM_IMAGE: "Apache-2.0 (google-research/nerf-from-image; its data sets have own terms)",
    EG3D: "NVIDIA Source Code License, non-commercial (NVlabs/eg3d)",
}
"""Under which the published weights are."""

_EXPECTED = (
    "give a model that unflat has trained, a generator of nerf-from-image (checkpoint_latest.pth), "
    "or EG3D's weights converted to .pth"
)
_TELLING = {  # a weight that only this one has
    NERF_FROM_IMAGE: "mapping_network.backbone.fc0.weight",
    EG3D: "backbone.mapping.fc0.weight",
}
_AVERAGED = ("model_ema", "G_ema")  # under which states lie, beside other things
_ENCODER = "model_coord"
_PICKLE = b"\x80"
_TORCH_OLD = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the number that torch's own old files begin with
_TOLD = ("iteration", "init_kwargs", "rendering_kwargs", "neural_rendering_resolution")


@dataclass(frozen=True, kw_only=True)
class GeneratorFile:
    """What a file holds."""

    path: Path
    """Where it is."""
    system: str
    """Which system reads it; for a model of ours the one that trained it."""
    licence: str
    """What the weights may be used for."""
    sha256: str
    """Of the file."""
    config: dict[str, Any] = field(default_factory=dict)
    """What the file tells of the network beside its weights."""
    state: dict[str, Tensor]
    """Weights of the averaged generator, on the CPU, under the names of the file."""


def read_generator_file(path: str | Path) -> GeneratorFile:
    """The generator in a `.safetensors` file, or in one that torch has saved.

    Raises:
        UserError: no such file, damaged, a pickle, an encoder, of no known system, or with NaN.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; {_EXPECTED}.")
    _refuse_pickle(path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if path.suffix == ".safetensors" and _is_ours(path):
        state, header = load_weights(path)
        system, config = str(header.get("system")), header.get("config", {})
        licence = str(header.get("card", {}).get("licence", "not stated"))
    else:
        content = load_file(path) if path.suffix == ".safetensors" else _torch_content(path)
        state, config = _plain_state(path, content)
        system = next((name for name, key in _TELLING.items() if key in state), "")
        if not system:
            raise UserError(f"{path}: holds no generator that is known here; {_EXPECTED}.")
        licence = LICENCES[system]
    bad = sorted(name for name, value in state.items() if not value.isfinite().all())
    if bad:
        raise UserError(f"{path}: {bad[0]} holds NaN or infinity; download the file again.")
    return GeneratorFile(
        path=path, system=system, licence=licence, sha256=sha256, config=config, state=state
    )


def _refuse_pickle(path: Path) -> None:
    """A pickle is a program; only torch's own files are read, by a reader that runs none of it."""
    with path.open("rb") as file:
        start = file.read(len(_TORCH_OLD) + 2)
    if path.suffix == ".pkl" or (start[:1] == _PICKLE and start[2:] != _TORCH_OLD):
        raise UserError(
            f"{path}: is a pickle, which runs code when it is opened; convert it where it was "
            'trained (docs/formats.md, "Weights of others") and give the .pth file.'
        )


def _is_ours(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return "unflat" in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: is not a whole safetensors file; copy or download it again."
        ) from error


def _torch_content(path: Path) -> Mapping[str, Any]:
    content = read_torch_file(path, _EXPECTED)
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds no named weights; {_EXPECTED}.")
    return content


def _plain_state(path: Path, content: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict]:
    """Weights, and what else is told; of a checkpoint, those of the average."""
    if _ENCODER in content:
        raise UserError(
            f"{path}: holds an encoder, which finds objects in pictures and makes none; give the "
            "generator's checkpoint_latest.pth."
        )
    told = {name: content[name] for name in _TOLD if name in content}
    for name in _AVERAGED:
        if isinstance(content.get(name), Mapping):
            content = content[name]
            break
    state = {
        str(name).removeprefix("module."): value  # of training on several GPUs
        for name, value in content.items()
        if isinstance(value, Tensor)
    }
    return state, told
