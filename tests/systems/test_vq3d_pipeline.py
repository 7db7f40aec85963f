import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from unflat.errors import UserError
from unflat.fields import DetailField, ViewSpaceField
from unflat.report import Report
from unflat.scene import Scene
from unflat.systems.vq3d import build, detail_field, has_detail, load, token_field
from unflat.systems.vq3d.config import tiny
from unflat.systems.vq3d.pipeline import reconstruct_picture
from unflat.training import save_model
from unflat.training.model_file import model_hash

FOCAL_35MM, EXIF_IFD = 0xA405, 0x8769


def picture(width: int = 96, height: int = 72) -> Image.Image:
    """Ramps with a bright square."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    image = Image.merge("RGB", (across, down, across.transpose(Image.Transpose.ROTATE_180)))
    image.paste((240, 220, 40), (width // 3, height // 3, width // 2, height // 2))
    return image


def psnr(image: torch.Tensor, target: torch.Tensor) -> float:
    return float(-10 * (image - target).square().mean().log10())


def model_file(path: Path, **changes) -> Path:
    config = dataclasses.replace(tiny(), **changes)
    torch.manual_seed(0)
    header = {"system": "vq3d", "config": dataclasses.asdict(config), "card": {}}
    save_model(path, build(config), header)
    return path


def rewritten(path: Path, out: Path, change) -> Path:
    """A model file with its header or its weights changed."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["unflat"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header, tensors)
    save_file(tensors, out, metadata={"unflat": json.dumps(header)})
    return out


# Models


def test_a_model_file_becomes_the_model_that_was_saved(tiny_model):
    model = load(tiny_model)
    assert not model.training
    assert model.config == tiny()
    torch.manual_seed(0)
    other = build(tiny())
    assert model.state_dict().keys() == other.state_dict().keys()
    assert has_detail(model)
    assert not has_detail(build(dataclasses.replace(tiny(), refiner_width=0)))
    assert not has_detail(build(dataclasses.replace(tiny(), field="triplane")))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda header, tensors: header.update(system="zero123"),
            "is a model of zero123, not of vq3d; give another --model.",
        ),
        (
            lambda header, tensors: header["config"].update(colour_space="lab"),
            "does not fit this version of vq3d; train it again or use another unflat.",
        ),
        (
            lambda header, tensors: header.pop("config"),
            "does not fit this version of vq3d; train it again or use another unflat.",
        ),
        (
            lambda header, tensors: tensors.pop("embed.weight"),
            "does not fit this version of vq3d; train it again or use another unflat.",
        ),
    ],
    ids=["other system", "unknown choice", "no config", "no weight"],
)
def test_what_is_no_model_of_this_version_is_a_sentence(tiny_model, tmp_path, change, words):
    path = rewritten(tiny_model, tmp_path / "changed.safetensors", change)
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: {words}"


# Fields


@torch.no_grad()
def test_detail_shows_the_photo_and_keeps_the_tokens_behind_it(tiny_model):
    model = load(tiny_model)
    image, photo = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 48, 48)
    encoded = model.encode(image)
    field = detail_field(model, encoded, image, photo)
    assert isinstance(field, DetailField)
    assert field.photo.shape == (2, 3, 48, 48)
    assert torch.equal(field.photo, photo)
    assert field.disparity.shape == field.spread.shape == (2, 1, 48, 48)
    assert bool((field.spread > 0).all())
    tokens = token_field(model, encoded)
    assert isinstance(tokens, ViewSpaceField)
    assert all(torch.equal(*pair) for pair in zip(tokens.planes, field.base.planes, strict=True))


def test_detail_of_a_model_without_a_refiner_is_a_mistake_of_the_programmer():
    model = build(dataclasses.replace(tiny(), refiner_width=0)).eval()
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad(), pytest.raises(ValueError, match="detail needs a refiner"):
        detail_field(model, model.encode(image), image, image)


# From a picture to a scene


def test_a_photo_becomes_a_scene_that_shows_it(tiny_model, tmp_path):
    picture().save(tmp_path / "cat.png")
    report = Report("reconstruct")
    scene = reconstruct_picture(tmp_path / "cat.png", model=tiny_model, report=report)
    assert scene.size == (72, 72)
    assert scene.photo is not None
    middle = picture().crop((12, 0, 84, 72))
    assert torch.equal((scene.photo * 255).round().byte().flatten(1), as_bytes(middle))
    assert psnr(scene.render().rgb[0], scene.photo) > 40
    header = scene.header
    assert (header.system, header.source, header.model) == ("vq3d", "cat.png", str(tiny_model))
    assert header.model_sha256 == model_hash(tiny_model)
    assert header.licence == "Apache-2.0"
    assert (header.fov_deg, header.fov_from, header.units) == (50, "default", "unknown")
    assert header.settings == {"seed": 0, "mode": "detail"}
    assert header.confidence == report.confidence
    assert header.confidence is not None
    assert 0 <= header.confidence <= 1
    assert [stage.name for stage in report.stages] == ["prepare", "scene"]
    assert report.settings["preprocessing"] == ["the centre 72x72 of 96x72 is used"]
    assert report.figures["canonical_psnr"] > 5
    assert 0 < report.figures["codes_used"] <= 1
    loaded = Scene.load(scene.save(tmp_path / "scene.safetensors"))
    assert psnr(loaded.render().rgb[0], scene.photo) > 40


def as_bytes(image: Image.Image) -> torch.Tensor:
    return torch.tensor(list(image.tobytes()), dtype=torch.uint8).reshape(-1, 3).T.contiguous()


def test_the_same_picture_gives_the_same_file(tiny_model, tmp_path):
    files = []
    for name in ("a", "b"):
        scene = reconstruct_picture(picture(), model=tiny_model)
        files.append(scene.save(tmp_path / f"{name}.safetensors").read_bytes())
    assert files[0] == files[1]


def test_gray_and_transparent_pictures_are_taken(tiny_model, tmp_path):
    picture().convert("L").save(tmp_path / "gray.png")
    scene = reconstruct_picture(tmp_path / "gray.png", model=tiny_model)
    assert scene.photo is not None
    assert torch.equal(scene.photo[0], scene.photo[2])
    clear = picture()
    clear.putalpha(Image.new("L", clear.size, 0))
    clear.save(tmp_path / "clear.png")
    report = Report("reconstruct")
    scene = reconstruct_picture(tmp_path / "clear.png", model=tiny_model, report=report)
    assert scene.photo is not None
    assert bool((scene.photo == 1).all()), "what is transparent is put over white"
    assert "transparent parts are put over white" in report.settings["preprocessing"]


def test_the_field_of_view_comes_from_the_option_then_exif_then_the_model(tiny_model, tmp_path):
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[FOCAL_35MM] = 50
    picture().save(tmp_path / "phone.jpg", exif=exif)
    pixels = 50 / math.hypot(36, 24) * math.hypot(96, 72)  # focal length in pixels
    expected = math.degrees(2 * math.atan(36 / pixels))
    for given, value, source in ((None, expected, "exif"), (70.0, 70.0, "option")):
        scene = reconstruct_picture(tmp_path / "phone.jpg", model=tiny_model, fov_deg=given)
        assert scene.header.fov_deg == pytest.approx(value)
        assert scene.header.fov_from == source
        assert math.degrees(float(scene.camera.fov[0])) == pytest.approx(value, abs=1e-3)
        assert psnr(scene.render().rgb[0], scene.photo) > 40


def test_tokens_alone_show_the_models_own_picture(tiny_model):
    report = Report("reconstruct")
    scene = reconstruct_picture(picture(), model=tiny_model, detail=False, report=report)
    assert isinstance(scene.field, ViewSpaceField)
    assert scene.header.settings["mode"] == "tokens"
    assert scene.photo is not None
    assert scene.photo.shape == (3, 32, 32)
    seen = psnr(scene.render().rgb[0], scene.photo)
    assert seen == pytest.approx(report.figures["canonical_psnr"], abs=1.0)
    assert seen < 35


def test_a_loaded_model_is_used_and_left_as_it_was(tiny_model):
    model = load(tiny_model)
    scene = reconstruct_picture(picture(), model=model)
    assert scene.header.model == "given"
    base = scene.field.base if isinstance(scene.field, DetailField) else scene.field
    assert base.decoder is not model.field_decoder, "moving the scene would move the model"
    again = reconstruct_picture(picture(), model=model)
    assert torch.equal(scene.render(size=(8, 8)).rgb, again.render(size=(8, 8)).rgb)


def test_a_model_without_codes_makes_a_scene(tmp_path):
    path = model_file(tmp_path / "free.safetensors", quantizer="none")
    report = Report("reconstruct")
    scene = reconstruct_picture(picture(), model=path, report=report)
    assert psnr(scene.render().rgb[0], scene.photo) > 40
    assert "codes_used" not in report.figures


def test_what_a_model_cannot_do_is_a_sentence(tmp_path):
    plain = model_file(tmp_path / "plain.safetensors", refiner_width=0)
    with pytest.raises(UserError, match=r"plain.safetensors has no depth refiner; use --mode to"):
        reconstruct_picture(picture(), model=plain)
    reconstruct_picture(picture(), model=plain, detail=False)
    planes = model_file(tmp_path / "planes.safetensors", field="triplane", refiner_width=0)
    with pytest.raises(UserError, match="scenes in contracted space cannot be saved yet"):
        reconstruct_picture(picture(), model=planes, detail=False)


def test_bad_pictures_are_a_sentence(tiny_model, tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty.png: the file is empty; copy or download"):
        reconstruct_picture(tmp_path / "empty.png", model=tiny_model)
    with pytest.raises(UserError, match="32x32 is below the 64 pixels"):
        reconstruct_picture(picture(32, 32), model=tiny_model)
