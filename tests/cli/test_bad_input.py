"""What a person gets wrong is answered in one sentence: what, where, what to do. Exit code 2."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from unflat.cli.main import main

Said = Callable[..., str]


@pytest.fixture
def said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Said:
    """What the command says, in a fresh folder, when it ends with 2 and has written nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unflat.hub.find", lambda name, offline=False: Path(name))
    Image.new("RGB", (80, 80)).save("cat.png")
    Path("notes.txt").write_text("no picture")
    Path("empty").mkdir()
    Path("done").mkdir()
    Path("done/report.json").write_text("{}")

    def run(*arguments: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert main(arguments) == 2
        assert sorted(tmp_path.rglob("*")) == before
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        assert captured.err.count("\n") == 1
        return captured.err.strip()

    return run


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["reconstruct"], "reconstruct: no picture is named; give one, a folder, or --example."),
        (["reconstruct", "cat.png", "--example"], "--example: goes without other pictures; drop"),
        (["reconstruct", "empty"], "empty: holds no picture unflat can read (png, jpg, webp"),
        (["reconstruct", "*.bmp"], "*.bmp: no file matches; check the pattern."),
        (["reconstruct", "cat.png", "--format", "gbl"], "--format gbl: is not known; choose from"),
        (["reconstruct", "cat.png", "--fov-deg", "3"], "--fov-deg 3: must be from 5 to 150 deg"),
        (["reconstruct", "cat.png", "--frames", "1"], "--frames 1: must be from 2 to 3600"),
        (["render", "lost.safetensors"], "lost.safetensors: there is no such file; give a scene"),
        (["render", "empty"], "empty: holds no scene.safetensors; give a result folder."),
        (["export", "empty", "--format", "stl"], "--format stl: is not known; choose from mp4"),
        (["view", "lost"], "lost: there is no such file; give a result folder."),
        (["view", "empty"], "empty: has no viewer.html; make one with unflat export"),
        (["train", "--out", "empty"], "train: say what; one of vq3d-autoencoder, "),
        (
            ["train", "vq3d-autoencoder", "--out", "empty", "--resume"],
            "empty: holds no run; drop --resume, or give",
        ),
        (
            ["train", "vq3d-autoencoder", "--out", "runs/a"],
            "--data: names no data set; give a folder of pictures",
        ),
        (
            [
                "train",
                "vq3d-autoencoder",
                "--out",
                "runs/a",
                "--data",
                "empty",
                "--config",
                "notes.txt",
            ],
            '--config notes.txt: is not JSON with "config", "loss" or "train"; give a run',
        ),
        (
            [
                "train",
                "vq3d-autoencoder",
                "--out",
                "runs/a",
                "--data",
                "empty",
                "--config",
                "lost.json",
            ],
            "--config lost.json: there is no such file.",
        ),
        (
            [
                "train",
                "vq3d-autoencoder",
                "--out",
                "runs/a",
                "--data",
                "empty",
                "--max-time",
                "soon",
            ],
            "--max-time soon: is no duration; write it as 90s",
        ),
        (
            ["train", "vq3d-autoencoder", "--out", "runs/a", "--data", "empty", "--steps", "0"],
            "training: steps must be at least 1, not 0",
        ),
        (
            ["train", "vq3d-prior", "--out", "runs/a"],
            "--tokens: names no tokens; give a folder that unflat data tokens has written, or",
        ),
        (
            ["train", "vq3d-prior", "--out", "runs/a", "--tokens", "empty"],
            "empty: holds no tokens; give a folder that unflat data tokens has written.",
        ),
        (
            ["train", "vq3d-prior", "--out", "runs/a", "--tokens", "empty", "--data", "empty"],
            "--tokens: is given beside --data; give one of them.",
        ),
        (
            ["train", "vq3d-prior", "--out", "runs/a", "--tokens", "empty", "--crops", "2"],
            "--crops: is for --data; tokens are made already.",
        ),
        (
            ["train", "vq3d-prior", "--out", "runs/a", "--tokens", "empty", "--per-batch", "2"],
            "--per-batch: tokens are mixed by their numbers; leave it out.",
        ),
        (
            ["data", "tokens", "--data", "empty", "--out", "x", "--crops", "2"],
            "--crops 2: needs a --margin, in which windows can differ.",
        ),
        (
            ["data", "tokens", "--data", "empty", "--out", "x", "--margin", "-1"],
            "--margin -1: must be from 0 to 256 pixels.",
        ),
        (["data", "procedural", "--out", "x", "--count", "0"], "--count 0: must be at least 1."),
        (["data", "procedural", "--out", "done"], "done/: already holds a result; add --force"),
        (["data", "objects", "--out", "x", "--views", "0"], "--views 0: must be at least 1."),
        (["models", "show", "empty"], "empty: holds no model.safetensors; give the path of a"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_sentence(said: Said, arguments: list[str], sentence: str) -> None:
    if arguments[0] in ("train", "data") and "--quiet" not in arguments:
        arguments = [*arguments, "--quiet"]
    assert said(*arguments).startswith(sentence)


def test_a_wrong_key_in_a_config_is_named(said: Said, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"loss": {"depht": 1}}')
    sentence = said(
        "train", "vq3d-autoencoder", "--out", "a", "--data", "empty", "--config", "c.json"
    )
    assert sentence.startswith('"loss": there is no depht; choose from depth')


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--insert", "a.glb", "--at", "0,0"], "lost: there is no such file; give a scene"),
        (["done", "--insert", "a.glb", "--at", "0,0"], "done: holds no scene.safetensors"),
        (["s.safetensors", "--insert", "a.glb", "--at", "0"], "--at 0: is no place; write X,Y or"),
        (["s.safetensors", "--insert", "a.glb", "--at", "0,x"], "--at 0,x: is no place; write X,Y"),
        (
            ["s.safetensors", "--insert", "a.glb", "--at", "-1.5,0,0"],
            "--at X -1.5: is outside the scene; must be from -1, the picture's left border, to 1",
        ),
        (
            ["s.safetensors", "--insert", "a.glb", "--at", "0,0,2"],
            "--at Z 2: is outside the scene; must be from 0, the scene's farthest depth, to 1, its",
        ),
        (
            ["s.safetensors", "--insert", "a.glb", "--at", "0,0", "--object-size", "5"],
            "--object-size 5: must be from 0.001 to 2 of the visible height.",
        ),
        (
            ["s.safetensors", "--insert", "empty", "--at", "0,0"],
            "empty: holds no scene.safetensors; give a result folder.",
        ),
        (
            ["s.safetensors", "--insert", "a.glb", "--at", "0,0", "--farthest", "2"],
            "--farthest 2: must be from 0 to 1 (farthest to nearest).",
        ),
    ],
)
def test_what_cannot_be_put_in_is_a_sentence(
    said: Said, arguments: list[str], sentence: str
) -> None:
    Path("s.safetensors").write_bytes(b"")
    first = [] if not arguments[0].startswith("--") else ["lost"]
    assert said("edit", *first, *arguments).startswith(sentence)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["cat.png", "cat.png", "--count", "1"], "--count 1: must be from 2 to 1000 scenes."),
        (["cat.png", "cat.png", "--size", "9999"], "--size 9999: must be from 16 to 2048 pixels."),
        (["cat.png", "cat.png", "--frames", "1"], "--frames 1: must be from 2 to 3600 pictures."),
        (["cat.png", "cat.png", "--format", "glb"], "--format glb: is not known; choose from mp4"),
        (["lost.png", "cat.png"], "lost.png: there is no such file; "),
        (["cat.png", "notes.txt"], "notes.txt: not a picture unflat can read (png, jpg, webp"),
        (["cat.png", "small.png"], "small.png: 20x30 is below the 64 pixels this model needs"),
        (["cat.png", "empty"], "empty: is a folder, not a picture; name a picture inside it."),
    ],
)
def test_what_cannot_be_interpolated_is_a_sentence(
    said: Said, tiny_model: Path, arguments: list[str], sentence: str
) -> None:
    Image.new("RGB", (20, 30)).save("small.png")
    message = said("interpolate", *arguments, "--model", str(tiny_model))
    assert message.splitlines()[-1].startswith(sentence)
