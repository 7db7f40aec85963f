"""From a picture to a Scene with a VQ3D model."""

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.errors import UserError
from unflat.fields.detail import DetailField
from unflat.fields.viewspace import ViewSpaceField
from unflat.hub.registry import find
from unflat.systems.vq3d.autoencoder import Autoencoder, Encoded, SceneField, build
from unflat.systems.vq3d.config import Config
from unflat.systems.vq3d.surface import sharpen_edges, upsample_surface
from unflat.training.model_file import load_weights

SPREAD_SCALE = 0.25  # softness of the sheet per expected error of its depth
LEAST_SPREAD = 0.004  # softness of a sheet whose depth is sure, units of normalised disparity


def load(model: str | Path, device: str = "cpu", offline: bool = False) -> Autoencoder:
    """The model of a name or a file, in evaluation mode.

    Raises:
        UserError: there is no such model, or it is another system's or another version's.
    """
    path = find(model, offline=offline)
    state, header = load_weights(path)
    if header.get("system") != "vq3d":
        raise UserError(
            f"{path}: is a model of {header.get('system')}, not of vq3d; give another --model."
        )
    try:
        values = {
            **header["config"],
            "levels": tuple(tuple(code) for code in header["config"]["levels"]),
        }
        network = build(Config(**values))
        network.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path}: does not fit this version of vq3d; train it again or use another unflat."
        ) from error
    return network.eval().to(device)


@torch.no_grad()
def token_field(model: Autoencoder, encoded: Encoded) -> SceneField:
    """The radiance fields that the tokens alone describe."""
    return model.field(model.decode(encoded.quantized.tokens))


@torch.no_grad()
def detail_field(
    model: Autoencoder,
    encoded: Encoded,
    image: Float[Tensor, "batch 3 side side"],
    photo: Float[Tensor, "batch 3 height width"],
    spread_scale: float = SPREAD_SCALE,
) -> DetailField:
    """The tokens' fields with the photo on what it shows.

    Args:
        model: with a refiner, over view-space planes.
        encoded: of the images.
        image: at the model's resolution, in [0, 1].
        photo: the same pictures at any larger resolution.
        spread_scale: softness of the sheet per expected error of its depth.

    Raises:
        ValueError: the model has no detail mode.
    """
    base = token_field(model, encoded)
    if model.refiner is None or not isinstance(base, ViewSpaceField):
        raise ValueError("detail needs a refiner and view-space planes")
    refined = model.refiner(image, base.uv[:, 3:4] + 0.5, encoded.features)
    refined = refined._replace(disparity=sharpen_edges(refined.disparity.clamp(0, 1.05)))
    refined = upsample_surface(refined, image, photo)
    spread = (spread_scale * refined.spread).clamp_min(LEAST_SPREAD)
    return DetailField(base, photo, refined.disparity, spread)


def has_detail(model: Autoencoder) -> bool:
    """Whether the model can carry the photo's own detail."""
    return model.refiner is not None and model.config.field == "viewspace"


def with_fov(field: SceneField | DetailField, focal_true: float) -> SceneField | DetailField:
    """The field under another true focal length (half-widths)."""
    return field.with_frame(replace(field.frame, focal_true=focal_true))


def model_hash(path: Path) -> str:
    """SHA-256 of a model file, for reports and scenes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
