"""What ``render`` and ``export`` share: a scene file in, files beside it or in ``--out``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unflat.report import Report
from unflat.terminal import Terminal


def write(
    verb: str,
    options: Any,
    formats: Sequence[str],
    terminal: Terminal,
    *,
    video: str = "orbit",
    **how: Any,
) -> int:
    """Exit code of writing a scene in some formats.

    Args:
        verb: names the report, ``VERB.json``.
        options: with ``scene``, ``out``, ``force`` and ``dry_run``.
        formats: from `unflat.result.FORMATS`.
        terminal: where to say so.
        video: name of the videos, without ending.
        how: passed on to `unflat.result.write_formats`.
    """
    from unflat.result import check_formats, free_places, scene_file, write_formats

    check_formats(formats)
    source = scene_file(options.scene)
    folder: Path = options.out or source.parent
    places = free_places(folder, formats, video=video, force=options.force)
    if options.dry_run:
        for place in places:
            terminal.line(f"would write {place}")
            terminal.object("plan", {"out": str(place)})
        return 0
    from unflat.object_scene import load_scene

    report = Report(
        verb, inputs=[str(source)], settings={"formats": list(formats), **how}, listener=terminal
    )
    with report.stage("load"):
        scene = load_scene(source)
    folder.mkdir(parents=True, exist_ok=True)
    name = source.resolve().parent.name
    write_formats(scene, folder, formats, report, name=name, video=video, **how)
    report.write(folder / f"{verb}.json")
    terminal.line(f"wrote {'  '.join(str(place) for place in places)}")
    terminal.object("report", report.json())
    return 0
