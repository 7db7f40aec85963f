"""What the pages tell a person to type is what the program understands."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from unflat.cli.main import _split
from unflat.cli.verbs import VERBS

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_ELLIPSIS = ("...", "VERB")


def commands() -> list[tuple[str, str]]:
    """Page and command of every line in a code block that starts with ``unflat``."""
    found = []
    for page in PAGES:
        for block in _FENCE.findall(page.read_text(encoding="utf-8")):
            joined = block.replace("\\\n", " ")
            found += [
                (page.relative_to(ROOT).as_posix(), line.strip())
                for line in joined.splitlines()
                if line.strip().startswith("unflat ") and not any(e in line for e in _ELLIPSIS)
            ]
    return found


def test_pages_tell_of_commands() -> None:
    assert len(commands()) >= 10


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_command_of_the_pages_is_understood(
    page: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command, comments=True)[1:]
    words = words[: words.index("#")] if "#" in words else words
    name, rest = _split(words)
    if name is None:
        return
    options = importlib.import_module(VERBS[name].module).Options
    try:
        tyro.cli(options, args=rest, config=(tyro.conf.DisallowNone,))
    except SystemExit as end:
        if end.code:
            pytest.fail(f"{page}: {command}\n{capsys.readouterr().err}")


def test_every_verb_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in VERBS:
        assert name in text or name.split()[0] in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_of_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for alt, target in re.findall(r"(!?\[[^\]]*\])\(([^)\s#]+)[^)]*\)", text):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        assert (page.parent / target).exists(), f"{page.name}: {target}"
        if alt.startswith("!"):
            assert len(alt) > 5, f"{page.name}: {target} has no words for who does not see it"


@pytest.mark.slow
def test_the_pages_build_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-n", "-q", ROOT / "docs", tmp_path / "html"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "first-five-minutes.html").is_file()
