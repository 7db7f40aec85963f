"""From a name, a path or a hub id to a model of views: what every verb uses.

model = load_view_model("zero123-105000", device="cuda", dtype=torch.float16, tell=print)
"""

from collections.abc import Callable
from pathlib import Path

import torch

from unflat.errors import UserError
from unflat.hub.registry import MODELS, find
from unflat.hub.view_models import UNKNOWN_LICENCE, find_views
from unflat.systems.zero123.model import ViewModel
from unflat.systems.zero123.published import Null, PoseNumbers
from unflat.systems.zero123.published_loading import open_published
from unflat.tensor_file import tensor_file_kind

SYSTEM = "zero123"
_RUN_MODEL = "model.safetensors"  # in the folder of a training run
_STABLE = "stable"  # in the names under which Stable Zero123 goes about


def load_view_model(
    source: str | Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    pose_numbers: PoseNumbers | None = None,
    null: Null = "sampling",
    plain_attention: bool = False,
    offline: bool = False,
    tell: Callable[[str], None] | None = None,
) -> ViewModel:
    """A model of views, ours or published.

    Args:
        source: a name from ``unflat models list``, a path, or a hub id.
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
        UserError: there is no such model, it cannot be read or fetched, its extra is missing, or
            nothing says what its pose is told in.
    """
    if str(source) in MODELS and not Path(source).exists():
        return _ours(find(source, offline=offline), device)
    if (Path(source) / _RUN_MODEL).is_file():
        return _ours(find(source), device)
    found = find_views(source, offline=offline)
    if found.path.suffix == ".safetensors" and tensor_file_kind(found.path) is not None:
        return _ours(found.path, device)
    if pose_numbers is None and found.known is not None:
        pose_numbers = found.known.pose_numbers
    if pose_numbers is None and _STABLE in found.path.name.lower():
        raise UserError(
            f"{source}: is Stable Zero123 by its name, and nothing in it says so; add "
            "--pose stable, or --pose relative if it is not."
        )
    licence = found.known.licence if found.known else UNKNOWN_LICENCE
    model = open_published(
        found.path,
        name=str(source),
        pose_numbers=pose_numbers or "relative",
        device=device,
        dtype=dtype,
        null=null,
        plain_attention=plain_attention,
        licence=licence,
    )
    for sentence in (f"{source}: licence {licence}", *model.notices):
        if tell is not None:
            tell(sentence)
    return model


def _ours(path: Path, device: str) -> ViewModel:
    """A model that unflat has trained."""
    raise UserError(f"{path}: is no model of views; see unflat models list.")
