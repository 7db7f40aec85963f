"""``unflat evaluate lift``: how right the surface of an object is, made from one picture."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from unflat.cli.evaluation_run import EvaluationOptions, run_evaluation
from unflat.cli.options import require_range
from unflat.errors import UserError
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.evaluation import Evaluation, Progress


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationOptions):
    """How right the surface of an object is, made from one picture.

    Measured in the same run: a ball, the unit box, the relief of the picture's outline, what its
    mask leaves of the box, and what eight true masks leave (which sees more than any method).
    """

    meshes: Path
    """True surfaces, NAME.glb for object NAME: a .tar file or a folder."""
    model: str = "vq3d-small"
    """A model, a folder of meshes (NAME.glb, .obj, .ply; y up), or sphere, box, relief,
    hull-1-mask."""
    split: str = "val"
    """Whose objects are measured."""
    depth: str = "sphere"
    """For relief: the outline's own rounded front, or a model whose disparity is placed."""
    voxels: Literal[64, 128] = 64
    """Along a side, for the shared volume."""
    alignment: Literal["none", "similarity-icp"] = "none"
    """Compare surfaces where they are, or move, turn and scale them onto the true ones first."""
    method: Literal["fit", "sds", "sjc"] = "fit"
    """For models of new views: how they are lifted."""
    preset: Literal["fast", "best"] = "fast"
    """For models of new views: how long that may take."""
    samples: int | None = None
    """Intervals of a ray, for models that render; the evaluation's own number if not given."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of evaluating."""
    require_range(options.samples, 2, 1024, "--samples", "intervals")
    if len(options.data) != 1:
        raise UserError(f"--data: {len(options.data)} sets are named; give one.")

    def evaluate(device: str, progress: "Progress") -> "Evaluation":
        from unflat.evaluation import evaluate_lift
        from unflat.evaluation.lift import BASELINES
        from unflat.evaluation.load import find_method, load_estimator, load_lifter

        model = options.model
        if model not in BASELINES:
            is_tar = Path(model).suffix == ".tar"
            found = model if is_tar else find_method(model, BASELINES, offline=options.offline)
            model = load_lifter(
                found, device, options.samples, method=options.method, preset=options.preset
            )
        depth = None
        if options.depth != "sphere":
            place = find_method(options.depth, ("floor",), offline=options.offline)
            depth = load_estimator(place, device, options.samples)
        return evaluate_lift(
            model,
            options.data[0],
            options.meshes,
            split=options.split,
            depth=depth,
            resolution=options.voxels,
            alignment=options.alignment,
            limit=options.limit,
            seed=options.seed,
            progress=progress,
        )

    settings = {
        "model": options.model,
        "meshes": str(options.meshes),
        "split": options.split,
        "depth": options.depth,
        "method": options.method,
        "preset": options.preset,
        "voxels": options.voxels,
        "alignment": options.alignment,
    }
    return run_evaluation(options, terminal, "lift", "objects", evaluate, settings)
