"""Files of encoders, which find objects in pictures: ours, and those that others have published.

file = read_encoder_file("g_p3d_car_pretrained/c_it..._latest.pth")
file.system, file.config            # "nerf-from-image-encoder", {"iteration": 120000}
"""

from collections.abc import Mapping
from pathlib import Path

from unflat.errors import UserError
from unflat.hub.generator_files import AVERAGED, system_of
from unflat.hub.model_file import ModelFile, plain_state, read_content, sha256_of

ENCODER = "nerf-from-image-encoder"
BACKBONE = "segformer-backbone"

ENCODER_LICENCES = {
    ENCODER: "Apache-2.0 (google-research/nerf-from-image), trained on from SegFormer's backbone, "
    "which is for non-commercial use",
    BACKBONE: "NVIDIA Source Code License for SegFormer, non-commercial (NVlabs/SegFormer)",
}
"""Under which the published weights are."""

_EXPECTED = (
    "give an encoder that unflat has trained, one of nerf-from-image (c_it..._latest.pth), or "
    "SegFormer's backbone (mit_b5.pth)"
)
_CHECKPOINT = "model_coord"
_BACKBONE_KEY = "patch_embed1.proj.weight"
_TOLD = ("iteration",)


def read_encoder_file(path: str | Path) -> ModelFile:
    """The encoder, or the backbone of one, in a `.safetensors` file or one that torch has saved.

    Raises:
        UserError: no such file, damaged, a pickle, a generator, of nothing known, or with NaN.
    """
    path = Path(path)
    content = read_content(path, _EXPECTED)
    if isinstance(content, ModelFile):
        return content
    told = {name: content[name] for name in _TOLD if name in content}
    if isinstance(content.get(_CHECKPOINT), Mapping):
        content = content[_CHECKPOINT]
    state = plain_state(content)
    if system_of(state) or any(name in content for name in AVERAGED):
        raise UserError(
            f"{path}: holds a generator, which makes objects and finds none; give the encoder's "
            "c_it..._latest.pth."
        )
    if f"backbone.{_BACKBONE_KEY}" in state:
        system = ENCODER
    elif _BACKBONE_KEY in state:
        system = BACKBONE
    else:
        raise UserError(f"{path}: holds no encoder that is known here; {_EXPECTED}.")
    return ModelFile(
        path=path,
        system=system,
        licence=ENCODER_LICENCES[system],
        sha256=sha256_of(path),
        config=told,
        state=state,
    )
