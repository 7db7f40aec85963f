"""``unflat evaluate objects``: how good made-up objects are, and whether they are 3D."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unflat.cli.evaluation_run import EvaluationOptions, run_evaluation
from unflat.cli.options import Switch, require_range
from unflat.errors import UserError
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.evaluation import Evaluation, Progress

_CARD_SIDE = 64  # pixels, of makers without a resolution of their own


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationOptions):
    """How good the objects are that a model makes up, and whether they are 3D.

    Sets of pictures through the cameras of held-out ones; two cameras of one object; outlines and
    poses against true objects, where the set was made by unflat data objects; meshes. Measured in
    the same run: pictures on a card that stands still, and on one that turns with the camera; the
    mean training picture; the nearest ones; all of them.
    """

    model: str
    """A generator of objects, or one of flat-card, turning-card."""
    split: str = "val"
    """Held-out pictures."""
    train_split: str = "train"
    """Pictures of the baselines: those that models learned from."""
    count: int | None = None
    """Pictures of each method; as many as held-out ones if not given, at most 10,000."""
    objects: int = 64
    """Of each method in everything but the comparison of sets."""
    true_objects: int | None = None
    """True objects to hold outlines and poses against, 0 for none; 16 if not given and the set
    was made by unflat data objects."""
    fit_azimuth: Switch = False
    """Turn all objects of a method by the one angle that suits the true ones best: for models
    that were trained without poses, whose front is anywhere."""
    truncation: float = 1.0
    """1 draws objects as in training, less draws them nearer to the mean one."""
    features: str = "unflat"
    """Network that compares: unflat (bundled), the file of FID's Inception, or the folder or hub
    id of a CLIP or DINOv2 model."""
    resolution: int | None = None
    """Side in pixels of all pictures; the model's own if not given."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of evaluating."""
    require_range(options.resolution, 8, 1024, "--resolution", "pixels")
    require_range(options.count, 4, 10**9, "--count", "pictures")
    require_range(options.objects, 1, 10**6, "--objects", "objects")
    require_range(options.true_objects, 0, 10**4, "--true-objects", "objects")
    require_range(options.truncation, 0, 1, "--truncation", "")
    if options.true_objects == 1:
        raise UserError("--true-objects 1: true objects are compared with others; give 2 or more.")
    if len(options.data) != 1:
        raise UserError(f"--data: {len(options.data)} sets are named; give one.")

    def check() -> None:
        from unflat.evaluation.load import find_method
        from unflat.evaluation.object_baselines import CARDS

        find_method(options.model, CARDS, offline=options.offline)

    def evaluate(device: str, progress: "Progress") -> "Evaluation":
        return _evaluate(options, device, progress)

    settings = {
        "model": options.model,
        "split": options.split,
        "count": options.count,
        "objects": options.objects,
        "fit_azimuth": options.fit_azimuth or None,
        "features": options.features,
        "resolution": options.resolution,
    }
    return run_evaluation(options, terminal, "objects", "pictures", evaluate, settings, check)


def _evaluate(options: Options, device: str, progress: "Progress") -> "Evaluation":
    from unflat.data import open_views
    from unflat.evaluation import evaluate_objects, open_features
    from unflat.evaluation.load_objects import card, load_objects, true_objects
    from unflat.evaluation.object_baselines import CARDS

    data, maker = options.data[0], None
    truth = true_objects(data, options.true_objects)
    if options.model not in CARDS:
        maker = load_objects(
            options.model, device, truncation=options.truncation, seed=options.seed
        )
    side = options.resolution or (_CARD_SIDE if maker is None else maker.model.resolution)
    held, train = (
        open_views(data, side, split, limit=options.limit)
        for split in (options.split, options.train_split)
    )
    return evaluate_objects(
        card(options.model, train, options.seed) if maker is None else maker,
        held,
        train,
        open_features(options.features, device, options.offline),
        truth=truth,
        count=options.count,
        objects=options.objects,
        fit_azimuth=options.fit_azimuth,
        seed=options.seed,
        progress=progress,
    )
