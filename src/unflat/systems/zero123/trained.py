"""Files of published models that have learned on: written, and opened again.

All of the denoiser: one file with every part of the model, under diffusers' and transformers' names
behind those of the parts (``unet.``, ``vae.``, ``image_encoder.``, ``cc_projection.``), which
`unflat.systems.zero123.published_files` reads as it reads others' files. With adapters: what has
learned alone, and in the header where the weights lie that it belongs to.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unflat.errors import UserError
from unflat.hub.view_models import find_views
from unflat.nn.lora import merge_adapters
from unflat.systems.zero123.learning import PROJECTION, UNET, LearningConfig
from unflat.systems.zero123.networks import put
from unflat.systems.zero123.published import Null, PublishedViews
from unflat.systems.zero123.published_files import find_start
from unflat.systems.zero123.published_loading import filled, open_published
from unflat.training.model_file import load_weights

LAYOUT = "published"
"""What the header of such a file says under ``layout``."""
_LEARNED_CONVOLUTION = f"{UNET}.conv_in."


def header_of(model: PublishedViews, config: LearningConfig, base: str | Path) -> dict[str, Any]:
    """What a file says beside its weights, but for the system.

    Args:
        model: that learns.
        config: how.
        base: path or name of the weights with which it began.
    """
    is_path = Path(base).exists()
    return {
        "layout": LAYOUT,
        "config": config.to_json(),
        "pose_numbers": model.pose_numbers,
        "pixels": model.pixels,
        "base": str(Path(base).resolve()) if is_path else str(base),
    }


def whole(learned: dict[str, Tensor], base: Path) -> dict[str, Tensor]:
    """All weights of a model, for a file: what has learned, and the encoders as they were.

    Args:
        learned: denoiser and projection, by the names of `PublishedLearning.network`.
        base: the file or folder with which training began.
    """
    frozen = {
        f"{part}.{name}": stored.read()
        for part, weights in find_start(base).parts.items()
        if part not in (UNET, PROJECTION)
        for name, stored in weights.items()
    }
    return {**frozen, **learned}


def open_trained(
    path: Path,
    header: dict[str, Any],
    *,
    name: str = "",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    null: Null = "sampling",
    plain_attention: bool = False,
    offline: bool = False,
) -> PublishedViews:
    """A published model that has learned on, ready to make views; see `open_published`.

    Args:
        path: of the file.
        header: of it.
        name: for reports; the path's own if not given.
        device: where it computes.
        dtype: of its networks.
        null: what guidance takes for nothing.
        plain_attention: see `PublishedViews`.
        offline: whether the weights that adapters belong to may be downloaded.

    Raises:
        UserError: the file does not fit its header, or adapters lack what they belong to.
    """
    config = LearningConfig(**header["config"])
    licence = str(header.get("card", {}).get("licence", "not stated"))
    if not config.lora:
        return open_published(
            path,
            name=name,
            pose_numbers=header["pose_numbers"],
            device=device,
            dtype=dtype,
            null=null,
            plain_attention=plain_attention,
            licence=licence,
        )
    base = _base(str(header["base"]), path, offline)
    networks = filled(find_start(base), torch.device(device), dtype, torch.Generator())
    weights, _ = load_weights(path)
    weights = {key: value.to(device) for key, value in weights.items()}
    unet = {key.removeprefix(f"{UNET}."): weights[key] for key in weights if key.startswith(UNET)}
    try:
        merge_adapters(networks.unet, unet, config.alpha / config.lora)
        for key in (key for key in weights if key.startswith(_LEARNED_CONVOLUTION)):
            put(networks.unet, key.removeprefix(f"{UNET}."), weights[key].to(dtype))
        for leaf in ("weight", "bias"):
            put(networks.projection, leaf, weights[f"{PROJECTION}.{leaf}"])
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{path}: does not belong to {base} ({error.args[0]}); give the file with which its "
            "training began that name."
        ) from error
    return PublishedViews(
        networks,
        name=name or path.name,
        pose_numbers=header["pose_numbers"],
        pixels=header["pixels"],
        null=null,
        plain_attention=plain_attention,
        licence=licence,
    )


def _base(named: str, path: Path, offline: bool) -> Path:
    """The weights that adapters belong to: where they were, beside the file, or by their name."""
    for place in (Path(named), path.parent / Path(named).name):
        if place.exists():
            return place
    try:
        return find_views(named, offline=offline).path
    except UserError as error:
        raise UserError(
            f"{path}: holds adapters to {named}, which is not there; put that file beside it."
        ) from error
