"""An encoder for a bundled generator, what it makes of pictures; mistakes get their sentence."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from unflat.cli.main import main
from unflat.geometry import camera_object_to_z_up, rotation_about
from unflat.hub import find
from unflat.object_scene import load_scene
from unflat.systems.gan.pipeline import load as load_generator
from unflat.systems.inversion.pipeline import load
from unflat.training import load_weights, save_model

SIDE = 16
QUICK = ("--threads", "1", "--sample-every", "0", "--backend", "reference", "--quiet")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "find"
    sizes = ("--preset", "tiny", "--resolution", str(SIDE), "--batch-size", "4", "--steps", "2")
    begun = ("train", "inversion-encoder", "--generator", "sdf-cars", "--out", str(out))
    assert main([*begun, *sizes, *QUICK]) == 0
    return out


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A car that the generator makes itself, as a person's picture with transparency."""
    model = load_generator(find("sdf-cars"))
    codes = model.codes(model.latents([3]))
    made = model.pictures(codes, model.camera[:1], 64)
    values = torch.cat([made.image, made.opacity], dim=1)[0].clamp(0, 1).permute(1, 2, 0)
    path = tmp_path_factory.mktemp("pictures") / "car.png"
    Image.fromarray((values.numpy() * 255).round().astype(np.uint8)).save(path)
    return path


def test_the_file_holds_the_generator_as_it_was(run: Path) -> None:
    model = load(run / "model.safetensors")
    before = load_generator(find("sdf-cars"))
    assert model.side == SIDE
    for name, value in before.generator.state_dict().items():
        found = model.objects.generator.state_dict()[name]
        torch.testing.assert_close(found, value, atol=2e-3, rtol=2e-3)  # in half precision
    torch.testing.assert_close(model.objects.camera.intrinsics, before.camera.intrinsics)
    assert "unflat invert PICTURE" not in (run / "card.md").read_text().split("## Use")[0]


def test_a_run_goes_on_and_knows_its_generator(run: Path) -> None:
    goes_on = ("--resume", "--steps", "3", "--backend", "reference", "--quiet")
    assert main(["train", "--out", str(run), *goes_on]) == 0
    report = json.loads((run / "report.json").read_text())
    assert report["figures"]["steps"] == 3
    assert report["inputs"] == ["sdf-cars"]


def test_a_picture_becomes_an_object_with_its_camera(
    run: Path, picture: Path, tmp_path: Path
) -> None:
    out = tmp_path / "car"
    more = ("--steps", "2", "--frames", "2", "--size", "24", "--backend", "reference", "--quiet")
    model = ("--model", str(run / "model.safetensors"), "--out", str(out))
    assert main(["invert", str(picture), *model, *more]) == 0
    report = json.loads((out / "report.json").read_text())
    for name in report["files"]:
        assert (out / name).is_file(), name
    assert {"pose.json", "latent.safetensors", "sdf.npz", "scene.safetensors"} <= set(
        report["files"]
    )
    figures = report["figures"]
    assert {"iou_before", "iou_after", "psnr_after", "hypotheses"} <= set(figures)
    assert 0 <= report["confidence"] <= 1
    scene = load_scene(out / "scene.safetensors")
    pose = json.loads((out / "pose.json").read_text())
    matrix = torch.tensor(pose["camera_to_world"])
    torch.testing.assert_close(scene.camera.camera_to_world[0], matrix)
    turn = matrix[:3, :3]
    torch.testing.assert_close(turn @ turn.T, torch.eye(3), atol=1e-5, rtol=0)
    latent = load_file(out / "latent.safetensors")
    assert latent["codes"].shape[1] == 192
    assert latent["palette"].shape == (10, 3)
    grid = np.load(out / "sdf.npz")
    inside = grid["distance"] < 0
    assert 0.001 < inside.mean() < 0.5
    # the grid is the scene's own field, x first
    number = (60, 70, 50)
    place = grid["low"] + (grid["high"] - grid["low"]) * np.array(number) / 127
    at = scene.field.distance(torch.tensor(place, dtype=torch.float32)[None, None]).detach()
    assert float(at) == pytest.approx(float(grid["distance"][number]), abs=2e-3)
    assert main(["invert", str(picture), *model, *more]) == 2  # is there already


def test_the_guess_of_a_good_encoder_is_kept_by_no_steps(picture: Path, run: Path) -> None:
    """The camera found is the true one, if the map that the encoder gives is."""
    from unflat.data.cutout import cut_out
    from unflat.systems.inversion.compare import look
    from unflat.systems.inversion.encoder import ObjectGuess
    from unflat.systems.inversion.fit import steps_of
    from unflat.systems.inversion.invert import invert
    from unflat.systems.inversion.recipe import seen_points

    model = load(run / "model.safetensors")
    model.side = 32
    objects = model.objects
    camera, codes = objects.camera[:1], objects.codes(objects.latents([3]))
    cutout = cut_out(picture)
    seen = look(cutout.image[None], cutout.opacity[None], 32)
    made = objects.pictures(codes, seen.window.camera(camera), 32)
    points = seen_points(seen.window.camera(camera), made.depth)

    class Knows(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, image: torch.Tensor) -> ObjectGuess:
            return ObjectGuess(points, made.opacity, codes[:, 0], None)

    model.encoder = Knows()
    nothing = torch.nn.Module()
    nothing.forward = lambda one, other: (one - other).abs().mean((1, 2, 3))
    found = invert(model, cutout.image, cutout.opacity, nothing, steps_of(0))
    turn = found.camera.rotation.T @ camera.rotation[0]
    assert float(torch.rad2deg(torch.acos(((turn.trace() - 1) / 2).clamp(-1, 1)))) < 1.0
    assert found.after["iou"] > 0.95
    assert found.after["psnr"] > 25
    assert found.before == found.after
    assert found.confidence > 0.8
    assert found.problem is None
    half = rotation_about(torch.tensor([0.0, 1.0, 0.0]), torch.pi)
    flipped = found.start.estimates[0].hypotheses[-1].camera.rotation.float()
    torch.testing.assert_close(flipped, half @ found.camera.rotation, atol=2e-2, rtol=0)
    assert found.start.judged.chosen[0] != len(found.start.estimates[0].hypotheses) - 1


def test_known_pictures_go_with_made_ones(tmp_path: Path) -> None:
    made = ("--count", "4", "--views", "4", "--resolution", "16", "--quiet")
    assert main(["data", "objects", "--out", str(tmp_path / "set"), *made]) == 0
    begun = ("train", "inversion-encoder", "--generator", "sdf-cars", "--preset", "tiny")
    sizes = ("--resolution", str(SIDE), "--batch-size", "4", "--steps", "2", "--log-every", "1")
    known = ("--data", str(tmp_path / "set" / "objects.tar"))
    out = tmp_path / "run"
    assert main([*begun, *sizes, *known, "--out", str(out), *QUICK]) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {"rays", "outline", "picture", "off_ray"} <= set(lines[-1])
    assert load(out / "model.safetensors").side == SIDE
    assert json.loads((out / "run.json").read_text())["about"]["data"] == [known[1]]


def test_pictures_without_cameras_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(2):
        Image.new("RGB", (64, 64), (90 * number, 80, 30)).save(tmp_path / f"photos/{number}.png")
    words = ("train", "inversion-encoder", "--generator", "sdf-cars", "--preset", "tiny")
    data = ("--data", str(tmp_path / "photos"), "--out", str(tmp_path / "run"))
    assert main([*words, *data]) == 2
    assert "its pictures have no cameras, which an encoder learns from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--generator", "vq3d-small"), "not a generator of objects"),
        (("--generator", "sdf-cars", "--batch-size", "6"), "must be a multiple of 4"),
        (("--generator", "sdf-cars", "--resolution", "8"), "between 16 and 1024"),
        (("--generator", "sdf-cars", "--data", "x"), "x: "),
        (("--generator", "sdf-cars", "--data", "x", "y"), "--data: one data set may be given"),
        ((), "--generator: names none"),
        (("--generator", "nothing-of-that-name"), "no such model"),
    ],
)
def test_mistakes_of_training(
    arguments: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["train", "inversion-encoder", "--out", str(out), *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_mistakes_of_inverting(
    run: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--model", str(run / "model.safetensors"))
    Image.new("RGB", (64, 64), (255, 255, 255)).save(tmp_path / "white.png")
    cases = (
        ((str(picture),), "--model: names none"),
        ((str(picture), "--model", "sdf-cars"), "train an encoder for it"),
        ((str(picture), *model, "--steps", "-1"), "--steps"),
        ((str(picture), *model, "--mask", str(tmp_path / "no.png")), "there is no such file"),
        ((str(tmp_path / "white.png"), *model, "--out", str(tmp_path / "w")), "found no object"),
        ((str(tmp_path / "gone.png"), *model), "gone.png"),
        (model, "no picture is named"),
    )
    for arguments, words in cases:
        assert main(["invert", *arguments, "--quiet"]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_codes_of_another_size_do_not_fit(run: Path, tmp_path: Path) -> None:
    from unflat.errors import UserError

    weights, header = load_weights(run / "model.safetensors")
    kept = {"system": "inversion", **{k: header[k] for k in ("config", "side", "generator")}}
    kept["config"] = {**kept["config"], "style_dim": 7}
    save_model(tmp_path / "bad.safetensors", weights, kept)
    with pytest.raises(UserError, match="do not fit its config"):
        load(tmp_path / "bad.safetensors")


def test_a_model_is_measured_by_numbers_of_steps(run: Path, tmp_path: Path) -> None:
    model = load_generator(find("sdf-cars"))
    codes, camera = model.codes(model.latents([5])), model.camera[1:4]
    folder = tmp_path / "cars" / "val" / "a"
    (folder / "rgb").mkdir(parents=True)
    (folder / "pose").mkdir()
    focal = float(camera.intrinsics[0, 0]) * 32
    (folder / "intrinsics.txt").write_text(f"{focal} 16. 16. 0.\n0. 0. 0.\n1.\n32 32\n")
    for view in range(3):
        image = model.pictures(codes, camera[view : view + 1], 32).image[0]
        pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / "rgb" / f"{view:06d}.png")
        turned = camera_object_to_z_up(camera[view].to(dtype=torch.float64))
        matrix = " ".join(f"{value:.9f}" for value in turned.camera_to_world.flatten().tolist())
        (folder / "pose" / f"{view:06d}.txt").write_text(matrix)
    report = tmp_path / "r.json"
    same = ("evaluate", "inversion", "--model", str(run), "--data", str(tmp_path / "cars"))
    more = ("--split", "val", "--views-per-object", "2", "--report", str(report), "--quiet")
    assert main([*same, *more, "--steps", "2,0", "--backend", "reference"]) == 0
    found = json.loads(report.read_text())
    first, second = (f"{run.name} N={count}" for count in (0, 2))
    assert list(found["figures"])[:3] == [first, second, "copy"]
    for name in (first, second):
        figures = found["figures"][name]
        for key in ("rotation_error", "front_iou", "novel_psnr", "novel_perceptual-unflat"):
            assert math.isfinite(figures[key]), key
        assert -1 < figures["kid-unflat"] < found["figures"]["mean-color"]["kid-unflat"]
    assert found["protocol"]["methods"][second]["fit"]["steps"] == 2
    assert found["figures"][first]["front_psnr"] != found["figures"][second]["front_psnr"]
    assert main([*same, *more, "--force", "--steps", "1,two"]) == 2


def test_of_many_pictures_bad_ones_are_listed_and_others_go_on(
    run: Path, picture: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (64, 64), (255, 255, 255)).save(folder / "a-white.png")
    (folder / "b-car.png").write_bytes(picture.read_bytes())
    out = tmp_path / "found"
    model = ("--model", str(run / "model.safetensors"), "--out", str(out), "--steps", "0")
    more = ("--frames", "2", "--size", "16", "--backend", "reference", "--quiet")
    assert main(["invert", str(folder), *model, *more]) == 3
    lines = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert "found no object" in json.dumps(lines)
    assert (out / "b-car" / "mesh.glb").is_file()
    assert (out / "index.html").is_file()
    assert not (out / "a-white").exists()


def test_the_bundled_car_becomes_a_mesh_with_its_camera(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["invert", "--example", "--frames", "2", "--size", "16", "--quiet"]) == 0
    folder = tmp_path / "unflat-example-car"
    report = json.loads((folder / "report.json").read_text())
    assert report["settings"]["model"] == "find-cars"
    assert report["figures"]["iou_after"] > 0.8
    assert report["confidence"] > 0.5
    front = np.array(json.loads((folder / "pose.json").read_text())["camera_to_world"])[:3, 3]
    assert front[2] > 0.3, "the camera stands before the car, whose front is +z"
    assert (folder / "mesh.glb").stat().st_size > 50_000
    assert main(["invert", "--example", "a.png", "--quiet"]) == 2
