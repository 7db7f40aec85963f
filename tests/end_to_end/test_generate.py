import json
from pathlib import Path

import numpy as np
import pytest
from command import Run
from PIL import Image

FEW = ("--steps", "4", "--frames", "2", "--size", "32")


@pytest.fixture
def generate(unflat: Run, tiny_prior: Path) -> Run:
    return lambda *words, **other: unflat("generate", "--model", tiny_prior, *FEW, *words, **other)


@pytest.mark.slow
def test_a_class_becomes_scenes_and_the_rest_is_done_later(generate: Run, tmp_path: Path) -> None:
    done = generate("--class", "car", "--count", "1", "--seed", "5")
    assert done.returncode == 0, done.stderr
    first = tmp_path / "car-scenes" / "car-00"
    files = {path.name for path in first.iterdir()}
    assert files >= {
        "scene.safetensors", "preview.png", "mesh.glb", "depth.png", "depth.npy", "viewer.html",
        "report.json",
    }  # fmt: skip
    assert files & {"orbit.mp4", "orbit.webp"}
    assert "input.png" not in files
    own = json.loads((first / "report.json").read_text())
    assert own["seed"] == 5
    assert own["settings"]["sampling"]["steps"] == 4
    before = (first / "scene.safetensors").stat().st_mtime_ns

    again = generate("--class", "0", "--count", "2", "--seed", "5", "--json")
    assert again.returncode == 0, again.stderr
    last = json.loads(again.stdout.splitlines()[-1])
    assert {"car-00", "car-01", "grid.png"} <= set(last["files"])
    assert (first / "scene.safetensors").stat().st_mtime_ns == before
    assert (tmp_path / "car-scenes" / "index.html").is_file()
    grid = np.asarray(Image.open(tmp_path / "car-scenes" / "grid.png"))
    assert grid.shape == (160, 324, 3)  # side by side
    assert grid[:160, :160].std() > 5
    report = json.loads((tmp_path / "car-scenes" / "report.json").read_text())
    assert report["verb"] == "generate"
    assert "car-01" in report["files"]

    other = generate("--class", "car", "--seed", "6")
    assert other.returncode == 2
    assert other.stderr == (
        "car-scenes: holds scenes that were made with other options (car-00); choose another "
        "--out, or add --force to replace them.\n"
    )


def test_a_plan_writes_nothing(generate: Run, tmp_path: Path) -> None:
    done = generate("--class", "scene/fruit", "--count", "2", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "scene-fruit-01" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_mistake_gets_one_sentence(generate: Run, unflat: Run) -> None:
    done = generate("--class", "cars")
    assert done.returncode == 2, done.stderr
    assert done.stderr == "--class cars: there is no such class; did you mean car?\n"
    done = generate("--autoencoder", "vq3d-small")
    assert done.returncode == 2
    assert "was trained on tokens of" in done.stderr
    done = unflat("generate", "--model", "vq3d-small")
    assert done.returncode == 2
    assert "vq3d-small.safetensors: is a model of vq3d, not of vq3d-prior" in done.stderr


@pytest.mark.slow
def test_a_photo_is_completed(
    unflat: Run, photo: Path, tiny_model: Path, tiny_prior: Path, tmp_path: Path
) -> None:
    words = ("--complete", "--prior", tiny_prior, "--frames", "2", "--size", "32")
    done = unflat("reconstruct", photo, "--model", tiny_model, *words)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "cat" / "report.json").read_text())
    assert report["figures"]["tokens_drawn"] > 0
    assert report["settings"]["complete"] == str(tiny_prior)
    assert report["seconds"]["complete"] > 0
    wrong = unflat("reconstruct", photo, "--out", "x", *words)
    assert wrong.returncode == 2
    assert "was trained on tokens of" in wrong.stderr
    assert not (tmp_path / "x").exists()
