import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from unflat.nn import VectorQuantizer
from unflat.systems.vq3d import Config, LossConfig, Vq3dRecipe
from unflat.systems.vq3d.config import tiny
from unflat.systems.vq3d.views import novel_cameras

SMALL = LossConfig(rows=6, columns=8, novel_rays=24, novel_samples=8)
ALL_TERMS = {
    *("loss", "pixel", "depth", "distortion", "quantizer"),
    *("novel", "novel_depth", "refiner", "psnr"),
}


def pictures(batch: int = 4, taught: tuple[int, ...] = (0, 1, 3), seed: int = 0) -> dict:
    """Smooth pictures; those that are not taught have a disparity that must not be looked at."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 4, 5, 5, generator=generator)
    fine = functional.interpolate(coarse, size=32, mode="bilinear", align_corners=True)
    has = torch.zeros(batch, dtype=torch.bool)
    has[list(taught)] = True
    disparity = torch.where(has[:, None, None, None], fine[:, 3:], 0.5)
    label = torch.zeros(batch, dtype=torch.int64)
    return {"image": fine[:, :3], "disparity": disparity, "has_disparity": has, "label": label}


def made(loss: LossConfig = SMALL, **changes) -> Vq3dRecipe:
    torch.manual_seed(0)
    recipe = Vq3dRecipe(dataclasses.replace(tiny(), **changes), loss)
    recipe.start(pictures(24)["image"])
    return recipe


def step(
    recipe: Vq3dRecipe, batch: dict, progress: float = 0.5, seed: int = 7
) -> dict[str, Tensor]:
    return recipe.step(batch, progress, torch.Generator().manual_seed(seed))


def without_gradient(recipe: Vq3dRecipe, batch: dict) -> set[str]:
    """First parts of the names of parameters that one step leaves as they are."""
    recipe.networks.zero_grad(set_to_none=True)
    step(recipe, batch)["loss"].backward()
    missed = set()
    for name, weight in recipe.networks.named_parameters():
        assert weight.grad is None or bool(weight.grad.isfinite().all()), name
        if weight.grad is None or not bool(weight.grad.any()):
            missed.add(name.split(".")[0])
    return missed


@pytest.mark.parametrize("progress", [0.0, 0.05, 1.0])
def test_terms_are_finite_and_sum_to_the_loss(progress):
    terms = step(made(), pictures(), progress)
    assert set(terms) == ALL_TERMS
    assert all(term.shape == () and bool(term.isfinite()) for term in terms.values())
    parts = [value for name, value in terms.items() if name not in ("loss", "psnr")]
    torch.testing.assert_close(sum(parts), terms["loss"])
    psnr = -10 * math.log10(float(terms["pixel"].detach()))
    assert float(terms["psnr"]) == pytest.approx(psnr, abs=1e-4)


def test_the_same_generator_gives_the_same_terms():
    recipe, batch = made(), pictures()
    first, again, other = (step(recipe, batch, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in ALL_TERMS)
    assert not torch.equal(first["pixel"], other["pixel"])
    assert not torch.equal(first["novel"], other["novel"])


@pytest.mark.parametrize(
    ("changes", "taught", "idle"),
    [
        ({}, (0, 1, 3), set()),
        ({"quantizer": "vq", "codes": 16, "code_dim": 8}, (0, 1, 3), set()),
        ({"quantizer": "none"}, (0, 1, 3), set()),
        # No picture has a teacher: nothing to refine.
        ({}, (), {"refiner"}),
        # Contracted space has no place for a base colour, nor a surface to refine.
        ({"field": "triplane"}, (0, 1, 3), {"skip_out", "refiner"}),
        ({"field": "triplane", "linear_skip": False, "refiner_width": 0}, (0, 1, 3), set()),
    ],
)
def test_gradients_reach_every_parameter(changes, taught, idle):
    recipe = made(**changes)
    if not recipe.config.linear_skip:
        torch.nn.init.normal_(recipe.model.to_code.weight, std=0.1)
    assert without_gradient(recipe, pictures(taught=taught)) == idle


def test_a_codebook_moves_only_where_it_was_used():
    recipe = made(quantizer="vq", codes=64, code_dim=8)
    batch = pictures()
    step(recipe, batch)["loss"].backward()
    used = recipe.model.encode(batch["image"]).quantized.indices.unique()
    quantizer = recipe.model.quantizer
    assert isinstance(quantizer, VectorQuantizer)
    assert quantizer.table.grad is not None
    moved = quantizer.table.grad.abs().sum(1).nonzero().flatten()
    assert torch.equal(moved, used)


def test_photos_without_disparity_give_no_depth_term():
    terms = step(made(), pictures(taught=()))
    assert set(terms) == ALL_TERMS - {"novel", "novel_depth", "refiner"}
    assert float(terms["depth"].detach()) == 0
    assert float(terms["pixel"].detach()) > 0


def test_the_disparity_of_a_photo_without_one_is_never_looked_at():
    recipe, batch = made(), pictures(taught=(1, 2))
    other = {**batch, "disparity": batch["disparity"].clone()}
    other["disparity"][[0, 3]] = torch.nan
    # NaN times the mask would be NaN: what is absent is stored as a number (see unflat.data).
    other["disparity"][[0, 3]] = 0.9
    first, second = step(recipe, batch), step(recipe, other)
    assert all(torch.equal(first[name], second[name]) for name in ALL_TERMS)
    other["disparity"][1] = 0.9
    assert not torch.equal(step(recipe, other)["depth"], first["depth"])


@pytest.mark.parametrize("taught", [(0, 1, 3), (0, 1), (2, 3), (0, 1, 2, 3)])
def test_the_loss_is_a_mean_over_samples(taught):
    """Two halves, as two processes or two accumulated parts have them, average to the whole."""
    recipe, batch = made(quantizer="vq", codes=16, code_dim=8), pictures(taught=taught)
    recipe.networks.eval()
    whole = step(recipe, batch)
    halves = []
    for start in (0, 2):
        part = {name: value[start : start + 2] for name, value in batch.items()}
        part["position"] = torch.arange(start, start + 2)
        part["batch_size"] = torch.tensor(4)
        halves.append(step(recipe, part))
    for name in ("loss", "pixel", "depth", "distortion", "quantizer"):
        mean = (halves[0][name] + halves[1][name]) / 2
        torch.testing.assert_close(mean, whole[name], rtol=2e-5, atol=1e-7)


def test_terms_follow_their_weights():
    batch = pictures()
    changed = dataclasses.replace(
        SMALL, depth_weight=6.0, novel_weight=0.6, novel_depth_weight=0.5, refiner_weight=0.1
    )
    first, second = step(made(), batch), step(made(changed), batch)
    for name, factor in (("depth", 3.0), ("novel", 2.0), ("novel_depth", 0.5), ("refiner", 2.0)):
        torch.testing.assert_close(second[name], factor * first[name])
    off = dataclasses.replace(SMALL, novel_weight=0.0, novel_depth_weight=0.0)
    assert set(step(made(off), batch)) == ALL_TERMS - {"novel", "novel_depth"}


def test_the_depth_term_moves_from_accumulated_to_pointwise():
    """Linearly over the fog's share of the run (0.1), from a tenth of the pointwise form."""
    recipe, batch = made(), pictures()
    start, middle, end, later = (
        float(step(recipe, batch, progress)["depth"].detach()) for progress in (0.0, 0.05, 0.1, 0.9)
    )
    assert middle == pytest.approx((start + end) / 2, rel=1e-5)
    assert end == pytest.approx(later)
    only = made(dataclasses.replace(SMALL, depth="accumulated"))
    first, second = (float(step(only, batch, at)["depth"].detach()) for at in (0.0, 0.9))
    assert first == second
    assert start == pytest.approx(0.9 * first + 0.1 * end, rel=1e-5)
    assert abs(first - end) > 0.1 * end


def test_both_depth_terms_are_squares_up_to_the_huber():
    """Disparities lie in [0, 1], so that a Huber of 2 is a square; a small one costs less."""
    batch = pictures()
    hubers = (None, 2.0, 0.05)
    losses = (dataclasses.replace(SMALL, depth_huber=huber) for huber in hubers)
    square, wide, narrow = (step(made(loss), batch) for loss in losses)
    for name in ("depth", "novel_depth"):
        assert float(wide[name].detach()) == pytest.approx(float(square[name].detach()), rel=1e-6)
        assert float(narrow[name].detach()) < 0.8 * float(square[name].detach())
    with pytest.raises(ValueError, match="depth_huber is 0"):
        LossConfig(depth_huber=0.0)


@settings(max_examples=20)
@given(
    turn=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
    nearness=st.floats(0.1, 1.0),
    focal=st.floats(0.8, 4.0),
)
def test_novel_cameras_turn_rigidly_about_the_median_depth(turn, nearness, focal):
    inverse_depth = torch.full((2, 5, 5), nearness)
    inverse_depth[:, 0, 0] = 5.0  # one pixel moves no median
    turns = torch.tensor([turn, (0.0, 0.0, 0.0)])
    start, moved = novel_cameras(focal, inverse_depth, turns)
    pivot = torch.tensor([0.0, 0.0, 1 / nearness]).expand(2, 1, 3)
    uv, depth = moved.project(pivot)
    torch.testing.assert_close(uv, torch.full((2, 1, 2), 0.5), rtol=0, atol=1e-4)
    torch.testing.assert_close(depth, torch.full((2, 1), 1 / nearness), rtol=1e-4, atol=0)
    eye = torch.eye(3).expand(2, 3, 3)
    torch.testing.assert_close(moved.rotation @ moved.rotation.mT, eye, rtol=0, atol=1e-5)
    cosine = (moved.rotation[0].trace() - 1) / 2
    angle = math.hypot(*turn)
    assert float(cosine) == pytest.approx(math.cos(angle), abs=1e-5)
    torch.testing.assert_close(moved.camera_to_world[1], torch.eye(4), rtol=0, atol=1e-6)
    torch.testing.assert_close(start.camera_to_world, torch.eye(4).expand(2, 4, 4))
    torch.testing.assert_close(start.intrinsics, moved.intrinsics)
    assert float(start.intrinsics[0, 0]) == pytest.approx(focal / 2)


def test_dead_codes_restart_from_what_was_seen():
    recipe = made(quantizer="vq", codes=64, code_dim=8)
    quantizer = recipe.model.quantizer
    assert isinstance(quantizer, VectorQuantizer)
    quantizer.recent_use.fill_(1.0)
    quantizer.recent_use[:10] = 0.0
    before = quantizer.table.detach().clone()
    recipe.networks.train()
    with torch.no_grad():
        recipe.model.encode(pictures()["image"])
    dead = quantizer.recent_use < 0.03
    assert 0 < int(dead.sum()) <= 10
    assert recipe.after_step(13) == {}
    assert recipe.after_step(40) == {"restarted_codes": float(dead.sum())}
    changed = (quantizer.table.detach() != before).any(1)
    assert torch.equal(changed, dead)
    distance = torch.cdist(
        quantizer.table[dead].detach(),
        quantizer.recent_inputs,
        compute_mode="donot_use_mm_for_euclid_dist",
    )
    assert float(distance.min(1).values.max()) < 1e-5
    assert recipe.after_step(60) == {"restarted_codes": 0.0}
    assert recipe.after_step(2020) == {}
    assert made().after_step(40) == {}


def test_weights_decay_but_not_biases_positions_and_codes():
    recipe = made(quantizer="vq", codes=16, code_dim=8)
    decayed, free = recipe.parameter_groups()
    assert "weight_decay" not in decayed
    assert free["weight_decay"] == 0
    groups = [{id(weight) for weight in group["params"]} for group in (decayed, free)]
    assert not groups[0] & groups[1]
    for name, weight in recipe.networks.named_parameters():
        is_free = name.endswith("bias") or weight.ndim < 2 or "positions" in name
        assert (id(weight) in groups[1]) == (is_free or name == "quantizer.table"), name


@torch.no_grad()
def test_a_sheet_shows_input_reconstruction_and_both_disparities():
    recipe, batch = made(), pictures(9)
    sheet = recipe.sample(batch)
    assert sheet.shape == (3, 4 * 32, 8 * 32)
    assert bool(((sheet >= 0) & (sheet <= 1)).all())
    torch.testing.assert_close(sheet[:, :32, 32:64], batch["image"][1])
    torch.testing.assert_close(sheet[0, 96:, 32:64], batch["disparity"][1, 0])
    rebuilt = sheet[:, 32:64, 32:64] - batch["image"][1]
    assert float(rebuilt.square().mean()) < 0.02


def test_what_a_run_writes_down_builds_the_same_recipe():
    recipe = made()
    about = recipe.config_json()
    assert about["system"] == "vq3d"
    assert Config.from_json(about["config"]) == recipe.config
    assert LossConfig(**about["loss"]) == recipe.loss


def test_rounding_begins_after_its_share_of_the_run():
    recipe, batch = made(dataclasses.replace(SMALL, unrounded_share=0.1)), pictures()
    plain = made()
    free, rounded = step(recipe, batch, 0.05), step(recipe, batch, 0.2)
    assert torch.equal(rounded["pixel"], step(plain, batch, 0.2)["pixel"])
    assert not torch.equal(free["pixel"], step(plain, batch, 0.05)["pixel"])
