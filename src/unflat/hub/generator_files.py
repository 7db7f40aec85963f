"""Files of generators: ours, and those that others have published, told apart by what is in them.

    file = read_generator_file("g_p3d_car_pretrained/checkpoint_latest.pth")
    file.system, file.licence           # "nerf-from-image", "Apache-2.0 (...)"

What a system makes of the weights is its own affair.
"""

from collections.abc import Mapping
from pathlib import Path

from unflat.errors import UserError
from unflat.hub.model_file import ModelFile, plain_state, read_content, sha256_of

NERF_FROM_IMAGE = "nerf-from-image"
EG3D = "eg3d-published"

LICENCES = {
    NERF_FROM_IMAGE: "Apache-2.0 (google-research/nerf-from-image; its data sets have own terms)",
    EG3D: "NVIDIA Source Code License, non-commercial (NVlabs/eg3d)",
}
"""Under which the published weights are."""

AVERAGED = ("model_ema", "G_ema")
"""Names under which a checkpoint holds the weights, beside other things."""

_EXPECTED = (
    "give a model that unflat has trained, a generator of nerf-from-image (checkpoint_latest.pth), "
    "or EG3D's weights converted to .pth"
)
_TELLING = {  # a weight that only this one has
    NERF_FROM_IMAGE: "mapping_network.backbone.fc0.weight",
    EG3D: "backbone.mapping.fc0.weight",
}
_ENCODER = "model_coord"
_TOLD = ("iteration", "init_kwargs", "rendering_kwargs", "neural_rendering_resolution")


def read_generator_file(path: str | Path) -> ModelFile:
    """The generator in a `.safetensors` file, or in one that torch has saved.

    Raises:
        UserError: no such file, damaged, a pickle, an encoder, of no known system, or with NaN.
    """
    path = Path(path)
    content = read_content(path, _EXPECTED)
    if isinstance(content, ModelFile):
        return content
    if _ENCODER in content:
        raise UserError(
            f"{path}: holds an encoder, which finds objects in pictures and makes none; give the "
            "generator's checkpoint_latest.pth."
        )
    told = {name: content[name] for name in _TOLD if name in content}
    for name in AVERAGED:
        if isinstance(content.get(name), Mapping):
            content = content[name]
            break
    state = plain_state(content)
    system = system_of(state)
    if not system:
        raise UserError(f"{path}: holds no generator that is known here; {_EXPECTED}.")
    return ModelFile(
        path=path,
        system=system,
        licence=LICENCES[system],
        sha256=sha256_of(path),
        config=told,
        state=state,
    )


def system_of(names: Mapping[str, object]) -> str:
    """The system whose generator has weights of these names; nothing where none is known."""
    return next((system for system, key in _TELLING.items() if key in names), "")
