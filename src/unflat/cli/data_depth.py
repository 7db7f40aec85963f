"""``unflat data depth``: gives pictures the disparity that training learns from."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from unflat.cli.options import Device, Placed, Planned, Speech, Switch, require_range
from unflat.errors import UserError
from unflat.report import Report
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.data.depth_writing import FolderTarget, ShardTarget, Written

_VERB = "data depth"
_MOST_REASONS = 10


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Planned, Placed):
    """Gives every picture a disparity, from a depth model or from maps that another tool made.

    Of a folder it lies beside each picture: tom.disparity.png beside tom.jpg. Of a tar a new tar is
    written into --out. What has a disparity keeps it (--force makes it anew), so the same command
    again goes on where it was stopped. report.json and sheet.png go into --out, NAME-depth/ beside
    you if not given. Exit code 3 if some pictures got none.
    """

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """A folder of pictures, or a .tar of them."""
    model: str | None = None
    """A depth model: a file of ours, a folder of transformers, or a hub id as in
    depth-anything/Depth-Anything-V2-Small-hf."""
    maps: Path | None = None
    """A folder of maps, built like the pictures' own: png, npy, npz or pfm."""
    depth_from: Literal["depth", "disparity"] | None = None
    """What the maps hold or the model gives: values that grow with distance, or with nearness. A
    model's kind tells it if not given."""
    resolution: int = 512
    """Longer side in pixels at which pictures are seen and disparities written; smaller ones keep
    their size."""
    device: Device = "auto"
    """Where to compute; auto takes a CUDA GPU if there is one."""
    offline: Switch = False
    """Use no network: a model that is not on this computer is an error."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of giving disparities."""
    from unflat.cli.main import DONE, SOME_FAILED
    from unflat.data.check import tile_sheet
    from unflat.data.depth_writing import ShardTarget, assemble, write_disparities
    from unflat.files import atomic_path

    _check(options)
    out = options.out or Path(f"{options.data.resolve().stem}-depth")
    _require_own(out)
    target = _target(options, out)
    if options.dry_run:
        return _say_plan(options, terminal, target, out)
    report = _report(options, terminal)
    disparity_of = _disparity_of(options)
    with report.stage("depth", total=1, unit="pictures") as stage:

        def told(done: int, total: int) -> None:
            stage.total, stage.done = total, done - 1
            stage.advance()

        written = write_disparities(
            target,
            disparity_of,
            resolution=options.resolution,
            force=options.force,
            progress=told,
        )
    report.files = ["report.json"]
    if isinstance(target, ShardTarget):
        if not written.written + written.kept:
            raise UserError(_nothing(options, written))
        with report.stage("tar"):
            report.files.append(assemble(target, out / options.data.name).name)
    sheet = tile_sheet({name or "(no class)": row for name, row in sorted(written.tiles.items())})
    if sheet is not None:
        with atomic_path(out / "sheet.png") as temporary:
            sheet.save(temporary, format="PNG")
        report.files.append("sheet.png")
    _tell(written, report, terminal)
    report.write(out / "report.json")
    terminal.line(f"wrote {out}/  {'  '.join(report.files)}")
    terminal.object("report", report.json())
    return SOME_FAILED if written.rejects else DONE


def _check(options: Options) -> None:
    """Refuse before work what would fail after it."""
    if (options.model is None) == (options.maps is None):
        both = "names both --model and --maps" if options.model else "names no source of depth"
        raise UserError(f"data depth: {both}; give --model with a depth model, or --maps.")
    if options.maps is not None and options.depth_from is None:
        raise UserError(
            "--maps: what they hold is not known; add --depth-from depth or --depth-from disparity."
        )
    require_range(options.resolution, 32, 4096, "--resolution", "pixels")
    if not options.data.exists():
        raise UserError(f"{options.data}: there is no such file or folder; check the spelling.")
    if options.data.is_file() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            f"{options.data}: a tar is written by one process; give a folder, or unset WORLD_SIZE."
        )


def _require_own(out: Path) -> None:
    """Refuse a folder of another verb, or of a person, as the place of the report."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out}: is a file; choose another --out.")
    if (out / "report.json").is_file():
        try:
            verb = json.loads((out / "report.json").read_text(encoding="utf-8"))["verb"]
        except (OSError, ValueError, KeyError, TypeError):
            verb = None
        if verb == _VERB:
            return
    elif all(path.name == _WORK for path in out.iterdir()):
        return  # empty, or stopped before its report
    raise UserError(f"{out}/: holds something else than a result of {_VERB}; choose another --out.")


_WORK = "maps.partial"


def _target(options: Options, out: Path) -> "FolderTarget | ShardTarget":
    from unflat.data.depth_writing import FolderTarget, ShardTarget

    if options.data.is_dir():
        return FolderTarget(options.data)
    made = out / options.data.name
    if made.exists() and not options.force:
        raise UserError(f"{made}: is there already; add --force to replace it or choose --out.")
    return ShardTarget(options.data, out / _WORK)


def _disparity_of(options: Options) -> Callable[..., Any]:
    """What gives a picture's disparity."""
    from unflat.data.depth_writing import from_maps
    from unflat.device import choose_device
    from unflat.systems.depth.source import open_estimator, sees_picture

    if options.maps is not None and options.depth_from is not None:
        return from_maps(options.maps, options.depth_from)
    assert options.model is not None  # checked before
    estimator = open_estimator(
        options.model,
        meaning=options.depth_from,
        device=choose_device(options.device),
        offline=options.offline,
    )
    return sees_picture(estimator)


def _report(options: Options, terminal: Terminal) -> Report:
    from unflat.device import choose_device

    return Report(
        _VERB,
        inputs=[str(options.data)],
        device=choose_device(options.device),
        settings={
            "model": options.model,
            "maps": options.maps,
            "depth_from": options.depth_from,
            "resolution": options.resolution,
        },
        listener=terminal,
    )


def _say_plan(
    options: Options, terminal: Terminal, target: "FolderTarget | ShardTarget", out: Path
) -> int:
    count = len(target.source)
    there = 0 if options.force else sum(target.has(index) for index in range(count))
    place = "beside each picture" if options.data.is_dir() else f"in {out / options.data.name}"
    source = options.model or options.maps
    terminal.line(
        f"would write {count - there} disparities from {source} {place}; {there} of {count} are "
        "there; time and memory not measured for this model."
    )
    terminal.object("plan", {"pictures": count, "there": there, "out": str(out)})
    return 0


def _tell(written: "Written", report: Report, terminal: Terminal) -> None:
    report.figures = {
        "written": written.written,
        "kept": written.kept,
        "failed": len(written.rejects),
        "floor_correlation": written.floor_correlation,
    }
    if written.looks_turned_round:
        report.warn(
            "taken together the upper parts of these pictures came out near and the lower parts "
            "far, which is rare; look at sheet.png (bright is near), and if it is turned round, "
            "run again with --force and the other --depth-from"
        )
    for reject in written.rejects:
        report.fail(reject.name, reject.reason)
    terminal.line(
        f"{written.written} disparities written, {written.kept} were there, "
        f"{len(written.rejects)} pictures got none"
    )
    for reject in written.rejects[:_MOST_REASONS]:
        terminal.line(f"  {reject.name}: {reject.reason}")
    if len(written.rejects) > _MOST_REASONS:
        terminal.line(f"  and {len(written.rejects) - _MOST_REASONS} more, all in report.json")


def _nothing(options: Options, written: "Written") -> str:
    first = f" ({written.rejects[0].name}: {written.rejects[0].reason})" if written.rejects else ""
    return f"{options.data}: none of its pictures could be given a disparity{first}."
