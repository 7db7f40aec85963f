"""From names and files to what the task "objects" compares."""

import json
from pathlib import Path

from unflat.data.file_tree import open_tree
from unflat.data.posed_views import PosedViews
from unflat.data.procedural_objects import DEPTH_UNIT, ProceduralObjects
from unflat.errors import UserError
from unflat.evaluation.generated_objects import GeneratedObjects
from unflat.evaluation.object_baselines import FlatCard, TrueObjects, TurningCard
from unflat.evaluation.object_maker import ObjectMaker
from unflat.evaluation.protocol import fingerprint
from unflat.hub.registry import find
from unflat.systems.gan.pipeline import load

TRUE_OBJECTS = 16
"""True objects that outlines and poses are held against, if no other number is given."""
_TRUE_SEED = 2**40 + 1  # above those that a person gives: in no data set


def load_objects(
    model: str | Path, device: str = "cpu", *, truncation: float = 1.0, seed: int = 0
) -> GeneratedObjects:
    """A trained generator behind the `ObjectMaker` protocol.

    Args:
        model: a file, a run's folder, or a name from ``unflat models list``.
        device: where it runs.
        truncation: 1 draws as in training, less draws nearer to the mean object.
        seed: of the objects.

    Raises:
        UserError: there is no such model, or it makes no objects.
    """
    path = find(model)
    name = path.stem if path.stem != "model" else path.resolve().parent.name
    return GeneratedObjects(
        load(path, device), name, facts=fingerprint(path), truncation=truncation, seed=seed
    )


def card(name: str, train: PosedViews, seed: int = 0) -> ObjectMaker:
    """A maker that needs no weights, by its name in `CARDS`.

    Args:
        name: one of them.
        train: whose pictures it shows.
        seed: of their order.
    """
    return FlatCard(train) if name == FlatCard.name else TurningCard(train, seed)


def true_objects(path: Path, count: int | None = None) -> TrueObjects | None:
    """True objects of the made-up category, others than in any data set of it; None of another.

    Args:
        path: what ``unflat data objects`` wrote, or any other set.
        count: how many; `TRUE_OBJECTS` if not given, none if 0.

    Raises:
        UserError: a number is asked for, and the set shows something else.
    """
    made_up = _is_made_up(path)
    if count and not made_up:
        raise UserError(
            f"--true-objects {count}: nobody knows those of {path}; leave it out, or give a set "
            "of unflat data objects."
        )
    if count == 0 or not made_up:
        return None
    return TrueObjects(ProceduralObjects(count=count or TRUE_OBJECTS, seed=_TRUE_SEED))


def _is_made_up(path: Path) -> bool:
    """Whether `unflat.data.write_procedural_objects` wrote it: by the unit of its depths."""
    inner = path / "objects.tar"
    path = inner if inner.is_file() else path
    if path.suffix == ".zip":
        return False
    files = open_tree(path)
    if "depth.json" not in files.files(""):
        return False
    try:
        found = json.loads(files.read("depth.json"))
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("unit") == DEPTH_UNIT
