"""The page that walks through a system: what it quotes is there, what it runs says what it says."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from unflat.data.procedural_objects import write_procedural_objects
from unflat.rendering import backends
from unflat.systems.gan import registry

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add-a-system.md").read_text(encoding="utf-8")
SYSTEMS = Path(registry.__file__).parent
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
RUN = [block for block in BLOCKS if block.startswith(("import ", "from "))]
QUOTED = [block for block in BLOCKS if block not in RUN]


@pytest.mark.parametrize("block", QUOTED)
def test_what_the_page_quotes_stands_in_the_file(block: str) -> None:
    name = "registry.py" if "System(" in block else "siren_sdf.py"
    assert block in (SYSTEMS / name).read_text(encoding="utf-8")


def test_the_page_quotes_all_that_is_built() -> None:
    """Every line of ``build`` is spoken of."""
    source = (SYSTEMS / "siren_sdf.py").read_text(encoding="utf-8")
    (build,) = [n for n in ast.parse(source).body if getattr(n, "name", "") == "build"]
    assert isinstance(build, ast.FunctionDef)
    for statement in build.body[1:]:
        assert (ast.get_source_segment(source, statement) or "?") in PAGE


def test_the_length_that_the_page_tells() -> None:
    lines = (SYSTEMS / "siren_sdf.py").read_text(encoding="utf-8").count("\n")
    assert f"siren_sdf.py`, {lines} lines" in PAGE


def test_what_the_page_runs_gives_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_procedural_objects(tmp_path / "objects", 2, 32, 0, 4)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    told = 0
    with backends.use("reference"):
        for block in RUN:
            exec(block, scope)
            for line in block.splitlines():
                said = re.fullmatch(r"(\S.*?)  # ([(\[].*)", line)
                if said:  # a value, with what it is behind it
                    value = eval(said[1], scope)
                    assert _plain(value) == ast.literal_eval(said[2])
                    told += 1
    assert told == 5
    assert scope["codes"].shape == (2, 4, 2, 48)


def _plain(value: Any) -> Any:
    """Shapes as tuples, also in a tuple."""
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value
