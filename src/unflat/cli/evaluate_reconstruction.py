"""``unflat evaluate reconstruction``: how well a model reconstructs, beside simple baselines."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from unflat.cli.evaluation_run import EvaluationOptions, run_evaluation
from unflat.cli.options import Completing, require_range
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.evaluation import Evaluation, Progress


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationOptions, Completing):
    """How well a model reconstructs scenes whose cameras and depths are known.

    Baselines are measured in the same run: the input unchanged, and the input warped by depth. With
    --complete, completed scenes are measured beside the same ones without.
    """

    model: str = "vq3d-small"
    """A model's name or file, or copy, mean-color, depth-warp."""
    depth: str | None = None
    """For depth-warp: a model, a folder of disparities (NAME.png or NAME.npz), or floor."""
    photos: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH [PATH ...]")] = ()
    """Pictures without cameras, for the canonical figures."""
    lpips: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH [PATH ...]")] = ()
    """Weights of VGG-16 or AlexNet and of LPIPS' linear heads, in any order; LPIPS is measured
    with each network that is complete."""
    resolution: int | None = None
    """Side in pixels at which all is compared; the model's own if not given."""
    samples: int | None = None
    """Intervals of a ray; the evaluation's own number if not given."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of evaluating."""
    require_range(options.samples, 2, 1024, "--samples", "intervals")

    def evaluate(device: str, progress: "Progress") -> "Evaluation":
        from unflat.evaluation import evaluate_reconstruction, open_distances
        from unflat.evaluation.load import find_method

        return evaluate_reconstruction(
            find_method(options.model, offline=options.offline),
            list(options.data),
            photos=list(options.photos) or None,
            depth=options.depth,
            limit=options.limit,
            resolution=options.resolution,
            samples=options.samples,
            device=device,
            prior=options.completed_by(),
            seed=options.seed,
            distances=open_distances(options.lpips, device),
            progress=progress,
        )

    def check() -> None:
        from unflat.evaluation.load import find_method
        from unflat.hub import find

        find_method(options.model, offline=options.offline)
        prior = options.completed_by()
        if prior is not None:
            find(prior, offline=options.offline)

    settings = {
        "model": options.model,
        "resolution": options.resolution,
        "depth": options.depth,
        "complete": options.completed_by(),
    }
    return run_evaluation(options, terminal, "reconstruction", "items", evaluate, settings, check)
