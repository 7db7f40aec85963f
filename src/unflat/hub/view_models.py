"""Models of views (Zero-1-to-3 and its kin) that others have published: which, where, under what.

    found = find_views("stable-zero123")        # fetched on first use
    found.path, found.known.licence

None is shipped with unflat. What a system makes of the weights is its own affair.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unflat.errors import UserError
from unflat.hub.hub_file import HUB_ID, hub_file
from unflat.hub.registry import MODELS
from unflat.pretrained import read_settings

OPENRAIL = "CreativeML OpenRAIL-M (of Stable Diffusion, from which it is trained on; code MIT)"
UNKNOWN_LICENCE = (
    f"not told by the file: Zero-1-to-3's is {OPENRAIL}; Stable Zero123's is non-commercial"
)


@dataclass(frozen=True, kw_only=True)
class KnownViews:
    """A published model, in words."""

    summary: str
    """What it is for, in one line."""
    hub_id: str
    """Where it lies on the Hugging Face hub."""
    file: str
    """Of the weights there; empty where it is a folder of diffusers."""
    where: str
    """Where a person gets it in a browser."""
    size_gb: float | None
    """Of what is fetched; None if nobody has looked."""
    pose_numbers: Literal["relative", "stable"]
    """Whether the pose's fourth number is the change of distance, or the picture's own polar angle;
    no file says so."""
    licence: str
    """What the weights may be used for."""
    trained_on: str
    """Data, in some words."""


PUBLISHED_VIEWS: dict[str, KnownViews] = {
    "zero123-105000": KnownViews(
        summary="any object from other sides, 256 px; Zero-1-to-3 as its demo runs it",
        hub_id="cvlab/zero123-weights",
        file="105000.ckpt",
        where="https://huggingface.co/cvlab/zero123-weights (165000, 230000 and 300000 too)",
        size_gb=15.5,
        pose_numbers="relative",
        licence=OPENRAIL,
        trained_on="renders of 800,000 objects of Objaverse",
    ),
    "zero123-xl": KnownViews(
        summary="any object from other sides, 256 px; trained on more objects",
        hub_id="ashawkey/zero123-xl-diffusers",
        file="",
        where="https://zero123.cs.columbia.edu/assets/zero123-xl.ckpt (as a checkpoint)",
        size_gb=None,
        pose_numbers="relative",
        licence=f"{OPENRAIL}; its authors have not stated the terms of the XL weights",
        trained_on="renders of Objaverse-XL",
    ),
    "stable-zero123": KnownViews(
        summary="any object from other sides, 256 px; has to be told the picture's elevation",
        hub_id="stabilityai/stable-zero123",
        file="stable_zero123.ckpt",
        where="https://huggingface.co/stabilityai/stable-zero123",
        size_gb=8.6,
        pose_numbers="stable",
        licence="Stability AI's non-commercial licence; read it where the weights are",
        trained_on="chosen renders of Objaverse",
    ),
}
"""By the names that work wherever a path does."""

PARTS = ("unet", "vae", "image_encoder")
"""Folders of a model as diffusers saves it; the projection of the pose is another."""
PROJECTIONS = ("cc_projection", "clip_camera_projection")
"""Folder of that projection, one or the other."""
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_WEIGHTS = (".ckpt", ".safetensors", ".pth", ".pt", ".bin")
_ENDINGS = (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")


@dataclass(frozen=True, kw_only=True)
class FoundViews:
    """Where the weights of a model of views are on this computer."""

    path: Path
    """A file, or a folder of diffusers."""
    known: KnownViews | None
    """What is known of it; None for a path and for most of the hub."""


def find_views(source: str | Path, *, offline: bool = False) -> FoundViews:
    """The weights behind a name, a path or a hub id.

    Args:
        source: from `PUBLISHED_VIEWS`; a path, which comes first if it exists; or a hub id, as in
            "ashawkey/zero123-xl-diffusers", with a file where it has several, as in
            "cvlab/zero123-weights/165000.ckpt".
        offline: whether only what was downloaded before may be used.

    Raises:
        UserError: there is no such model, or it cannot be fetched.
    """
    if Path(source).exists():
        return FoundViews(path=Path(source), known=None)
    name = str(source)
    known = PUBLISHED_VIEWS.get(name)
    if known is not None:
        hub_id, file = known.hub_id, known.file
    else:
        parts = name.split("/")
        hub_id, file = "/".join(parts[:2]), "/".join(parts[2:])
        is_path = Path(hub_id).suffix in _WEIGHTS or (file and Path(file).suffix not in _WEIGHTS)
        if not HUB_ID.fullmatch(hub_id) or is_path:
            raise UserError(_unknown(name))
        known = next(
            (
                each
                for each in PUBLISHED_VIEWS.values()
                if (each.hub_id, each.file) == (hub_id, file)
            ),
            None,
        )
    if file:
        return FoundViews(path=hub_file(hub_id, [file], offline=offline), known=known)
    return FoundViews(path=_fetched_folder(hub_id, offline), known=known)


def part_files(part: str) -> list[str]:
    """Where its weights may lie in a model's folder: safetensors and whole precision first."""
    return [f"{part}/{stem}{ending}" for ending in _ENDINGS for stem in _STEMS]


def describe_views(name: str) -> str:
    """What is known of a published model, a line each."""
    model = PUBLISHED_VIEWS[name]
    size = f"{model.size_gb:g} GB" if model.size_gb else "size not known"
    told = {
        "relative": "how far to move; how high the picture was taken is not asked",
        "stable": "how far to move, and how high the picture was taken (--input-elevation-deg)",
    }
    fetched = "/".join([model.hub_id, model.file]).rstrip("/")
    return "\n".join(
        [
            f"{name}: {model.summary}",
            f"  published by others, not shipped with unflat; fetched on first use ({size})",
            f"  from {fetched} on the Hugging Face hub",
            f"  to download it yourself: {model.where}",
            f"  licence: {model.licence}",
            f"  trained on {model.trained_on}",
            f"  is told {told[model.pose_numbers]}",
            '  needs pip install "unflat[diffusion]"',
        ]
    )


def _fetched_folder(hub_id: str, offline: bool) -> Path:
    """The files that are used, and no others: such models come with more."""
    index = hub_file(hub_id, ["model_index.json"], offline=offline)
    listed = read_settings(index, "choose another model")
    projections = [name for name in PROJECTIONS if name in listed]
    for part in (*PARTS, *projections):
        hub_file(hub_id, part_files(part), offline=offline)
    if "scheduler" in listed:
        hub_file(hub_id, ["scheduler/scheduler_config.json"], offline=offline)
    return index.parent


def _unknown(name: str) -> str:
    names: Sequence[str] = [*PUBLISHED_VIEWS, *MODELS]
    if "/" in name or "\\" in name or Path(name).suffix:
        return f"{name}: there is no such model file; check the path, or see unflat models list."
    near = difflib.get_close_matches(name, names, 1, cutoff=0.4)
    advice = f"did you mean {near[0]}?" if near else "see unflat models list."
    return f"{name}: there is no such model; {advice}"
