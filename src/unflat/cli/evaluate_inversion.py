"""``unflat evaluate inversion``: how right object and camera are, found from one picture."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from unflat.cli.evaluation_run import EvaluationOptions, run_evaluation
from unflat.cli.options import require_range
from unflat.errors import UserError
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.evaluation import Evaluation, Progress


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationOptions):
    """How right object and camera are that a method finds in one picture of a known category.

    Measured in the same run: the input itself, its mean color, the middle training camera with the
    mean training picture, and the nearest training picture.
    """

    model: str = "retrieval"
    """One of copy, mean-color, mean-pose, retrieval."""
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


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of evaluating."""
    require_range(options.resolution, 16, 4096, "--resolution", "pixels")
    require_range(options.views_per_object, 1, 10**6, "--views-per-object", "views")
    require_range(options.symmetry, 1, 360, "--symmetry", "turns")
    if len(options.data) != 1:
        raise UserError(f"--data: {len(options.data)} sets are named; give one, of one category.")

    def evaluate(device: str, progress: "Progress") -> "Evaluation":
        from unflat.evaluation import evaluate_inversion

        return evaluate_inversion(
            options.model,
            options.data[0],
            split=options.split,
            views_per_object=options.views_per_object,
            novel=options.novel,
            symmetry=options.symmetry,
            resolution=options.resolution,
            limit=options.limit,
            seed=options.seed,
            progress=progress,
        )

    def check() -> None:
        from unflat.evaluation.inversion_baselines import BASELINES

        if options.model not in BASELINES:
            raise UserError(
                f"--model {options.model}: does no inversion; choose from {', '.join(BASELINES)}."
            )

    settings = {
        "model": options.model,
        "split": options.split,
        "views_per_object": options.views_per_object,
        "novel": options.novel,
        "symmetry": options.symmetry,
        "resolution": options.resolution,
    }
    return run_evaluation(options, terminal, "inversion", "objects", evaluate, settings, check)
