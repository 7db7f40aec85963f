"""``unflat evaluate views``: how right pictures of an object from other sides are."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from unflat.cli.evaluation_run import EvaluationOptions, run_evaluation
from unflat.cli.options import Switch, require_range
from unflat.errors import UserError
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.evaluation import Evaluation, Progress


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationOptions):
    """How right pictures of an object from other sides are, made from one picture.

    Measured in the same run: the input itself, its outline in its mean color, the input warped by a
    depth map, the mean training picture, and the views of the training object with the nearest
    picture. Of each method also: whether the view changes as asked, whether its views can be of
    one solid, and how far all of them are from the true ones as a set.
    """

    model: str = "vq3d-small"
    """A model, or one of copy, mean-color, depth-warp, mean-image, retrieval."""
    split: str = "val"
    """Whose objects are measured, or all."""
    protocol: Literal["unflat-views/1", "gso", "rtmv"] = "unflat-views/1"
    """Which views are inputs and targets; gso and rtmv are published ones as far as known."""
    depth: str = "sphere"
    """For depth-warp: the outline's own rounded front, or a model whose disparity is placed."""
    features: str = "unflat"
    """What all views are compared by as sets: unflat, or a file or model, as for unflat evaluate
    generation."""
    lpips: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH [PATH ...]")] = ()
    """Weights of LPIPS, trunk and heads; adds its figures."""
    resolution: int | None = None
    """Side in pixels in place of the protocol's."""
    samples: int | None = None
    """Intervals of a ray, for models that render; the evaluation's own number if not given."""
    sampler: Literal["dpm++", "ddim"] = "dpm++"
    """For models that denoise: how."""
    steps: int = 20
    """For models that denoise: in how many steps."""
    guidance_scale: float | None = None
    """For models that denoise: how strongly the picture counts; the model's own if not given."""
    untold_elevation: Switch = False
    """For models that denoise: do not tell them how high the picture was taken."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of evaluating."""
    require_range(options.resolution, 16, 4096, "--resolution", "pixels")
    require_range(options.samples, 2, 1024, "--samples", "intervals")
    require_range(options.steps, 1, 1000, "--steps", "steps")
    require_range(options.guidance_scale, 0, 100, "--guidance-scale", "(1 is as learned)")
    if len(options.data) != 1:
        raise UserError(f"--data: {len(options.data)} sets are named; give one.")

    def evaluate(device: str, progress: "Progress") -> "Evaluation":
        from unflat.evaluation import evaluate_views, open_distances, open_features
        from unflat.evaluation.load import find_method, load_estimator, load_view_maker
        from unflat.evaluation.novel_views import BASELINES

        model = options.model
        if model not in BASELINES:
            found = find_method(model, BASELINES, offline=options.offline)
            sampling: dict[str, object] = {"method": options.sampler, "steps": options.steps}
            if options.guidance_scale is not None:
                sampling["guidance_scale"] = options.guidance_scale
            model = load_view_maker(
                found,
                device,
                options.samples,
                sampling,
                tells_elevation=not options.untold_elevation,
            )
        depth = None
        if options.depth != "sphere":
            place = find_method(options.depth, ("floor",), offline=options.offline)
            depth = load_estimator(place, device, options.samples)
        return evaluate_views(
            model,
            options.data[0],
            split=options.split,
            protocol=options.protocol,
            depth=depth,
            distances=open_distances(options.lpips, device),
            features=open_features(options.features, device, options.offline),
            resolution=options.resolution,
            limit=options.limit,
            seed=options.seed,
            progress=progress,
        )

    settings = {
        "model": options.model,
        "split": options.split,
        "protocol": options.protocol,
        "depth": options.depth,
        "features": options.features,
        "resolution": options.resolution,
    }
    return run_evaluation(options, terminal, "views", "objects", evaluate, settings)
