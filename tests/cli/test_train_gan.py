import json
from pathlib import Path

import pytest

from unflat.cli.main import main
from unflat.cli.training_run import earlier


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--system", "siren_sdf", "--preset", "paper"],
            "--preset paper: siren_sdf has none; choose tiny, small.",
        ),
        (["--system", "eg3d", "--resolution", "48"], "--resolution 48: must be a power of 2"),
        (["--system", "graf"], "--system graf: there is no such system; choose sdf_triplane,"),
        ([], "--system: names none; choose from sdf_triplane,"),
    ],
)
def test_what_cannot_be_is_told_before_data_is_read(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    code = main(["train", "gan", *words, "--data", str(tmp_path / "none.tar"), "--out", str(run)])
    assert code == 2
    assert capsys.readouterr().err.startswith(sentence)
    assert not run.exists()


def test_a_part_of_a_nested_config_changes_that_part_alone(tmp_path: Path) -> None:
    config = {"system": "eg3d", "start": {"kept": 0.25, "views": 4}}
    saved = {"format": 1, "recipe": {"system": "gan", "config": config}, "train": {"steps": 9}}
    (tmp_path / "run.json").write_text(json.dumps(saved))
    change = tmp_path / "change.json"
    change.write_text('{"config": {"start": {"kept": 0.0}}}')
    found = earlier(tmp_path, True, change)
    assert found["config"] == {"system": "eg3d", "start": {"kept": 0.0, "views": 4}}
    assert found["train"] == {"steps": 9}
