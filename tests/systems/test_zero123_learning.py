"""Published networks that learn, in miniature: what learns, from what, and that it does."""

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from box_object import box, cameras_around, views_of
from published_views import fixture, tiny_state, write_checkpoint, write_start
from unflat.data import PosedBatches, PosedViews
from unflat.data.view_store import slot_of
from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.latents import (
    FromLatents,
    LatentBatches,
    find_latents,
    latents_of,
    latents_slot,
)
from unflat.systems.zero123.learning import (
    LearningConfig,
    PublishedLearning,
    learned_parameters,
    to_keep,
)
from unflat.systems.zero123.model import Tensors
from unflat.systems.zero123.published import LATENT_SCALE
from unflat.systems.zero123.published_loading import open_training_start
from unflat.systems.zero123.recipe import Learning, Objective, ViewRecipe, dropped

OBJECTIVE = Objective(views=2, drop_height=0.0, mirror=False, recolor=0.0)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return write_start(tmp_path_factory.mktemp("start") / "sd-image-conditioned-v2.ckpt")


@pytest.fixture(scope="module")
def views():
    """Four pictures of a box, at the model's size."""
    camera = cameras_around(4, 0)
    seen = views_of(box((1.0, 0.6, 0.7)), camera, 256)
    white = seen[:, :3] * seen[:, 3:] + 1 - seen[:, 3:]
    return PosedViews.of(
        (white * 255).round().byte(),
        name="box",
        masks=(seen[:, 3] * 255).round().byte(),
        camera=camera,
        objects=torch.zeros(4, dtype=torch.long),
    )


def opened(start):
    return open_training_start(start, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def latents(start, views):
    return latents_of(opened(start), views, None)


def recipe_of(start, config=None):
    model = opened(start)
    torch.manual_seed(0)
    learning = PublishedLearning(model, config or LearningConfig(recompute=False))
    return ViewRecipe(model, OBJECTIVE, {}, learning=learning, showing=FromLatents(model))


def batch_of(views, latents, count=2):
    return LatentBatches(PosedBatches(views, count, together=2), latents).batch(0)


def stepped(recipe, batch, seed=0):
    return recipe.step(batch, 0.0, torch.Generator().manual_seed(seed))


def test_shares_of_dropping_are_the_authors():
    known = fixture("cond")
    embedding, picture = dropped(known["dropout_random"], float(known["dropout_p"]))
    assert embedding.tolist() == known["embedding_dropped"].bool().flatten().tolist()
    assert (~picture).float().tolist() == known["image_kept"].flatten().tolist()


def test_what_is_dropped_is_zero_before_the_projection(start):
    """Fixture of the authors' training null: the pose is still told."""
    known = fixture("cond")
    model = open_training_start(
        write_checkpoint(start.with_name("views.ckpt"), tiny_state()), torch.Generator()
    )
    learning = PublishedLearning(model, LearningConfig())
    assert isinstance(learning, Learning)
    count = len(known["T"])
    parts = {
        "embedding": known["embedding"].expand(count, -1),
        "picture": known["c_concat"].expand(count, -1, -1, -1),
        "elevation": torch.zeros(count),
    }
    reference = Tensors(parts)
    yes, no = torch.ones(count).bool(), torch.zeros(count).bool()
    pose = RelativePose(
        polar=known["T"][:, 0],
        azimuth=torch.atan2(known["T"][:, 1], known["T"][:, 2]),
        radius=known["T"][:, 3],
    )
    told = model.condition(learning.forget(reference, yes, no, yes), pose).parts
    torch.testing.assert_close(told["token"], known["null_training"], rtol=0, atol=1e-5)
    assert torch.equal(told["picture"], parts["picture"])
    told = model.condition(learning.forget(reference, no, yes, no), pose).parts
    torch.testing.assert_close(told["token"], known["context"], rtol=0, atol=1e-5)
    assert not told["picture"].any()


def test_the_first_step_is_that_of_the_four_channel_model(start, views, latents):
    """The picture is beside the noisy latent, and makes nothing of it yet."""
    recipe = recipe_of(start)
    batch = batch_of(views, latents)
    sees = stepped(recipe, batch)["loss"]
    unet = recipe.model.unet
    narrow = torch.nn.functional.conv2d
    first = unet.conv_in.weight[:, :4].detach().clone()
    bias = unet.conv_in.bias.detach().clone()
    unet.conv_in.forward = lambda both: narrow(both[:, :4], first, bias, padding=1)
    torch.testing.assert_close(stepped(recipe, batch)["loss"], sees, rtol=1e-5, atol=0)


def test_a_target_is_a_sample_and_a_reference_the_mean(start, views, latents):
    model = opened(start)
    image = views.images.float() / 255
    elevation = torch.zeros(4)
    uncached = model.reference(image, torch.ones(4, 256, 256), elevation).parts
    order = torch.from_numpy(PosedBatches(views, 4, together=2).indices(0))
    batch = batch_of(views, latents, 4)
    shown = FromLatents(model).learned(batch, torch.Generator().manual_seed(3))
    for name in ("embedding", "picture"):  # kept in half precision
        wanted, found = uncached[name][order], shown.reference.parts[name]
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    noise = torch.randn(4, 4, 32, 32, generator=torch.Generator().manual_seed(3))
    whole = model.distribution(image)
    wanted = (whole.mean + whole.std * noise[order.argsort()])[order].detach() * LATENT_SCALE
    torch.testing.assert_close(shown.clean, wanted, rtol=2e-3, atol=1e-3)
    assert (shown.clean - LATENT_SCALE * shown.reference.parts["picture"]).abs().mean() > 0.01
    sheet = FromLatents(model).sheet(batch)
    assert sheet.image.shape == (4, 3, 256, 256)


def test_latents_are_kept_until_their_files_change(start, views, tmp_path, monkeypatch):
    monkeypatch.setenv("UNFLAT_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.png").write_bytes(b"1")
    slot = latents_slot(data, None, start, "authors")
    assert find_latents(slot, 4) is None
    model = opened(start)
    told = []
    made = latents_of(model, views, slot, lambda done, of: told.append((done, of)))
    assert told == [(4, 4)]
    alone = latents_of(model, views, None)
    model.drop_encoders()  # nothing is encoded again
    again = latents_of(model, views, latents_slot(data, None, start, "authors"))
    for each in (made, again):
        assert torch.equal(each.moments, alone.moments)
        assert torch.equal(each.embeddings, alone.embeddings)
    assert find_latents(slot, 5) is None
    (data / "a.png").write_bytes(b"12")
    assert find_latents(latents_slot(data, None, start, "authors"), 4) is None
    assert latents_slot(data, "val", start, "authors").folder != slot.folder
    assert slot_of(data, [], [data]).folder.parent != slot.folder.parent


def test_one_token_leaves_queries_and_keys_alone(start, views, latents):
    recipe = recipe_of(start)
    # the plain kernel: faster ones leave some 1e-10 of rounding
    with sdpa_kernel(SDPBackend.MATH):
        stepped(recipe, batch_of(views, latents))["loss"].backward()
    idle, busy = [], []
    for name, weight in recipe.networks.named_parameters():
        crossed = ("attn2.to_q", "attn2.to_k", "norm2")
        is_idle = "transformer_blocks" in name and any(part in name for part in crossed)
        (idle if is_idle else busy).append(weight.grad)
    assert len(idle) == 16 * 4
    assert not any(grad.any() for grad in idle)
    assert all(grad is not None and grad.any() for grad in busy)


def test_rates_are_the_authors(start):
    recipe = recipe_of(start)
    unet, projection = recipe.parameter_groups()
    assert unet.get("lr_scale", 1.0) == 1.0
    assert projection["lr_scale"] == 10.0
    both = {id(each) for group in (unet, projection) for each in group["params"]}
    assert both == {id(each) for each in recipe.networks.parameters()}
    assert {id(each) for each in projection["params"]} == {
        id(each) for each in recipe.model.projection.parameters()
    }
    frozen = (*recipe.model.vae.parameters(), *recipe.model.clip.parameters())
    assert not any(each.requires_grad for each in frozen)
    assert all(each.dtype == torch.float32 for each in recipe.networks.parameters())


def test_the_average_is_kept_of_the_denoiser_alone():
    last = {"unet.a": torch.zeros(1), "cc_projection.weight": torch.zeros(1)}
    kept = to_keep({name: value + 1 for name, value in last.items()}, last)
    assert {name: float(value) for name, value in kept.items()} == {
        "unet.a": 1.0,
        "cc_projection.weight": 0.0,
    }


def test_computing_again_gives_the_same_gradients(start, views, latents):
    batch = batch_of(views, latents)
    grads = []
    for recompute in (False, True):
        recipe = recipe_of(start, LearningConfig(recompute=recompute))
        recipe.networks.train()
        stepped(recipe, batch)["loss"].backward()
        grads.append([weight.grad for weight in recipe.networks.parameters()])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("lora", [pytest.param(0, marks=pytest.mark.slow), 4])
def test_it_learns_a_repeated_batch(start, views, latents, lora):
    """The same noise each time: its error has to fall; without learning it stays."""
    recipe = recipe_of(start, LearningConfig(lora=lora, recompute=False))
    batch = batch_of(views, latents)
    first = float(stepped(recipe, batch)["loss"].detach())
    optimizer = torch.optim.AdamW(recipe.parameter_groups(), lr=1e-3 if not lora else 5e-3)
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_scale", 1.0) ** 0.5
    for _ in range(10):
        optimizer.zero_grad()
        stepped(recipe, batch)["loss"].backward()
        optimizer.step()
    last = float(stepped(recipe, batch)["loss"].detach())
    assert math.isfinite(last)
    assert last < 0.8 * first


def test_adapters_begin_as_nothing_and_are_few(start, views, latents):
    batch = batch_of(views, latents)
    plain, adapted = (
        recipe_of(start, LearningConfig(lora=rank, recompute=False)) for rank in (0, 4)
    )
    torch.testing.assert_close(
        stepped(adapted, batch)["loss"], stepped(plain, batch)["loss"], rtol=1e-6, atol=0
    )
    few, all_ = (learned_parameters(recipe.networks) for recipe in (adapted, plain))
    assert few["cc_projection"] == all_["cc_projection"]
    assert 0 < few["unet"] < 0.1 * all_["unet"]
    names = set(adapted.networks.state_dict())
    assert "unet.conv_in.weight" in names
    assert not [name for name in names if "attn2.to_q" in name or "attn2.to_k" in name]
    assert sum("attn" in name for name in names) == 16 * 6 * 2
