"""Files of weights that others have published: read safely, told apart by what is in them.

file = read_weight_file("vgg16-397923af.pth")
file.kind, file.sha256  # "vgg16", "397923af..."
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unflat.errors import UserError
from unflat.nn.alexnet import AlexNet
from unflat.nn.inception import CLASSES, FidInception
from unflat.nn.published import published_shapes
from unflat.nn.vgg import Vgg16
from unflat.torch_file import read_torch_file

Kind = Literal["inception-fid", "vgg16", "alexnet", "lpips-vgg-heads", "lpips-alex-heads"]
"""What a file can hold."""

FID_FILE = "pt_inception-2015-12-05-6726825d.pth"
"""Name under which pytorch-fid publishes FID's Inception."""

_NETWORKS: dict[Kind, Callable[[], nn.Module]] = {
    "inception-fid": FidInception,
    "vgg16": Vgg16,
    "alexnet": AlexNet,
}
_HEADS: dict[Kind, tuple[int, ...]] = {
    "lpips-vgg-heads": Vgg16.channels,
    "lpips-alex-heads": AlexNet.channels,
}
_PUBLISHED = (
    "6726825d",  # FID_FILE
    "397923af",  # vgg16-397923af.pth
    "7be5be79",  # alexnet-owt-7be5be79.pth
    "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",  # lpips 0.1, vgg.pth
    "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",  # lpips 0.1, alex.pth
)
_OLD_HEADS = (
    "b9e4236260c3dd988fc79d2a48d645d885afcbb21f9fd595e6744cf7419b582c",  # lpips 0.0, vgg.pth
    "18720f55913d0af89042f13faa7e536a6ce1444a0914e6db9461355ece1e8cd5",  # lpips 0.0, alex.pth
)
_EXPECTED = (
    f"give {FID_FILE}, torchvision's vgg16 or alexnet, "
    "or the heads of lpips 0.1 (vgg.pth, alex.pth)"
)


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """What a file holds."""

    path: Path
    """Where it is."""
    kind: Kind
    """Told from names and shapes."""
    sha256: str
    """Of the file."""
    is_published: bool
    """Whether the hash is the one that the weights were published under; a file that was saved
    anew, as safetensors for instance, has another hash and may be right all the same."""
    state: dict[str, Tensor]
    """Every tensor of the file, on the CPU."""

    def heads(self) -> list[Tensor]:
        """The weights of LPIPS's heads, a vector for each layer.

        Raises:
            ValueError: the file holds no heads.
        """
        if self.kind not in _HEADS:
            raise ValueError(f"{self.path} holds {self.kind}, no heads")
        count = len(_HEADS[self.kind])
        return [self.state[_head_name(layer)].float().flatten() for layer in range(count)]


def read_weight_file(path: str | Path) -> WeightFile:
    """The weights in a `.safetensors` file, or in one that torch has saved.

    No code in the file is run.

    Raises:
        UserError: no such file, damaged, with code in it, with NaN, or of no known network; of
            torchvision's Inception and of LPIPS's heads 0.0, which would give other figures.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; {_EXPECTED}.")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    kind = _detect(path, state)
    if sha256 in _OLD_HEADS:
        raise UserError(
            f"{path}: holds heads of lpips 0.0, whose figures differ; give those of 0.1."
        )
    bad = sorted(name for name, value in state.items() if not value.isfinite().all())
    if bad:
        raise UserError(f"{path}: {bad[0]} holds NaN or infinity; download the file again.")
    return WeightFile(
        path=path,
        kind=kind,
        sha256=sha256,
        is_published=sha256.startswith(_PUBLISHED),
        state=state,
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: is not a whole safetensors file; copy or download it again."
        ) from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    content = read_torch_file(path, _EXPECTED)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds no named weights; {_EXPECTED}.")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _detect(path: Path, state: dict[str, Tensor]) -> Kind:
    found = {name: tuple(value.shape) for name, value in state.items()}
    for kind, build in _NETWORKS.items():
        if published_shapes(build).items() <= found.items():
            return kind
    for kind, channels in _HEADS.items():
        if _head_shapes(channels) == found:
            return kind
    if "Mixed_5b.branch1x1.conv.weight" in found:
        raise UserError(_other_inception(path, found))
    raise UserError(f"{path}: holds weights of no network that is known here; {_EXPECTED}.")


def _other_inception(path: Path, found: dict[str, tuple[int, ...]]) -> str:
    classes = found.get("fc.weight", (0,))[0]
    has_auxiliary = any(name.startswith("AuxLogits.") for name in found)
    if has_auxiliary or classes not in (0, CLASSES):
        return (
            f"{path}: is torchvision's Inception ({classes} classes), whose features are not "
            f"FID's; give {FID_FILE}."
        )
    return f"{path}: is a part of an Inception only; give {FID_FILE}."


def _head_name(layer: int) -> str:
    return f"lin{layer}.model.1.weight"


def _head_shapes(channels: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {_head_name(layer): (1, count, 1, 1) for layer, count in enumerate(channels)}
