import gc

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from published_views import tiny_state, write_checkpoint
from unflat.errors import UserError
from unflat.systems.zero123.memory import (
    MemoryCost,
    flowing_bytes,
    follow,
    memory_cost,
    plan_memory,
)
from unflat.systems.zero123.published_loading import open_published

COST = MemoryCost(
    denoiser=1_670_000_000,
    clip=608_000_000,
    autoencoder=167_000_000,
    sample=16_400_000,
    picture=101_000_000,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = write_checkpoint(tmp_path_factory.mktemp("memory") / "tiny.ckpt", tiny_state())
    return open_published(path)


def test_what_flows_is_counted_to_the_byte():
    start = torch.zeros(1000)

    def work():
        first = start + 1  # 4000 bytes
        second = first * 2  # 8000, both alive
        del first
        view = second[:500]  # nothing
        third = view.double()  # 4000 + 4000
        second += 1  # nothing new
        return third, second

    assert flowing_bytes(work) == 8000
    gc.collect()
    assert flowing_bytes(lambda: start.view(10, 100).sum()) == 4
    assert flowing_bytes(lambda: start) == 0


@torch.no_grad()
def test_a_cost_foreseen_is_what_flows(model):
    """Foreseen from shapes alone; counted while real numbers flow on the CPU."""
    cost = memory_cost(model)
    noisy = torch.randn(1, 8, 32, 32)
    token = torch.zeros(1, 1, len(model.constants.bias))
    timestep = torch.zeros(1, dtype=torch.long)
    assert cost.sample == flowing_bytes(lambda: model.unet(noisy, timestep, token))
    assert cost.picture == flowing_bytes(lambda: model.vae.decode(noisy[:, :4]))
    several = flowing_bytes(
        lambda: model.unet(noisy.expand(4, -1, -1, -1), timestep.expand(4), token.expand(4, -1, -1))
    )
    assert several == pytest.approx(4 * cost.sample, rel=0.05)
    state = tiny_state()
    clip = [v.numel() for n, v in state.items() if n.startswith("cond_stage_model.model.visual.")]
    place_ids = 257 * 8  # CLIP's numbers of places, which are in no file
    assert cost.clip == 4 * sum(clip) + place_ids
    coder = [value.numel() for name, value in state.items() if name.startswith("first_stage")]
    assert cost.autoencoder == 4 * sum(coder)


def test_half_precision_costs_half(model, tmp_path):
    whole = memory_cost(model)
    path = write_checkpoint(tmp_path / "tiny.ckpt", tiny_state())
    half = memory_cost(open_published(path, dtype=torch.float16))
    assert half.autoencoder == whole.autoencoder / 2
    assert half.sample == pytest.approx(whole.sample / 2, rel=0.01)
    assert half.picture == pytest.approx(whole.picture / 2, rel=0.01)


@given(
    budget=st.floats(min_value=2.88e9, max_value=3e10),
    more=st.floats(min_value=0, max_value=1e10),
    views=st.integers(1, 64),
)
def test_a_plan_keeps_the_budget(budget, more, views):
    plan = plan_memory(COST, budget, views)
    assert plan.bytes <= budget
    assert 1 <= plan.views <= views
    richer = plan_memory(COST, budget + more, views)
    assert richer.views >= plan.views
    assert richer.is_offloaded <= plan.is_offloaded


def test_what_is_given_up_comes_in_order():
    plans = [plan_memory(COST, budget, 16) for budget in (24e9, 4e9, 3.2e9, 2.9e9)]
    assert [(plan.is_sliced, plan.is_offloaded) for plan in plans] == [
        (False, False),
        (True, False),
        (True, True),
        (True, True),
    ]
    assert [plan.views for plan in plans][:3] == [16, 16, 16]
    assert plans[3].views < 16
    assert plans[0].bytes > COST.weights


def test_too_little_is_said():
    with pytest.raises(UserError, match=r"--vram 2: one view takes 2\.\d GB; give more, use half"):
        plan_memory(COST, 2e9, 4)


def test_a_plan_is_followed(model):
    latent = torch.randn(2, 4, 32, 32)
    before = model.decode(latent).image
    plan = plan_memory(COST, 3.2e9, 16)
    assert plan.is_sliced
    assert plan.is_offloaded
    follow(plan, model)
    assert model.vae.use_slicing
    torch.testing.assert_close(model.decode(latent).image, before, atol=1e-4, rtol=0)
