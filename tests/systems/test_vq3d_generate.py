import pytest
import torch

from unflat.errors import UserError
from unflat.fields.viewspace import ViewSpaceField
from unflat.metrics import psnr
from unflat.scene import Scene
from unflat.systems.vq3d import load, render_canonical, token_field
from unflat.systems.vq3d.generate import (
    Sampling,
    SceneMaker,
    classes_in_turn,
    field_of_codes,
    find_autoencoder,
    find_class,
    open_maker,
)
from unflat.systems.vq3d.pipeline import FRONT_SIDE
from unflat.systems.vq3d.prior import load_prior

CLASSES = ["car", "photo/fruit", "scene/fruit", "glass"]


@pytest.fixture(scope="module")
def maker(tiny_prior):
    return open_maker(tiny_prior, sampling=Sampling(steps=6))


def test_codes_of_a_picture_give_its_scene_back(tiny_model, generator):
    model = load(tiny_model)
    picture = torch.rand(1, 3, 32, 32, generator=generator)
    with torch.no_grad():
        encoded = model.encode(picture)
        field = field_of_codes(model, encoded.quantized.indices)
        same = render_canonical(token_field(model, encoded), 16)[0]
        torch.testing.assert_close(render_canonical(field, 16)[0], same)
        other = field_of_codes(model, encoded.quantized.indices.flip(1))
        assert (render_canonical(other, 16)[0] - same).abs().max() > 0.01


def test_seed_and_number_alone_decide(maker):
    first = maker.draw("car", seed=1, number=2)
    assert first.shape == (1, 16, 4)
    maker.draw("car", seed=1, number=0)
    assert torch.equal(maker.draw("car", seed=1, number=2), first)
    assert not torch.equal(maker.draw("car", seed=2, number=1), first)
    assert not torch.equal(maker.draw("car", seed=1, number=3), first)
    sizes = torch.tensor(maker.model.codebook_sizes)
    assert ((first >= 0) & (first < sizes)).all()
    assert maker.draw(None, seed=0, number=0).shape == (1, 16, 4)


def test_a_scene_carries_its_front_view_and_is_read_back(maker, tmp_path):
    scene = maker.scene(maker.draw("car", seed=0, number=0), class_name="car", seed=0)
    assert isinstance(scene.field, ViewSpaceField)
    assert scene.size == (FRONT_SIDE, FRONT_SIDE)
    assert scene.header.source == ""
    assert scene.header.settings["class"] == "car"
    assert scene.header.licence == "Apache-2.0 and CC0-1.0"
    again = Scene.load(scene.save(tmp_path / "car.safetensors"))
    torch.testing.assert_close(again.photo, scene.photo, atol=0.003, rtol=0)
    assert psnr(again.render().rgb, scene.photo[None]).item() > 30
    assert psnr(again.render().rgb.flip(3), scene.photo[None]).item() < 20


def test_tokens_of_another_tokenizer_are_refused(tiny_prior, tiny_model):
    model = load(tiny_model)
    with torch.no_grad():
        model.decoder_positions.add_(1)  # the decoder may be trained again
    SceneMaker(load_prior(tiny_prior), model, name="p")
    with torch.no_grad():
        model.embed.weight.add_(1)
    with pytest.raises(UserError, match=r"^p: was trained on tokens of .*give its own model"):
        SceneMaker(load_prior(tiny_prior), model, name="p")


def test_passes_must_fit_the_tokens(tiny_prior, tiny_model):
    for steps in (3, 65):
        with pytest.raises(UserError, match=rf"^--steps {steps}: .* takes from 4 .* to 64"):
            open_maker(tiny_prior, tiny_model, sampling=Sampling(steps=steps))
    open_maker(tiny_prior, tiny_model, sampling=Sampling(steps=64))


def test_the_model_that_a_prior_names_is_found_or_asked_for(tiny_prior, tiny_model, tmp_path):
    prior = load_prior(tiny_prior)
    assert open_maker(tiny_prior).model.config == load(tiny_model).config
    prior.autoencoder = "gone.safetensors"
    with pytest.raises(UserError, match=r"gone.safetensors, which is not here; .*--autoencoder"):
        find_autoencoder(prior, tiny_prior)
    assert find_autoencoder(prior, tiny_prior, tiny_model) == tiny_model
    (tmp_path / "gone.safetensors").write_bytes(tiny_model.read_bytes())
    beside = find_autoencoder(prior, tmp_path / "prior.safetensors")
    assert beside == tmp_path / "gone.safetensors"
    prior.autoencoder = ""
    with pytest.raises(UserError, match="names no model of stage 1"):
        find_autoencoder(prior, tiny_prior)


@pytest.mark.parametrize(
    ("text", "found"),
    [("car", "car"), ("3", "glass"), ("scene/fruit", "scene/fruit"), ("0", "car")],
)
def test_classes_by_name_and_number(text, found):
    assert find_class(text, CLASSES) == found


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("cat", "did you mean car?"),
        ("Glas", "did you mean glass?"),
        ("fruit", "did you mean photo/fruit or scene/fruit?"),
        ("4", "numbers are from 0 to 3."),
        ("-1", "numbers are from 0 to 3."),
        ("zeppelin", "choose from car, photo/fruit, scene/fruit, glass."),
    ],
)
def test_unknown_classes_get_the_nearest_names(text, advice):
    with pytest.raises(UserError) as error:
        find_class(text, CLASSES)
    assert str(error.value) == f"--class {text}: there is no such class; {advice}"


def test_a_name_that_only_one_source_has_needs_no_source():
    assert find_class("fruit", ["photo/fruit", "car"]) == "photo/fruit"


def test_classes_come_in_turn():
    assert classes_in_turn(None, ["a", "b"], 5) == ["a", "b", "a", "b", "a"]
    assert classes_in_turn("b", ["a", "b"], 2) == ["b", "b"]
    assert classes_in_turn(None, [], 2) == [None, None]
