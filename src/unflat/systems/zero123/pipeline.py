"""From a name or a file to a model of new views.

model = load_view_model("unflat-views")
model.reference(image[None], opacity[None])
"""

from pathlib import Path

import torch

from unflat.errors import UserError
from unflat.hub import find
from unflat.systems.zero123.compact import CompactViews, Config, build
from unflat.systems.zero123.model import ViewModel
from unflat.systems.zero123.recipe import SYSTEM
from unflat.training.model_file import load_part, load_weights, read_header


def load_view_model(
    name: str, device: str | torch.device = "cpu", *, offline: bool = False
) -> ViewModel:
    """The model of a name or path: one of ours, or published weights.

    Raises:
        UserError: there is no such model, or it makes no views.
    """
    return load(find(name, offline=offline), device)


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
