"""An evaluation as one HTML page: tables, protocol, every item, and pictures of some."""

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from unflat.evaluation.result import Column, Evaluation
from unflat.files import atomic_path

SHOWN = 3
"""Pictures of each kind: best, median, worst."""
MOST_ITEMS = 1000
"""Items that the page lists; a longer list is cut in its middle."""

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
th small { display: block; font-weight: normal; }
tbody tr:first-child { font-weight: 600; }
.items tbody tr:first-child { font-weight: inherit; }
figure { margin: 1rem 0; }
img { max-width: 100%; image-rendering: pixelated; min-width: min(100%, 40rem); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_page(path: Path, evaluation: Evaluation, notes: Sequence[str] = ()) -> None:
    """One file that needs no network.

    Args:
        path: where to; replaced when the new page is whole.
        evaluation: with a `sheet` if pictures are wanted.
        notes: lines for the head, as how long it took.
    """
    title = f"unflat evaluate {evaluation.task}"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_text(title)}</h1>",
        *(f"<p>{_text(line)}</p>" for line in notes),
        *(f"<p>warning: {_text(line)}</p>" for line in evaluation.warnings),
    ]
    for table in (every.measured(evaluation.figures) for every in evaluation.tables):
        rows = table.rows(evaluation.figures)
        if rows:
            parts += [f"<h2>{_text(table.title)}</h2>", _table(table.columns, rows)]
    for known in evaluation.published:
        rows = [[name, *(c.cell(v) for c in known.columns)] for name, v in known.rows.items()]
        parts += [
            f"<h2>Published: {_text(known.title)}</h2>",
            f"<p>{_text(known.source)}. {_text(known.comparable)}</p>",
            _table(known.columns, rows),
        ]
    parts += ["<h2>Protocol</h2>", _protocol(evaluation.protocol), *_pictures(evaluation)]
    parts += [*_items(evaluation), "</body></html>"]
    with atomic_path(path) as temporary:
        Path(temporary).write_text("\n".join(parts), encoding="utf-8")


def _pictures(evaluation: Evaluation) -> list[str]:
    order = evaluation.ranked()
    if evaluation.sheet is None or evaluation.rank is None or not order:
        return []
    method, column = evaluation.rank
    middle = max(0, min(len(order) - SHOWN, len(order) // 2 - SHOWN // 2))
    groups = {
        "Best": order[:SHOWN],
        "Median": order[middle : middle + SHOWN],
        "Worst": order[-SHOWN:],
    }
    parts = [
        f"<p>Ranked by {_text(column.label)} of {_text(method)}. {_text(evaluation.sheet_text)}</p>"
    ]
    for name, indices in groups.items():
        parts.append(f"<h2>{name}</h2>")
        for index in dict.fromkeys(indices):
            item = evaluation.items[index]
            value = _item_cell(column, item.figures.get(method, {}))
            words = f"{item.name}: {column.label} {value}"
            parts.append(
                f'<figure><img alt="{_text(words)}" src="{_data_uri(evaluation.sheet(index))}">'
                f"<figcaption>{_text(words)}</figcaption></figure>"
            )
    return parts


def _items(evaluation: Evaluation) -> list[str]:
    order = evaluation.ranked()
    if not order or evaluation.rank is None:
        return []
    method = evaluation.rank[0]
    keys = {key for index in order for key in evaluation.items[index].figures.get(method, {})}
    columns = [c for table in evaluation.tables for c in table.columns if c.key in keys]
    columns = list({column.key: column for column in columns}.values())
    note = ""
    if len(order) > MOST_ITEMS:
        note = f" The best and the worst {MOST_ITEMS // 2} of {len(order)}."
        order = order[: MOST_ITEMS // 2] + order[-(MOST_ITEMS // 2) :]
    rows = [
        [
            evaluation.items[index].name,
            *(_item_cell(c, evaluation.items[index].figures.get(method, {})) for c in columns),
        ]
        for index in order
    ]
    return [
        f"<h2>Items</h2><p>{_text(method)}, from best to worst.{note}</p>",
        f'<div class="items">{_table(columns, rows)}</div>',
    ]


def _item_cell(column: Column, figures: Any) -> str:
    value = figures.get(column.key)
    if isinstance(value, list):
        return column.cell({column.key: sum(value) / len(value)} if value else {})
    return column.cell(figures)


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(
        f'<th scope="col">{_text(c.label)}'
        + (f"<small>{c.better} is better</small>" if c.better else "")
        + "</th>"
        for c in columns
    )
    body = "".join(
        f'<tr><th scope="row">{_text(row[0])}</th>'
        + "".join(f"<td>{_text(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<table><thead><tr><th scope="col"></th>{heads}</tr></thead><tbody>{body}</tbody></table>'
    )


def _protocol(protocol: dict[str, Any]) -> str:
    parts = "".join(
        f"<dt>{_text(name.replace('_', ' '))}</dt><dd>{_text(_words(value))}</dd>"
        for name, value in protocol.items()
    )
    return f"<dl>{parts}</dl>"


def _words(value: Any) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _data_uri(picture: Tensor) -> str:
    pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "WEBP", quality=90, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _text(value: str) -> str:
    return html.escape(value, quote=True)
