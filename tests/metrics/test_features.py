import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from published_networks import hashed_pictures, hashed_state
from unflat.errors import UserError
from unflat.metrics import Classifier, Features, InceptionFeatures, TransformersFeatures
from unflat.metrics.features import Preparation, read_preparation
from unflat.nn import FidInception, from_published, published_shapes

SETTINGS = {
    "size": {"shortest_edge": 24},
    "crop_size": {"height": 16, "width": 16},
    "resample": 3,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
}


@pytest.fixture(scope="module")
def inception():
    state = hashed_state(published_shapes(FidInception))
    return InceptionFeatures(from_published(FidInception, state), sha256="ab" * 32)


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_inception_keeps_the_promises_of_features(inception):
    assert isinstance(inception, Features)
    assert isinstance(inception, Classifier)
    assert inception.has_probabilities
    said = inception.describe()
    assert said["name"] == "inception"
    assert said["sha256"] == "ab" * 32
    assert said["input_side"] == 299
    pictures = hashed_pictures(2, 20, 30)
    features = inception(pictures)
    assert features.shape == (2, inception.dim)
    torch.testing.assert_close(features, inception.module(pictures))
    torch.testing.assert_close(
        inception(pictures * 4 - 1), inception((pictures * 4 - 1).clamp(0, 1))
    )


def test_probabilities_are_the_softmax_without_bias(inception):
    pictures = hashed_pictures(2, 20, 20)
    features = inception(pictures)
    probabilities = inception.probabilities(pictures)
    torch.testing.assert_close(inception.probabilities_of(features), probabilities)
    logits = features.double().numpy() @ inception.module.fc.weight.double().numpy().T
    slow = np.exp(logits - logits.max(1, keepdims=True))
    slow /= slow.sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities.numpy(), slow, rtol=1e-3, atol=1e-7)
    assert probabilities.std() > 1e-4


def test_pictures_with_nan_are_named(inception):
    pictures = hashed_pictures(4, 8, 8)
    pictures[1, 0, 0, 0] = float("nan")
    pictures[3, 2, 7, 7] = float("inf")
    with pytest.raises(
        ValueError, match="the input of inception holds NaN or infinity in picture 1, 3"
    ):
        inception(pictures)
    with pytest.raises(ValueError, match="in picture 1, 3"):
        inception.probabilities(pictures)


@pytest.mark.parametrize("shape", [(40, 61), (61, 40), (24, 24), (10, 13)])
def test_preparation_is_pillows(shape):
    """Pillow rounds to whole numbers after each of its two passes, hence 2 of 255."""
    picture = (hashed_pictures(1, *shape)[0] * 255).round()
    preparation = Preparation(24, (16, 18), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    ours = preparation(picture[None] / 255)
    height, width = shape
    size = (24 * height // min(shape), 24 * width // min(shape))
    pixels = picture.permute(1, 2, 0).to(torch.uint8).numpy()
    resized = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC)
    top, left = (size[0] - 16) // 2, (size[1] - 18) // 2
    cropped = np.asarray(resized)[top : top + 16, left : left + 18].transpose(2, 0, 1) / 255
    got = ours[0].double().numpy() * np.array([0.2, 0.3, 0.4])[:, None, None]
    got += np.array([0.5, 0.4, 0.3])[:, None, None]
    assert got.shape == cropped.shape == (3, 16, 18)
    assert np.abs(got - cropped).max() <= 2 / 255
    assert np.abs(got - cropped).mean() <= 0.5 / 255


def test_settings_are_read_in_both_spellings(tmp_path):
    new = read_preparation(write(tmp_path / "a.json", SETTINGS))
    old = read_preparation(write(tmp_path / "b.json", {**SETTINGS, "size": 24, "crop_size": 16}))
    assert new == old
    assert new == Preparation(24, (16, 16), (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"resample": 2}, "asks for resample 2"),
        ({"crop_size": 32}, "crop 32 x 32"),
        ({"size": {"height": 24, "width": 24}}, "does not say size"),
        ({"image_mean": [0.5]}, "does not say size"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(tmp_path, change, said):
    path = write(tmp_path / "preprocessor_config.json", {**SETTINGS, **change})
    with pytest.raises(UserError, match=said) as caught:
        read_preparation(path)
    assert str(path) in str(caught.value)
    assert "give the folder" in str(caught.value)


def test_damaged_settings_are_refused(tmp_path):
    for content in (None, "{", "[1]"):
        path = tmp_path / "preprocessor_config.json"
        if content is not None:
            path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=r"is missing or no JSON|holds no settings"):
            read_preparation(path)


def test_without_transformers_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r'clip needs the diffusion extra: pip install "unflat\['):
        TransformersFeatures.open_folder(tmp_path, name="clip", sha256="0")


def tiny_transformers(folder, kind):
    """A network of a few thousand weights as transformers saves it, and that network."""
    transformers = pytest.importorskip("transformers")
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    if kind == "dinov2":
        network = transformers.Dinov2Model(transformers.Dinov2Config(**small))
    else:
        vision = {**small, "intermediate_size": 32, "projection_dim": 12}
        text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        text |= {"intermediate_size": 8, "vocab_size": 40, "projection_dim": 12}
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
        network = transformers.CLIPModel(config)
        if kind == "clip_vision_model":
            network = transformers.CLIPVisionModelWithProjection(network.config.vision_config)
    state = network.state_dict()
    floats = {name: value.shape for name, value in state.items() if value.is_floating_point()}
    drawn = hashed_state(floats)
    for name in drawn:  # norms and scales of layers near the identity
        if drawn[name].ndim == 1 and not name.endswith("bias"):
            drawn[name] += 1
    network.load_state_dict({**state, **drawn})
    network.eval().save_pretrained(folder)
    write(folder / "preprocessor_config.json", SETTINGS)
    return network


@pytest.mark.parametrize("kind", ["clip", "clip_vision_model", "dinov2"])
def test_networks_of_transformers_give_what_they_give_there(tmp_path, kind, capfd):
    network = tiny_transformers(tmp_path, kind)
    capfd.readouterr()
    features = TransformersFeatures.open_folder(tmp_path, name=f"tiny-{kind}", sha256="cd")
    assert capfd.readouterr() == ("", "")
    assert isinstance(features, Features)
    assert not features.has_probabilities
    pictures = hashed_pictures(3, 30, 40)
    vectors = features(pictures)
    assert vectors.shape == (3, features.dim) == (3, 16 if kind == "dinov2" else 12)
    pixels = read_preparation(tmp_path / "preprocessor_config.json")(pictures)
    with torch.no_grad():
        if kind == "dinov2":
            expected = network(pixel_values=pixels).pooler_output
        elif kind == "clip":
            hidden = network.vision_model(pixel_values=pixels).pooler_output
            expected = network.visual_projection(hidden)
        else:
            expected = network(pixel_values=pixels).image_embeds
    assert expected.std(0).mean() > 1e-3
    torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-5)
    said = features.describe()
    assert said["name"] == f"tiny-{kind}"
    assert said["input_side"] == 16
    assert "shorter side 24" in str(said["resize"])
    with pytest.raises(ValueError, match="NaN or infinity in picture 0, 1, 2"):
        features(pictures * float("nan"))


def test_other_or_incomplete_folders_are_refused(tmp_path):
    tiny_transformers(tmp_path, "dinov2")
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))

    def refused(said):
        with pytest.raises(UserError, match=said) as caught:
            TransformersFeatures.open_folder(tmp_path, name="tiny", sha256="0")
        assert str(tmp_path) in str(caught.value)
        assert "give the folder" in str(caught.value)

    write(tmp_path / "config.json", {**config, "model_type": "bert"})
    refused("model of type bert")
    write(tmp_path / "config.json", {**config, "num_hidden_layers": 3})
    refused("lacks")
    write(tmp_path / "config.json", config)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    refused("cannot be read")
    (tmp_path / "model.safetensors").unlink()
    refused("cannot be read")
