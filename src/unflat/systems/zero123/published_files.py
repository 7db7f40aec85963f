"""Files of Zero-1-to-3's weights: the authors' checkpoints, and folders as diffusers saves them.

    weights = find_weights(Path("105000.ckpt"))     # nothing of the weights is read yet
    weights.parts["unet"]["conv_in.weight"].shape   # under diffusers' names, whatever the file's

Folders are in two dialects, which differ in the name of the projection and in what CLIP is given.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from unflat.errors import UserError
from unflat.hub.view_models import part_files
from unflat.pretrained import read_settings
from unflat.stored_tensors import StoredTensor, stored_tensors
from unflat.systems.zero123.clip_pixels import ClipPixels
from unflat.systems.zero123.compvis_names import (
    AVERAGED,
    UNET,
    Part,
    averaged_name,
    place,
    present_name,
)
from unflat.tensor_file import tensor_file_kind
from unflat.training.model_file import read_header

EXPECTED = (
    "give a checkpoint of Zero-1-to-3 (105000.ckpt, zero123-xl.ckpt, stable_zero123.ckpt) or the "
    "folder of one as diffusers saves it"
)
_PARTS: tuple[Part, ...] = ("unet", "vae", "image_encoder")
_PROJECTIONS: dict[str, tuple[str, ClipPixels]] = {
    "cc_projection": ("projection.", "authors"),
    "clip_camera_projection": ("proj.", "processor"),
}
_PLACES = "vision_model.embeddings.position_ids"  # 0, 1, 2 ..., which older files hold
_FIRST = "conv_in.weight"
_CHANNELS = 8  # that the denoiser sees: the noisy latent's and the picture's
_VISUAL = "cond_stage_model.model.visual."
_TEXT = (  # towers of Stable Diffusion 1, 2 and XL
    "cond_stage_model.transformer.",
    "cond_stage_model.model.transformer.",
    "conditioner.embedders.",
)


@dataclass(frozen=True, kw_only=True)
class FoundWeights:
    """What a file or a folder holds."""

    source: str
    """Its path, for messages."""
    parts: Mapping[Part, Mapping[str, StoredTensor]]
    """Weights by the names of diffusers' and transformers' networks."""
    pixels: ClipPixels
    """What its CLIP is given."""
    notices: tuple[str, ...] = ()
    """What a person should know of it."""

    @property
    def channels(self) -> int:
        """That the denoiser sees."""
        return self.parts["unet"][_FIRST].shape[1]


def find_weights(path: Path, *, averaged: bool = True) -> FoundWeights:
    """The weights of a file or a folder of Zero-1-to-3.

    Args:
        path: of it.
        averaged: prefer the moving average of the denoiser, as one does to make pictures.

    Raises:
        UserError: it is damaged, incomplete or something else; the message says what.
    """
    found = _found(path, averaged)
    _refuse_start(found)
    return found


def find_start(path: Path) -> FoundWeights:
    """The weights that training begins with, or those of a model that is to learn on.

    Args:
        path: of ``sd-image-conditioned-v2.ckpt`` (Stable Diffusion told of pictures in place of
            words) or of a model of Zero-1-to-3, whose moving average is taken; or a folder of such.

    Raises:
        UserError: it is damaged, incomplete or something else.
    """
    found = _found(path, averaged=False)
    return found if found.channels != _CHANNELS else find_weights(path)


def _found(path: Path, averaged: bool) -> FoundWeights:
    if path.is_dir():
        found = _folder(path)
    else:
        state = stored_tensors(path, EXPECTED)
        is_ours = tensor_file_kind(path) is not None
        found = _ours(state, path) if is_ours else from_checkpoint(state, path, averaged=averaged)
    for part in _PARTS:
        if not found.parts.get(part):
            raise UserError(f"{path}: holds no {part}, so that it is cut; {EXPECTED}.")
    if _FIRST not in found.parts["unet"]:
        raise UserError(f"{path}: holds no {_FIRST} of a denoiser, so that it is cut; {EXPECTED}.")
    return found


def _ours(state: Mapping[str, StoredTensor], path: Path) -> FoundWeights:
    """What a file that our training wrote holds: diffusers' names behind those of the parts."""
    header = read_header(path)
    if header.get("config", {}).get("lora"):
        raise UserError(
            f"{path}: holds adapters alone, to which nothing can be added; give the model that "
            "they were made for, or one that was trained without --lora."
        )
    parts: dict[Part, dict[str, StoredTensor]] = {
        part: {
            name.removeprefix(f"{part}."): value
            for name, value in state.items()
            if name.startswith(f"{part}.")
        }
        for part in (*_PARTS, "cc_projection")
    }
    return FoundWeights(source=str(path), parts=parts, pixels=header.get("pixels", "authors"))


def from_checkpoint(
    state: Mapping[str, StoredTensor], path: Path, *, averaged: bool = True
) -> FoundWeights:
    """What a checkpoint under the authors' names holds, under diffusers'.

    Args:
        state: all of its tensors.
        path: of the file, for messages.
        averaged: prefer the moving average of the denoiser.

    Raises:
        UserError: it is a text-to-image model, something else, or cut.
    """
    if not any(name.startswith(UNET) for name in state):
        raise UserError(f"{path}: holds no denoiser under the authors' names; {EXPECTED}.")
    sees = any(name.startswith(_VISUAL) for name in state)
    if not sees and any(name.startswith(_TEXT) for name in state):
        raise UserError(
            f"{path}: is a text-to-image model, which is told words in place of a picture and a "
            f"pose; {EXPECTED}."
        )
    notices = []
    if averaged and any(name.startswith(AVERAGED) for name in state):
        names = {name for name in state if name.startswith(UNET)}
        lost = [name for name in names if averaged_name(name) not in state]
        if lost:
            raise UserError(
                f"{path}: lacks {averaged_name(min(lost))}, so that it is cut; download it again."
            )
        state = {name: state[averaged_name(name) if name in names else name] for name in state}
    elif averaged:
        notices.append("holds no moving average of the weights; the last ones are used")
    parts: dict[Part, dict[str, StoredTensor]] = {}
    for name, value in state.items():
        where = place(name)
        if where is None:
            continue
        pieces = _changed(value, where.change, path, name)
        parts.setdefault(where.part, {}).update(zip(where.names, pieces, strict=True))
    return FoundWeights(source=str(path), parts=parts, pixels="authors", notices=tuple(notices))


def _changed(value: StoredTensor, change: str, path: Path, name: str) -> list[StoredTensor]:
    """The tensor or tensors that a tensor becomes."""
    shape = value.shape
    if change == "transpose" and len(shape) == 2:
        return [_view(value, shape[::-1], lambda whole: whole.T)]
    if change == "flat" and len(shape) == 4 and shape[2:] == (1, 1):
        return [_view(value, shape[:2], lambda whole: whole.flatten(1))]
    if change == "thirds" and len(shape) in (1, 2) and shape[0] % 3 == 0:
        third = (shape[0] // 3, *shape[1:])
        return [_view(value, third, lambda w, i=i: w.chunk(3)[i].clone()) for i in range(3)]
    if change == "copy":
        return [value]
    raise UserError(
        f"{path}: {name} is of shape {shape}, which no such weight has; give a file as published."
    )


def _view(
    value: StoredTensor, shape: tuple[int, ...], change: Callable[[Tensor], Tensor]
) -> StoredTensor:
    return replace(value, shape=shape, read=lambda: change(value.read()))


def _folder(path: Path) -> FoundWeights:
    """A folder as diffusers saves it, in either dialect."""
    if not (path / "unet").is_dir():
        raise UserError(f"{path}: holds no folder unet; {EXPECTED}.")
    if (path / "text_encoder").is_dir():
        raise UserError(
            f"{path}: is a text-to-image model, which is told words in place of a picture and a "
            f"pose; {EXPECTED}."
        )
    _refuse_velocity(path)
    parts: dict[Part, dict[str, StoredTensor]] = {}
    for part in _PARTS:
        tensors = _weights_of(path, part)
        tensors.pop(_PLACES, None)
        parts[part] = {present_name(name): value for name, value in tensors.items()}
    pixels: ClipPixels = "authors"
    for folder, (prefix, way) in _PROJECTIONS.items():
        if (path / folder).is_dir():
            tensors = _weights_of(path, folder)
            parts["cc_projection"] = {n.removeprefix(prefix): v for n, v in tensors.items()}
            pixels = way
            break
    return FoundWeights(source=str(path), parts=parts, pixels=pixels)


def _weights_of(path: Path, part: str) -> dict[str, StoredTensor]:
    """Of a part of a folder."""
    for name in part_files(part):
        if (path / name).is_file():
            return stored_tensors(path / name, EXPECTED)
    raise UserError(
        f"{path / part}: holds no file of weights; copy or download the whole model again."
    )


def _refuse_velocity(path: Path) -> None:
    settings = path / "scheduler" / "scheduler_config.json"
    if settings.is_file():
        said = read_settings(settings, EXPECTED).get("prediction_type", "epsilon")
        if said != "epsilon":
            raise UserError(
                f"{path}: predicts {said} where Zero-1-to-3 predicts noise; {EXPECTED}."
            )


def _refuse_start(found: FoundWeights) -> None:
    """What is close to Zero-1-to-3 and is not it."""
    has_pose = bool(found.parts.get("cc_projection"))
    if found.channels == _CHANNELS and has_pose:
        return
    if found.channels == _CHANNELS:
        raise UserError(
            f"{found.source}: has no cc_projection, so that it cannot be told a pose; {EXPECTED}."
        )
    if not has_pose:
        raise UserError(
            f"{found.source}: makes variations of a picture and knows no poses; training can "
            f"begin from it (open_training_start), to make views {EXPECTED}."
        )
    raise UserError(
        f"{found.source}: its denoiser sees {found.channels} channels where Zero-1-to-3's sees "
        f"{_CHANNELS}; {EXPECTED}."
    )
