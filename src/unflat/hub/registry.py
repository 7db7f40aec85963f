"""The models that have a name, and the way from a name or a path to a file.

Listing them reads no weights.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path

from unflat.errors import UserError

EXAMPLE_CREDIT = "toy duck, Nataniel Ruiz (google/dreambooth), CC BY 4.0"
"""Who took the photo that `example_picture` gives, and its licence."""

FEATURES = "unflat-features"
"""The network that evaluation measures distances with where no other is given."""

_BUNDLED = Path(__file__).parent / "bundled"


@dataclass(frozen=True, kw_only=True)
class Description:
    """One model, in words."""

    summary: str
    """What it is for, in one line."""
    system: str
    """Which of `unflat.systems` reads it."""
    file: str
    """Name of the bundled weights."""
    size_mb: float
    """Of the file, megabytes."""
    licence: str
    """What the weights may be used for."""
    trained_on: str
    """Data, in some words."""
    seconds_cpu: float
    """For a picture on two CPU cores: to its result folder, or to its features."""
    memory_mib: int
    """Most memory held meanwhile."""


MODELS: dict[str, Description] = {
    "vq3d-small": Description(
        summary="one photo of anything becomes a scene; 64 px geometry, detail from the photo",
        system="vq3d",
        file="vq3d-small.safetensors",
        size_mb=8.0,
        licence="Apache-2.0",
        trained_on="5,220 rendered scenes and 2,420 freely licensed photographs",
        seconds_cpu=15.0,
        memory_mib=1000,
    ),
    "vq3d-prior": Description(
        summary="new scenes of sixteen classes, in the tokens of vq3d-small; 64 px",
        system="vq3d-prior",
        file="vq3d-prior.safetensors",
        size_mb=4.4,
        licence="Apache-2.0",
        trained_on="tokens of 5,220 rendered scenes and 2,420 freely licensed photographs",
        seconds_cpu=20.0,
        memory_mib=600,
    ),
    "sdf-cars": Description(
        summary="new cars with a surface, from all sides; learned at 32 px",
        system="gan",
        file="sdf-cars.safetensors",
        size_mb=1.4,
        licence="Apache-2.0",
        trained_on="2,640 renders of 132 cars",
        seconds_cpu=30.0,
        memory_mib=700,
    ),
    "sdf-planes": Description(
        summary="new aeroplanes with a surface, from all sides; learned at 32 px",
        system="gan",
        file="sdf-planes.safetensors",
        size_mb=1.4,
        licence="Apache-2.0",
        trained_on="2,460 renders of 123 aeroplanes",
        seconds_cpu=30.0,
        memory_mib=700,
    ),
    "find-cars": Description(
        summary="one picture of a car becomes a mesh with its camera and colors; sees 32 px",
        system="inversion",
        file="find-cars.safetensors",
        size_mb=3.7,
        licence="Apache-2.0",
        trained_on="what sdf-cars makes up, and 2,640 renders of 132 cars",
        seconds_cpu=30.0,
        memory_mib=800,
    ),
    "find-planes": Description(
        summary="one picture of an aeroplane becomes a mesh with its camera and colors; sees 32 px",
        system="inversion",
        file="find-planes.safetensors",
        size_mb=3.7,
        licence="Apache-2.0",
        trained_on="what sdf-planes makes up, and 2,460 renders of 123 aeroplanes",
        seconds_cpu=30.0,
        memory_mib=800,
    ),
    "unflat-views": Description(
        summary="one picture of an object becomes views from all sides, and a mesh; 64 px",
        system="zero123",
        file="unflat-views.safetensors",
        size_mb=4.2,
        licence="Apache-2.0",
        trained_on="3,420 renders of 285 objects",
        seconds_cpu=10.0,
        memory_mib=700,
    ),
    FEATURES: Description(
        summary="tells pictures apart, for kid-unflat and perceptual-unflat of unflat evaluate",
        system="features",
        file="unflat-features.safetensors",
        size_mb=1.1,
        licence="Apache-2.0",
        trained_on="13,740 renders and 2,420 freely licensed photographs",
        seconds_cpu=0.003,
        memory_mib=400,
    ),
}


def find(name: str | Path, *, offline: bool = False) -> Path:
    """The weights of a model, given by name or by path.

    A folder of a training run stands for the model it wrote.

    Args:
        name: from `MODELS`, or a path; a path that exists comes first.
        offline: whether the network is ruled out. All models of this version are bundled, so
            none needs it; the message says which.

    Raises:
        UserError: no such model or file.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        if (path / "model.safetensors").is_file():
            return path / "model.safetensors"
        raise UserError(f"{name}: holds no model.safetensors; give the path of a model file.")
    known = MODELS.get(str(name))
    if known is None:
        raise UserError(_unknown(str(name)))
    if not is_here(str(name)):
        network = " and --offline is set" if offline else ""
        raise UserError(
            f"{name}: its weights are not in this installation{network}; "
            "install unflat again, or give --model the path of a model file."
        )
    return _BUNDLED / known.file


def is_here(name: str) -> bool:
    """Whether a named model's weights are on this computer."""
    return (_BUNDLED / MODELS[name].file).is_file()


def card_path(name: str) -> Path:
    """Where the card of a named model is."""
    return _BUNDLED / f"{name}.md"


def example_picture() -> Path:
    """The photo that ``unflat demo`` and ``reconstruct --example`` use; its credit lies beside."""
    return _BUNDLED / "example.jpg"


def example_object() -> Path:
    """The cut-out car that ``unflat invert --example`` uses; no model has learned from it."""
    return _BUNDLED / "example-car.png"


def _unknown(name: str) -> str:
    if "/" in name or "\\" in name or Path(name).suffix:
        return f"{name}: there is no such model file; check the path, or see unflat models list."
    near = difflib.get_close_matches(name, list(MODELS), 1, cutoff=0.4)
    advice = f"did you mean {near[0]}?" if near else "see unflat models list."
    return f"{name}: there is no such model; {advice}"
