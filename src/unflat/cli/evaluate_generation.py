"""``unflat evaluate generation``: how near generated pictures are to real ones, also turned."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from unflat.cli.evaluation_run import EvaluationOptions, run_evaluation
from unflat.cli.options import require_range
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.evaluation import Evaluation, Progress


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationOptions):
    """How near generated pictures are to real ones: canonical, and turned by 5, 15 and 30 degrees.

    Measured in the same run: flat, the same inputs as cards without depth (what a 2D generator
    gives when it is turned), and one half of the real pictures against the other.
    """

    model: str = "vq3d-small"
    """A model that makes scenes of pictures (of --inputs), or flat."""
    inputs: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH [PATH ...]")] = ()
    """Pictures to make scenes of. If not given, every second picture of --data is an input and
    only the others are real."""
    mode: Literal["tokens", "detail"] | None = None
    """Of models that have several; the model's best if not given."""
    count: int | None = None
    """Scenes of each method; one for each input if not given, at most 10,000."""
    features: str = "unflat"
    """Network that compares: unflat (bundled), the file of FID's Inception, or the folder or hub
    id of a CLIP or DINOv2 model."""
    resolution: int = 64
    """Side in pixels of real and generated pictures."""
    samples: int | None = None
    """Intervals of a ray, for models that render; the evaluation's own number if not given."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of evaluating."""
    require_range(options.resolution, 16, 1024, "--resolution", "pixels")
    require_range(options.count, 1, 10**9, "--count", "scenes")
    require_range(options.samples, 2, 1024, "--samples", "intervals")

    def evaluate(device: str, progress: "Progress") -> "Evaluation":
        from unflat.evaluation import evaluate_generation, open_features
        from unflat.evaluation.load import find_method, load_generators, real_and_inputs

        model = find_method(options.model, ("flat",), offline=options.offline)
        real, inputs = real_and_inputs(
            options.data, options.inputs, options.resolution, options.limit
        )
        generators = load_generators(model, inputs, device, options.samples, options.mode)
        return evaluate_generation(
            generators[0],
            real,
            open_features(options.features, device, options.offline),
            references=generators[1:],
            count=options.count,
            seed=options.seed,
            progress=progress,
        )

    def check() -> None:
        from unflat.evaluation import open_features
        from unflat.evaluation.load import find_method

        find_method(options.model, ("flat",), offline=options.offline)
        if options.dry_run:
            open_features(options.features, offline=options.offline)

    settings = {"model": options.model, "features": options.features, "count": options.count}
    return run_evaluation(options, terminal, "generation", "pictures", evaluate, settings, check)
