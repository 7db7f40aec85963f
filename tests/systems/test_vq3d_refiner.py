import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from unflat.nn.depth_net import laplace_loss
from unflat.systems.vq3d import build, render_canonical
from unflat.systems.vq3d.config import tiny
from unflat.systems.vq3d.refiner import DepthRefiner, Refined


def refiner(seed: int = 0) -> DepthRefiner:
    torch.manual_seed(seed)
    return DepthRefiner(encoder_width=24, width=4)


def inputs(side: int = 32, grid: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, side, side, generator=generator)
    surface = torch.rand(2, 1, side, side, generator=generator)
    return image, surface, torch.randn(2, grid**2, 24, generator=generator)


@pytest.mark.parametrize(("side", "grid"), [(32, 4), (32, 8), (64, 8), (40, 5)])
@torch.no_grad()
def test_an_untrained_refiner_keeps_the_tokens_surface(side, grid):
    image, surface, features = inputs(side, grid)
    refined = refiner()(image, surface, features)
    assert refined.disparity.shape == refined.spread.shape == (2, 1, side, side)
    assert float((refined.disparity - surface).abs().max()) < 0.1
    assert bool((refined.spread > 0.005).all())
    assert bool((refined.softness > 0.0025).all())


@torch.no_grad()
def test_all_three_inputs_are_looked_at():
    model, (image, surface, features) = refiner(), inputs()
    torch.nn.init.normal_(model.leave.weight, std=0.1)
    before = model(image, surface, features).disparity
    assert not torch.equal(before, model(image.flip(-1), surface, features).disparity)
    assert not torch.equal(before, model(image, surface, features.flip(1)).disparity)
    moved = model(image, surface + 0.1, features).disparity
    assert not torch.equal(before + 0.1, moved)


@torch.no_grad()
def test_it_never_changes_what_the_tokens_show():
    torch.manual_seed(0)
    model = build(tiny()).eval()
    image = functional.interpolate(torch.rand(1, 3, 4, 4), size=32, mode="bilinear")
    assert model.refiner is not None

    def shown() -> tuple[torch.Tensor, ...]:
        quantized = model.encode(image).quantized
        return quantized.indices, *render_canonical(model.field(model.decode(quantized.tokens)), 32)

    before = shown()
    for weight in model.refiner.parameters():
        torch.nn.init.normal_(weight)
    assert all(torch.equal(one, other) for one, other in zip(before, shown(), strict=True))


def test_its_loss_leaves_the_tokens_own_surface_alone():
    """Of the picture's own plane only the encoder learns from it, through the skip path."""
    from unflat.systems.vq3d import LossConfig, Vq3dRecipe

    torch.manual_seed(0)
    nothing = dict.fromkeys(
        ("depth_weight", "distortion_weight", "novel_weight", "novel_depth_weight"), 0.0
    )
    recipe = Vq3dRecipe(dataclasses.replace(tiny(), linear_skip=False), LossConfig(**nothing))
    image = torch.rand(2, 3, 32, 32)
    batch = {
        "image": image,
        "disparity": image[:, :1],
        "has_disparity": torch.ones(2, dtype=torch.bool),
    }
    terms = recipe.step(batch, 0.5, torch.Generator().manual_seed(0))
    terms["refiner"].backward()
    touched = {
        name.split(".")[0]
        for name, weight in recipe.networks.named_parameters()
        if weight.grad is not None and bool(weight.grad.any())
    }
    assert touched == {"refiner", "encoder", "embed", "encoder_positions"}


@given(error=st.floats(0.02, 0.9), factor=st.floats(0.2, 5.0))
def test_the_best_spread_is_the_expected_error(error, factor):
    """Of a Laplace distribution: the likelihood of one error is greatest at spread = error."""
    target = torch.full((1, 1, 2, 2), 0.3, dtype=torch.float64)

    def cost(spread: float) -> float:
        refined = Refined(target + error, torch.full_like(target, spread), target)
        return float(laplace_loss(refined, target).mean())

    assert cost(error) <= cost(error * factor) + 1e-12
    assert cost(error) == pytest.approx(1 + torch.tensor(error).log().item(), abs=1e-6)
