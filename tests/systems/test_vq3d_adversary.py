import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from unflat.geometry import Camera
from unflat.losses import generator_logistic
from unflat.systems.vq3d import LOSSES, LossConfig, Vq3dRecipe, load
from unflat.systems.vq3d.adversary import CRITIC_SCALE, Judge, largest_angle
from unflat.systems.vq3d.config import tiny
from unflat.systems.vq3d.recipe import TOKEN_MAKERS
from unflat.systems.vq3d.views import canonical_light, disc_cameras, jittered_edges, novel_light
from unflat.training import Event, TrainConfig, newest_checkpoint, save_model, train

SMALL = LossConfig(
    rows=6, columns=8, novel_rays=24, novel_samples=8, crop=16, critic_width=4, critic_widest=8
)
PLAYED = dataclasses.replace(
    SMALL,
    critic_weight=0.1,
    novel_critic_weight=0.05,
    critic_start=0.0,
    novel_critic_start=0.0,
    r1_every=1,
    lecam_weight=0.1,
)
OWN = ("critic", "novel_critic")


def pictures(batch: int = 8, taught: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """Smooth pictures; the first ones have a disparity."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 4, 5, 5, generator=generator)
    fine = functional.interpolate(coarse, size=32, mode="bilinear", align_corners=True)
    has = torch.arange(batch) < taught
    label = torch.zeros(batch, dtype=torch.int64)
    return {"image": fine[:, :3], "disparity": fine[:, 3:], "has_disparity": has, "label": label}


def made(loss: LossConfig, **changes) -> Vq3dRecipe:
    torch.manual_seed(0)
    recipe = Vq3dRecipe(dataclasses.replace(tiny(), **changes), loss)
    recipe.start(pictures(24)["image"])
    return recipe


def step(recipe: Vq3dRecipe, batch: dict, progress: float = 0.5, seed: int = 7) -> dict:
    return recipe.step(batch, progress, torch.Generator().manual_seed(seed))


def critics_of(recipe: Vq3dRecipe) -> dict[str, Tensor]:
    return recipe.networks.get_submodule("critics").state_dict()


def test_terms_come_in_when_their_time_has_come():
    loss = dataclasses.replace(PLAYED, critic_start=0.1, novel_critic_start=0.2, critic_fade=0.4)
    recipe, batch = made(loss), pictures()
    before = set(step(recipe, batch, 0.05))
    canonical = step(recipe, batch, 0.15)
    both = step(recipe, batch, 0.2)
    assert "critic" not in before
    assert set(canonical) == before | {"fooling", "critic", "gap"}
    assert set(both) == set(canonical) | {"novel_fooling", "novel_critic", "novel_gap"}
    assert all(bool(term.isfinite()) for term in both.values())
    figures = ("loss", "psnr", "gap", "novel_gap")
    parts = [value for name, value in both.items() if name not in figures]
    torch.testing.assert_close(sum(parts), both["loss"])
    # An untrained critic's -log sigmoid is near log 2; its weight is a quarter grown by now.
    assert float(both["fooling"].detach()) == pytest.approx(0.1 * 0.25 * math.log(2), rel=0.5)
    assert float(both["novel_fooling"].detach()) == 0
    untaught = step(recipe, pictures(taught=0))
    assert "novel_critic" not in untaught
    assert "critic" in untaught


def test_each_player_gets_the_gradients_of_its_own_terms():
    recipe, batch = made(PLAYED), pictures()

    def gradients(chosen: Callable[[dict], Tensor]) -> dict[str, Tensor]:
        recipe.networks.zero_grad(set_to_none=True)
        chosen(step(recipe, batch)).backward()
        named = recipe.networks.named_parameters()
        return {
            name: weight.grad
            for name, weight in named
            if weight.grad is not None and bool(weight.grad.any())
        }

    whole = gradients(lambda terms: terms["loss"])
    of_critics = gradients(lambda terms: terms["critic"] + terms["novel_critic"])
    of_model = gradients(lambda terms: terms["loss"] - sum(terms[name] for name in OWN))
    judged = {name for name, _ in recipe.networks.named_parameters() if name.startswith("critics.")}
    assert set(of_critics) == judged
    assert set(of_model) == set(whole) - judged
    for name, gradient in (of_critics | of_model).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-4, atol=1e-7)
    plain = gradients(lambda terms: terms["loss"] - terms["fooling"] - terms["novel_fooling"])
    head = "model.head.to_uv.weight"
    assert float((plain[head] - whole[head]).norm()) > 0.01 * float(whole[head].norm())


def test_the_loss_with_critics_is_a_mean_over_samples():
    """Halves whose groups are whole average to the batch, as on two processes."""
    batch = pictures(16, 16)
    batch["has_disparity"] = torch.arange(16) % 8 < 4
    recipe = made(dataclasses.replace(PLAYED, perceptual_weight=0.1))
    whole = step(recipe, batch)
    halves = []
    for start in (0, 8):
        part = {name: value[start : start + 8] for name, value in batch.items()}
        part["position"] = torch.arange(start, start + 8)
        part["batch_size"] = torch.tensor(16)
        halves.append(step(recipe, part))
    for name in ("loss", "perceptual", "fooling", "novel_fooling", *OWN):
        mean = (halves[0][name] + halves[1][name]) / 2
        torch.testing.assert_close(mean, whole[name], rtol=2e-5, atol=1e-7)


def test_the_penalty_comes_every_so_many_steps_and_counts_as_often():
    batch = pictures(4, 0)
    recipes = [
        made(dataclasses.replace(PLAYED, r1_gamma=gamma, r1_every=every, lecam_weight=0.0))
        for gamma, every in ((0.0, 1), (1.0, 1), (1.0, 4))
    ]
    with torch.no_grad():
        model = recipes[0].model
        field = model.field(model.decode(model.encode(batch["image"]).quantized.tokens))

    def critic(recipe: Vq3dRecipe, seed: int) -> float:
        assert recipe.windows is not None
        generator = torch.Generator().manual_seed(seed)
        terms, _ = recipe.windows.terms(field, None, batch, 0.5, generator)
        return float(terms["critic"].detach())

    hits = 0
    for seed in range(20):
        never, always, lazy = (critic(recipe, seed) for recipe in recipes)
        assert always > never
        if lazy != pytest.approx(never, rel=1e-5):
            hits += 1
            assert lazy - never == pytest.approx(4 * (always - never), rel=1e-3)
    assert 1 <= hits <= 11  # a quarter of 20, within three standard deviations


def test_without_a_weight_the_penalty_follows_the_rule_of_thumb():
    recipe = made(dataclasses.replace(PLAYED, lecam_weight=0.0))
    ruled = made(dataclasses.replace(PLAYED, lecam_weight=0.0, r1_gamma=0.0002 * 16**2 / 32))
    batch = {**pictures(), "position": torch.arange(8), "batch_size": torch.tensor(32)}
    torch.testing.assert_close(step(recipe, batch)["critic"], step(ruled, batch)["critic"])
    small, large = (float(step(recipe, part)["critic"].detach()) for part in (pictures(), batch))
    assert small > large


@pytest.mark.parametrize("field", ["viewspace", "triplane"])
def test_a_window_is_that_part_of_the_whole_view(field):
    recipe = made(SMALL, field=field, refiner_width=0)
    with torch.no_grad():
        tokens = recipe.model.encode(pictures(2)["image"]).quantized.tokens
        scenes = recipe.model.field(recipe.model.decode(tokens))
        edges = jittered_edges(16, torch.Generator().manual_seed(0), torch.device("cpu"))
        every, rows, columns = torch.arange(32), torch.arange(5, 21), torch.arange(9, 25)
        whole = canonical_light(scenes, every, every, 32, edges)
        part = canonical_light(scenes, rows, columns, 32, edges)
        torch.testing.assert_close(part.rgb, whole.rgb[:, 5:21, 9:25], rtol=1e-4, atol=1e-5)
        cut = whole.disparity[:, 5:21, 9:25]
        torch.testing.assert_close(part.disparity, cut, rtol=1e-4, atol=1e-5)


def test_a_novel_view_from_the_middle_of_the_disc_is_the_canonical_view():
    recipe = made(SMALL)
    assert recipe.windows is None
    recipe = made(dataclasses.replace(SMALL, novel_critic_weight=0.1, novel_samples=96))
    windows, batch = recipe.windows, pictures(2, 2)
    assert windows is not None
    with torch.no_grad():
        tokens = recipe.model.encode(batch["image"]).quantized.tokens
        scenes = recipe.model.field(recipe.model.decode(tokens))
        numbers = torch.tensor([[0.0, 0.3, 0.5], [0.0, 0.8, 0.5]])
        seen = windows._novel(scenes, batch["disparity"], (3, 8), 1.0, numbers)
        rows, columns, edges = torch.arange(3, 19), torch.arange(8, 24), torch.linspace(1, 0, 97)
        straight = canonical_light(scenes, rows, columns, 32, edges)
    assert float((seen[:, :3] - straight.rgb.permute(0, 3, 1, 2).clamp(0, 1)).abs().max()) < 0.02
    # Untrained fields hold fog before the nearest depth, which canonical rays do not cross.
    assert float((seen[:, 3] - straight.disparity).abs().max()) < 0.1


def test_novel_cameras_of_a_batch_face_each_its_own_pivot():
    nearness = torch.full((3, 4, 4), 0.25)
    nearness[1], nearness[2, 0, 0] = 0.5, 5.0
    numbers = torch.tensor([[0.9, 0.1], [0.4, 0.6], [1.0, 0.3]])
    camera = disc_cameras(2.0, nearness, numbers, 0.3)
    pivot = torch.tensor([[0.0, 0.0, 4.0], [0.0, 0.0, 2.0], [0.0, 0.0, 4.0]])
    uv, _ = camera.project(pivot[:, None])
    torch.testing.assert_close(uv, torch.full((3, 1, 2), 0.5), rtol=0, atol=1e-5)
    angle = torch.acos(camera.forward[:, 2])
    assert float(angle.max()) == pytest.approx(0.3, abs=1e-3)
    assert isinstance(camera, Camera)


def test_the_largest_angle_grows_from_a_quarter_over_a_third_of_the_run():
    values = [largest_angle(progress, 0.4) for progress in (0.0, 1 / 6, 1 / 3, 0.7, 1.0)]
    assert values == pytest.approx([0.1, 0.25, 0.4, 0.4, 0.4])


def test_rays_of_a_novel_view_do_not_depend_on_their_company():
    recipe = made(SMALL)
    with torch.no_grad():
        tokens = recipe.model.encode(pictures(1)["image"]).quantized.tokens
        scenes = recipe.model.field(recipe.model.decode(tokens))
        camera = disc_cameras(2.0, torch.full((1, 4, 4), 0.3), torch.tensor([[0.7, 0.2]]), 0.3)
        pixels = torch.randint(32, (1, 30, 2), generator=torch.Generator().manual_seed(0))
        offset = torch.zeros(1, 30, 1)
        whole = novel_light(scenes, camera, pixels, 32, offset, 12)
        part = novel_light(scenes, camera, pixels[:, 4:9], 32, offset[:, 4:9], 12)
    torch.testing.assert_close(part.rgb, whole.rgb[:, 4:9], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(part.middles, whole.middles[:, 4:9])
    assert float(whole.disparity.min()) >= 0
    assert float(whole.disparity.max()) <= 2


def test_a_critics_gradient_is_no_longer_than_allowed():
    torch.manual_seed(0)
    judge = Judge(3, SMALL)
    real, fake = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16, requires_grad=True)
    free = torch.full((4,), 1e6)
    lengths = []
    for most in (free, torch.tensor([1e-4, 1e-3, 1e6, 0.0])):
        fooling, own, _ = judge.terms(real, fake, most, 0.1, 0.0)
        (gradient,) = torch.autograd.grad(fooling.sum(), fake)
        lengths.append(gradient.flatten(1).norm(dim=1))
    assert float(lengths[0].min()) > 1e-3
    (plain,) = torch.autograd.grad(0.1 * generator_logistic(judge.critic(2 * fake - 1)).sum(), fake)
    torch.testing.assert_close(lengths[0], plain.flatten(1).norm(dim=1))
    expected = torch.tensor([1e-4, 1e-3, float(lengths[0][2]), 0.0])
    torch.testing.assert_close(lengths[1], expected, rtol=1e-4, atol=1e-9)
    assert float(own.mean().detach()) == pytest.approx(CRITIC_SCALE * 2 * math.log(2), rel=0.5)


def test_averages_of_logits_follow_what_was_seen():
    torch.manual_seed(0)
    judge = Judge(3, dataclasses.replace(SMALL, lecam_weight=0.1))
    real, fake = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16)
    for _ in range(2):  # two parts of one step
        judge.terms(real, fake, torch.ones(4), 0.1, 0.0)
    judge.after_step()
    with torch.no_grad():
        logits = judge.critic(2 * real - 1).mean(), judge.critic(2 * fake - 1).mean()
    torch.testing.assert_close(judge.averages, 0.01 * torch.stack(logits))
    assert not bool(judge.seen.any())
    judge.after_step()
    torch.testing.assert_close(judge.averages, 0.01 * torch.stack(logits))


def test_pixels_where_the_teacher_jumps_are_left_out():
    batch = pictures(4, 4)
    batch["disparity"] = torch.full((4, 1, 32, 32), 0.3)
    all_smooth = dataclasses.replace(SMALL, rows=32, columns=32)
    masked = dataclasses.replace(all_smooth, mask_edges=True)
    plain, careful = made(all_smooth), made(masked)
    torch.testing.assert_close(step(plain, batch)["depth"], step(careful, batch)["depth"])
    torn = {**batch, "disparity": batch["disparity"].clone()}
    torn["disparity"][:, :, 10, 10] = 0.9  # one pixel and its neighbours
    changed = float(step(careful, torn)["depth"].detach() / step(careful, batch)["depth"].detach())
    assert changed == pytest.approx(1, abs=0.02)
    with torch.no_grad():
        assert float(step(plain, torn)["depth"]) > float(step(careful, torn)["depth"])


class Pictures:
    def batch(self, step: int) -> dict[str, Tensor]:
        return pictures(seed=step)


def silent(event: Event) -> None:
    del event


def settings(steps: int) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        batch_size=8,
        warmup_steps=1,
        schedule="constant",
        log_every=1,
        sample_every=0,
        checkpoint_every=2,
        device="cpu",
        threads=1,
        tensorboard=False,
    )


def run(recipe: Vq3dRecipe, out: Path, steps: int = 4, **how) -> None:
    train(recipe, Pictures(), settings(steps), out, on_event=silent, **how)


@pytest.mark.slow
def test_a_stopped_run_with_critics_goes_on_to_the_same_weights(tmp_path):
    run(made(PLAYED), tmp_path / "whole")

    def interrupt(event: Event) -> None:
        if event.kind == "checkpoint" and event.step == 2:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(made(PLAYED), Pictures(), settings(4), tmp_path / "parts", on_event=interrupt)
    resumed = made(PLAYED)
    torch.nn.init.zeros_(resumed.model.to_code.weight)
    run(resumed, tmp_path / "parts", resume=True)
    one, two = (newest_checkpoint(tmp_path / name)[0] for name in ("whole", "parts"))
    assert one is not None
    assert two is not None
    first, second = one.weights(), two.weights()
    assert any(name.startswith("critics.novel.") for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert float(first["critics.novel.averages"].abs().max()) > 0


def test_critics_move_and_do_not_decay():
    recipe = made(PLAYED)
    *_, critics = recipe.parameter_groups()
    assert critics["betas"] == (0.0, 0.99)
    assert critics["weight_decay"] == 0
    assert critics["lr_scale"] == PLAYED.critic_lr_scale
    mine = {id(weight) for weight in recipe.networks.get_submodule("critics").parameters()}
    assert {id(weight) for weight in critics["params"]} == mine
    groups = recipe.parameter_groups()
    counted = sum(len(group["params"]) for group in groups)
    assert counted == len(list(recipe.networks.parameters()))


def test_a_model_file_holds_the_model_alone_and_starts_runs_with_critics(tmp_path):
    run(made(PLAYED), tmp_path / "a", 2)
    recipe = made(PLAYED)
    checkpoint, _ = newest_checkpoint(tmp_path / "a")
    assert checkpoint is not None
    weights = recipe.model_weights(checkpoint.weights())
    assert weights.keys() == recipe.model.state_dict().keys()
    path = tmp_path / "model.safetensors"
    save_model(path, weights, recipe.config_json(), "float32")
    loaded = load(path)
    fresh = made(PLAYED)
    judged = {name: value.clone() for name, value in critics_of(fresh).items()}
    heard = []
    still = dataclasses.replace(settings(1), lr=1e-12, ema_decay=0.0)
    train(fresh, Pictures(), still, tmp_path / "b", init=path, on_event=heard.append)
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(fresh.model.state_dict()[name], value, rtol=0, atol=1e-9)
    for name, value in critics_of(fresh).items():
        if "averages" not in name:
            torch.testing.assert_close(value, judged[name], rtol=0, atol=1e-9)
    (said,) = (event.message for event in heard if event.kind == "warning")
    assert "critics.canonical" in said
    assert "more" in said
    # The other way round: a run with critics starts a model without them.
    plain = made(SMALL)
    run_settings = dataclasses.replace(still, steps=1)
    train(plain, Pictures(), run_settings, tmp_path / "c", init=tmp_path / "a", on_event=silent)
    averaged = recipe.model_weights(checkpoint.ema() or {})
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(value, averaged[name], rtol=0, atol=1e-9)


@pytest.mark.parametrize("quantizer", ["fsq", "vq"])
def test_tokens_stay_where_only_the_decoder_is_trained(tmp_path, quantizer):
    loss = dataclasses.replace(SMALL, trained="decoder")
    recipe = made(loss, quantizer=quantizer, codes=32, code_dim=8)
    before = {name: value.clone() for name, value in recipe.model.state_dict().items()}
    image = pictures(seed=99)["image"]
    tokens = recipe.model.eval().encode(image).quantized.indices
    run(recipe, tmp_path / "a")
    checkpoint, _ = newest_checkpoint(tmp_path / "a")
    assert checkpoint is not None
    for after in (recipe.model.state_dict(), checkpoint.weights(), checkpoint.ema() or {}):
        for name, value in before.items():
            if name.split(".")[0] in TOKEN_MAKERS:
                assert torch.equal(after[name], value), name
    moved = {
        name.split(".")[0]
        for name, value in recipe.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert moved == {name.split(".")[0] for name in before} - TOKEN_MAKERS
    assert torch.equal(recipe.model.eval().encode(image).quantized.indices, tokens)
    path = tmp_path / "model.safetensors"
    save_model(path, checkpoint.ema() or {}, recipe.config_json(), "float32")
    assert torch.equal(load(path).encode(image).quantized.indices, tokens)


def test_named_objectives_are_what_they_say():
    assert LOSSES["base"] == LossConfig()
    whole = LOSSES["critics"]
    assert whole.critic_weight > whole.novel_critic_weight > 0
    assert LOSSES["no-novel-critic"] == dataclasses.replace(whole, novel_critic_weight=0.0)
    assert LOSSES["accumulated"] == dataclasses.replace(whole, depth="accumulated")
    for wrong in ({"r1_every": 0}, {"critic_fade": 0.0}, {"novel_critic_angle": 2.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LossConfig(**wrong)
    with pytest.raises(ValueError, match="crop is 64"):
        made(dataclasses.replace(PLAYED, crop=64))


@pytest.mark.slow
def test_a_critic_finds_the_difference_and_the_model_yields():
    """Against critics alone, without a pixel term: the model's pictures come to look real."""
    torch.manual_seed(0)
    judge = Judge(3, dataclasses.replace(SMALL, crop=8, critic_width=8, critic_widest=16))
    color = nn.Parameter(torch.full((3, 1, 1), 0.1))
    players = [
        {"params": [color], "lr": 2e-2},
        {"params": list(judge.parameters()), "lr": 2e-3},
    ]
    optimizer = torch.optim.Adam(players, betas=(0.0, 0.99))
    generator = torch.Generator().manual_seed(0)
    for _ in range(80):
        noise = 0.2 * torch.rand(2, 8, 3, 8, 8, generator=generator)
        real = 0.7 + noise[0]
        fake = color + noise[1]
        fooling, own, _ = judge.terms(real, fake, torch.full((8,), 1e6), 1.0, 0.1)
        optimizer.zero_grad()
        (fooling.mean() + own.mean()).backward()
        optimizer.step()
    assert float((cast(Tensor, color) - 0.7).detach().abs().max()) < 0.25
