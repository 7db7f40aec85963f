import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import Run

TINY = ("--preset", "tiny", "--batch-size", "4", "--threads", "1", "--sample-every", "0")


@pytest.fixture
def pictures(unflat: Run, tmp_path: Path) -> Path:
    """A made-up data set of some pictures."""
    done = unflat("data", "procedural", "--out", "made", "--count", "8", "--resolution", "32")
    assert done.returncode == 0, done.stderr
    return tmp_path / "made"


def losses(run: Path) -> dict[int, float]:
    """The logged loss of each step."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    values = [json.loads(line) for line in lines]
    return {value["step"]: value["loss"] for value in values if "loss" in value}


def test_train_check_and_use_the_model(unflat: Run, pictures: Path, photo: Path) -> None:
    done = unflat("data", "check", "made/train.tar", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["figures"]["pictures"] == 8

    arguments = ("--out", "runs/a", "--data", "made/train.tar", *TINY, "--steps", "6")
    done = unflat("train", "vq3d-autoencoder", *arguments, "--log-every", "2")
    assert done.returncode == 0, done.stderr
    run = pictures.parent / "runs" / "a"
    assert {"model.safetensors", "card.md", "report.json", "run.json"} <= {
        path.name for path in run.iterdir()
    }
    report = json.loads((run / "report.json").read_text())
    assert report["figures"]["steps"] == 6
    assert report["inputs"] == ["made/train.tar"]

    done = unflat("train", "vq3d-autoencoder", *arguments)
    assert done.returncode == 2
    assert "give --resume" in done.stderr

    done = unflat("models", "show", "runs/a")
    assert "## Training data" in done.stdout
    done = unflat("reconstruct", "cat.png", "--model", "runs/a", "--frames", "2", "--size", "24")
    assert done.returncode == 0, done.stderr


def test_evaluate_writes_figures_and_protocol(
    unflat: Run, pictures: Path, tiny_model: Path
) -> None:
    same = ("evaluate", "reconstruction", "--data", "made/val.tar", "--report", "f.json")
    done = unflat(*same, "--model", tiny_model, "--limit", "2", "--samples", "8")
    assert done.returncode == 0, done.stderr
    report = json.loads((pictures.parent / "f.json").read_text())
    assert {"tokens", "detail", "copy"} <= set(report["figures"])
    assert report["figures"]["tokens"]["canonical_psnr"] > 0
    assert report["figures"]["copy"]["novel_psnr"] > 0
    assert report["protocol"]
    again = unflat(*same, "--model", tiny_model)
    assert again.returncode == 2
    assert again.stderr == "f.json: is there already; add --force to replace it.\n"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_run_goes_on_to_the_same_losses(
    unflat: Run, pictures: Path, tmp_path: Path
) -> None:
    """Two whole runs and a killed one: half a minute."""
    same = ("--data", "made/train.tar", *TINY, "--steps", "40", "--log-every", "1")
    whole = unflat("train", "vq3d-autoencoder", "--out", "whole", *same)
    assert whole.returncode == 0, whole.stderr

    command = [sys.executable, "-m", "unflat", "train", "vq3d-autoencoder", "--out", "cut", *same]
    process = subprocess.Popen(
        [*command, "--checkpoint-every", "3"], cwd=tmp_path, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    metrics = tmp_path / "cut" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.exists() and metrics.read_text().count("\n") >= 8:
            break
        time.sleep(0.02)
    assert metrics.exists(), "no step within a minute"
    assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut" / "model.safetensors").exists()

    resumed = unflat("train", "--out", "cut", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_ctrl_c_saves_and_is_130(unflat: Run, pictures: Path, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "unflat", "train", "vq3d-autoencoder"),
        *("--out", "run", "--data", "made/train.tar"),
        *(*TINY, "--steps", "100000", "--log-every", "1"),
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.exists() and metrics.read_text().count("\n") >= 2:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "run the same again to continue" in said or "--resume" in said
    assert any((tmp_path / "run" / "checkpoints").iterdir())
