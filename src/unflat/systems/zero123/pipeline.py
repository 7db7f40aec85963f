"""From a name, a path or a hub id to a model of new views.

model = load_view_model("zero123-105000", "cuda", dtype=torch.float16, tell=print)
model.reference(image[None], opacity[None])
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from unflat.errors import UserError
from unflat.hub import MODELS, find
from unflat.hub.view_models import UNKNOWN_LICENCE, FoundViews, find_views
from unflat.systems.zero123.compact import CompactViews, Config, build
from unflat.systems.zero123.model import ViewModel
from unflat.systems.zero123.published import Null, PoseNumbers
from unflat.systems.zero123.published_loading import open_published
from unflat.systems.zero123.recipe import SYSTEM
from unflat.systems.zero123.trained import LAYOUT, open_trained
from unflat.tensor_file import tensor_file_kind
from unflat.training.model_file import load_part, load_weights, read_header

_RUN_MODEL = "model.safetensors"  # in the folder of a training run
_STABLE = "stable"  # in the names under which Stable Zero123 goes about


def load_view_model(
    name: str | Path,
    device: str | torch.device = "cpu",
    *,
    dtype: torch.dtype = torch.float32,
    pose_numbers: PoseNumbers | None = None,
    null: Null = "sampling",
    plain_attention: bool = False,
    offline: bool = False,
    tell: Callable[[str], None] | None = None,
) -> ViewModel:
    """The model of a name, a path or a hub id: one of ours, or published weights.

    Args:
        name: from ``unflat models list``, a path, or a hub id.
        device: where it computes.
        dtype: of a published model's networks.
        pose_numbers: what a published model is told; known of those with a name, and "relative" for
            others unless their name speaks of stable.
        null: what guidance takes for nothing, of a published model.
        plain_attention: keep a published model's cross-attention; see `PublishedViews`.
        offline: whether only what was downloaded before may be used.
        tell: takes sentences for a person: the licence of published weights, and what their file
            lacks.

    Raises:
        UserError: there is no such model, it makes no views, it cannot be read or fetched, its
            extra is missing, or nothing says what its pose is told in.
    """
    ways: dict[str, Any] = {
        "device": device,
        "dtype": dtype,
        "null": null,
        "plain_attention": plain_attention,
    }
    if (str(name) in MODELS and not Path(name).exists()) or (Path(name) / _RUN_MODEL).is_file():
        return _ours(find(name, offline=offline), str(name), offline, ways)
    found = find_views(name, offline=offline)
    if found.path.suffix == ".safetensors" and tensor_file_kind(found.path) is not None:
        return _ours(found.path, str(name), offline, ways)
    licence = found.known.licence if found.known else UNKNOWN_LICENCE
    model = open_published(
        found.path,
        name=str(name),
        pose_numbers=pose_numbers or told_numbers(found, name),
        licence=licence,
        **ways,
    )
    for sentence in (f"{name}: licence {licence}", *model.notices):
        if tell is not None:
            tell(sentence)
    return model


def told_numbers(found: FoundViews, name: str | Path) -> PoseNumbers:
    """What a published model is told, by what is known of it.

    Args:
        found: the model.
        name: by which a person called it.

    Raises:
        UserError: its file is called stable, and nothing else is known of it.
    """
    if found.known is not None:
        return found.known.pose_numbers
    if tensor_file_kind(found.path) is not None:
        return read_header(found.path).get("pose_numbers", "relative")
    if _STABLE in found.path.name.lower():
        raise UserError(
            f"{name}: is Stable Zero123 by its name, and nothing in it says so; add "
            "--pose stable, or --pose relative if it is not."
        )
    return "relative"


def _ours(path: Path, name: str, offline: bool, ways: dict[str, Any]) -> ViewModel:
    """A model that a training of ours wrote, small or published."""
    require_views(path, name)
    header = read_header(path)
    if header.get("layout") == LAYOUT:
        return open_trained(path, header, name=name, offline=offline, **ways)
    return load(path, ways["device"])


def load(path: Path | str, device: str | torch.device = "cpu") -> CompactViews:
    """The small model of a file of ours.

    Raises:
        UserError: no such file, a model of another system, or weights that do not fit.
    """
    require_views(path)
    weights, header = load_weights(path)
    network = build(Config.from_json(header["config"]))
    load_part(network, weights, "", path)
    name = str(header.get("card", {}).get("name", Path(path).stem))
    model = CompactViews(network.eval().requires_grad_(False), name, header)
    return model.to(device)


def require_views(path: Path | str, name: str | None = None) -> None:
    """Refuse files of other systems, by their header alone.

    Args:
        path: of the file.
        name: by which a person called it; the path if not given.

    Raises:
        UserError: no such file, or a model that makes no views of objects.
    """
    found = read_header(path).get("system", "nothing known")
    if found != SYSTEM:
        raise UserError(
            f"{name or path}: is a model of {found} and makes no views of objects; see unflat "
            "models list."
        )
