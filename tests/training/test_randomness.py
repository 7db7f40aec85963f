import pytest
import torch

from unflat.training import rand_per_sample, randn_per_sample
from unflat.training.randomness import (
    first_samples,
    split_batch,
    step_generator,
    step_seed,
    with_position,
)


@pytest.mark.parametrize("draw", [rand_per_sample, randn_per_sample])
@pytest.mark.parametrize(("processes", "parts"), [(1, 1), (2, 1), (2, 3), (1, 6)])
def test_numbers_of_a_sample_do_not_depend_on_who_computes_it(draw, processes, parts):
    x = torch.arange(12.0)[:, None]
    whole = draw(with_position({"x": x}, 0, 1), (3, 2), step_generator(0, 7))
    pieces = []
    for rank in range(processes):
        share = x.chunk(processes)[rank]
        batch = with_position({"x": share}, rank, processes)
        pieces += [draw(part, (3, 2), step_generator(0, 7)) for part in split_batch(batch, parts)]
    assert torch.equal(torch.cat(pieces), whole)
    assert len(whole.unique()) == whole.numel()


def test_seeds_differ_by_seed_step_and_stream():
    seeds = {step_seed(s, n, t) for s in range(5) for n in range(20) for t in ("", "a", "b")}
    assert len(seeds) == 300
    assert step_seed(3, 4) == step_seed(3, 4)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_recipe_called_by_hand_has_the_whole_batch():
    batch = {"x": torch.zeros(5, 1)}
    assert rand_per_sample(batch, (2,), step_generator(0, 0)).shape == (5, 2)


def test_first_samples_and_parts_keep_scalars():
    batch = with_position({"x": torch.zeros(6, 1)}, 0, 1)
    assert len(first_samples(batch, 4)["x"]) == 4
    assert int(first_samples(batch, 4)["batch_size"]) == 6
    assert [int(part["position"][0]) for part in split_batch(batch, 3)] == [0, 2, 4]


def test_a_batch_without_an_axis_is_refused():
    with pytest.raises(ValueError, match="no tensor with a batch axis"):
        with_position({"scale": torch.tensor(1.0)}, 0, 1)
