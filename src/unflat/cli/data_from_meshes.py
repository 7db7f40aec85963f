"""``unflat data from-meshes``: renders meshes into a set that learns new views."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from unflat.cli.options import Planned, Speech, Switch, require_range
from unflat.errors import UserError
from unflat.report import Report
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.data.mesh_view_writing import RenderConfig, Rendered

_MOST_REASONS = 10


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Planned):
    """Renders meshes (glb, gltf, obj, ply, off, stl) from all sides, in Zero-1-to-3's layout.

    Each object gets a folder of pictures (RGBA) and cameras in --out, once it is whole: the same
    command again goes on where it was stopped. Meshes that cannot be rendered are skipped and
    listed in report.json; then the exit code is 3.
    """

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """A folder of meshes; folders in it are looked through too."""
    out: Path
    """The set to make, or to go on with."""
    force: Switch = False
    """Render anew what is there."""
    views: int = 12
    """Pictures of each object."""
    size: int = 512
    """Side of a picture in pixels."""
    supersample: int = 2
    """Rays along a side of a pixel."""
    directions: Literal["sphere", "cube"] = "sphere"
    """Where cameras stand: evenly on all sides, or as published (denser at a cube's corners)."""
    light: Literal["sun", "even"] = "sun"
    """A sun drawn for each object and light from everywhere, or the plain colors."""
    up: Literal["y", "z"] = "y"
    """Which way is up in obj, ply, off and stl; in glb and gltf it is y."""
    val_share: float | None = None
    """Share of the objects to hold out; writes train.txt and val.txt."""
    max_faces: int = 1_000_000
    """Skip meshes with more triangles."""
    jobs: int | None = None
    """Processes; one for each core if not given."""
    seed: int = 0
    """Of cameras, light and what is held out."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of rendering."""
    from unflat.cli.main import DONE, SOME_FAILED, STOPPED
    from unflat.data.mesh_view_writing import find_meshes, render_meshes
    from unflat.data.worker_pool import cores

    config = _config(options)
    jobs = options.jobs or cores()
    if options.dry_run:
        meshes, twins = find_meshes(options.data)
        terminal.line(
            f"would render {len(meshes)} meshes, {options.views} views of {options.size} px each, "
            f"to {options.out}/ in {jobs} processes"
        )
        plan = {"meshes": len(meshes), "skipped": len(twins), "out": str(options.out)}
        terminal.object("plan", plan)
        return DONE
    report = Report(
        "data from-meshes",
        inputs=[str(options.data)],
        seed=options.seed,
        device="cpu",
        settings={**dataclasses.asdict(config), "val_share": options.val_share},
        listener=terminal,
    )
    with report.stage("render", total=1, unit="meshes") as stage:

        def told(done: int, total: int) -> None:
            stage.total = total
            stage.advance(done - stage.done)

        done = render_meshes(
            options.data,
            options.out,
            config,
            jobs=jobs,
            val_share=options.val_share,
            force=options.force,
            progress=told,
        )
    _tell(done, options, report, terminal)
    report.write(options.out / "report.json")
    terminal.object("report", report.json())
    if done.stopped:
        terminal.error("stopped; what is whole is kept, run the same again for the rest.")
        return STOPPED
    if not done.whole:
        raise UserError(f"{options.data}: none of its meshes could be rendered; see the reasons.")
    terminal.line(f"wrote {options.out}/  next: unflat data check {options.out}")
    return SOME_FAILED if done.rejects else DONE


def _config(options: Options) -> "RenderConfig":
    from unflat.data.mesh_view_writing import RenderConfig

    require_range(options.views, 1, 1000, "--views", "pictures")
    require_range(options.size, 16, 4096, "--size", "pixels")
    require_range(options.supersample, 1, 8, "--supersample", "rays")
    require_range(options.max_faces, 1, 10**8, "--max-faces", "triangles")
    require_range(options.jobs, 1, 1024, "--jobs", "processes")
    if options.val_share is not None and not 0 < options.val_share < 1:
        raise UserError(f"--val-share {options.val_share:g}: must be above 0 and below 1.")
    names = [field.name for field in dataclasses.fields(RenderConfig)]
    return RenderConfig(**{name: getattr(options, name) for name in names})


def _tell(done: "Rendered", options: Options, report: Report, terminal: Terminal) -> None:
    from unflat.data.mesh_views import has_embree

    report.figures = {
        "meshes": done.total,
        "rendered": len(done.rendered),
        "kept": len(done.kept),
        "skipped": len(done.rejects),
        "held_out": len(done.held_out),
        "pictures": len(done.whole) * options.views,
        "rays": "embree" if has_embree() else "z-buffer",
    }
    if not has_embree():
        report.warn(
            "Embree is not installed, so a slower z-buffer looks for surfaces; "
            'pip install "unflat[mesh]"'
        )
    report.files = ["report.json", "renders.json", "valid_paths.json", "objects.csv"]
    if options.val_share is not None:
        report.files += ["train.txt", "val.txt"]
    for reject in done.rejects:
        report.fail(reject.name, reject.reason)
    terminal.line(
        f"{len(done.rendered)} objects rendered, {len(done.kept)} were there, "
        f"{len(done.rejects)} meshes skipped"
    )
    for reject in done.rejects[:_MOST_REASONS]:
        terminal.line(f"  {reject.name}: {reject.reason}")
    if len(done.rejects) > _MOST_REASONS:
        terminal.line(f"  and {len(done.rejects) - _MOST_REASONS} more, all in report.json")
