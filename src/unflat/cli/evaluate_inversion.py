"""``unflat evaluate inversion``: how right object and camera are, found from one picture."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from unflat.cli.evaluation_run import EvaluationOptions, run_evaluation
from unflat.cli.options import require_range
from unflat.errors import UserError
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.evaluation import Evaluation, Progress


_MOST_STEPS = 10_000


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationOptions):
    """How right object and camera are that a method finds in one picture of a known category.

    Measured in the same run: the input itself, its mean color, the middle training camera with the
    mean training picture, and the nearest training picture.
    """

    model: str = "retrieval"
    """A model of unflat train inversion-encoder; or one of copy, mean-color, mean-pose,
    retrieval."""
    steps: str = "0,10,30"
    """How many steps a model takes from its guess: each number is measured."""
    split: str = "test"
    """Whose objects are measured, or all."""
    views_per_object: int = 4
    """Inputs of each object, drawn by seed."""
    novel: Literal["one", "all"] = "one"
    """Compare one other view of each input, drawn by seed as published, or all others."""
    symmetry: int = 1
    """How often objects look alike on a turn about up: 2 for a plain table."""
    resolution: int | None = None
    """Side in pixels of pictures and comparison; as stored if not given."""
    features: str = "unflat"
    """What other views are compared by as whole sets: unflat, or a file or model, as for
    unflat evaluate generation."""
    lpips: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH [PATH ...]")] = ()
    """Weights of LPIPS: the network and its heads, in any order."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of evaluating."""
    require_range(options.resolution, 16, 4096, "--resolution", "pixels")
    require_range(options.views_per_object, 1, 10**6, "--views-per-object", "views")
    require_range(options.symmetry, 1, 360, "--symmetry", "turns")
    if len(options.data) != 1:
        raise UserError(f"--data: {len(options.data)} sets are named; give one, of one category.")

    steps = _steps(options.steps)

    def evaluate(device: str, progress: "Progress") -> "Evaluation":
        from unflat.evaluation import evaluate_inversion, open_distances, open_features
        from unflat.evaluation.inversion_baselines import BASELINES
        from unflat.evaluation.inversion_model import open_inverters

        model = options.model
        if model not in BASELINES:
            model = open_inverters(model, steps, device, offline=options.offline)
        return evaluate_inversion(
            model,
            options.data[0],
            split=options.split,
            views_per_object=options.views_per_object,
            novel=options.novel,
            symmetry=options.symmetry,
            resolution=options.resolution,
            limit=options.limit,
            seed=options.seed,
            features=open_features(options.features, device, options.offline),
            distances=open_distances(options.lpips, device),
            progress=progress,
        )

    def check() -> None:
        from unflat.evaluation.inversion_baselines import BASELINES
        from unflat.hub import find
        from unflat.systems.inversion.pipeline import require_inversion

        if options.model not in BASELINES:
            require_inversion(find(options.model, offline=options.offline), options.model)

    settings = {
        "model": options.model,
        "steps": steps,
        "split": options.split,
        "views_per_object": options.views_per_object,
        "novel": options.novel,
        "symmetry": options.symmetry,
        "resolution": options.resolution,
    }
    return run_evaluation(options, terminal, "inversion", "objects", evaluate, settings, check)


def _steps(text: str) -> list[int]:
    """Numbers of steps.

    Raises:
        UserError: what is no list of them.
    """
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0 or max(numbers) > _MOST_STEPS:
        raise UserError(
            f"--steps {text}: must be numbers from 0 to {_MOST_STEPS} with commas between them, "
            "as in 0,10,30."
        )
    return sorted(set(numbers))
