"""From one picture's radiance field to another's.

A vector-quantised model promises nothing about what lies between two of its codes (VQ3D's authors
say so of theirs), so there are three ways: *latents* mixes the codes before they are rounded;
*planes* mixes the decoded feature planes; *tokens* switches token after token from the one picture
to the other, in Halton's order, so that every one is a code of a real picture.

    ends = encode_ends(model, torch.stack([cat, dog]))
    planes = planes_between(model, ends, share=0.5)
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unflat.errors import UserError
from unflat.export import to_uint8
from unflat.fields.viewspace import ViewSpaceField, ViewSpacePlanes
from unflat.geometry import orbit
from unflat.nn.halton import halton_order
from unflat.nn.quantize import FiniteScalarQuantizer, VectorQuantizer
from unflat.scene import Frames, Scene, SceneHeader
from unflat.systems.vq3d.autoencoder import Autoencoder, Planes
from unflat.systems.vq3d.pipeline import USUAL_SHIFT, scene_with_front

Way = Literal["latents", "planes", "tokens"]

_BOUND = 0.995  # of FSQ's numbers: where decoding stops undoing their tanh


class Ends(NamedTuple):
    """Two pictures behind the encoder."""

    latents: Float[Tensor, "2 n dim"]
    """Not rounded."""
    tokens: Float[Tensor, "2 n dim"]
    """Rounded to codes."""


@torch.no_grad()
def encode_ends(model: Autoencoder, images: Float[Tensor, "2 3 side side"]) -> Ends:
    """Both pictures' codes.

    Args:
        model: in evaluation mode.
        images: at the model's resolution, sRGB in [0, 1].
    """
    free = model.encode(images, rounding=0.0).quantized.tokens
    return Ends(free, model.encode(images).quantized.tokens)


@torch.no_grad()
def planes_between(model: Autoencoder, ends: Ends, share: float, way: Way = "latents") -> Planes:
    """The planes of a scene between two.

    Args:
        model: of the codes.
        ends: of two pictures.
        share: of the second one, in [0, 1].
        way: what is mixed.

    Raises:
        ValueError: the share is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; it must be in [0, 1]")
    if way == "latents":
        return model.decode(_mixed_latents(model, ends.latents, share)[None])
    if way == "tokens":
        return model.decode(_switched_tokens(model, ends.tokens, share)[None])
    planes = model.decode(ends.tokens)
    if isinstance(planes, ViewSpacePlanes):
        return ViewSpacePlanes(*(plane[:1].lerp(plane[1:], share) for plane in planes))
    return planes[:1].lerp(planes[1:], share)


@torch.no_grad()
def scene_of_planes(model: Autoencoder, planes: Planes, header: SceneHeader) -> Scene:
    """The scene of some planes; it carries its own front view.

    Args:
        model: of the planes.
        planes: of one scene.
        header: what it is; field of view and date are filled in.

    Raises:
        UserError: scenes of this kind of model cannot be saved.
    """
    return scene_with_front(model, _placed(model, planes), header)


@torch.no_grad()
def film_between(
    model: Autoencoder,
    ends: Ends,
    way: Way,
    header: SceneHeader,
    *,
    frames: int,
    size: tuple[int, int],
    max_angle: float = math.radians(12),
    progress: Callable[[], None] | None = None,
) -> tuple[Frames, Frames]:
    """From the first scene to the second and back: seen by one camera, and by one that orbits.

    Args:
        model: of the codes.
        ends: of two pictures.
        way: what is mixed.
        header: of the scenes.
        frames: how many.
        size: height and width.
        max_angle: farthest turn of the moving camera, radians.
        progress: called after each of the 2 ``frames`` pictures.
    """
    pivot = scene_of_planes(model, planes_between(model, ends, 0.5, way), header).pivot_depth
    still: list[np.ndarray] = []
    moving: list[np.ndarray] = []
    for number, pose in enumerate(orbit(frames, max_angle, pivot)):
        share = 0.5 - 0.5 * math.cos(2 * math.pi * number / frames)
        scene = Scene(_placed(model, planes_between(model, ends, share, way)).cpu(), header)
        turned = replace(scene.camera, camera_to_world=pose[None])
        for images, camera in ((still, scene.camera), (moving, turned)):
            images.append(to_uint8(scene.render(camera, size).rgb[0]))
            if progress is not None:
                progress()
    return Frames(np.stack(still)), Frames(np.stack(moving))


def _placed(model: Autoencoder, planes: Planes) -> ViewSpaceField:
    """The field of planes in the frame that reconstructions have."""
    field = model.field(planes)
    if not isinstance(field, ViewSpaceField):
        raise UserError("--model: scenes in contracted space cannot be saved yet; use another.")
    return field.with_frame(replace(field.frame, b=USUAL_SHIFT))


def _mixed_latents(
    model: Autoencoder, latents: Float[Tensor, "2 n dim"], share: float
) -> Float[Tensor, "n dim"]:
    """A straight line, in the numbers that the decoder's linear path reads."""
    if isinstance(model.quantizer, FiniteScalarQuantizer):
        first, second = latents.clamp(-_BOUND, _BOUND).atanh()
        return first.lerp(second, share).tanh()
    mixed = latents[0].lerp(latents[1], share)
    if isinstance(model.quantizer, VectorQuantizer):  # codes are unit vectors
        codes = mixed.unflatten(-1, (-1, model.quantizer.code_dim))
        return functional.normalize(codes, dim=-1).flatten(-2)
    return mixed


def _switched_tokens(
    model: Autoencoder, tokens: Float[Tensor, "2 n dim"], share: float
) -> Float[Tensor, "n dim"]:
    order = halton_order(model.config.grid).to(tokens.device)
    mixed = tokens[0].clone()
    switched = order[: round(share * len(order))]
    mixed[switched] = tokens[1, switched]
    return mixed
