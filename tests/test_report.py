import json
import math
from pathlib import Path

import numpy as np
import pytest

from unflat.report import Report, Stage


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def started(self, stage: Stage) -> None:
        self.events.append(("started", stage.name))

    def advanced(self, stage: Stage) -> None:
        self.events.append(("advanced", f"{stage.done}/{stage.total}"))

    def finished(self, stage: Stage) -> None:
        self.events.append(("finished", stage.note))

    def warned(self, sentence: str, about: str | None) -> None:
        self.events.append(("warned", f"{about}: {sentence}"))


def test_stages_are_timed_and_told() -> None:
    heard = Heard()
    report = Report("render", listener=heard)
    with report.stage("render", total=2, unit="views") as stage:
        stage.advance()
        stage.note = "done"
    report.warn("it is dark", about="cat.jpg")
    assert heard.events == [
        ("started", "render"),
        ("advanced", "1/2"),
        ("finished", "done"),
        ("warned", "cat.jpg: it is dark"),
    ]
    assert 0 <= report.json()["seconds"]["render"] <= report.json()["seconds_total"]


def test_a_stage_that_fails_is_still_in_the_report() -> None:
    report = Report("render")
    with pytest.raises(ZeroDivisionError), report.stage("scene"):
        _ = 1 / 0
    assert list(report.json()["seconds"]) == ["scene"]


def test_stages_of_one_name_add_up() -> None:
    report = Report("render")
    for _ in range(2):
        with report.stage("scene"):
            pass
    first, second = report.stages
    assert report.json()["seconds"]["scene"] == pytest.approx(
        first.seconds + second.seconds, abs=2e-4
    )


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    report = Report("evaluate", inputs=["a"], seed=3, settings={"path": Path("x")})
    report.parts = {"protocol": {"scenes": np.int64(3)}}
    report.figures = {"psnr": np.float32(20.5), "lost": math.nan, "rows": (1, 2)}
    path = report.write(tmp_path / "new" / "report.json")
    read = json.loads(path.read_text(encoding="utf-8"))
    assert read["figures"] == {"psnr": 20.5, "lost": None, "rows": [1, 2]}
    assert read["protocol"] == {"scenes": 3}
    assert read["settings"] == {"path": "x"}
    assert read["seed"] == 3
    assert read["versions"]["unflat"][0].isdigit()
    assert read["peak_memory_mib"]["process"] > 1
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


def test_the_same_warning_is_counted() -> None:
    report = Report("reconstruct")
    for _ in range(3):
        report.warn("too dark", about="a.png")
    assert report.json()["warnings"] == [{"warning": "too dark", "about": "a.png", "count": 3}]
