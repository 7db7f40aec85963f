"""Objectives of ``unflat train vq3d-autoencoder``, in this process."""

import json
from pathlib import Path

import pytest
import torch

from unflat.cli.main import main
from unflat.data.procedural import write_procedural
from unflat.systems.vq3d import load
from unflat.training import newest_checkpoint, read_header, read_run

SMALL = {
    "rows": 4,
    "columns": 6,
    "novel_rays": 8,
    "novel_samples": 6,
    "crop": 16,
    "critic_width": 4,
    "critic_widest": 8,
    "critic_start": 0.0,
    "novel_critic_start": 0.0,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some made-up pictures, and objectives of small terms in files."""
    monkeypatch.chdir(tmp_path)
    write_procedural(tmp_path / "made", count=6, resolution=32)
    Path("small.json").write_text(json.dumps({"loss": SMALL}))
    Path("decoder.json").write_text(json.dumps({"loss": {**SMALL, "trained": "decoder"}}))
    return tmp_path


def train(*arguments: str, out: str) -> int:
    same = ("--preset", "tiny", "--batch-size", "4", "--threads", "1", "--sample-every", "0")
    same += ("--steps", "2", "--log-every", "1", "--quiet", "--device", "cpu", "--out", out)
    return main(["train", "vq3d-autoencoder", *same, *arguments])


@pytest.mark.slow
def test_a_run_with_critics_writes_a_model_without_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs, each with its data and its card."""
    data = ("--data", "made/train.tar", "--losses", "critics")
    assert train(*data, "--config", "small.json", out="a") == 0
    assert read_run(folder / "a")["about"]["losses"] == "critics"
    assert read_run(folder / "a")["recipe"]["loss"]["novel_critic_weight"] == 0.05
    first = json.loads((folder / "a" / "metrics.jsonl").read_text().splitlines()[0])
    assert {"perceptual", "fooling", "critic", "novel_critic", "gap"} <= first.keys()
    load(folder / "a")
    checkpoint, _ = newest_checkpoint(folder / "a")
    assert checkpoint is not None
    assert any(name.startswith("critics.novel") for name in checkpoint.weights())
    assert train("--resume", "--losses", "base", out="a") == 2
    said = capsys.readouterr().err
    assert said.startswith("--losses base: the run in a has critics; resume it without")
    assert train("--resume", out="a") == 0

    # Only the decoder, from that model: the file keeps what makes tokens to the last bit.
    keep = ("--data", "made/train.tar", "--config", "decoder.json")
    assert train(*keep, out="b") == 2
    assert "give --init the model whose tokens are kept" in capsys.readouterr().err
    assert not (folder / "b").exists()
    assert (
        train(*keep, "--losses", "no-novel-critic", "--init", "a/model.safetensors", out="b") == 0
    )
    assert read_header(folder / "b" / "model.safetensors")["dtype"] == "float32"
    one, two = load(folder / "a").state_dict(), load(folder / "b").state_dict()
    kept = {name for name, value in one.items() if torch.equal(value, two[name])}
    parts = ("encoder", "embed", "to_code", "skip_in")
    assert {name for name in one if name.startswith(parts)} <= kept
    assert not {name for name in one if name.startswith("decoder.")} <= kept


def test_weights_of_lpips_without_a_perceptual_term_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--data", "made/train.tar", "--lpips", "vgg.pth", out="a") == 2
    said = capsys.readouterr().err
    assert said.startswith("--lpips: these losses have no perceptual term; add --losses critics")
    given = ("--data", "made/train.tar", "--losses", "critics")
    assert train(*given, "--config", "small.json", "--lpips", "lost.pth", out="a") == 2
    assert "lost.pth" in capsys.readouterr().err


def test_a_window_that_no_picture_holds_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for crop in (64, 24, 8):
        Path("c.json").write_text(json.dumps({"loss": {"crop": crop}}))
        given = ("--data", "made/train.tar", "--losses", "critics", "--config", "c.json")
        assert train(*given, out="a") == 2
        said = capsys.readouterr().err
        assert f'"crop" is {crop}; it must be a power of 2 from 16' in said


def test_a_paper_sized_run_is_priced_without_being_built(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = ("train", "vq3d-autoencoder", "--data", "made/train.tar", "--out", "a", "--dry-run")
    assert main([*same, "--preset", "paper-compcars"]) == 0
    said = capsys.readouterr().out
    assert "665 M parameters and 48 M of critics; 5.0 TFLOP a picture, 187 epochs" in said
    assert "at least 89 H100-hours" in said
    assert "would train 100000 steps" in said
    assert not Path("a").exists()
