import io
import json
import os

import pytest

from unflat.cli.main import main
from unflat.cli.models_list import Options, run
from unflat.systems.gan.registry import SYSTEMS
from unflat.systems.gan.survey import INCOMPARABLE, SURVEY
from unflat.terminal import Terminal


class Screen(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def on_a_screen(monkeypatch: pytest.MonkeyPatch, columns: int) -> list[str]:
    """What a person sees there, line by line."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns, 40)))
    screen = Screen()
    run(Options(systems=True), Terminal(stdout=screen))
    return screen.getvalue().splitlines()


def test_a_pipe_gets_a_line_for_each_system(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--systems"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("; ")[0]: line.split("; ") for line in lines if line.count("; ") >= 5}
    assert rows.keys() == SURVEY.keys()
    assert all(len(row) == 6 for row in rows.values())
    assert {name for name, row in rows.items() if row[1] == "here"} == set(SYSTEMS)
    assert list(rows)[: len(SYSTEMS)] == [name for name in SURVEY if name in SYSTEMS]
    assert rows["eg3d"][2:4] == ["EG3D", "CVPR 2022, arXiv 2112.07945"]
    figures = lines.index(INCOMPARABLE)
    assert "FID 6.97" in lines[figures + 1]
    assert not any("FID" in line for line in lines[:figures])


@pytest.mark.parametrize("columns", [80, 132])
def test_a_screen_gets_a_table_that_fits(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    lines = on_a_screen(monkeypatch, columns)
    table = lines[: lines.index(INCOMPARABLE)]
    assert max(len(line) for line in table) <= columns
    assert table[0].split()[:4] == ["system", "status", "paper", "where"]
    assert "…" not in "".join(table)  # nothing is cut off
    place = table[0].index("status")
    begun = {line.split()[0]: line[place:].split()[0] for line in table if line[1:2].strip()}
    for name in SURVEY:  # each in a row of its own, its name whole
        assert begun[name] == ("here" if name in SYSTEMS else "not")
    assert "2112.07945" in "\n".join(table)


def test_a_narrow_screen_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = on_a_screen(monkeypatch, 60)
    assert [line.split("; ")[0] for line in lines[: len(SURVEY)]][:2] == ["pigan", "eg3d"]


def test_machines_get_objects(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--systems", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    systems = {event["name"]: event for event in events if event["event"] == "system"}
    assert systems.keys() == SURVEY.keys()
    assert systems["gram"]["figures"].startswith("FID / KID x 100: 14.5")
    assert systems["nerf_vae"]["code"] is None
    assert events[-1]["event"] == "report"
    assert events[-1]["note"] == INCOMPARABLE


def test_without_the_option_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    said = capsys.readouterr().out
    assert "vq3d-small" in said
    assert "graf" not in said
