"""Tables in Markdown, and pages that hold them between ``<!-- NAME -->`` and ``<!-- end -->``."""

import re
from pathlib import Path


def markdown(rows: list[list[str]]) -> str:
    """A table whose first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def fill(path: Path, blocks: dict[str, str]) -> None:
    """Puts every block between its marks; blocks whose mark the page lacks are left out."""
    page = path.read_text(encoding="utf-8")
    for name, block in blocks.items():
        marks = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = marks.sub(lambda found, block=block: f"{found[1]}{block}\n{found[2]}", page)
    path.write_text(page, encoding="utf-8")
