"""Pictures and cameras changed together, as often as the critic bears it."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import augment_share
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from unflat.geometry import Camera, look_at
from unflat.nn.warp_picture import warp_picture
from unflat.rendering import Casting, backends
from unflat.systems.gan import sdf_triplane
from unflat.systems.gan.augment import PoseAugment, Window
from unflat.systems.gan.game import Game
from unflat.systems.gan.planes import TINY
from unflat.systems.gan.recipe import GanRecipe, Start
from unflat.systems.gan.registry import config_of
from unflat.training.randomness import step_generator

COUNT, SIDE = 4, 8


@pytest.fixture(autouse=True)
def reference():
    """Pictures this small are not worth compiling for."""
    with backends.use("reference"):
        yield


def windows(count: int, probability: float, seed: int = 0) -> Window:
    draws = torch.Generator().manual_seed(seed)
    augment = PoseAugment()
    augment.probability.fill_(probability)
    return augment.draw(
        lambda shape: torch.rand(count, *shape, generator=draws),
        lambda shape: torch.randn(count, *shape, generator=draws),
    )


def cameras(count: int, seed: int = 0) -> Camera:
    draws = torch.Generator().manual_seed(seed)
    positions = 2 * torch.nn.functional.normalize(torch.randn(count, 3, generator=draws), dim=-1)
    return Camera.from_fov(0.9, look_at(positions))


# -- pictures and cameras --------------------------------------------------------------------------


def test_a_changed_picture_and_its_camera_are_a_pair():
    """A disc where a point falls is, in the changed picture, where the changed camera sees it."""
    count, side = 24, 64
    window, camera = windows(count, 1.0), cameras(count)
    points = 0.3 * torch.randn(count, 1, 3, generator=torch.Generator().manual_seed(1))
    forward = camera.forward[:, None]  # moves are exact in the plane through the origin
    points = points - (points * forward).sum(-1, keepdim=True) * forward
    line = (torch.arange(side) + 0.5) / side
    where = camera.project(points)[0][:, 0]
    off = (line - where[:, :1]).square()[:, None, :] + (line - where[:, 1:]).square()[:, :, None]
    mask = torch.exp(-off / (2 * 0.04**2))[:, None]
    image = (1 - mask).expand(-1, 3, -1, -1)  # dark on white
    seen = window.camera(camera).project(points)[0][:, 0]
    inside = ((seen - 0.5).abs() < 0.35).all(1) & ((where - 0.5).abs() < 0.35).all(1)
    assert int(inside.sum()) > 8
    assert float((seen - where).abs().amax(1)[inside].median()) > 0.05
    for found in (window.picture(mask, outside=0.0), 1 - window.picture(image, outside=1.0)[:, :1]):
        total = found.sum((1, 2, 3))
        place = [(found * line).sum((1, 2, 3)), (found * line[:, None]).sum((1, 2, 3))]
        middle = torch.stack(place, dim=1) / total[:, None]
        torch.testing.assert_close(middle[inside], seen[inside], atol=2e-3, rtol=0)


def test_changed_pictures_are_as_near_as_published_ones_to_what_a_camera_would_see():
    """Against finely averaged pixels of a known pattern.

    The yardsticks are a bilinear warp, and nerf-from-image's way, which has more to begin with:
    pictures of twice the side.
    """
    side, fine = 24, 8

    def pattern(across: Tensor, down: Tensor) -> Tensor:
        return 0.5 + 0.4 * torch.sin(9 * across + 4 * down) * torch.cos(8 * down)

    def picture(window: Window, side: int = side) -> Tensor:
        line = 2 * (torch.arange(side * fine) + 0.5) / (side * fine) - 1
        down, across = torch.meshgrid(line, line, indexing="ij")
        cosine, sine = window.turn.cos()[:, None, None], window.turn.sin()[:, None, None]
        right, up = (window.shift[:, i, None, None] for i in (0, 1))
        scale = window.scale[:, None, None]
        x = scale * (cosine * (across + right) - sine * (down - up))
        y = scale * (sine * (across + right) + cosine * (down - up))
        return torch.nn.functional.avg_pool2d(pattern(x, y)[:, None], fine)

    window, still = windows(16, 1.0), windows(16, 0.0)
    small, large = picture(still), picture(still, 2 * side)
    wanted = picture(window)
    published = torch.nn.functional.avg_pool2d(warp_picture(large, *window), 2)
    middle = slice(side // 3, -side // 3)  # nothing from outside comes here
    plain, published, ours = (
        float((found - wanted)[..., middle, middle].square().mean().sqrt())
        for found in (warp_picture(small, *window), published, window.picture(small, outside=0.0))
    )
    assert float(wanted[..., middle, middle].std()) > 0.1
    assert ours < 0.3 * plain
    assert ours < 1.2 * published


def test_each_change_happens_with_its_probability_and_by_the_published_amount():
    window = windows(20_000, 0.3)
    for happened in (window.turn != 0, window.scale != 1, (window.shift != 0).all(1)):
        assert float(happened.float().mean()) == pytest.approx(0.3, abs=0.015)
    both = (window.turn != 0) & (window.scale != 1)
    assert float(both.float().mean()) == pytest.approx(0.09, abs=0.01), "independent of each other"
    every = windows(20_000, 1.0)
    assert float(every.turn.abs().max()) == pytest.approx(math.pi, abs=1e-2)
    assert float(every.turn.std()) == pytest.approx(math.pi / math.sqrt(3), rel=0.02)
    assert float(every.scale.log2().std()) == pytest.approx(0.2, rel=0.03)
    assert float(every.shift.std()) == pytest.approx(0.1, rel=0.03)


def test_what_is_not_changed_stays_bit_by_bit():
    images = torch.rand(64, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    camera, window = cameras(64), windows(64, 0.4)
    still = (window.turn == 0) & (window.scale == 1) & (window.shift == 0).all(1)
    assert 5 < int(still.sum()) < 40
    changed = window.picture(images, outside=1.0)
    same = (changed == images).flatten(1).all(1)
    assert torch.equal(same, still)
    seen = window.camera(camera)
    torch.testing.assert_close(seen.camera_to_world[still], camera.camera_to_world[still])
    assert float((seen.camera_to_world - camera.camera_to_world)[~still].abs().max()) > 0.1


# -- how often -------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40), st.floats(0.05, 1.0))
def test_the_share_of_changes_follows_the_critic_within_limits(sureness, most):
    """Every fourth step by the pictures since, over the speed: against the rule written out."""
    augment = PoseAugment(most, speed=200.0)
    expected, since = 0.0, []
    for step, value in enumerate(sureness):
        logits = torch.linspace(-1, 1, 10) + value
        augment.watch(logits, 0.5)
        augment.after_step(step)
        since += logits.sign().tolist()
        if step % 4 == 3:
            mean = sum(since) / len(since)
            if abs(mean - 0.6) > 1e-6:
                expected += math.copysign(len(since) / 200, mean - 0.6)
            expected, since = min(max(expected, 0.0), most), []
        assert float(augment.probability) == pytest.approx(expected, abs=1e-6)
        assert 0 <= float(augment.probability) <= most + 1e-7


def test_a_sure_critic_brings_more_changes_up_to_the_most_and_a_fooled_one_fewer():
    augment = PoseAugment(0.5, speed=100.0)
    for logits, limit in ((torch.ones(8), 0.5), (-torch.ones(8), 0.0)):
        values = []
        for step in range(16):
            augment.watch(logits, 0.5)
            augment.after_step(step)
            values.append(float(augment.probability))
        assert values[3] != values[0] == values[2]
        assert values[-1] == pytest.approx(limit)
    assert float(augment.seen.abs().sum()) == 0


def test_nothing_is_changed_before_the_start_or_without_pictures():
    augment = PoseAugment(start=0.1)
    for step in range(8):
        augment.watch(torch.ones(8), 0.09)
        augment.after_step(step)
    assert float(augment.probability) == 0
    for step in range(8):
        augment.watch(torch.ones(8), 0.1)
        augment.after_step(step)
    before = float(augment.probability)
    assert before == pytest.approx(8 * 8 / 500_000)
    for step in range(8):
        augment.after_step(step)
    assert float(augment.probability) == before


def test_a_batch_in_parts_counts_as_the_whole():
    whole, parts = PoseAugment(speed=100.0), PoseAugment(speed=100.0)
    logits = torch.tensor([1.0, 2.0, 3.0, -1.0, 5.0, 6.0, 7.0, 8.0])
    for step in range(4):
        whole.watch(logits, 1.0)
        parts.watch(logits[:4], 1.0)
        parts.watch(logits[4:], 1.0)
        whole.after_step(step)
        parts.after_step(step)
    assert float(whole.probability) == pytest.approx(8 * 4 / 100)
    assert torch.equal(whole.probability, parts.probability)


@pytest.mark.slow
def test_two_processes_decide_as_one_does(tmp_path):
    """Starting two processes takes longer than what they do."""
    program = str(Path(augment_share.__file__))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(
        [sys.executable, *launcher, program, str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    alone = augment_share.share_after_steps()
    assert float(alone["probability"]) > 0
    for rank in range(2):
        shared = load_file(tmp_path / f"{rank}.safetensors")
        for name, value in alone.items():
            torch.testing.assert_close(shared[name], value, rtol=1e-6, atol=0)


# -- in a training step ----------------------------------------------------------------------------


def recipe_of(augment: float) -> GanRecipe:
    torch.manual_seed(0)
    config = replace(
        sdf_triplane.tiny(),
        resolution=SIDE,
        planes=replace(TINY, side=8),
        rays=Casting(coarse=4, fine=4),
        surface_cells=4,
        start=Start(),
        augment=augment,
    )
    return GanRecipe("sdf_triplane", config, sdf_triplane.build(config))


def batch_of(seed: int = 0) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    real, fake = cameras(COUNT, 1), cameras(COUNT, 2)
    return {
        "image": torch.rand(COUNT, 3, SIDE, SIDE, generator=draws),
        "mask": torch.rand(COUNT, 1, SIDE, SIDE, generator=draws),
        "camera_to_world": real.camera_to_world,
        "intrinsics": real.intrinsics,
        "fake_camera_to_world": fake.camera_to_world,
        "fake_intrinsics": fake.intrinsics,
    }


class Apart(PoseAugment):
    """Leaves the step's own random numbers alone."""

    def draw(self, uniform, normal):
        draws = torch.Generator().manual_seed(7)
        return super().draw(
            lambda shape: torch.rand(COUNT, *shape, generator=draws),
            lambda shape: torch.randn(COUNT, *shape, generator=draws),
        )


def step_of(recipe: GanRecipe) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Terms, and gradients by name."""
    terms = recipe.step(batch_of(), 0.5, step_generator(0, 3))
    terms["loss"].backward()
    found = recipe.networks.named_parameters()
    return terms, {name: weight.grad for name, weight in found if weight.grad is not None}


def test_off_and_never_drawn_are_the_same_step_bit_by_bit():
    off, never = recipe_of(0.0), recipe_of(0.8)
    assert off.augment is None
    assert not [name for name in off.networks.state_dict() if "augment" in name]
    never.augment = Apart()
    (terms, gradients), (others, theirs) = step_of(off), step_of(never)
    assert terms.keys() == others.keys()
    for name, value in terms.items():
        assert torch.equal(value, others[name]), name
    for name, value in gradients.items():
        assert torch.equal(value, theirs[name]), name


def test_made_pictures_bring_gradients_through_changed_cameras():
    off, on = recipe_of(0.0), recipe_of(0.8)
    on.augment = Apart()
    on.augment.probability.fill_(1.0)
    (_, gradients), (_, theirs) = step_of(off), step_of(on)
    assert gradients.keys() == theirs.keys()
    judged = [name for name in gradients if name.startswith("generator.body.decoder")]
    assert judged
    for name in gradients:
        assert bool(theirs[name].isfinite().all()), name
    for name in judged:
        assert float(theirs[name].abs().max()) > 0, name
        assert not torch.equal(gradients[name], theirs[name]), name


def test_the_critic_is_shown_pairs_of_changed_pictures_and_changed_cameras(monkeypatch):
    recipe = recipe_of(0.8)
    recipe.augment = Apart()
    recipe.augment.probability.fill_(1.0)
    window = recipe.augment.draw(None, None)
    batch, shown = batch_of(), {}
    plain = recipe.parts.critic.forward

    def looks(pictures: Tensor, condition: Tensor) -> Tensor:
        shown[len(shown)] = (pictures.detach(), condition)
        return plain(pictures, condition)

    monkeypatch.setattr(recipe.parts.critic, "forward", looks)
    recipe.step(batch, 0.5, step_generator(0, 3))
    (_, made_label), (real, real_label) = shown[0], shown[1]
    torch.testing.assert_close(real[:, :3], 2 * window.picture(batch["image"], outside=1.0) - 1)
    torch.testing.assert_close(real[:, 3:], window.picture(batch["mask"], outside=0.0))
    for label, name in ((real_label, ""), (made_label, "fake_")):
        pose, intrinsics = batch[f"{name}camera_to_world"], batch[f"{name}intrinsics"]
        changed = window.camera(Camera(camera_to_world=pose, intrinsics=intrinsics))
        torch.testing.assert_close(label[:, :16], changed.camera_to_world.flatten(1))
        torch.testing.assert_close(label[:, 16], changed.intrinsics[:, 0])


def test_the_probability_is_kept_with_the_weights_and_told():
    recipe = recipe_of(0.8)
    assert recipe.augment is not None
    for step in range(4):
        recipe.augment.watch(torch.ones(32), 0.5)
        figures = recipe.after_step(step)
    assert figures["changed"] == pytest.approx(32 * 4 / 500_000)
    assert figures["alpha"] > 0
    again = recipe_of(0.8)
    again.networks.load_state_dict(recipe.networks.state_dict())
    assert again.augment is not None
    assert torch.equal(again.augment.probability, recipe.augment.probability)


# -- options ---------------------------------------------------------------------------------------


def test_a_config_turns_it_on_and_presets_leave_it_off():
    for preset in sdf_triplane.PRESETS.values():
        assert preset().augment == 0
    _, config = config_of({"system": "sdf_triplane", **vars(sdf_triplane.tiny()), "augment": 0.8})
    assert sdf_triplane.build(config).game.augment == 0.8
    with pytest.raises(ValueError, match=r"augment is 1\.5; it must be between 0 and 1"):
        replace(sdf_triplane.tiny(), augment=1.5)
    with pytest.raises(ValueError, match="which no pose that a critic tells describes"):
        Game(augment=0.5, pose_weight=15.0)
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        PoseAugment(0.0)
