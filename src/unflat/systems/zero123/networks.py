"""The networks of a published model, as large as the shapes of its weights say.

Diffusers' denoiser and autoencoder and transformers' picture tower of CLIP are built without memory
and filled tensor by tensor, so that little more is ever held than the weights that are kept.
"""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unflat.errors import UserError, require_extra
from unflat.stored_tensors import StoredTensor
from unflat.systems.zero123.compvis_names import Part

Stored = Mapping[str, StoredTensor]
"""Weights of a part by diffusers' or transformers' names."""

_PURPOSE = "a published model of views"
_HEADS = 8  # of the denoiser's attention, whatever its width
_HEAD_WIDTH = 64  # of CLIP's
_LEAST_HEADS = 4  # of CLIP's in miniature, narrower than one head of the real tower
_CALLED = {
    "unet": "denoiser",
    "vae": "autoencoder",
    "image_encoder": "CLIP tower",
    "cc_projection": "projection of the pose",
}


def build(part: Part, weights: Stored, source: str) -> nn.Module:
    """A part without memory, as large as its weights.

    Args:
        part: which.
        weights: by the network's own names.
        source: for messages, as in the path of the file.

    Raises:
        UserError: diffusers or transformers is missing, or so is a weight that tells a size.
    """
    makers: dict[str, Callable[[Stored], nn.Module]] = {
        "unet": _unet,
        "vae": _vae,
        "image_encoder": _clip,
        "cc_projection": _projection,
    }
    try:
        with torch.device("meta"), _silence():
            return makers[part](weights)
    except KeyError as error:
        raise UserError(
            f"{source}: lacks {error.args[0]} of the {_CALLED[part]}, so that it is cut or of "
            "another network; give a file as published."
        ) from error
    except (ValueError, IndexError, TypeError) as error:
        raise UserError(
            f"{source}: its {_CALLED[part]} has shapes that no such network has; give a file as "
            "published."
        ) from error


def check(part: Part, network: nn.Module, weights: Stored, source: str) -> None:
    """See that weights are the network's, each and all.

    Raises:
        UserError: one is missing, unknown, or of another shape; the message names the first.
    """
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    called = _CALLED[part]
    if missing := wanted.keys() - weights.keys():
        raise UserError(
            f"{source}: lacks {min(missing)} of the {called}, so that it is cut or of another "
            "network; give a file as published."
        )
    if unknown := weights.keys() - wanted.keys():
        raise UserError(
            f"{source}: holds {min(unknown)}, which no {called} of its kind has; give a file as "
            "published."
        )
    for name, shape in wanted.items():
        if weights[name].shape != shape:
            raise UserError(
                f"{source}: {name} of the {called} is {weights[name].shape} where the others "
                f"suggest {shape}; give a file as published."
            )


def fill(
    network: nn.Module, weights: Stored, device: torch.device, dtype: torch.dtype, source: str
) -> nn.Module:
    """The network with these weights, frozen, in evaluation mode; read one after the other.

    Raises:
        UserError: a weight holds NaN or infinity.
    """
    for name in network.state_dict():
        value = weights[name].read()
        if not bool(value.isfinite().all()):
            raise UserError(f"{source}: {name} holds NaN or infinity; download the file again.")
        put(network, name, value.to(device, dtype, copy=False).contiguous())
    for name, buffer in network.named_buffers():
        if buffer.is_meta:  # numbers of places, in order; not in the file
            place = torch.arange(buffer.numel(), device=device, dtype=buffer.dtype)
            owner, _, leaf = name.rpartition(".")
            network.get_submodule(owner).register_buffer(leaf, place.view(buffer.shape), False)
    return network.eval().requires_grad_(False)


def put(network: nn.Module, name: str, value: Tensor) -> None:
    """Give a network one of its weights."""
    owner, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=False))


def _unet(weights: Stored) -> nn.Module:
    """The denoiser of Stable Diffusion, with what widths and where attention the weights say."""
    diffusers = _package("diffusers")
    levels = range(_count(weights, r"down_blocks\.(\d+)\."))
    first = "transformer_blocks.0.attn2.to_k.weight"
    entry = weights["mid_block.attentions.0.proj_in.weight"]
    has_attention = [f"down_blocks.{i}.attentions.0.norm.weight" in weights for i in levels]
    return diffusers.UNet2DConditionModel(
        in_channels=weights["conv_in.weight"].shape[1],
        out_channels=weights["conv_out.weight"].shape[0],
        block_out_channels=tuple(
            weights[f"down_blocks.{i}.resnets.0.conv1.weight"].shape[0] for i in levels
        ),
        layers_per_block=_count(weights, r"down_blocks\.0\.resnets\.(\d+)\."),
        down_block_types=tuple(
            "CrossAttnDownBlock2D" if has else "DownBlock2D" for has in has_attention
        ),
        up_block_types=tuple(
            "CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(has_attention)
        ),
        cross_attention_dim=weights[f"mid_block.attentions.0.{first}"].shape[1],
        attention_head_dim=_HEADS,  # diffusers' name for the number of heads
        use_linear_projection=len(entry.shape) == 2,
    )


def _vae(weights: Stored) -> nn.Module:
    """The autoencoder of Stable Diffusion."""
    levels = range(_count(weights, r"encoder\.down_blocks\.(\d+)\."))
    return _package("diffusers").AutoencoderKL(
        in_channels=weights["encoder.conv_in.weight"].shape[1],
        out_channels=weights["decoder.conv_out.weight"].shape[0],
        block_out_channels=tuple(
            weights[f"encoder.down_blocks.{i}.resnets.0.conv1.weight"].shape[0] for i in levels
        ),
        down_block_types=("DownEncoderBlock2D",) * len(levels),
        up_block_types=("UpDecoderBlock2D",) * len(levels),
        layers_per_block=_count(weights, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        latent_channels=weights["post_quant_conv.weight"].shape[1],
    )


def _clip(weights: Stored) -> nn.Module:
    """The picture tower of CLIP with its projection."""
    transformers = _package("transformers")
    width, _, patch, _ = weights["vision_model.embeddings.patch_embedding.weight"].shape
    places = weights["vision_model.embeddings.position_embedding.weight"].shape[0]
    return transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=weights["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
            projection_dim=weights["visual_projection.weight"].shape[0],
            num_hidden_layers=_count(weights, r"vision_model\.encoder\.layers\.(\d+)\."),
            num_attention_heads=max(width // _HEAD_WIDTH, _LEAST_HEADS),
            image_size=round((places - 1) ** 0.5) * patch,
            patch_size=patch,
            hidden_act="quick_gelu",
        )
    )


def _projection(weights: Stored) -> nn.Module:
    outputs, inputs = weights["weight"].shape
    return nn.Linear(inputs, outputs)


def _count(weights: Stored, pattern: str) -> int:
    """How many numbers, counted from 0, stand at a place of the names."""
    found = {int(match[1]) for name in weights if (match := re.match(pattern, name))}
    if not found:
        raise KeyError(pattern.replace("\\", "").replace("(d+)", "0"))
    return len(found)


def _package(name: str) -> Any:
    return require_extra(name, "diffusion", _PURPOSE)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No notices of packages that are not needed here."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
