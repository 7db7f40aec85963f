import json
import sys
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from published_networks import hashed_pictures, hashed_state
from unflat.data.prepare import prepare_picture
from unflat.errors import UserError
from unflat.systems.depth.estimator import (
    AnyShapeEstimator,
    DepthEstimator,
    estimate_picture,
)
from unflat.systems.depth.pipeline import Teacher
from unflat.systems.depth.published import (
    Preparation,
    PublishedDepth,
    meaning_of,
    open_published,
    read_preparation,
)
from unflat.systems.depth.recipe import Config, build
from unflat.systems.depth.source import depth_source, is_map, open_estimator
from unflat.training import save_model

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SETTINGS = {**IMAGENET, "size": {"height": 32, "width": 32}, "resample": 3, "do_normalize": True}


class Brightness:
    """Bright is near; insists on squares of the agreed sides."""

    def estimate(self, images):
        assert images.shape[-1] == images.shape[-2]
        assert images.shape[-1] % 8 == 0
        return images.mean(1, keepdim=True)


def tiny_model(folder, kind="dpt"):
    """A depth network of some thousand weights as transformers saves it, and that network."""
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 32}
    if kind == "dpt":
        config = transformers.DPTConfig(
            **small,
            intermediate_size=32,
            patch_size=8,
            is_hybrid=False,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            readout_type="project",
        )
        network = transformers.DPTForDepthEstimation(config)
    else:
        backbone = transformers.Dinov2Config(
            **small,
            patch_size=14,
            mlp_ratio=2,
            reshape_hidden_states=False,
            out_features=["stage2", "stage4"],
        )
        config = transformers.DepthAnythingConfig(
            backbone_config=backbone,
            reassemble_hidden_size=16,
            patch_size=14,
            reassemble_factors=[2, 1],
            neck_hidden_sizes=[8, 8],
            fusion_hidden_size=8,
            head_hidden_size=8,
            depth_estimation_type="metric",
            max_depth=20,
        )
        network = transformers.DepthAnythingForDepthEstimation(config)
    state = network.state_dict()
    drawn = hashed_state({name: value.shape for name, value in state.items()})
    for name in drawn:  # norms and scales of layers near the identity
        if drawn[name].ndim == 1 and not name.endswith("bias"):
            drawn[name] += 1
        if name.startswith("head.conv3"):
            drawn[name] *= 0.05  # before a sigmoid, for metric depth
    network.load_state_dict(drawn)
    network.eval().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(SETTINGS))
    return network


def test_pictures_of_any_shape_reach_an_estimator_of_squares():
    assert isinstance(Brightness(), DepthEstimator)
    assert not isinstance(Brightness(), AnyShapeEstimator)
    ramp = torch.linspace(0, 1, 30).expand(3, 17, 30)
    found = estimate_picture(Brightness(), ramp)
    assert found.shape == (17, 30)
    torch.testing.assert_close(found[:, 2:-2], ramp[0][:, 2:-2], atol=0.02, rtol=0)


def test_sizes_are_those_of_the_published_processor(tmp_path):
    """Worked by hand from 518 pixels, one scale for both sides, multiples of 14."""
    keeping = Preparation((518, 518), True, 14, "bicubic", (0.5,) * 3, (0.5,) * 3)
    assert keeping.input_size(600, 1000) == (518, 868)  # 0.863 is nearer to 1 than 0.518
    assert keeping.input_size(200, 300) == (350, 518)  # 1.73 rather than 2.59
    assert keeping._replace(keeps_aspect=False).input_size(200, 300) == (518, 518)
    floored = Preparation(None, False, 32, "bilinear", (0.0,) * 3, (1.0,) * 3)
    assert floored.input_size(100, 70) == (96, 64)
    assert floored.input_size(10, 70) == (32, 64)
    prepared = keeping(torch.full((1, 3, 20, 30), 0.75))
    torch.testing.assert_close(prepared, torch.full((1, 3, 350, 518), 0.5))


def test_sizes_agree_with_transformers():
    transformers = pytest.importorskip("transformers")
    module = pytest.importorskip("transformers.models.dpt.image_processing_pil_dpt")
    assert transformers
    preparation = Preparation((518, 518), True, 14, "bicubic", (0.5,) * 3, (0.5,) * 3)
    generator = np.random.default_rng(0)
    for height, width in generator.integers(60, 1500, (60, 2)).tolist():
        size = module.get_resize_output_image_size(
            np.empty((3, height, width), np.uint8), (518, 518), keep_aspect_ratio=True, multiple=14
        )
        assert preparation.input_size(height, width) == (size.height, size.width)


@pytest.mark.parametrize(
    ("config", "meaning"),
    [
        ({"model_type": "dpt"}, "disparity"),
        ({"model_type": "dpt", "add_projection": True}, "depth"),
        ({"model_type": "depth_anything"}, "disparity"),
        ({"model_type": "depth_anything", "depth_estimation_type": "relative"}, "disparity"),
        ({"model_type": "depth_anything", "depth_estimation_type": "metric"}, "depth"),
        ({"model_type": "zoedepth"}, "depth"),
        ({"model_type": "glpn"}, "depth"),
        ({"model_type": "tomorrow"}, None),
    ],
)
def test_what_a_network_gives_is_told_by_its_kind(config, meaning):
    assert meaning_of(config) == meaning


class Constant(torch.nn.Module):
    """Gives the first channel of what it sees, as a network of depth 1 + that."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, pixel_values):
        return SimpleNamespace(predicted_depth=self.weight * (1 + pixel_values[:, 0]))


def test_near_is_one_whatever_the_network_gives():
    plain = Preparation((16, 16), False, 1, "bilinear", (0.0,) * 3, (1.0,) * 3)
    ramp = torch.linspace(0, 1, 16).expand(2, 3, 16, 16)
    near_right = PublishedDepth(Constant(), plain, "disparity").estimate(ramp)
    assert near_right.shape == (2, 1, 16, 16)
    torch.testing.assert_close(near_right[:, 0], ramp[:, 0])
    near_left = PublishedDepth(Constant(), plain, "depth").estimate(ramp)
    torch.testing.assert_close(near_left[:, 0], 2 / (1 + ramp[:, 0]) - 1)
    assert isinstance(PublishedDepth(Constant(), plain, "depth"), AnyShapeEstimator)
    wide = PublishedDepth(Constant(), plain, "disparity")
    assert estimate_picture(wide, torch.rand(3, 10, 25)).shape == (10, 25)
    with pytest.raises(UserError, match="not finite; try another model"):
        PublishedDepth(Constant(float("nan")), plain, "depth").estimate(ramp)


@pytest.mark.parametrize("kind", ["dpt", "depth_anything"])
def test_a_saved_network_gives_what_it_gives_there(tmp_path, kind, capfd):
    network = tiny_model(tmp_path, kind)
    if kind == "depth_anything":
        settings = {**SETTINGS, "keep_aspect_ratio": True, "ensure_multiple_of": 14}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    capfd.readouterr()
    estimator = open_estimator(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert isinstance(estimator, PublishedDepth)
    assert estimator.meaning == ("depth" if kind == "depth_anything" else "disparity")
    assert len(estimator.sha256) == 64
    picture = hashed_pictures(1, 40, 56)[0]
    found = estimate_picture(estimator, picture)
    with torch.no_grad():
        raw = network(pixel_values=estimator.preparation(picture[None])).predicted_depth
    assert raw.std() > 1e-6
    raw = raw if kind == "dpt" else 1 / raw
    raw = torch.nn.functional.interpolate(raw[:, None], (40, 56), mode="bilinear", antialias=True)
    expected = (raw - raw.min()) / (raw.max() - raw.min())
    torch.testing.assert_close(found, expected[0, 0], atol=1e-3, rtol=1e-3)
    other = open_published(tmp_path, meaning="depth" if kind == "dpt" else "disparity")
    assert float(torch.corrcoef(torch.stack([found, estimate_picture(other, picture)]).flatten(1))[
        0, 1
    ]) < 0  # fmt: skip


def test_other_or_incomplete_folders_are_refused(tmp_path):
    tiny_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())

    def refused(words):
        with pytest.raises(UserError, match=words) as caught:
            open_estimator(tmp_path)
        assert str(tmp_path) in str(caught.value)

    for changes, words in (
        ({"model_type": "vit"}, "of type vit, which sees no depth"),
        ({"model_type": "prompt_depth_anything"}, "add --depth-from depth or --depth-from disp"),
        ({"num_hidden_layers": 5}, "lacks"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        refused(words)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    refused("cannot be read")
    (tmp_path / "model.safetensors").unlink()
    refused("holds neither model.safetensors nor")


@pytest.mark.parametrize(
    "change",
    [
        {"size": {"shortest_edge": 32}},
        {"image_mean": None},
        {"resample": 1},
        {"size": 0},
        {"do_pad": True, "size_divisor": 14},
    ],
)
def test_a_preparation_that_cannot_be_done_is_refused(tmp_path, change):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**SETTINGS, **change}))
    with pytest.raises(UserError, match="give the folder of a depth model"):
        read_preparation(path, "dpt")
    path.write_text(json.dumps(SETTINGS))
    assert read_preparation(path, "dpt").size == (32, 32)
    path.write_text(json.dumps({"size_divisor": 32, "resample": 2}))
    floored = read_preparation(path, "glpn")
    assert (floored.size, floored.multiple, floored.mean) == (None, 32, (0, 0, 0))
    path.write_text("no json")
    with pytest.raises(UserError, match="is missing or no JSON"):
        read_preparation(path, "dpt")


def test_without_transformers_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r'needs the diffusion extra: pip install "unflat\['):
        open_estimator(tmp_path)


def test_our_own_teacher_is_known_by_its_header(tmp_path):
    teacher = tmp_path / "teacher.safetensors"
    config = Config(resolution=32, widths=(8, 8, 16), depth=1)
    save_model(teacher, build(config), {"system": "depth", "config": asdict(config)})
    estimator = open_estimator(teacher)
    assert isinstance(estimator, Teacher)
    assert isinstance(estimator, DepthEstimator)
    assert estimate_picture(estimator, torch.rand(3, 50, 70)).shape == (50, 70)
    other = tmp_path / "other.safetensors"
    save_model(other, {"a": torch.zeros(3)}, {"system": "features", "config": {}})
    with pytest.raises(UserError, match="is a model of features, which is no depth model"):
        open_estimator(other)
    with pytest.raises(UserError, match="is a model of vq3d, which is no depth model"):
        open_estimator("vq3d-small")
    with pytest.raises(UserError, match="there is no such file or folder; give a path, or a hub"):
        open_estimator("lost")
    source = depth_source(teacher)
    assert len(source.sha256) == 64
    found = source.of(prepare_picture(Image.linear_gradient("L").convert("RGB"), 32))
    assert found.shape == (1, 1, 256, 256)
    assert (float(found.min()), float(found.max())) == (0, 1)


def test_a_map_is_cut_like_its_picture(tmp_path):
    values = np.zeros((20, 30))
    values[:, 5:15] = 1  # the left half of the centre square
    values[:, 25:] = 9  # outside it
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", depth=2.0 - values.clip(0, 1))
    picture = prepare_picture(Image.new("RGB", (300, 200)), 32)
    for file in ("a.npy", "a.npz"):
        source = depth_source(tmp_path / file, meaning="depth" if file == "a.npz" else None)
        assert source.name == file
        found = source.of(picture)
        assert found.shape == (1, 1, 20, 20)
        assert bool((found[..., :10] == 1).all())
        assert bool((found[..., 10:] == 0).all())
    with pytest.raises(UserError, match="30x20 but the picture 200x200; they must have the same"):
        depth_source(tmp_path / "a.npy").of(prepare_picture(Image.new("RGB", (200, 200)), 32))
    flat = np.zeros((20, 30))
    flat[:, 0] = 1
    np.save(tmp_path / "flat.npy", flat)
    with pytest.raises(UserError, match="the same everywhere in the photo's square"):
        depth_source(tmp_path / "flat.npy").of(picture)
    assert is_map("cat.png")
    assert not is_map("depth-anything/Depth-Anything-V2-Small-hf")
