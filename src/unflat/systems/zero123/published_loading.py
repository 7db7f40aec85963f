"""From a file or a folder of published weights to a model of views."""

from pathlib import Path

import torch
from torch import nn

from unflat.systems.zero123.networks import build, check, fill, put
from unflat.systems.zero123.published import (
    Networks,
    Null,
    PoseNumbers,
    PublishedViews,
    first_projection,
    widened,
)
from unflat.systems.zero123.published_files import FoundWeights, find_start, find_weights


def open_published(
    path: Path,
    *,
    name: str = "",
    pose_numbers: PoseNumbers = "relative",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    null: Null = "sampling",
    plain_attention: bool = False,
    averaged: bool = True,
    licence: str = "not stated",
) -> PublishedViews:
    """A published model, ready to make views.

    Args:
        path: of a checkpoint (``.ckpt``, ``.safetensors``), or of a folder of diffusers.
        name: for reports; the path's own if not given.
        pose_numbers: what the model was trained to be told; nothing in a file says it.
        device: where it computes.
        dtype: of its networks; the projection of the pose stays in float32.
        null: what guidance takes for nothing.
        plain_attention: see `PublishedViews`.
        averaged: prefer the moving average of the denoiser.
        licence: what the weights may be used for.

    Raises:
        UserError: diffusers or transformers is missing; the file is damaged, incomplete, or of
            something else.
    """
    found = find_weights(path, averaged=averaged)
    return PublishedViews(
        filled(found, torch.device(device), dtype),
        name=name or path.name,
        pose_numbers=pose_numbers,
        pixels=found.pixels,
        null=null,
        plain_attention=plain_attention,
        licence=licence,
        notices=tuple(f"{path}: {notice}" for notice in found.notices),
    )


def open_training_start(
    path: Path,
    generator: torch.Generator,
    *,
    pose_numbers: PoseNumbers = "relative",
    device: torch.device | str = "cpu",
) -> PublishedViews:
    """The model with which training begins: the authors' start, or one of theirs to learn on.

    The authors began from ``sd-image-conditioned-v2.ckpt``: its first convolution is widened by
    zeros for the picture, and its projection begins with the embedding as it is. Cross-attention
    is kept. Denoiser and projection ask for gradients.

    Args:
        path: of the file, or of such a model's folder.
        generator: draws the projection's columns for the pose, of which that file knows nothing.
        pose_numbers: what the model is told.
        device: where it computes; on "meta" nothing is read, and sizes can be counted.

    Raises:
        UserError: the file is damaged, incomplete, or of something else.
    """
    found = find_start(path)
    model = PublishedViews(
        filled(found, torch.device(device), torch.float32, generator),
        name=path.name,
        pose_numbers=pose_numbers,
        pixels=found.pixels,
        plain_attention=True,
    )
    model.unet.requires_grad_(True)
    model.projection.requires_grad_(True)
    return model


def filled(
    found: FoundWeights,
    device: torch.device,
    dtype: torch.dtype,
    start: torch.Generator | None = None,
) -> Networks:
    """All parts of a model, with their weights.

    Args:
        found: the weights.
        device: where they go; on "meta" they are not read.
        dtype: of all but the projection.
        start: makes a projection where there is none, and widens the first convolution for it.

    Raises:
        UserError: a weight is missing, too many, of another shape, or not finite.
    """
    made: dict[str, nn.Module] = {}
    for part, weights in found.parts.items():  # all are checked before much is read
        made[part] = build(part, weights, found.source)
        check(part, made[part], weights, found.source)
    for part, weights in found.parts.items() if device.type != "meta" else ():
        precision = torch.float32 if part == "cc_projection" else dtype
        fill(made[part], weights, device, precision, found.source)
    if start is not None and not found.parts.get("cc_projection"):
        width = found.parts["image_encoder"]["visual_projection.weight"].shape[0]
        made["cc_projection"] = first_projection(width, start).to(device)
        _widen(made["unet"])
    projection = made["cc_projection"]
    assert isinstance(projection, nn.Linear)
    return Networks(
        unet=made["unet"], vae=made["vae"], clip=made["image_encoder"], projection=projection
    )


def _widen(unet: nn.Module) -> None:
    convolution = unet.get_submodule("conv_in")
    assert isinstance(convolution, nn.Conv2d)
    put(unet, "conv_in.weight", widened(convolution.weight.detach()))
    convolution.in_channels *= 2
    unet.register_to_config(in_channels=convolution.in_channels)  # type: ignore[operator]
