"""A tiny Zero-1-to-3 with weights by rule, in every form in which such models are published.

A weight depends on its name (the authors') and its shape alone: PCG64's raw stream, seeded with
the crc32 of the name. `fixtures/zero123` holds what the authors' own networks made of it.
"""

import functools
import gzip
import json
import math
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

FIXTURES = Path(__file__).with_name("fixtures") / "zero123"

Dialect = Literal["cc_projection", "clip_camera_projection"]


def fixture(name: str) -> dict[str, Tensor]:
    """The arrays of a file."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file if file[key].dtype.kind in "fiub"}


def key_list(name: str) -> dict[str, Any]:
    """A list of the weights' names."""
    packed = (FIXTURES / f"{name}.json.gz").read_bytes()
    return json.loads(gzip.decompress(packed))


def by_rule(key: str, shape: list[int]) -> np.ndarray:
    """The weight of a name."""
    count = math.prod(shape)
    raw = np.random.PCG64(zlib.crc32(key.encode())).random_raw(count)
    unit = (np.asarray(raw, np.uint64) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    noise = ((2.0 * unit - 1.0) * math.sqrt(3.0)).reshape(shape)
    if key.endswith("bias"):
        noise = 0.05 * noise
    elif key.endswith("embedding"):
        noise = 0.5 * noise
    elif len(shape) == 1:
        noise = 1.0 + 0.1 * noise
    else:
        noise = noise / math.sqrt(float(math.prod(shape[1:])))
    return noise.astype(np.float32)


@functools.cache
def tiny_state() -> dict[str, Tensor]:
    """All weights of the tiny model under the authors' names; not to be changed."""
    state: dict[str, Any] = {}
    for key, shape in key_list("keys_tiny")["shapes"].items():
        if key == "model_ema.decay":
            state[key] = np.float32(0.9999)
        elif key == "model_ema.num_updates":
            state[key] = np.int32(105000)
        else:
            state[key] = by_rule(key, shape)
    return {key: torch.from_numpy(np.asarray(value)) for key, value in state.items()}


def averaged(key: str) -> str:
    """Where the moving average of a weight of the denoiser lies."""
    return "model_ema." + key.removeprefix("model.").replace(".", "")


def write_checkpoint(path: Path, state: dict[str, Tensor], **more: Any) -> Path:
    """As the authors save it."""
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "global_step": 105000, **more}, path)
    return path


def write_start(path: Path) -> Path:
    """What training begins with: sees the noisy latent alone, knows no poses."""
    first = "model.diffusion_model.input_blocks.0.0.weight"
    state = {
        key: value
        for key, value in tiny_state().items()
        if not key.startswith(("model_ema.", "cc_projection."))
    }
    return write_checkpoint(path, {**state, first: state[first][:, :4].clone()})


def write_folder(
    folder: Path, state: dict[str, Tensor], dialect: Dialect, ending: str = ".safetensors"
) -> Path:
    """As diffusers saves it, moving average taken; carried over by the published list of names."""
    prefix = {"cc_projection": "projection.", "clip_camera_projection": "proj."}[dialect]
    folders = {
        "model": "unet",
        "first_stage_model": "vae",
        "cond_stage_model": "image_encoder",
        "cc_projection": dialect,
    }
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in folders.values()}
    for key, (names, change) in key_list("keymap_diffusers")["map"].items():
        root = key.split(".")[0]
        value = state[averaged(key) if root == "model" else key]
        if change.startswith("split"):
            thirds = (third.clone() for third in value.chunk(3))
            parts[folders[root]].update(zip(names, thirds, strict=True))
            continue
        if change == "transpose":
            value = value.T.contiguous()
        elif change.startswith("drop"):
            value = value.flatten(1)
        name = names.replace("projection.", prefix) if root == "cc_projection" else names
        parts[folders[root]][name] = value
    for part, tensors in parts.items():
        (folder / part).mkdir(parents=True)
        stem = "model" if part == "image_encoder" else "diffusion_pytorch_model"
        if ending.endswith(".bin") and part == "image_encoder":
            stem = "pytorch_model"
        if ending.endswith(".bin"):
            torch.save(tensors, folder / part / f"{stem}{ending}")
        else:
            save_file(tensors, folder / part / f"{stem}{ending}")
    (folder / "model_index.json").write_text('{"_class_name": "Zero1to3"}', encoding="utf-8")
    return folder
