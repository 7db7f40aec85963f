import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor

from unflat.systems.vq3d.prior import NO_CLASS
from unflat.systems.vq3d.prior_config import PriorConfig
from unflat.systems.vq3d.prior_recipe import (
    PriorRecipe,
    TokenBatches,
    bits_per_code,
    draw_depths,
    masked_errors,
)
from unflat.systems.vq3d.tokens import TokenDataset
from unflat.training import Recipe
from unflat.training.randomness import split_batch, with_position


def written(folder: Path, indices: np.ndarray, labels: np.ndarray, sizes: tuple) -> TokenDataset:
    """A folder of tokens as extraction would leave it."""
    folder.mkdir()
    header = {
        "format": 1,
        "is_whole": True,
        "autoencoder": "none",
        "fingerprint": "toy",
        "grid": math.isqrt(indices.shape[1]),
        "codebook_sizes": sizes,
        "levels": [],
        "classes": ["even", "odd"],
        "shards": 1,
    }
    (folder / "tokens.json").write_text(json.dumps(header))
    shard = {
        "indices": indices.astype(np.uint16),
        "labels": labels.astype(np.int32),
        "flipped": np.zeros(len(labels), bool),
    }
    save_file(shard, folder / "00000.safetensors")
    return TokenDataset(folder)


def toy(folder: Path, count: int = 512, seed: int = 0) -> TokenDataset:
    """Four tokens that agree: the class tells whether the first code is even or odd (of 8), all
    tokens share it, and the second code is the first one's half. Two bits tell a whole sample."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, count)
    first = 2 * generator.integers(0, 4, count) + labels
    indices = np.stack([first, first // 2], axis=-1)[:, None].repeat(4, axis=1)
    return written(folder, indices, labels, (8, 4))


def made(order: str = "masked", **changes) -> PriorRecipe:
    torch.manual_seed(0)
    sizes = {"grid": 2, "codebook_sizes": (8, 4), "levels": (), "classes": 2, "order": order}
    sizes |= {"width": 32, "heads": 2, "depth": 1, "dropout": 0.0, "label_dropout": 0.0}
    return PriorRecipe(PriorConfig(**(sizes | changes)), classes=["even", "odd"])


def trained(recipe: PriorRecipe, tokens: TokenDataset, steps: int = 180) -> None:
    batches = TokenBatches(tokens, 32)
    optimizer = torch.optim.AdamW(recipe.parameter_groups(), lr=4e-3)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        recipe.step(batches.batch(step), step / steps, generator)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("order", ["masked", "raster"])
def test_what_goes_together_is_learned(order, tmp_path):
    """Two bits for eight codes are a quarter of a bit each. Codes told by their frequencies alone
    take (2 + 2) / 2 bits with the class, which is what a prior of no correlations would reach."""
    tokens = toy(tmp_path / "tokens")
    unseen = toy(tmp_path / "unseen", count=128, seed=1)
    recipe = made(order)
    assert bits_per_code(recipe.model, unseen) > 2.0
    trained(recipe, tokens)
    found = bits_per_code(recipe.model, unseen)
    assert 0.24 < found < 0.4, "below a quarter it would know what nobody can"

    labels = torch.arange(200) % 2
    drawn = recipe.model.sample(labels, torch.Generator().manual_seed(0), steps=8)
    first, second = drawn.unbind(-1)
    agree = (first == first[:, :1]).all(1) & (second == first // 2).all(1)
    assert agree.float().mean() > 0.8  # of independent codes one in ten thousand would
    assert (first % 2 == labels[:, None]).float().mean() > 0.95
    assert len(first[agree].unique()) == 8, "all of them are drawn"

    # The same codes, shuffled among the samples, hold nothing to learn but frequencies.
    shuffled = toy(tmp_path / "shuffled")
    generator = np.random.default_rng(0)
    for token in range(4):
        for code in range(2):
            generator.shuffle(shuffled.indices[:, token, code])
    other = made(order)
    trained(other, shuffled, steps=60)
    assert bits_per_code(other.model, unseen) > 1.5


def test_a_hidden_class_costs_its_bit(tmp_path):
    """Without the class a sample takes three bits instead of two."""
    tokens = toy(tmp_path / "tokens")
    recipe = made("raster", label_dropout=0.5)
    trained(recipe, tokens)
    known = bits_per_code(recipe.model, tokens)
    tokens.labels[:] = NO_CLASS
    assert bits_per_code(recipe.model, tokens) - known == pytest.approx(1 / 8, abs=0.04)


def batch_of(count: int, grid: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randint(n, (count, grid**2), generator=generator) for n in (8, 4)]
    return {"indices": torch.stack(parts, dim=-1), "label": torch.arange(count) % 2}


@pytest.mark.parametrize("order", ["masked", "raster"])
def test_two_halves_of_a_batch_add_up_to_the_whole(order):
    """Of the loss and of the gradients, whatever is hidden in which half."""
    recipe, batch = made(order, label_dropout=0.3), with_position(batch_of(8), 0, 1)

    def gradients(parts: int) -> list[Tensor]:
        recipe.networks.zero_grad(set_to_none=True)
        for part in split_batch(batch, parts):
            terms = recipe.step(part, 0.5, torch.Generator().manual_seed(3))
            (terms["loss"] / parts).backward()
        return [
            weight.grad.clone()
            for weight in recipe.networks.parameters()
            if weight.grad is not None
        ]

    for one, two in zip(gradients(1), gradients(2), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-4)


def test_the_loss_is_the_mean_error_of_next_codes():
    recipe, batch = made(), batch_of(6)
    terms = recipe.step(batch, 0.0, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    torch.rand(6, 1, generator=generator)  # whose class is hidden: nobody's
    depths = draw_depths(batch, 2, 2, generator)
    slow = []
    for sample in range(6):
        given = batch["indices"][sample].clone()
        for token in range(4):
            given[token, depths[sample, token] :] = -1
        hidden = recipe.model.hidden(given[None], batch["label"][sample : sample + 1])[0]
        for token in range(4):
            slot = int(depths[sample, token])
            if slot < 2:
                logs = recipe.model.logits(hidden[token], slot).log_softmax(-1)
                slow.append(-logs[batch["indices"][sample, token, slot]])
    torch.testing.assert_close(terms["loss"], torch.stack(slow).sum() / 24)
    torch.testing.assert_close(terms["bits"], torch.stack(slow).mean() / math.log(2))


def test_errors_do_not_hear_what_is_to_be_told():
    recipe, batch = made(), batch_of(4)
    depths = torch.tensor([[0, 1, 2, 1]]).expand(4, 4)
    before = masked_errors(recipe.model, batch["indices"], batch["label"], depths)
    assert (before[:, 2] == 0).all(), "known tokens have no error"
    changed = batch["indices"].clone()
    changed[:, 0] = (changed[:, 0] + 1) % 4  # unknown, both of its codes
    after = masked_errors(recipe.model, changed, batch["label"], depths)
    assert torch.equal(after[:, 1:], before[:, 1:])


def test_depths_are_those_of_sampling_and_of_holes():
    batch = {"indices": torch.zeros(4000, 64, 4)}
    depths = draw_depths(batch, 8, 4, torch.Generator().manual_seed(0))
    assert depths.min() == 0
    assert depths.max() == 4
    low, high = depths.amin(1), depths.amax(1)
    one_code = (high - low <= 1).float().mean()
    assert 0.65 < one_code < 0.75  # neither holes (a quarter) nor mixed (a tenth)
    # All kinds of moments of all codes are met, and nothing to tell is rare.
    assert torch.bincount(low[high - low <= 1])[:4].min() > 400
    assert (low == 4).float().mean() < 0.01
    # Where a hole is, the known rest is more than a rectangle's complement in one corner.
    is_hole = (high == 4) & (low < 3) & ((depths == 4).sum(1) > 32)
    rows = (depths[is_hole].view(-1, 8, 8) < 4).any(2)
    for row in rows[:100].int():
        assert (row.diff().abs().sum() + row[0] + row[-1]) <= 2, (
            "rows of a rectangle are in one run"
        )


def test_batches_are_a_matter_of_the_step(tmp_path):
    tokens = toy(tmp_path / "tokens", count=20)
    tokens.indices[:, 0, 0] = np.arange(20) % 8
    tokens.indices[:, 1, 0] = np.arange(20) // 8
    batches = TokenBatches(tokens, 4, seed=3)

    def numbers(source: TokenBatches, step: int) -> list[int]:
        indices = source.batch(step)["indices"]
        return (indices[:, 0, 0] + 8 * indices[:, 1, 0]).tolist()

    epoch = [number for step in range(5) for number in numbers(batches, step)]
    assert sorted(epoch) == list(range(20))
    second = [number for step in range(5, 10) for number in numbers(batches, step)]
    assert sorted(second) == list(range(20))
    assert second != epoch
    assert numbers(TokenBatches(tokens, 4, seed=3), 7) == numbers(batches, 7)
    halves = [TokenBatches(tokens, 4, seed=3, rank=rank, world_size=2) for rank in (0, 1)]
    assert numbers(halves[0], 7) + numbers(halves[1], 7) == numbers(batches, 7)
    with pytest.raises(ValueError, match="3 sequences cannot be shared by 2 processes"):
        TokenBatches(tokens, 3, world_size=2)


def test_the_recipe_is_one_and_tells_of_unseen_tokens(tmp_path):
    tokens = toy(tmp_path / "tokens", count=16)
    recipe = made()
    assert isinstance(recipe, Recipe)
    assert recipe.after_step(49) == {}
    recipe.validation, recipe.validate_every = tokens, 10
    assert recipe.after_step(8) == {}
    assert recipe.after_step(9) == {"val_bits": bits_per_code(recipe.model, tokens)}
    assert recipe.networks.training, "judging leaves training mode as it was"
    values = recipe.config_json()
    assert json.loads(json.dumps(values))["classes"] == ["even", "odd"]
    assert PriorConfig.from_json(json.loads(json.dumps(values))["config"]) == recipe.config


def test_sheets_show_the_batch_above_what_is_drawn(tmp_path):
    batch = batch_of(3)
    recipe = made()
    sheet = recipe.sample(batch)
    assert sheet.shape == (3, 32, 48)
    assert float(sheet[0, 0, 0]) == pytest.approx(int(batch["indices"][0, 0, 0]) / 7)
    recipe.decode = lambda indices: indices[:, :1, :1, None].expand(-1, 3, 5, 5) / 8
    assert recipe.sample(batch).shape == (3, 10, 15)


def test_weights_decay_and_what_is_looked_up_does_not():
    recipe = made()
    names = {id(value): name for name, value in recipe.model.named_parameters()}
    decayed, free = (
        {names[id(value)] for value in group["params"]} for group in recipe.parameter_groups()
    )
    assert decayed | free == set(names.values())
    assert {"trunk.blocks.0.mlp.0.weight", "to_code.weight"} <= decayed
    assert {"embedding.own", "bias", "positions", "slots", "class_embedding"} <= free
    assert not any(name.endswith("bias") or "norm" in name for name in decayed)
