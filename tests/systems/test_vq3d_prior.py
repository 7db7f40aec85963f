import dataclasses
import math

import pytest
import torch
from torch import Tensor

from unflat.data.prepare import prepare_picture
from unflat.errors import UserError
from unflat.hub.registry import example_picture
from unflat.systems.vq3d import load
from unflat.systems.vq3d.prior import NO_CLASS, Prior, load_prior
from unflat.systems.vq3d.prior_config import PRESETS, PriorConfig, paper, small
from unflat.systems.vq3d.prior_recipe import masked_errors, raster_errors
from unflat.training import save_model

ORDERS = ("masked", "raster")


def made(order: str = "masked", seed: int = 0, **changes) -> Prior:
    """A prior of 3 x 3 tokens with loud, untrained weights, in float64."""
    torch.manual_seed(seed)
    config = PriorConfig(
        **{
            "grid": 3,
            "codebook_sizes": (12, 6),
            "levels": ((4, 3), (6,)),
            "classes": 2,
            "order": order,
            "width": 32,
            "heads": 2,
            "depth": 2,
            **changes,
        }
    )
    prior = Prior(config).double().eval()
    for weight in prior.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    return prior


def tokens(batch: int = 3, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randint(size, (batch, 9), generator=generator) for size in (12, 6)]
    return torch.stack(parts, dim=-1)


def labels(*values: int) -> Tensor:
    return torch.tensor(values)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_codes_with_a_number_in_common_share_its_vector():
    """Code 7 of levels (4, 3) is cells (3, 1), code 6 of levels (6,) its cell 6."""
    prior = made()
    table, own, numbers = prior.embedding(), prior.embedding.own, prior.embedding.numbers
    assert numbers is not None
    torch.testing.assert_close(table[7], own[7] + numbers[3] + numbers[4 + 1])
    torch.testing.assert_close(table[12 + 5], own[12 + 5] + numbers[4 + 3 + 5])
    plain = made(levels=())
    assert torch.equal(plain.embedding(), plain.embedding.own)


def test_levels_begin_along_a_smooth_curve():
    numbers = Prior(PriorConfig(levels=((32, 32),), codebook_sizes=(1024,))).embedding.numbers
    assert numbers is not None
    first = numbers[:32].detach()
    steps = (first[1:] - first[:-1]).norm(dim=1).mean()
    assert steps < 0.4 * torch.pdist(first).mean()


def test_what_the_network_is_told_is_a_sum_of_vectors():
    """Of places, classes and codes; of stand-ins where a code is unknown, or of what comes next."""
    prior, indices = made(), tokens(batch=2)
    indices[0, 3] = torch.tensor([5, -1])
    table = prior.embedding()
    found = prior._masked_inputs(table, indices, labels(1, NO_CLASS))
    common = prior.positions[3] + prior.class_embedding[1]
    torch.testing.assert_close(found[0, 3], common + table[5] + prior.slots[1])
    common = prior.positions[7] + prior.class_embedding[2]  # the last is no class
    first, second = indices[1, 7].tolist()
    torch.testing.assert_close(found[1, 7], common + table[first] + table[12 + second])

    prior = made("raster")
    table, flat = prior.embedding(), tokens(batch=2).flatten(1)
    found = prior._raster_inputs(table, flat[:, :5], labels(1, NO_CLASS))
    assert found.shape == (2, 6, 32)
    next_is = prior.positions[[0, 0, 1, 1, 2, 2]] + prior.slots[[0, 1, 0, 1, 0, 1]]
    torch.testing.assert_close(found[1, 0], prior.class_embedding[2] + next_is[0])
    for place in range(5):
        row = int(flat[1, place]) + 12 * (place % 2)
        torch.testing.assert_close(found[1, place + 1], table[row] + next_is[place + 1])


def test_a_raster_prior_hears_only_the_codes_before():
    prior, indices = made("raster"), tokens()
    before = prior.hidden(indices, labels(0, 1, NO_CLASS))
    assert before.shape == (3, 18, 32)
    for place in (0, 7, 16):
        changed = indices.flatten(1).clone()
        changed[:, place] = (changed[:, place] + 1) % 6
        after = prior.hidden(changed.view_as(indices), labels(0, 1, NO_CLASS))
        assert torch.equal(after[:, : place + 1], before[:, : place + 1])
        assert ((after - before)[:, place + 1 :].abs().amax(-1) > 1e-6).all()


def test_a_masked_prior_hears_what_is_known_and_nothing_else():
    prior, indices = made(), tokens()
    given = indices.clone()
    given[:, 4, 1] = -1
    before = prior.hidden(given, labels(0, 1, NO_CLASS))
    changed = given.clone()
    changed[:, 4, 0] = (changed[:, 4, 0] + 1) % 12
    after = prior.hidden(changed, labels(0, 1, NO_CLASS))
    assert ((after - before).abs().amax(-1) > 1e-6).all()
    other = prior.hidden(given, labels(1, 0, 0))
    assert ((other - before).abs().amax(-1) > 1e-6).all()


@pytest.mark.parametrize("order", ORDERS)
def test_samples_are_codes_and_a_matter_of_the_seed(order):
    prior = made(order)
    first, again, other = (
        prior.sample(labels(0, 1, 0, NO_CLASS), seeded(seed), steps=6) for seed in (0, 0, 1)
    )
    assert first.shape == (4, 9, 2)
    assert first.min() >= 0
    assert (first.amax((0, 1)) < torch.tensor([12, 6])).all()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("decoding", ["halton", "confidence"])
@pytest.mark.parametrize("steps", [2, 3, 7, 18])
def test_every_code_is_decided_exactly_once(steps, decoding, monkeypatch):
    prior, seen = made(), []
    plain = Prior.hidden

    def watched(self, indices, labels, table=None):
        seen.append(indices.clone())
        return plain(self, indices, labels, table)

    monkeypatch.setattr(Prior, "hidden", watched)
    found = prior.sample(labels(0, 1), seeded(), steps=steps, decoding=decoding)
    assert len(seen) == steps, "as many passes as were asked for"
    assert (seen[0] == -1).all()
    for before, after in zip(seen, [*seen[1:], found], strict=True):
        assert torch.equal(after[before >= 0], before[before >= 0]), "decided twice"
        gained = ((after >= 0) & (before < 0)).sum(-1)
        assert gained.sum() > 0
        assert gained.max() <= 1, "two codes of one token at once"
    assert (found >= 0).all()
    for state in seen:  # coarse before fine
        first, second = (state >= 0).unbind(-1)
        assert (first.all(1) | ~second.any(1)).all()


@pytest.mark.parametrize("order", ORDERS)
def test_what_is_given_stays(order):
    prior, truth = made(order), tokens(batch=4)
    keep = torch.rand(truth.shape, generator=seeded(3)) < 0.6
    keep[2] = False
    keep[3] = True
    given = torch.where(keep, truth, -1)
    for guidance_scale in (1.0, 2.0):
        found = prior.sample(
            labels(0, 1, 0, 1), seeded(), given=given, steps=5, guidance_scale=guidance_scale
        )
        assert torch.equal(found[keep], truth[keep])
        assert (found >= 0).all()
    assert (given[~keep] == -1).all(), "the caller's tensor is left alone"


def test_what_is_given_is_heard():
    """With the likeliest code each time, other known codes lead to other completions."""
    prior = made()
    given = torch.full((2, 9, 2), -1)
    given[:, :4] = tokens(batch=2)[:, :4]
    found = prior.sample(labels(0, 0), seeded(), given=given, steps=6, top_k=1)
    assert not torch.equal(found[0, 4:], found[1, 4:])


def test_the_likeliest_codes_of_a_raster_prior_are_those_of_a_slow_loop():
    """top_k = 1 with the cache, against whole forward passes with an argmax."""
    prior = made("raster")
    found = prior.sample(labels(1), seeded(), top_k=1)
    slow = torch.zeros(1, 18, dtype=torch.long)
    for place in range(18):
        hidden = prior.hidden(slow.view(1, 9, 2), labels(1))[:, place]
        slow[:, place] = prior.logits(hidden, place % 2).argmax(-1)
    assert torch.equal(found, slow.view(1, 9, 2))


def test_the_cache_changes_no_logits():
    prior, indices = made("raster"), tokens()
    whole = prior.hidden(indices, labels(0, 1, 0))
    table, flat = prior.embedding(), indices.flatten(1)
    caches = prior.trunk.caches(18)
    for place in range(18):
        inputs = prior._raster_inputs(table, flat[:, :place], labels(0, 1, 0), since=place)
        hidden = prior.trunk(inputs, caches)[:, -1]
        torch.testing.assert_close(
            prior.logits(hidden, place % 2), prior.logits(whole[:, place], place % 2)
        )


@pytest.mark.parametrize("order", ORDERS)
def test_guidance_of_one_is_the_conditional_prior(order, monkeypatch):
    """And of zero the unconditional one; both drawn with the same numbers."""
    prior = made(order)
    sample = {"steps": 6, "temperature": 4.0}
    conditional = prior.sample(labels(1, 1), seeded(), **sample)
    nearly = prior.sample(labels(1, 1), seeded(), guidance_scale=1 + 1e-12, **sample)
    assert torch.equal(conditional, nearly)
    without = prior.sample(labels(NO_CLASS, NO_CLASS), seeded(), **sample)
    assert torch.equal(without, prior.sample(labels(1, 0), seeded(), guidance_scale=0.0, **sample))
    assert not torch.equal(without, conditional)


def test_one_code_after_the_other_draws_from_the_joint_distribution():
    """All 36 pairs of a prior of one token: shares of samples against the chain rule."""
    prior = made(grid=1, codebook_sizes=(6, 6), levels=(), classes=0)
    pairs = torch.cartesian_prod(torch.arange(6), torch.arange(6))[:, None]  # 36 1 2
    nobody = torch.full((36,), NO_CLASS)
    with torch.no_grad():
        errors = sum(
            masked_errors(prior, pairs, nobody, torch.full((36, 1), depth)) for depth in (0, 1)
        )
    joint = (-errors[:, 0]).exp()
    assert float(joint.sum()) == pytest.approx(1)
    count = 20_000
    found = prior.sample(torch.full((count,), NO_CLASS), seeded(), steps=2)[:, 0]
    shares = torch.bincount(found[:, 0] * 6 + found[:, 1], minlength=36) / count
    assert (shares - joint).abs().max() < 4 * 0.5 / math.sqrt(count)
    independent = joint.view(6, 6).sum(1)[:, None] * joint.view(6, 6).sum(0)
    assert (joint - independent.flatten()).abs().max() > 0.02, "else this would show nothing"


def test_raster_errors_are_the_logarithm_of_a_distribution():
    prior = made("raster", grid=1, codebook_sizes=(6, 6), levels=(), classes=0)
    pairs = torch.cartesian_prod(torch.arange(6), torch.arange(6))[:, None]
    errors = raster_errors(prior, pairs, torch.full((36,), NO_CLASS)).detach()
    assert float((-errors.sum((1, 2))).exp().sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "temperature 0: must be above 0"),
        ({"steps": 1}, "steps 1: must be from 2 to 18"),
        ({"labels": [2]}, "labels must be from -1 to 1"),
        ({"given": torch.zeros(1, 9, 3, dtype=torch.long)}, r"given has shape \(1, 9, 3\)"),
        ({"given": torch.full((1, 9, 2), 6)}, "given holds codes outside"),
        ({"given": torch.full((1, 9, 2), -2)}, "given holds codes outside"),
    ],
)
def test_what_cannot_be_sampled_is_refused(changes, message):
    changes = dict(changes)
    names = torch.tensor(changes.pop("labels", [0]))
    with pytest.raises(ValueError, match=message):
        made().sample(names, seeded(), **changes)


def test_sampling_leaves_training_mode_as_it_was():
    prior = made(dropout=0.5).train()
    first = prior.sample(labels(0), seeded(), steps=4)
    assert prior.training
    assert torch.equal(first, prior.eval().sample(labels(0), seeded(), steps=4)), "no dropout"
    assert not prior.training


def test_an_untrained_prior_knows_frequencies():
    prior = Prior(made().config)
    indices = tokens(batch=400) // 2  # upper halves never occur
    prior.start_from_counts(indices)
    shares = prior.logits(torch.zeros(1, 32), 0).softmax(-1)[0]
    counts = torch.bincount(indices[..., 0].flatten(), minlength=12) + 0.5
    torch.testing.assert_close(shares, counts / counts.sum(), atol=1e-6, rtol=1e-4)


def test_a_model_file_gives_the_prior_back(tmp_path):
    prior = made().float()
    prior.classes, prior.fingerprint, prior.autoencoder = ["cat", "dog"], "abc", "vq3d-small"
    header = {
        "system": "vq3d-prior",
        "config": dataclasses.asdict(prior.config),
        "classes": prior.classes,
        "fingerprint": "abc",
        "autoencoder": "vq3d-small",
    }
    path = tmp_path / "model.safetensors"
    save_model(path, prior, header, dtype="float32")
    found = load_prior(path)
    assert found.config == prior.config
    assert found.classes == ["cat", "dog"]
    assert (found.fingerprint, found.autoencoder) == ("abc", "vq3d-small")
    for seed in (0, 1):
        drawn = prior.sample(labels(0, 1), seeded(seed), steps=4)
        assert torch.equal(found.sample(labels(0, 1), seeded(seed), steps=4), drawn)

    save_model(path, prior, {**header, "system": "vq3d"})
    with pytest.raises(UserError, match="is a model of vq3d, not of vq3d-prior; give a prior"):
        load_prior(path)
    save_model(path, prior, {**header, "config": {**header["config"], "width": 64}})
    with pytest.raises(UserError, match="does not fit this version of vq3d-prior"):
        load_prior(path)


def test_sizes_of_the_presets():
    def count(config: PriorConfig) -> int:
        with torch.device("meta"):
            return sum(weight.numel() for weight in Prior(config).parameters())

    assert count(dataclasses.replace(small(), classes=64)) < 4.9e6, "8 bits of it are to fit 5 MB"
    # Twelve times width squared in each of 24 blocks: 679 M, and the embedding.
    blocks = 12 * 24 * 1536**2
    assert blocks < count(paper()) < 1.05 * blocks
    for preset in PRESETS.values():
        assert PriorConfig.from_json(dataclasses.asdict(preset())) == preset()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebook_sizes": ()}, "at least 2 each"),
        ({"codebook_sizes": (12, 5)}, "do not multiply to codebook_sizes"),
        ({"heads": 5}, "width 32 is not a multiple of heads 5"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"label_dropout": -0.1}, r"label_dropout must be in \[0, 1\)"),
    ],
)
def test_configs_that_fit_nothing_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        made(**changes)


def test_class_names_must_be_as_many_as_classes():
    with pytest.raises(ValueError, match="1 class names for 2 classes"):
        Prior(made().config, ["cat"])


def test_the_bundled_prior_tells_a_photo_from_its_tokens_in_another_order():
    """Half of each slot known. A prior that knew frequencies alone would find both alike."""
    model, prior = load("vq3d-small"), load_prior("vq3d-prior")
    picture = prepare_picture(example_picture(), 64).model_image[None]
    indices = model.encode(picture).quantized.indices
    shuffled = indices[:, torch.randperm(64, generator=torch.Generator().manual_seed(0))]
    labels = torch.tensor([NO_CLASS])
    bits = []
    for codes in (indices, shuffled):
        parts = []
        for slot in range(4):
            depths = slot + (torch.arange(64)[None] % 2)
            errors = masked_errors(prior, codes, labels, depths)
            parts.append(errors[depths == slot].detach().mean() / math.log(2))
        bits.append(float(torch.stack(parts).mean()))
    assert bits[0] < 4  # of 10
    assert bits[1] > bits[0] + 1
