"""``unflat evaluate depth``: how right the disparity of single pictures is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unflat.cli.evaluation_run import EvaluationOptions, run_evaluation
from unflat.cli.options import require_range
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.evaluation import Evaluation, Progress


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationOptions):
    """How right the disparity is that a method sees in single pictures.

    Measured in the same run: near below and far above (floor), and the mean of the other scenes.
    """

    model: str = "vq3d-small"
    """A model, a folder of disparities (NAME.png or NAME.npz for scene NAME), or floor."""
    resolution: int = 64
    """Side in pixels of pictures and comparison."""
    samples: int | None = None
    """Intervals of a ray, for models that render; the evaluation's own number if not given."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of evaluating."""
    require_range(options.resolution, 16, 4096, "--resolution", "pixels")
    require_range(options.samples, 2, 1024, "--samples", "intervals")

    def evaluate(device: str, progress: "Progress") -> "Evaluation":
        from unflat.evaluation import evaluate_depth
        from unflat.evaluation.load import find_method, load_estimators

        model = find_method(options.model, ("floor",), offline=options.offline)
        return evaluate_depth(
            load_estimators(model, device, options.samples),
            options.data,
            limit=options.limit,
            resolution=options.resolution,
            seed=options.seed,
            progress=progress,
        )

    def check() -> None:
        from unflat.evaluation.load import find_method

        find_method(options.model, ("floor",), offline=options.offline)

    settings = {"model": options.model, "resolution": options.resolution}
    return run_evaluation(options, terminal, "depth", "scenes", evaluate, settings, check)
