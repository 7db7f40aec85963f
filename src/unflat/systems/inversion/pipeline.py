"""An encoder together with the generator that it was trained on, as one file holds them.

model = load("runs/cars/model.safetensors")
guess = model.encoder(images)            # where, what, and of which code
model.objects.pictures(codes, camera, model.side)
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from unflat.errors import UserError
from unflat.systems.gan.pipeline import SYSTEM as GENERATORS
from unflat.systems.gan.pipeline import ObjectModel, cameras_to_json, from_weights
from unflat.systems.inversion.encoder import Config, Encoder, build
from unflat.systems.inversion.recipe import SYSTEM
from unflat.training.model_file import load_weights

_ENCODER, _GENERATOR = "encoder.", "generator."


class InversionModel:
    """What finds an object behind a picture: an encoder, and the generator it knows."""

    def __init__(
        self, encoder: Encoder, objects: ObjectModel, side: int, header: dict[str, Any]
    ) -> None:
        """A model in evaluation mode.

        Args:
            encoder: with its weights.
            objects: the generator, with cameras like those it learned from.
            side: of the pictures that the encoder learned from, pixels.
            header: of its file.
        """
        self.encoder, self.objects = encoder.eval().requires_grad_(False), objects
        self.side, self.header = side, header
        objects.generator.requires_grad_(False)

    def to(self, device: str) -> "InversionModel":
        """Itself, computing there."""
        self.encoder.to(device)
        self.objects.to(device)
        return self


def load(path: Path | str, device: str = "cpu") -> InversionModel:
    """The model of a file.

    Raises:
        UserError: no such file, a model of another system, or weights that do not fit.
    """
    weights, header = load_weights(path)
    found = header.get("system", "nothing known")
    if found != SYSTEM:
        hint = (
            "train an encoder for it: unflat train inversion-encoder --generator"
            if found == GENERATORS
            else "see unflat models list"
        )
        raise UserError(f"{path}: is a model of {found} and finds no objects in pictures; {hint}.")
    encoder = build(Config.from_json(header["config"]))
    own = {
        name.removeprefix(_ENCODER): value
        for name, value in weights.items()
        if name.startswith(_ENCODER)
    }
    try:
        encoder.load_state_dict(own)
    except RuntimeError as error:
        raise UserError(f"{path}: its encoder's weights do not fit its config.") from error
    objects = from_weights(weights, header["generator"], path)
    return InversionModel(encoder, objects, header["side"], header).to(device)


def header_of(objects: ObjectModel) -> dict[str, Any]:
    """What a file says of the generator it holds: config, cameras and card."""
    kept = {name: objects.header[name] for name in ("config", "card") if name in objects.header}
    return {"generator": {**kept, "cameras": cameras_to_json(objects.camera)}}


def weights_of(encoder: dict[str, Tensor], objects: ObjectModel) -> dict[str, Tensor]:
    """All that a file holds.

    Args:
        encoder: state of a recipe's networks.
        objects: the generator.
    """
    generator = objects.generator.state_dict()
    return {**encoder, **{f"{_GENERATOR}{name}": value for name, value in generator.items()}}
