from pathlib import Path

import pytest

from unflat.cli.main import main


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
