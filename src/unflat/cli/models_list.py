"""``unflat models list``: the models there are, or the systems of the field."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unflat.cli.options import Speech, Switch
from unflat.terminal import Terminal

if TYPE_CHECKING:
    from unflat.systems.gan.survey import Surveyed

_HEAD = ("system", "status", "paper", "where", "an object is", "code licence")
_WHOLE = ("system", "status", "where")  # columns whose words stay in one piece
_LEAST_COLUMNS = 80  # narrower than that, the rest would be columns of syllables


@dataclass(frozen=True, kw_only=True)
class Options(Speech):
    """The models there are, with size, cost, licence and what they are for."""

    systems: Switch = False
    """Instead, the field's 3D-aware generators: which can be trained here, and what they are."""


def run(options: Options, terminal: Terminal) -> int:
    """Exit code of listing."""
    if options.systems:
        _list_systems(terminal)
    else:
        _list_models(terminal)
    return 0


def _list_models(terminal: Terminal) -> None:
    from dataclasses import asdict

    from unflat.hub import MODELS, PUBLISHED_VIEWS, is_here

    for name, model in MODELS.items():
        where = "bundled" if is_here(name) else "not here"
        terminal.line(f"{name}  ({where}, {model.size_mb:g} MB, {model.licence})")
        terminal.line(f"  {model.summary}")
        terminal.line(f"  trained on {model.trained_on}")
        terminal.line(
            f"  about {model.seconds_cpu:g} s and {model.memory_mib} MiB a picture on two CPU cores"
        )
        terminal.object("model", {"name": name, "here": is_here(name), **asdict(model)})
    for name, known in PUBLISHED_VIEWS.items():
        size = f"{known.size_gb:g} GB" if known.size_gb else "size not known"
        terminal.line(f"{name}  (published by others, {size}, {known.licence})")
        terminal.line(f"  {known.summary}")
        terminal.line(f"  trained on {known.trained_on}")
        terminal.object("published", {"name": name, **asdict(known)})
    terminal.line("a path to a model file works wherever a name does.")
    terminal.object("report", {"models": list(MODELS), "published": list(PUBLISHED_VIEWS)})


def _list_systems(terminal: Terminal) -> None:
    from dataclasses import asdict

    from unflat.systems.gan.survey import INCOMPARABLE, status, surveyed

    systems = surveyed()
    columns = terminal.columns
    if columns is None or columns < _LEAST_COLUMNS:
        for name, system in systems.items():
            terminal.line("; ".join(_cells(name, system, ", arXiv ")))
    else:
        rows = [_cells(name, system, "\n") for name, system in systems.items()]
        terminal.line(_table(rows, columns))
    terminal.line(INCOMPARABLE)
    for name, system in systems.items():
        if system.figures:
            terminal.line(f"  {name}: {system.figures} [{system.protocol}]")
        terminal.object("system", {"name": name, "status": status(name), **asdict(system)})
    terminal.line(
        "what is here is trained by: unflat train gan --system NAME --data DATA --out RUN"
    )
    terminal.object("report", {"systems": list(systems), "note": INCOMPARABLE})


def _cells(name: str, system: "Surveyed", then: str) -> tuple[str, ...]:
    """A row under `_HEAD`; what stands between venue and number is given."""
    from unflat.systems.gan.survey import status

    where = f"{system.venue}{then}{system.arxiv}" if system.arxiv else system.venue
    return name, status(name), system.title, where, system.holds, system.licence


def _table(rows: list[tuple[str, ...]], columns: int) -> str:
    """The rows under their head, as wide as the terminal."""
    from io import StringIO

    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in _HEAD:
        table.add_column(name, no_wrap=name in _WHOLE, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    page = StringIO()
    Console(file=page, width=columns, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines()).strip("\n")
