"""What every task of evaluation gives: figures of methods, the protocol, items, and the tables.

::

    evaluation = evaluate_depth(...)
    evaluation.figures["vq3d-small"]["disparity_correlation"]
    for line in evaluation.lines():
        print(line)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from unflat.data.sample import Reject

FORMAT = 2
"""Version of the report's layout; raised when a key changes its meaning."""

Progress = Callable[[int, int], None]
"""Is told how many of how many items are done."""

_MISSING = "-"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One figure as a table shows it."""

    key: str
    """Its name in the report."""
    label: str
    """Its name in the table, with the unit."""
    form: str = "{:.2f}"
    """How it is written."""
    better: Literal["higher", "lower", ""] = "higher"
    """Which way is better; empty where neither is."""

    def cell(self, figures: Mapping[str, Any]) -> str:
        """The figure as text, a dash where it was not measured."""
        value = figures.get(self.key)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return _MISSING
        return self.form.format(value)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Some columns of the figures, for all methods that have any of them."""

    title: str
    columns: Sequence[Column]

    def measured(self, figures: Mapping[str, Mapping[str, Any]]) -> "Table":
        """The table without columns that no method has a figure for."""
        shown = [c for c in self.columns if any(c.cell(v) != _MISSING for v in figures.values())]
        return Table(title=self.title, columns=shown)

    def rows(self, figures: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
        """Method and cells, without the methods that have none of them."""
        found = []
        for method, values in figures.items():
            cells = [column.cell(values) for column in self.columns]
            if any(cell != _MISSING for cell in cells):
                found.append([method, *cells])
        return found


@dataclass(frozen=True, kw_only=True)
class Item:
    """One picture, scene or object, and what every method reached on it."""

    name: str
    figures: Mapping[str, Mapping[str, Any]]
    """Values, or lists of values of several views, by method and key."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else is known of it, as its class."""

    def json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"name": self.name, **self.facts, "figures": self.figures}


@dataclass(frozen=True, kw_only=True)
class Published:
    """Figures that papers give for a protocol."""

    title: str
    source: str
    """Where they are printed."""
    columns: Sequence[Column]
    rows: Mapping[str, Mapping[str, float]]
    comparable: str
    """Whether, and why not, ours may be held against them."""


@dataclass(kw_only=True)
class Evaluation:
    """Figures with their protocol."""

    task: str
    """As in ``unflat evaluate TASK``."""
    tables: Sequence[Table]
    figures: dict[str, dict[str, Any]]
    """Means over items, by method and key; the model that was asked for comes first."""
    protocol: dict[str, Any]
    """All that must be equal for two figures to be comparable."""
    items: list[Item] = field(default_factory=list)
    rank: tuple[str, Column] | None = None
    """Method and figure by which items count as best and worst."""
    sheet: Callable[[int], Float[Tensor, "3 height width"]] | None = None
    """A picture, in [0, 1], of what was compared on an item."""
    sheet_text: str = ""
    """What such a picture shows, from left to right."""
    published: Sequence[Published] = ()
    rejected: list[Reject] = field(default_factory=list)
    """Items that could not be read."""
    warnings: list[str] = field(default_factory=list)
    """What weakens the figures."""

    def json(self, per_item: bool = False) -> dict[str, Any]:
        """The report: equal for equal seeds, since it holds no times and no dates.

        Args:
            per_item: keep every item's values.
        """
        result: dict[str, Any] = {
            "format": FORMAT,
            "task": self.task,
            "figures": self.figures,
            "protocol": self.protocol,
            "rejected": [{"name": r.name, "reason": r.reason} for r in self.rejected],
            "warnings": self.warnings,
            "table": self.lines(),
        }
        if per_item:
            result["items"] = [item.json() for item in self.items]
        return _plain(result)

    def lines(self) -> list[str]:
        """All tables as aligned plain text, then what papers give for the same protocol."""
        return table_lines(self.tables, self.figures, self.published)

    def ranked(self) -> list[int]:
        """Items from best to worst; those without the figure are left out.

        Without a `rank` there are none.
        """
        if self.rank is None:
            return []
        method, column = self.rank
        values = [_mean(item.figures.get(method, {}).get(column.key)) for item in self.items]
        known = [index for index, value in enumerate(values) if not math.isnan(value)]
        sign = -1.0 if column.better == "higher" else 1.0
        return sorted(known, key=lambda index: (sign * values[index], index))


def table_lines(
    tables: Sequence[Table],
    figures: Mapping[str, Mapping[str, Any]],
    published: Sequence[Published] = (),
) -> list[str]:
    """Tables as aligned plain text."""
    lines: list[str] = []
    for table in (every.measured(figures) for every in tables):
        rows = table.rows(figures)
        if rows:
            lines += [table.title, *_aligned(table.columns, rows), ""]
    for known in published:
        rows = [
            [name, *(c.cell(values) for c in known.columns)] for name, values in known.rows.items()
        ]
        lines += [f"published: {known.title} ({known.source}); {known.comparable}"]
        lines += [*_aligned(known.columns, rows), ""]
    return lines[:-1]


def means(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Mean of each list; values that are NaN were not measured and are left out."""
    found = {}
    for name, items in values.items():
        known = [item for item in items if not math.isnan(item)]
        if known:
            found[name] = math.fsum(known) / len(known)
    return found


def mean_figures(items: Sequence[Item]) -> dict[str, dict[str, float]]:
    """Means over items, by method and key; a list counts with each of its values."""
    collected: dict[str, dict[str, list[float]]] = {}
    for item in items:
        for method, values in item.figures.items():
            lists = collected.setdefault(method, {})
            for key, value in values.items():
                many = value if isinstance(value, list) else [value]
                lists.setdefault(key, []).extend(float(one) for one in many if one is not None)
    return {method: means(lists) for method, lists in collected.items()}


def _mean(value: Any) -> float:
    if value is None or value == []:
        return math.nan
    return sum(value) / len(value) if isinstance(value, list) else float(value)


def _aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    """Two lines of heads and the rows, the first column to the left, the others to the right."""
    heads = [
        ["", *(column.label for column in columns)],
        ["", *(f"({column.better})" if column.better else "" for column in columns)],
    ]
    lines = [*heads, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return [
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        ).rstrip()
        for line in lines
    ]


def _plain(value: Any) -> Any:
    """Plain JSON types; numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
