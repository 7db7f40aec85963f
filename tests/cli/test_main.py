import json
import subprocess
import sys
from pathlib import Path

import pytest

from unflat.cli.main import main
from unflat.cli.verbs import VERBS


def unflat(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command as a person runs it."""
    return subprocess.run(
        [sys.executable, "-m", "unflat", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
    )


@pytest.mark.parametrize("arguments", [[], ["--help"], ["data"], ["models", "--help"]])
def test_help_lists_verbs_and_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom unflat.cli.main import main\n"
        f"code = main({arguments!r})\n"
        "heavy = {'torch', 'tyro', 'numpy', 'rich', 'PIL'} & set(sys.modules)\n"
        "assert code == 0 and not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    group = arguments[0] if arguments and arguments[0] != "--help" else ""
    for name in VERBS:
        assert (f"  {name}  " in done.stdout) is (not group or name.split()[0] == group)


@pytest.mark.parametrize("name", VERBS)
def test_help_of_a_verb_needs_no_torch(name: str) -> None:
    program = (
        "import sys\nfrom unflat.cli.main import main\n"
        "try:\n"
        f"    main([*{name.split()!r}, '--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--quiet" in done.stdout
    assert "--json" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["reconstuct", "a.jpg"], "reconstuct: there is no such verb; did you mean reconstruct?"),
        (["data", "chekc"], "data chekc: there is no such verb; did you mean data check?"),
        (["zzz"], "zzz: there is no such verb; see unflat --help."),
    ],
)
def test_an_unknown_verb(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.err == f"{sentence}\n"
    assert said.out == ""


def test_a_wrong_option_is_met_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["reconstruct", "a.jpg", "--fov-dge", "50"])
    assert end.value.code == 2
    assert "--fov-deg" in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.split()[0] == "unflat"


def test_a_mistake_under_json_keeps_stdout_for_objects(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["view", str(tmp_path / "cat"), "--json"]) == 2
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert lines[-1]["event"] == "error"
    assert lines[-1]["exit_code"] == 2
    assert "there is no such file" in said.err


def test_a_bug_is_told_from_a_mistake(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unflat.cli.models_list.run", lambda *_: 1 / 0)
    assert main(["models", "list"]) == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said
    assert "this is a bug in unflat" in said
    assert "python 3." in said


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("unflat.cli.models_list.run", stop)
    assert main(["models", "list"]) == 130
    assert "run the same again" in capsys.readouterr().err


def test_a_full_memory_is_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object) -> int:
        raise MemoryError

    monkeypatch.setattr("unflat.cli.models_list.run", fill)
    assert main(["models", "list"]) == 2
    assert capsys.readouterr().err.startswith("out of memory; ")


def test_python_dash_m_works(tmp_path: Path) -> None:
    done = unflat("models", "list", "--quiet", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
