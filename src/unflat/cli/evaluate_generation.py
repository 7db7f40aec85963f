"""``unflat evaluate generation``: how near generated pictures are to real ones, also turned."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from unflat.cli.evaluation_run import EvaluationOptions, run_evaluation
from unflat.cli.options import Completing, Sampled, require_range
from unflat.errors import UserError
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.evaluation import Evaluation, Progress


@dataclass(frozen=True, kw_only=True)
class Options(EvaluationOptions, Sampled, Completing):
    """How near generated pictures are to real ones: canonical, and turned by 5, 15 and 30 degrees.

    Measured in the same run: flat, the same inputs as cards without depth (what a 2D generator
    gives when it is turned), and one half of the real pictures against the other. Beside a prior
    also: what stage 1 makes of other real pictures, the best that the prior can reach; the fronts
    of its own scenes as cards; and 2D prior, cards of what it draws without a class. With
    --complete: scenes of photos, completed and not.
    """

    model: str = "vq3d-small"
    """A model that makes scenes of pictures (of --inputs), a prior that draws them, or flat."""
    inputs: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH [PATH ...]")] = ()
    """Pictures to make scenes of. If not given, every second picture of each class of --data is
    an input and only the others are real."""
    classes: str | None = None
    """Only pictures of these, as in fruit,glass; of those that the prior knows if not given."""
    train: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH [PATH ...]")] = ()
    """Other real pictures with classes: a classifier learns from them, and the share of scenes
    that it gives the right class is measured."""
    mode: Literal["tokens", "detail"] | None = None
    """Of models that have several; the model's best if not given."""
    count: int | None = None
    """Scenes of each method; one for each input (of a prior: each real picture) if not given, at
    most 10,000."""
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
    options.require_sampling()

    def check() -> None:
        from unflat.evaluation import open_features
        from unflat.evaluation.load import find_method, is_prior

        method = find_method(options.model, ("flat",), offline=options.offline)
        if is_prior(method) and options.mode is not None:
            raise UserError(f"--mode {options.mode}: is for scenes of pictures; a prior has one.")
        if options.completed_by() and (options.mode is not None or is_prior(method)):
            raise UserError(
                "--complete: compares scenes of photos completed and not; it goes with a model of "
                "stage 1, and without --mode."
            )
        for path in options.train:
            if not path.exists():
                raise UserError(f"{path}: there is no such file or folder; check the spelling.")
        if options.dry_run:
            open_features(options.features, offline=options.offline)

    def evaluate(device: str, progress: "Progress") -> "Evaluation":
        return _evaluate(options, device, progress)

    settings = {"model": options.model, "features": options.features, "count": options.count}
    return run_evaluation(options, terminal, "generation", "pictures", evaluate, settings, check)


def _evaluate(options: Options, device: str, progress: "Progress") -> "Evaluation":
    from unflat.evaluation import PictureStream, evaluate_generation, open_features
    from unflat.evaluation.class_figures import ClassTeller
    from unflat.evaluation.load import (
        find_method,
        is_prior,
        load_generators,
        load_sampler,
        real_and_inputs,
    )
    from unflat.systems.vq3d.generate import find_class, sampling_of
    from unflat.systems.vq3d.prior import load_prior

    model = find_method(options.model, ("flat",), offline=options.offline)
    draws = is_prior(model)
    classes = options.classes.split(",") if options.classes else None
    if draws:
        known = load_prior(model).classes
        classes = [find_class(name, known, "--classes") for name in classes or known]
    real, inputs = real_and_inputs(
        options.data, options.inputs, options.resolution, options.limit, classes
    )
    features = open_features(options.features, device, options.offline)
    if draws:
        generators = load_sampler(
            model,
            real,
            inputs,
            count=options.count or len(real),
            autoencoder=options.autoencoder,
            sampling=sampling_of(options),
            device=device,
            samples=options.samples,
            seed=options.seed,
        )
    else:
        generators = load_generators(
            model, inputs, device, options.samples, options.mode, options.completed_by()
        )
    teller = None
    if options.train:
        pictures = PictureStream(options.train, options.resolution)
        teller = ClassTeller(features, pictures, real.classes)
    return evaluate_generation(
        generators[0],
        real,
        features,
        references=generators[1:],
        count=options.count,
        teller=teller,
        seed=options.seed,
        progress=progress,
    )
