"""``unflat view``: opens the viewer of a scene in the browser."""

import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from unflat.cli.options import Rendered, Speech
from unflat.errors import UserError
from unflat.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Speech, Rendered):
    """Opens the viewer of a scene in the browser."""

    scene: Annotated[Path, tyro.conf.Positional]
    """A result folder, its scene.safetensors, or its viewer.html."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of viewing."""
    page = _page(options.scene)
    opened = webbrowser.open(page.as_uri())
    told = f"opened {page}" if opened else f"found no browser here; open {page} in one"
    terminal.line(told)
    terminal.object("report", {"viewer": str(page), "opened": opened})
    return 0


def _page(given: Path) -> Path:
    if not given.exists():
        raise UserError(f"{given}: there is no such file; give a result folder.")
    page = given / "viewer.html" if given.is_dir() else given.with_name("viewer.html")
    if given.suffix == ".html":
        page = given
    if not page.is_file():
        raise UserError(
            f"{given}: has no viewer.html; make one with unflat export {given} --format html."
        )
    return page.resolve()
