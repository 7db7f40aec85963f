"""What verbs share that turn an object of one picture: options, and what comes before turning."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from unflat.cli.options import Computed, Placed, Planned, Speech, Switch, require_range
from unflat.errors import UserError
from unflat.report import Report

if TYPE_CHECKING:
    from unflat.systems.zero123.model import ViewModel
    from unflat.systems.zero123.prepare import Prepared
    from unflat.systems.zero123.sampler import Sampler

_GIB = 2**30
_SOLID = 0.5
_FEW = 0.5  # pixels of an object, as a share of what the model sees of one, below which it warns


@dataclass(frozen=True, kw_only=True)
class ViewOptions(Speech, Planned, Placed, Computed):
    """Verbs that turn an object of one picture."""

    model: str = "unflat-views"
    """A name from `unflat models list`, a path, or a hub id."""
    input_elevation_deg: float | None = None
    """How high the picture was taken; estimated where it is needed if not given."""
    mask: Path | None = None
    """A picture that is white where the object is."""
    framing: Literal["centered", "published", "as-is"] = "centered"
    """How the object is placed: scaled to --foreground in the middle; as Zero-1-to-3's demo; or
    the whole picture as it is."""
    foreground: float | None = None
    """For centered: longer side of the object as a share of the picture; the model's own if not
    given."""
    sampler: Literal["dpm++", "ddim"] = "dpm++"
    """How noise is taken away: in few steps, or as published."""
    steps: int = 20
    """In how many steps."""
    spacing: Literal["trailing", "leading", "leading_drop", "hourglass"] = "trailing"
    """Where steps lie; leading_drop is the published one."""
    eta: float = 0.0
    """For ddim: fresh noise of each step, 0 to 1 (published)."""
    guidance_scale: float | None = None
    """How strongly the picture counts: 1 as learned; the model's own if not given."""
    pose: Literal["relative", "stable"] | None = None
    """What a published file is told of the pose; stable is Stable Zero123's. Known by name of those
    in unflat models list."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """In which a published model computes; halves its memory."""
    vram: float | None = None
    """GiB of memory that a published model may take; fewer views at a time and parts moved away if
    that is little."""
    seed: int = 0
    """Of everything random."""
    offline: Switch = False
    """Use no network: a model that is not on this computer is an error."""


class Opened(NamedTuple):
    """A model, and how many views it makes at a time."""

    model: "ViewModel"
    batch: int


def check_view_options(options: ViewOptions) -> None:
    """Refuse before work what would fail after it.

    Raises:
        UserError: something is out of its range, or does not go together.
    """
    require_range(options.input_elevation_deg, -85, 85, "--input-elevation-deg", "degrees")
    require_range(options.foreground, 0.1, 1, "--foreground", "of the picture")
    require_range(options.steps, 1, 1000, "--steps", "steps")
    require_range(options.eta, 0, 1, "--eta", "")
    require_range(options.guidance_scale, 0, 100, "--guidance-scale", "(1 is as learned)")
    require_range(options.vram, 0.1, 10_000, "--vram", "GiB")
    if options.eta and options.sampler != "ddim":
        raise UserError("--eta: is of --sampler ddim; add it, or leave --eta out.")
    if options.foreground is not None and options.framing != "centered":
        raise UserError("--foreground: is of --framing centered; leave one of the two out.")
    if options.mask is not None and not options.mask.is_file():
        raise UserError(f"--mask {options.mask}: there is no such file.")
    sampler_of(options, 1.0)


def sampler_of(options: ViewOptions, usual_scale: float) -> "Sampler":
    """How to sample.

    Args:
        options: as given.
        usual_scale: of guidance, if none is named.

    Raises:
        UserError: no such number of steps can be placed.
    """
    from unflat.systems.zero123.sampler import Sampler
    from unflat.systems.zero123.schedule import timesteps

    try:
        timesteps(options.steps, options.spacing)
    except ValueError as error:
        raise UserError(f"--steps {options.steps}: {error}.") from error
    scale = usual_scale if options.guidance_scale is None else options.guidance_scale
    return Sampler(
        method=options.sampler,
        steps=options.steps,
        spacing=options.spacing,
        eta=options.eta,
        guidance_scale=scale,
    )


def open_model(options: ViewOptions, report: Report, views: int) -> Opened:
    """The model, as it fits into memory.

    Args:
        options: as given.
        report: is told of licences and of what a file lacks.
        views: that are to be made.

    Raises:
        UserError: there is no such model, or it does not fit.
    """
    import torch

    from unflat.device import choose_device
    from unflat.systems.zero123.order import BATCH
    from unflat.systems.zero123.pipeline import load_view_model

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    model = load_view_model(
        options.model,
        choose_device(options.device),
        dtype=dtype[options.precision],
        pose_numbers=options.pose,
        offline=options.offline,
        tell=report.warn,
    )
    if options.vram is None:
        return Opened(model, BATCH)
    from unflat.systems.zero123.memory import follow, memory_cost, plan_memory
    from unflat.systems.zero123.published import PublishedViews

    if not isinstance(model, PublishedViews):
        return Opened(model, BATCH)  # small enough for any machine
    plan = plan_memory(memory_cost(model), options.vram * _GIB, min(views, BATCH))
    follow(plan, model)
    return Opened(model, plan.views)


def read_shown(
    options: ViewOptions,
    source: str,
    mask: Path | None,
    model: "ViewModel",
    report: Report,
    label: str,
) -> tuple["Prepared", str]:
    """A picture as the model sees it, and what told its object from the rest.

    Args:
        options: as given.
        source: a path, or `unflat.collection.STDIN`.
        mask: a picture that is white where the object is.
        model: tells size and framing.
        report: is told what a person should know of the picture.
        label: what sentences call the picture.

    Raises:
        UserError: it cannot be read, or shows no object.
    """
    from unflat.collection import STDIN
    from unflat.data.cutout import cut_out
    from unflat.systems.zero123.prepare import prepare

    cutout = cut_out(sys.stdin.buffer.read() if source == STDIN else source, mask, name=label)
    for warning in cutout.warnings:
        report.warn(warning, about=label)
    there = cutout.opacity > _SOLID
    pixels = int(max(there.any(0).sum(), there.any(1).sum()))
    if pixels < _FEW * model.foreground * model.side:
        report.warn(
            f"the object has {pixels} pixels along its longer side, of which the model sees "
            f"{round(model.foreground * model.side)}; expect a blur",
            about=label,
        )
    shown = prepare(
        cutout.image,
        cutout.opacity,
        model.side,
        framing=options.framing,
        foreground=options.foreground or model.foreground,
    )
    return shown, f"by {cutout.source}, {model.side} px"


def find_height(
    options: ViewOptions, shown: "Prepared", model: "ViewModel", report: Report, label: str
) -> float:
    """Radians: how high the picture was taken, told or estimated.

    Args:
        options: as given.
        shown: the picture as the model sees it.
        model: makes the views by which it is estimated.
        report: gets the figures and the confidence.
        label: what sentences call the picture.
    """
    from unflat.result import LEAST_CONFIDENCE
    from unflat.systems.zero123.elevation import estimate_elevation

    if options.input_elevation_deg is not None:
        return math.radians(options.input_elevation_deg)
    with report.stage("elevation") as stage:
        found = estimate_elevation(model, shown, seed=options.seed)
        stage.note = f"{found.degrees:.0f} degrees, give or take {found.spread_deg:.0f}"
    report.figures |= {
        "input_elevation_deg": found.degrees,
        "input_elevation_spread_deg": found.spread_deg,
        "input_elevation_confidence": found.confidence,
    }
    if found.confidence < LEAST_CONFIDENCE:
        report.warn(
            f"its elevation of {found.degrees:.0f} degrees is a guess; tell it by "
            "--input-elevation-deg",
            about=label,
        )
    return found.radians


SETTINGS = (
    *("model", "input_elevation_deg", "framing", "foreground", "sampler", "steps"),
    *("spacing", "eta", "guidance_scale", "pose", "precision", "seed"),
)
"""Of the options here, those that decide how a result looks."""


def settings_of(options: ViewOptions, *more: str) -> dict[str, object]:
    """All that decides how a result looks.

    Args:
        options: as given.
        more: names of a verb's own options.
    """
    found: dict[str, object] = {name: getattr(options, name) for name in (*SETTINGS, *more)}
    return found | {"mask": None if options.mask is None else str(options.mask)}
