"""Pictures of objects become a model, and the model new objects; mistakes get their sentence."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from command import Run
from PIL import Image

from unflat.cli.main import main
from unflat.data import write_procedural_objects
from unflat.systems.gan.pipeline import load

SIDE = 16
TINY = (
    *("--preset", "tiny", "--resolution", str(SIDE), "--batch-size", "4", "--threads", "1"),
    *("--log-every", "1", "--sample-every", "0", "--backend", "reference", "--quiet"),
)
GROWTH = {"config": {"growth": [[0.0, 8], [0.5, SIDE]]}}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "objects"
    write_procedural_objects(out, count=4, resolution=SIDE, seed=0, views=4)
    return out


def trained(system: str, objects: Path, out: Path, *more: str) -> int:
    config = out.with_suffix(".json")
    config.write_text(json.dumps(GROWTH if system == "pigan" else {}))
    data = ("--data", str(objects), "--out", str(out), "--config", str(config))
    return main(["train", "gan", "--system", system, *data, *TINY, "--steps", "2", *more])


@pytest.mark.parametrize("system", ["sdf_triplane", "eg3d", "pigan", "siren_sdf"])
def test_a_system_is_trained_and_its_model_makes_pictures(
    system: str, objects: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert trained(system, objects, out) == 0
    for name in ("model.safetensors", "card.md", "report.json", "run.json"):
        assert (out / name).is_file()
    model = load(out / "model.safetensors")
    codes = model.codes(model.latents([0, 1], seed=5), truncation=0.7)
    made = model.pictures(codes, model.camera[:2], SIDE)
    assert made.image.shape == (2, 3, SIDE, SIDE)
    assert made.image.isfinite().all()
    again = model.codes(model.latents([1], seed=5), truncation=0.7)
    torch.testing.assert_close(again, codes[1:])
    assert not torch.equal(model.latents([1], seed=6), model.latents([1], seed=5))
    goes_on = ("--resume", "--steps", "3", "--backend", "reference", "--quiet")
    assert main(["train", "--out", str(out), *goes_on]) == 0
    assert json.loads((out / "report.json").read_text())["figures"]["steps"] == 3


def test_the_name_of_a_system_is_a_verb_of_train(objects: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    data = ("--data", str(objects), "--out", str(out))
    assert main(["train", "sdf-triplane", *data, *TINY, "--dry-run"]) == 0
    assert not out.exists()


def test_a_generator_makes_objects(unflat: Run, objects: Path, tmp_path: Path) -> None:
    assert trained("sdf_triplane", objects, tmp_path / "run") == 0
    done = unflat(
        *("generate", "--model", "run", "--count", "2", "--truncation", "0.5", "--size", "32"),
        *("--frames", "3", "--format", "orbit", "--out", "made", "--backend", "reference"),
    )
    assert done.returncode == 0, done.stderr
    made = tmp_path / "made"
    with Image.open(made / "grid.png") as grid:
        assert grid.size[0] > 300
    header = json.loads((made / "object-01" / "report.json").read_text())
    assert header["settings"]["truncation"] == 0.5
    assert (made / "object-00" / "scene.safetensors").stat().st_size > 1000
    done = unflat("generate", "--model", "run", "--count", "2", "--out", "made")
    assert done.returncode == 2
    assert "other options" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--truncation", "1.5"), "--truncation 1.5: must be from 0"),
        (("--class", "car"), "--class: is for priors"),
        (("--temperature", "0.5"), "--temperature: is for priors"),
    ],
)
def test_what_a_generator_has_no_use_for_is_refused(
    arguments: tuple[str, str],
    sentence: str,
    objects: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert trained("sdf_triplane", objects, tmp_path / "run") == 0
    assert main(["generate", "--model", str(tmp_path / "run"), *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_truncation_is_not_for_priors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--truncation", "0.7"]) == 2
    assert "--truncation: is for generators of objects" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--system", "nope"), "--system nope: there is no such system; choose"),
        ((), "--system: names none"),
        (("--system", "eg3d", "--resolution", "48"), "--resolution 48: must be a power of 2"),
        (("--system", "pigan", "--resolution", "64", "--preset", "tiny"), "growth is"),
        (("--system", "eg3d", "--classes", "car"), "--data: one data set is learned from"),
        (("--system", "eg3d", "--batch-size", "6"), "must be a multiple of 4, as 4 pictures in a"),
        (("--system", "eg3d", "--batch-size", "0"), "batch_size must be at least 1"),
    ],
)
def test_mistakes_of_training(
    arguments: tuple[str, ...],
    sentence: str,
    objects: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    assert main(["train", "gan", "--data", str(objects), "--out", str(out), *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()


def test_pictures_without_cameras_are_refused_where_they_are_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(8):
        (tmp_path / "plain").mkdir(exist_ok=True)
        Image.new("RGB", (SIDE, SIDE), (number, 9, 9)).save(tmp_path / "plain" / f"{number}.png")
    out = tmp_path / "run"
    assert trained("eg3d", tmp_path / "plain", out) == 2
    said = capsys.readouterr().err
    assert "its pictures have no cameras, which eg3d learns from" in said
    assert "--system pigan" in said
    assert not out.exists()
    assert trained("pigan", tmp_path / "plain", out) == 0, "which learns without"


def test_a_checkpoint_of_another_system_is_refused(
    objects: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained("sdf_triplane", objects, tmp_path / "first") == 0
    again = tmp_path / "second"
    assert trained("pigan", objects, again, "--init", str(tmp_path / "first")) == 2
    assert "holds weights of sdf_triplane, not of pigan" in capsys.readouterr().err
    model = str(tmp_path / "first" / "model.safetensors")
    assert trained("pigan", objects, again, "--init", model) == 2
    assert not again.exists()
    assert trained("sdf_triplane", objects, again, "--init", model) == 0


def test_pickles_are_refused_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps({"G_ema": 1}))
    assert main(["generate", "--model", str(path)]) == 2
    said = capsys.readouterr().err
    assert "pickle" in said
