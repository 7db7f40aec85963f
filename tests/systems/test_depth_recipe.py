import dataclasses
import json

import pytest
import torch

from unflat.errors import UserError
from unflat.systems.depth.estimator import DepthEstimator
from unflat.systems.depth.pipeline import Teacher, load
from unflat.systems.depth.recipe import Config, DepthRecipe, build, tiny
from unflat.training import rand_per_sample, save_model


def batch(count: int = 8, seed: int = 0, side: int = 40) -> dict[str, torch.Tensor]:
    """Tilted planes: near is bright and below."""
    generator = torch.Generator().manual_seed(seed)
    down = torch.linspace(0, 1, side)[:, None].expand(side, side)
    disparity = down.expand(count, 1, -1, -1)
    image = disparity.expand(-1, 3, -1, -1) * (
        0.6 + 0.4 * torch.rand(count, 3, 1, 1, generator=generator)
    )
    return {
        "image": image,
        "disparity": disparity,
        "has_disparity": torch.ones(count, dtype=torch.bool),
        "position": torch.arange(count),
        "batch_size": torch.tensor(count),
    }


def generator(step: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(step)


def test_config_goes_through_json():
    config = tiny()
    assert Config.from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_pictures_without_disparity_teach_nothing():
    recipe, taught = DepthRecipe(tiny()), batch()
    taught["has_disparity"] = torch.zeros(8, dtype=torch.bool)
    recipe.step(taught, 0.0, generator())["loss"].backward()
    assert not any(bool(w.grad.any()) for w in recipe.networks.parameters() if w.grad is not None)


def test_what_it_learns_from_is_changed_but_true():
    """A window of a tilted plane, stretched again, is the same tilted plane."""
    recipe = DepthRecipe(dataclasses.replace(tiny(), noise=0.0, color=0.0, hue=0.0, blurred=0.0))
    image, disparity, has = recipe._changed(batch(), generator())
    assert bool(has.all())
    down = torch.linspace(0, 1, 32)[:, None].expand(8, 1, 32, 32)
    torch.testing.assert_close(disparity, down, rtol=0, atol=0.04)
    draws = rand_per_sample(batch(), (10,), generator())
    reach = image.amax((2, 3)) - image.amin((2, 3))  # a smaller window sees a smaller range
    order = (reach / image.amax((2, 3)).clamp_min(1e-3)).mean(1).argsort()
    assert float(draws[order[-1], 0]) > float(draws[order[0], 0]) or float(draws[:, 0].std()) == 0


def test_it_learns_and_the_file_holds_what_was_learned(tmp_path):
    torch.manual_seed(0)
    recipe = DepthRecipe(tiny())
    optimizer = torch.optim.AdamW(recipe.parameter_groups(), 3e-3)
    first = None
    for step in range(50):
        terms = recipe.step(batch(seed=step), step / 50, generator(step))
        first = first or float(terms["error"])
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    assert float(terms["error"]) < 0.5 * first
    save_model(
        tmp_path / "model.safetensors", recipe.networks, recipe.config_json(), dtype="float32"
    )
    teacher = load(tmp_path / "model.safetensors")
    assert isinstance(teacher, DepthEstimator)
    picture = batch(2, seed=99, side=48)["image"]
    told = teacher.estimate(picture)
    assert told.shape == (2, 1, 48, 48)
    upper, lower = told[..., :12, :].mean(), told[..., -12:, :].mean()
    assert float(lower - upper) > 0.4
    fresh = Teacher(build(tiny()), 32).estimate(picture)
    assert abs(float(fresh[..., -12:, :].mean() - fresh[..., :12, :].mean())) < 0.1


def test_a_mirrored_picture_has_the_mirrored_depth():
    teacher = Teacher(build(tiny()), 32)
    picture = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(
        teacher.estimate(picture.flip(-1)), teacher.estimate(picture).flip(-1)
    )


def test_other_models_are_refused(tmp_path):
    save_model(tmp_path / "m.safetensors", {"a": torch.zeros(1)}, {"system": "vq3d"})
    with pytest.raises(UserError, match="not of depth"):
        load(tmp_path / "m.safetensors")
