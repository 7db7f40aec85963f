"""From a model's name or file to something the reconstruction task can ask."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unflat.errors import UserError
from unflat.evaluation.baselines import Baseline
from unflat.evaluation.estimators import DepthEstimator, FloorDepth, FolderDepth, ModelDepth
from unflat.evaluation.generator import FlatPictures, Generator
from unflat.evaluation.lifter import Lifter
from unflat.evaluation.picture_stream import PictureStream, class_names
from unflat.evaluation.reconstructor import Reconstructor
from unflat.evaluation.view_maker import ViewMaker
from unflat.tensor_file import tensor_file_kind
from unflat.training.model_file import read_header

if TYPE_CHECKING:
    from unflat.systems.vq3d.generate import Sampling
    from unflat.systems.zero123.lift.lift import Method, Preset

BASELINES = ("copy", "mean-color", "depth-warp")
"""Methods that need no weights, by the names under which the task takes them as models."""

_RUN_MODEL = "model.safetensors"  # in the folder of a training run
_SCENES = "vq3d"  # the system that makes views of whole scenes
_OBJECTS = "zero123"  # the system that makes views of objects, which are lifted


def load_reconstructor(
    model: str | Path,
    device: str = "cpu",
    samples: int | None = None,
    depth: str | None = None,
    prior: str | None = None,
) -> Reconstructor:
    """The model behind the `Reconstructor` protocol, with its file's hash for the report.

    Args:
        model: a file, a run's folder, a name from ``unflat models list``, or one of `BASELINES`.
        device: where it runs.
        samples: intervals per ray; the system's default for evaluation if not given.
        depth: for ``depth-warp``: see `load_estimator`.
        prior: a model that completes scenes; adds the mode ``completed``.

    Raises:
        UserError: there is no such model, or it is not one that reconstructs.
    """
    if (model == "depth-warp") != (depth is not None):
        raise UserError(
            "--model depth-warp: needs --depth, a model's name or a folder of disparities."
            if depth is None
            else f"--depth {depth}: is for --model depth-warp; "
            f"{Path(model).stem} has its own depth or none."
        )
    if model in BASELINES and prior is not None:
        raise UserError(f"--complete {prior}: is for models of tokens; {model} has none.")
    if model in BASELINES:
        estimator = None if depth is None else load_estimator(depth, device, samples)
        return Baseline(str(model), depth=estimator)
    from unflat.evaluation.vq3d import SAMPLES, Vq3dReconstructor
    from unflat.hub.registry import find
    from unflat.systems.vq3d import load

    path = find(model)
    with path.open("rb") as file:
        facts: dict[str, object] = {
            "file": path.name,
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }
    title = path.stem if path.stem != "model" else path.parent.name
    maker = None
    if prior is not None:
        from unflat.systems.vq3d.complete import COMPLETING
        from unflat.systems.vq3d.generate import open_maker

        maker = open_maker(prior, path, device=device, sampling=COMPLETING)
    return Vq3dReconstructor(
        load(path), title, facts=facts, samples=samples or SAMPLES, device=device, maker=maker
    )


def load_estimator(
    name: str | Path, device: str = "cpu", samples: int | None = None, mode: str | None = None
) -> DepthEstimator:
    """Something that tells disparity.

    Args:
        name: ``floor``, a folder of disparity files, or a model.
        device: where a model runs.
        samples: intervals per ray of a model that renders its depth.
        mode: of a model that has several; the last of them if not given.

    Raises:
        UserError: there is no such folder or model.
    """
    path = Path(name)
    if name == FloorDepth.name:
        return FloorDepth()
    if path.is_dir() and not (path / "model.safetensors").is_file():
        return FolderDepth(path)
    return ModelDepth(load_reconstructor(name, device, samples), mode)


def load_estimators(
    name: str | Path, device: str = "cpu", samples: int | None = None
) -> list[DepthEstimator]:
    """`load_estimator` for every mode of a model, its best one first."""
    first = load_estimator(name, device, samples)
    if not isinstance(first, ModelDepth):
        return [first]
    others = [mode for mode in first.reconstructor.modes if mode != first.mode]
    return [first, *(ModelDepth(first.reconstructor, mode) for mode in others)]


def find_method(
    name: str, known: Sequence[str] = BASELINES, *, offline: bool = False
) -> str | Path:
    """A name that a task knows by itself, or a folder as it is, or the file of a model.

    Args:
        name: as the person wrote it.
        known: names of the task's baselines.
        offline: whether the network is ruled out.

    Raises:
        UserError: there is no such model.
    """
    from unflat.hub.registry import find

    if name in known or Path(name).is_dir():
        return name
    try:
        return find(name, offline=offline)
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')} (or {', '.join(known)}).") from error


def load_generators(
    model: str | Path,
    inputs: PictureStream,
    device: str = "cpu",
    samples: int | None = None,
    mode: str | None = None,
    prior: str | None = None,
) -> list[Generator]:
    """A generator and the 2D-only reference it stands beside.

    Args:
        model: a model that makes scenes of pictures, or ``flat``.
        inputs: the pictures.
        device: where it runs.
        samples: intervals per ray; the system's default for evaluation if not given.
        mode: of a model that has several; the last of them if not given.
        prior: a model that completes scenes: measured completed, and not, whatever the mode.

    Raises:
        UserError: there is no such model, or it has no such mode.
    """
    flat = FlatPictures(inputs)
    if model == FlatPictures.default_name and mode is not None:
        raise UserError(f"--mode {mode}: is for models that have several; flat has none.")
    if model == FlatPictures.default_name:
        return [flat]
    from unflat.evaluation.vq3d import Vq3dReconstructions, Vq3dReconstructor

    system = load_reconstructor(model, device, samples, prior=prior)
    assert isinstance(system, Vq3dReconstructor)  # no other system reconstructs yet
    if prior is not None:
        both = [Vq3dReconstructions(system, inputs, name) for name in ("completed", "detail")]
        return [*both, flat]
    if mode is not None and mode not in system.modes:
        raise UserError(f"--mode {mode}: {system.name} has only {', '.join(system.modes)}.")
    return [Vq3dReconstructions(system, inputs, mode), flat]


def is_prior(model: str | Path) -> bool:
    """Whether a name or file is a model that draws tokens, and makes scenes of no picture."""
    from unflat.hub.registry import find
    from unflat.training import read_header

    path = find(model) if model != FlatPictures.default_name else None
    return path is not None and read_header(path).get("system") == "vq3d-prior"


def load_sampler(
    model: str | Path,
    real: PictureStream,
    inputs: PictureStream,
    *,
    count: int,
    autoencoder: str | None = None,
    sampling: "Sampling | None" = None,
    device: str = "cpu",
    samples: int | None = None,
    seed: int = 0,
) -> list[Generator]:
    """A prior's scenes, what they can be at best, and the same prior without 3D.

    The best: stage 1's reconstructions of other real pictures. Without 3D: the fronts of the same
    scenes, and pictures of tokens that the prior draws without a class (of any that it knows, also
    of those that the real set lacks), as cards.

    Args:
        model: of a prior.
        real: whose classes, in their proportions, are drawn.
        inputs: pictures that stage 1 reconstructs.
        count: scenes to draw.
        autoencoder: the model of stage 1; the one that the prior names if not given.
        sampling: how tokens are drawn.
        device: where both run.
        samples: intervals per ray; the system's default for evaluation if not given.
        seed: of what is drawn.

    Raises:
        UserError: there are no such models, they do not belong together, or no class is known.
    """
    from unflat.evaluation.vq3d import SAMPLES, Vq3dReconstructions, Vq3dReconstructor
    from unflat.evaluation.vq3d_prior import SampledPictures, Vq3dSamples, labels_like
    from unflat.systems.vq3d.generate import open_maker

    maker = open_maker(model, autoencoder, device=device, sampling=sampling)
    maker.name = Path(model).stem if Path(model).stem != "model" else Path(model).parent.name
    stage_1 = Vq3dReconstructor(maker.model, "stage 1", samples=samples or SAMPLES, device=device)
    labels, side, fov = labels_like(real, count, seed), real.resolution, maker.model.config.fov_deg
    fronts = SampledPictures(maker, labels, side, seed)
    free = SampledPictures(maker, [None] * count, side, seed)
    return [
        Vq3dSamples(maker, stage_1, labels, seed),
        Vq3dReconstructions(stage_1, inputs, "tokens"),
        FlatPictures(fronts, fov, name=f"{maker.name} as cards"),
        FlatPictures(free, fov, name="2D prior"),
        FlatPictures(inputs),
    ]


def real_and_inputs(
    data: Sequence[Path],
    inputs: Sequence[Path],
    resolution: int,
    limit: int | None = None,
    classes: Sequence[str] | None = None,
) -> tuple[PictureStream, PictureStream]:
    """Real pictures, and others to make scenes of, so that no picture is held against itself.

    Args:
        data: real pictures.
        inputs: the others; every second one of each class of `data` if there are none.
        resolution: side in pixels.
        limit: only the first so many of `data`.
        classes: only pictures of these, whose labels then bear these names; all pictures, by
            their own classes, if not given.

    Raises:
        UserError: a path is no data set, or has no picture of the classes.
    """

    def chosen(paths: Sequence[Path]) -> PictureStream:
        every = PictureStream(paths, resolution)
        if classes is not None:
            return every.of_classes(classes)
        return every.named(class_names(every.class_pairs()))

    every = chosen(data)
    places = range(min(len(every), limit or len(every)))
    if inputs:
        return every.part(places), chosen(inputs)
    return every.part(places).halves()


def load_view_maker(
    model: str | Path,
    device: str = "cpu",
    samples: int | None = None,
    sampling: Mapping[str, Any] | None = None,
    *,
    tells_elevation: bool = True,
) -> ViewMaker:
    """A model behind the `ViewMaker` protocol.

    Args:
        model: a file, a run's folder, or a name from ``unflat models list``.
        device: where it runs.
        samples: intervals per ray; the system's default for evaluation if not given.
        sampling: fields of `Sampler` that are not its defaults, for models that denoise.
        tells_elevation: whether models that denoise are told how high the picture was taken.

    Raises:
        UserError: there is no such model.
    """
    from unflat.evaluation.vq3d import Vq3dReconstructor
    from unflat.evaluation.vq3d_views import Vq3dViews

    path = Path(model)
    path = path / _RUN_MODEL if (path / _RUN_MODEL).is_file() else path
    if path.is_file() and tensor_file_kind(path) and read_header(path).get("system") == _SCENES:
        system = load_reconstructor(model, device, samples)
        if not isinstance(system, Vq3dReconstructor):
            raise UserError(f"{model}: makes no views of objects; see unflat models list.")
        return Vq3dViews(system)
    from unflat.evaluation.zero123_views import ModelViews
    from unflat.systems.zero123.pipeline import load_view_model
    from unflat.systems.zero123.sampler import Sampler

    found = load_view_model(model, device)
    settings = {"guidance_scale": found.guidance_scale, **(sampling or {})}
    return ModelViews(found, Sampler(**settings), tells_elevation=tells_elevation, file=path)


def load_lifter(
    model: str | Path,
    device: str = "cpu",
    samples: int | None = None,
    *,
    method: "Method" = "fit",
    preset: "Preset" = "fast",
) -> Lifter:
    """Surfaces that lie in files, what a model of new views is lifted to, or a depth's relief.

    Args:
        model: a folder or tar of meshes, a model's file, a run's folder, or a name from
            ``unflat models list``.
        device: where a model runs.
        samples: intervals per ray; the system's default for evaluation if not given.
        method: how a model of new views is lifted.
        preset: how long that may take.

    Raises:
        UserError: there is no such model, or a folder holds no mesh.
    """
    from unflat.evaluation.lift_baselines import Relief
    from unflat.evaluation.mesh_files import MeshFiles

    path = Path(model)
    if path.suffix == ".tar" or (path.is_dir() and not (path / "model.safetensors").is_file()):
        return MeshFiles(path)
    path = path / _RUN_MODEL if (path / _RUN_MODEL).is_file() else path
    if path.is_file() and tensor_file_kind(path) and read_header(path).get("system") == _OBJECTS:
        from unflat.evaluation.zero123_lift import ModelLifter
        from unflat.systems.zero123.pipeline import load_view_model

        return ModelLifter(load_view_model(path, device), method=method, preset=preset, file=path)
    system = load_reconstructor(model, device, samples)
    return Relief(ModelDepth(system), name=system.name)
