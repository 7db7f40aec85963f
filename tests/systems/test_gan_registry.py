"""What every system of the registry keeps to."""

import json
from dataclasses import asdict

import pytest

from unflat.cli.training_run import changed
from unflat.errors import UserError
from unflat.systems.gan.game import power_of_two
from unflat.systems.gan.registry import SYSTEMS, build, config_of, module_of

PRESETS = [(name, preset) for name in SYSTEMS for preset in module_of(name).PRESETS]


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_config_comes_back_from_json(name: str, preset: str) -> None:
    config = module_of(name).PRESETS[preset]()
    written = json.loads(json.dumps({"system": name, **asdict(config)}))
    assert config_of(written) == (name, config)
    assert power_of_two(config.resolution)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_run_that_goes_on_has_the_config_it_had(name: str) -> None:
    tiny = module_of(name).PRESETS["tiny"]()
    written = json.loads(json.dumps(asdict(tiny)))
    assert changed(module_of(name).PRESETS["small"](), written, "run.json") == tiny


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_config_from_json_can_be_built(name: str) -> None:
    """As `unflat generate` does it, from a model file."""
    tiny = module_of(name).PRESETS["tiny"]()
    written = json.loads(json.dumps({"system": name, **asdict(tiny)}))
    parts = build(*config_of(written))
    assert parts.generator.latent_dim > 0
    assert (parts.cameras is None) == SYSTEMS[name].needs_cameras
    assert (parts.game.sees == "rgba") == SYSTEMS[name].needs_masks


@pytest.mark.parametrize("name", SYSTEMS)
def test_there_is_a_size_for_tests_and_one_to_begin_with(name: str) -> None:
    assert {"tiny", "small"} <= set(module_of(name).PRESETS)


def test_a_config_of_another_version_is_refused() -> None:
    with pytest.raises(UserError, match="pigan: its config has wings, which this version"):
        config_of({"system": "pigan", "wings": 2})
    with pytest.raises(UserError, match="--system glider: there is no such system; choose sdf_"):
        config_of({"system": "glider"})


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_how_a_preset_is_trained(name: str, preset: str) -> None:
    module = module_of(name)
    train = module.training(module.PRESETS[preset]())
    assert train.batch_size >= 4  # as many as the critic compares
    assert train.weight_decay == 0
    assert (train.betas[0] == 0.9) == (preset == "start")  # no game, no moving target
