"""What learns depth: a teacher of its own, and the detail mode of a stage-1 model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Run
from PIL import Image

from unflat.training import load_weights, save_model

QUICK = ("--batch-size", "4", "--threads", "1", "--sample-every", "0")


@pytest.fixture
def pictures(unflat: Run, tmp_path: Path) -> Path:
    done = unflat("data", "procedural", "--out", "made", "--count", "8", "--resolution", "32")
    assert done.returncode == 0, done.stderr
    return tmp_path / "made"


def test_a_teacher_is_trained_and_teaches(unflat: Run, pictures: Path) -> None:
    config = {"config": {"widths": [8, 12, 32], "depth": 1, "resolution": 32, "source": 32}}
    (pictures.parent / "tiny.json").write_text(json.dumps(config))
    same = ("train", "depth", "--out", "runs/t", *QUICK)
    begun = (*same, "--data", "made/train.tar", "--config", "tiny.json")
    done = unflat(*begun, "--steps", "3")
    assert done.returncode == 0, done.stderr
    run = pictures.parent / "runs" / "t"
    assert {"model.safetensors", "card.md", "report.json"} <= {path.name for path in run.iterdir()}
    state, header = load_weights(run / "model.safetensors")
    assert header["system"] == "depth"
    assert state["positions"].shape[-1] == 4
    # the run knows its system, its size and its data
    done = unflat("train", "--out", "runs/t", "--resume", "--steps", "5")
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "report.json").read_text())["figures"]["steps"] == 5

    (pictures.parent / "photos").mkdir()
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(pictures.parent / "photos" / "a.png")
    ramp = np.tile(np.linspace(0, 255, 48, dtype=np.uint8)[:, None, None], (1, 48, 3))
    Image.fromarray(ramp).save(pictures.parent / "photos" / "b.png")
    done = unflat("data", "depth", "photos", "--model", "runs/t/model.safetensors", "--out", "o")
    assert (pictures.parent / "photos" / "b.disparity.png").is_file(), done.stderr


def test_the_detail_mode_is_trained_and_nothing_else(
    unflat: Run, pictures: Path, photo: Path, tiny_model: Path
) -> None:
    weights, header = load_weights(tiny_model)
    kept = {key: value for key, value in header.items() if key not in ("format", "kind", "dtype")}
    eighth = pictures.parent / "eight-bit.safetensors"  # whose numbers half precision cannot hold
    save_model(eighth, weights, kept, dtype="int8")
    same = ("train", "vq3d-detail", "--out", "runs/d", *QUICK)
    done = unflat(*same, "--model", eighth, "--data", "made/train.tar", "--steps", "2")
    assert done.returncode == 0, done.stderr
    before, _ = load_weights(eighth)
    after, header = load_weights(pictures.parent / "runs" / "d" / "model.safetensors")
    assert header["system"] == "vq3d"
    moved = {
        name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])
    }
    assert moved == {"refiner"}
    done = unflat("train", "--out", "runs/d", "--resume", "--steps", "3")
    assert done.returncode == 0, done.stderr
    done = unflat("reconstruct", photo, "--model", "runs/d", "--frames", "2", "--size", "24")
    assert done.returncode == 0, done.stderr


def test_mistakes_have_their_sentence(unflat: Run, tmp_path: Path) -> None:
    done = unflat("train", "depth", "--out", "runs/t")
    assert done.returncode == 2
    assert "--data: names no data set" in done.stderr
    done = unflat(
        "train", "vq3d-detail", "--out", "runs/d", "--data", "x", "--model", "unflat-features"
    )
    assert done.returncode == 2
    assert "is a model of features, not of vq3d" in done.stderr
    assert not (tmp_path / "runs").exists()
