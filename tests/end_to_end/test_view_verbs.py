"""From pictures with cameras to views and a mesh of one picture; mistakes get their sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from box_object import box, cameras_around, views_of, write_objects
from oracle_views import BoxViews
from unflat.cli import lift as verb
from unflat.cli.main import main
from unflat.cli.view_options import Opened
from unflat.systems.zero123 import order
from unflat.systems.zero123.pipeline import load

SIZES = {
    "config": {
        "side": 16,
        "widths": [16, 32],
        "blocks": 1,
        "encoder": [16, 16],
        "embedding": 16,
        "heads": 2,
        "volume": 4,
    }
}
QUICK = ("--steps", "2", "--quiet")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run")
    write_objects(place / "objects")
    (place / "sizes.json").write_text(json.dumps(SIZES))
    data = ("--data", str(place / "objects"), "--split", "train")
    sizes = ("--config", str(place / "sizes.json"), "--batch-size", "8", "--steps", "3")
    quiet = ("--threads", "1", "--sample-every", "3", "--quiet")
    out = place / "views"
    assert main(["train", "zero123", *data, "--out", str(out), *sizes, *quiet]) == 0
    return out


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rgba = views_of(box((1.0, 0.5, 0.7)), cameras_around(1, 4), 48)[0]
    path = tmp_path_factory.mktemp("pictures") / "box.png"
    Image.fromarray((rgba.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def model_of(run: Path) -> tuple[str, str]:
    return ("--model", str(run / "model.safetensors"))


def test_a_run_leaves_a_model_a_card_and_a_sheet(run: Path) -> None:
    model = load(run / "model.safetensors")
    assert model.side == 16
    assert "unflat views PICTURE" in (run / "card.md").read_text()
    assert pixels(run / "samples" / "000003.png").shape[0] == 4 * 16
    goes_on = ("--resume", "--steps", "4", "--quiet")
    assert main(["train", "zero123", "--out", str(run), *goes_on]) == 0
    assert json.loads((run / "report.json").read_text())["figures"]["steps"] == 4


def test_views_are_written_with_sheet_cameras_and_report(
    run: Path, picture: Path, tmp_path: Path
) -> None:
    out = tmp_path / "box"
    asked = ("--azimuth-deg", "0:360:90", "--count", "2", "--out", str(out))
    assert main(["views", str(picture), *model_of(run), *asked, *QUICK]) == 0
    report = json.loads((out / "report.json").read_text())
    for name in report["files"]:
        assert (out / name).exists(), name
    assert len(list(out.glob("az*.png"))) == 8
    assert pixels(out / "az090_el00.png").shape[:2] == (16, 16)
    # another sample begins with other noise
    first, second = (pixels(out / f"az090_el00{end}.png") for end in ("", "_2"))
    assert not np.array_equal(first, second)
    again = tmp_path / "again"
    assert main(["views", str(picture), *model_of(run), *asked[:-1], str(again), *QUICK]) == 0
    for file in out.glob("az*.png"):
        assert file.read_bytes() == (again / file.name).read_bytes()


def test_elevation_is_asked_for_only_where_it_matters(
    run: Path, picture: Path, tmp_path: Path
) -> None:
    out = tmp_path / "box"
    asked = ("--azimuth-deg", "0,90", "--elevation-deg", "10", "--out", str(out))
    assert main(["views", str(picture), *model_of(run), *asked, *QUICK]) == 0
    figures = json.loads((out / "report.json").read_text())["figures"]
    assert -30 <= figures["input_elevation_deg"] <= 80
    told = ("--input-elevation-deg", "25", "--force")
    assert main(["views", str(picture), *model_of(run), *asked, *told, *QUICK]) == 0
    frames = json.loads((out / "transforms.json").read_text())["frames"]
    height = frames[0]["transform_matrix"][2][3] / 1.85  # z is up
    assert height == pytest.approx(np.sin(np.radians(10)), abs=1e-4)


def test_an_interrupted_run_keeps_its_views_and_goes_on(
    run: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "box", tmp_path / "whole"
    asked = ("--azimuth-deg", "0,90,180", "--own-noise")
    assert main(["views", str(picture), *model_of(run), *asked, "--out", str(whole), *QUICK]) == 0
    made, calls = order.make_views, []

    def stops(*arguments, finished, places, **settings):
        def told(numbers, views):
            finished(numbers, views)
            calls.append(numbers)
            raise KeyboardInterrupt

        return made(*arguments, finished=told, places=places, **settings)

    monkeypatch.setattr(order, "make_views", stops)
    monkeypatch.setattr(order, "BATCH", 1)
    import unflat.cli.view_options as options

    monkeypatch.setattr(
        options, "open_model", lambda *a: options.Opened(load(run / "model.safetensors"), 1)
    )
    import unflat.cli.views as verb

    monkeypatch.setattr(verb, "open_model", options.open_model)
    assert main(["views", str(picture), *model_of(run), *asked, "--out", str(out), *QUICK]) == 130
    assert calls == [[0]]
    assert len(list(out.glob("az*.png"))) == 1
    assert not (out / "report.json").exists()
    monkeypatch.setattr(order, "make_views", made)
    goes_on = (*asked, "--resume", "--out", str(out))
    assert main(["views", str(picture), *model_of(run), *goes_on, *QUICK]) == 0
    for file in whole.glob("az*.png"):
        assert np.abs(pixels(out / file.name) - pixels(file)).max() <= 1


def test_told_of_each_other_with_a_second_picture(run: Path, picture: Path, tmp_path: Path) -> None:
    asked = ("--azimuth-deg", "30,60", "--consistent", "--best-of", "2")
    also = ("--also", f"{picture}@90,0", "--input-elevation-deg", "0")
    out = ("--out", str(tmp_path / "box"))
    assert main(["views", str(picture), *model_of(run), *asked, *also, *out, *QUICK]) == 0
    assert len(list((tmp_path / "box").glob("az*.png"))) == 2


def test_a_folder_of_pictures_gets_a_folder_each(run: Path, picture: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(picture.read_bytes())
    Image.new("RGBA", (40, 40)).save(pictures / "empty.png")
    out = tmp_path / "out"
    asked = ("--azimuth-deg", "0,90", "--out", str(out))
    assert main(["views", str(pictures), *model_of(run), *asked, *QUICK]) == 3
    assert (out / "a" / "report.json").exists()
    lines = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    failed = next(line for line in lines if line["status"] == "failed")
    assert "found no object" in failed["reason"]


def test_a_picture_becomes_a_mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a model that knows the box: the mesh has its sides, the right way up."""
    import trimesh

    truth = BoxViews(np.radians(20), extents=(1.0, 0.4, 0.6), side=48)
    image, opacity = truth.shown()
    rgba = torch.cat([image, opacity[None]]).permute(1, 2, 0).numpy()
    Image.fromarray((rgba * 255).round().astype(np.uint8)).save(tmp_path / "box.png")
    monkeypatch.setattr(verb, "open_model", lambda *_: Opened(truth, 16))
    out = tmp_path / "out"
    asked = ("--input-elevation-deg", "20", "--framing", "as-is", "--frames", "2", "--size", "16")
    assert main(["lift", str(tmp_path / "box.png"), *asked, "--out", str(out), "--quiet"]) == 0
    report = json.loads((out / "report.json").read_text())
    for name in report["files"]:
        assert (out / name).exists(), name
    assert {"mesh.glb", "scene.safetensors", "views.png", "pose.json"} < set(report["files"])
    assert report["confidence"] > 0.8
    mesh = trimesh.load(out / "mesh.glb", force="mesh")
    np.testing.assert_allclose(np.sort(mesh.extents), [0.4, 0.6, 1.0], atol=0.1)
    assert int(np.argmin(mesh.extents)) == 1  # y is up, and the box lies flat


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--azimuth-deg", "0:90"), "no range"),
        (("--azimuth-deg", "720"), "out of range"),
        (("--elevation-deg", "95"), "out of range"),
        (("--distance", "9"), "--distance 9"),
        (("--eta", "1"), "--sampler ddim"),
        (("--steps", "600", "--spacing", "leading"), "--steps 600"),
        (("--foreground", "0.5", "--framing", "as-is"), "--framing centered"),
        (("--also", "side.png"), "tells no place"),
        (("--mask", "none.png"), "there is no such file"),
        (("--model", "nowhere.safetensors"), "nowhere.safetensors"),
    ],
)
def test_mistakes_get_their_sentence(
    options: tuple[str, ...], says: str, run: Path, picture: Path, tmp_path: Path, capsys
) -> None:
    given = options if "--model" in options else (*model_of(run), *options)
    out = tmp_path / "out"
    assert main(["views", str(picture), *given, "--out", str(out), "--quiet"]) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()


def test_another_systems_model_is_refused(picture: Path, tmp_path: Path, capsys) -> None:
    out = ("--out", str(tmp_path / "out"))
    assert main(["lift", str(picture), "--model", "sdf-cars", *out, "--quiet"]) == 2
    assert "makes no views" in capsys.readouterr().err


def test_training_needs_masks_cameras_and_data(tmp_path: Path, capsys) -> None:
    assert main(["train", "zero123", "--out", str(tmp_path / "a")]) == 2
    assert "--data: names no data set" in capsys.readouterr().err
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(3):
        pixels = torch.randint(0, 255, (20, 20, 3), dtype=torch.uint8).numpy()
        Image.fromarray(pixels).save(pictures / f"{number}.png")
    found = main(["train", "zero123", "--data", str(pictures), "--out", str(tmp_path / "a")])
    assert found == 2
    assert "have no cameras" in capsys.readouterr().err
