import dataclasses
import json

import pytest
import torch

from unflat.systems.vq3d import PRESETS, Config, build


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_goes_to_json_and_back(name):
    config = PRESETS[name]()
    assert Config.from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_a_config_of_another_version_is_refused():
    values = dataclasses.asdict(PRESETS["tiny"]())
    with pytest.raises(TypeError, match="colour_space"):
        Config.from_json({**values, "colour_space": "lab"})
    with pytest.raises(KeyError, match="levels"):
        Config.from_json({key: value for key, value in values.items() if key != "levels"})


def parameters(config: Config) -> int:
    """Counted without memory."""
    with torch.device("meta"):
        model = build(config)
    assert all(weight.is_meta for weight in model.parameters())
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("name", ["small", "bundle128"])
def test_what_ships_has_at_most_eight_million_parameters(name):
    assert 4e6 < parameters(PRESETS[name]()) <= 8e6


def test_the_papers_size_has_660_million_parameters():
    """ViT-VQGAN's S encoder is 8 x 512 and its L decoder 32 x 1280: 25 M and 630 M in blocks."""
    blocks = sum(
        depth * (4 * width**2 + 2 * 4 * width**2) for depth, width in ((8, 512), (32, 1280))
    )
    count = parameters(PRESETS["paper"]())
    assert count == pytest.approx(660e6, rel=0.02)
    assert blocks < count < 1.02 * blocks


def test_a_picture_of_the_small_preset_is_some_2500_bits():
    config = PRESETS["small"]()
    with torch.device("meta"):
        quantizer = build(config).quantizer
    assert quantizer is not None
    assert quantizer.bits * config.grid**2 == pytest.approx(64 * (2 * 10 + 2 * 9.966), abs=0.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resolution": 30}, "resolution 30 is not a multiple of patch 8"),
        ({"plane_resolution": 30}, "plane_resolution 30 is not a multiple of the token grid 4"),
        ({"side_resolution": 6}, "side_resolution 6 is not a multiple of the token grid 4"),
        ({"d_far": 1.0}, "need 0 < d_far < d_near, got 1.0 and 1.0"),
        ({"plane_resolution": 16}, "a refiner needs .* equal to plane_resolution, got 32 and 16"),
    ],
)
def test_what_cannot_be_built_is_refused_at_once(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(PRESETS["tiny"](), **change)
