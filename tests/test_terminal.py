import io
import json

import pytest

from unflat.report import Report
from unflat.terminal import Terminal


class Screen(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def work(terminal: Terminal) -> None:
    report = Report("render", listener=terminal)
    with report.stage("render", total=3, unit="views") as stage:
        for _ in range(3):
            stage.advance()
    for name in ("a.png", "b.png", "c.png"):
        report.warn("too dark", about=name)
    terminal.repeated_warnings()
    terminal.object("report", {"seed": 1})


def test_a_pipe_gets_plain_lines() -> None:
    out, err = io.StringIO(), io.StringIO()
    work(Terminal(stdout=out, stderr=err))
    assert "\r" not in out.getvalue()
    assert "\x1b" not in out.getvalue()
    assert "render" in out.getvalue()
    assert "3 views" in out.getvalue()
    assert err.getvalue() == ""


def test_json_keeps_stdout_for_objects() -> None:
    out, err = io.StringIO(), io.StringIO()
    work(Terminal(json_lines=True, stdout=out, stderr=err))
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["stage", *["warning"] * 3, "report"]
    assert "too dark" in err.getvalue()


def test_quiet_says_only_errors() -> None:
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(quiet=True, stdout=out, stderr=err)
    work(terminal)
    terminal.error("cat.jgp: there is no such file.")
    assert out.getvalue() == ""
    assert err.getvalue() == "cat.jgp: there is no such file.\n"


def test_a_repeated_warning_is_shown_once_with_a_count() -> None:
    out = io.StringIO()
    work(Terminal(stdout=out, stderr=io.StringIO()))
    lines = [line for line in out.getvalue().splitlines() if "too dark" in line]
    assert lines == ["  warning: a.png: too dark", "  warning, 3 times: too dark"]


@pytest.mark.parametrize(("term", "moves"), [("xterm", True), ("dumb", False)])
def test_a_bar_moves_only_where_it_can(
    term: str, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    screen = Screen()
    work(Terminal(stdout=screen, stderr=io.StringIO()))
    assert ("\r" in screen.getvalue()) is moves


def test_nothing_is_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    work(Terminal(stdout=screen, stderr=io.StringIO()))
    assert "\x1b[3" not in screen.getvalue()
