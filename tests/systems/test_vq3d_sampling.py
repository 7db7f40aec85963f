import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unflat.nn.halton import halton_order
from unflat.systems.vq3d import sampling


@pytest.mark.parametrize("side", [1, 3, 8, 16])
def test_halton_order_visits_every_cell_once(side):
    assert sorted(halton_order(side).tolist()) == list(range(side * side))


def test_halton_order_begins_as_computed_by_hand():
    """Points (1/2, 1/3), (1/4, 2/3), (3/4, 1/9), (1/8, 4/9) across and down, on 8 x 8 cells."""
    cells = [(2, 4), (5, 2), (0, 6), (3, 1)]
    assert halton_order(8)[:4].tolist() == [8 * row + column for row, column in cells]


def test_cells_drawn_together_lie_apart():
    """Eight in a row of the order: their nearest neighbours, round the border, beat random ones."""

    def nearest(order: torch.Tensor) -> float:
        places = torch.stack([order // 8, order % 8], dim=-1).view(8, 8, 2).float()
        gap = (places[:, :, None] - places[:, None]).abs()
        gap = torch.minimum(gap, 8 - gap).square().sum(-1).sqrt()
        return float((gap + 99 * torch.eye(8)).amin(-1).mean())

    generator = torch.Generator().manual_seed(0)
    random = [nearest(torch.randperm(64, generator=generator)) for _ in range(50)]
    assert nearest(halton_order(8)) > max(random)


def test_a_rolled_order_is_the_same_order_elsewhere():
    order = halton_order(4)
    ranks = sampling.rolled_ranks(order, 6, torch.Generator().manual_seed(0))
    own = torch.empty(16, dtype=torch.long)
    own[order] = torch.arange(16)
    rolled = [
        own.view(4, 4).roll((down, right), (0, 1)).flatten().tolist()
        for down in range(4)
        for right in range(4)
    ]
    assert all(sample.tolist() in rolled for sample in ranks)
    assert len({tuple(sample.tolist()) for sample in ranks}) > 1


@given(st.integers(1, 5), st.integers(1, 40), st.data())
def test_passes_are_shared_among_the_codes(codes, tokens, data):
    steps = data.draw(st.integers(codes, codes * tokens))
    counts = sampling.passes_per_code(steps, codes, tokens)
    assert sum(counts) == steps
    assert len(counts) == codes
    assert min(counts) >= 1
    assert max(counts) <= tokens
    assert counts == sorted(counts, reverse=True)


def test_coarser_codes_get_about_twice_as_many_passes():
    assert sampling.passes_per_code(16, 4, 64) == [9, 4, 2, 1]
    assert sampling.passes_per_code(4, 4, 64) == [1, 1, 1, 1]
    for steps in (3, 257):
        with pytest.raises(ValueError, match=f"steps {steps}: must be from 4 to 256"):
            sampling.passes_per_code(steps, 4, 64)


@given(st.integers(1, 64), st.lists(st.integers(0, 64), min_size=1, max_size=5))
def test_every_unknown_token_is_decided_once(passes, unknown):
    ends = torch.stack(sampling.decided_after(passes, torch.tensor(unknown)))
    assert ends.shape == (passes + 1, len(unknown))
    assert not ends[0].any()
    assert ends[-1].tolist() == unknown
    assert (ends.diff(dim=0) >= 0).all()
    for column, count in zip(ends.T, unknown, strict=True):
        if count >= passes:
            assert (column.diff() >= 1).all(), "a pass with nothing to decide is wasted"


def test_few_tokens_are_decided_at_first():
    """MaskGIT's cosine of 64 tokens in 4 passes: 64 (1 - cos(pi/8 k))."""
    ends = torch.stack(sampling.decided_after(4, torch.tensor([64])))[:, 0]
    expected = [round(64 * (1 - math.cos(math.pi / 8 * k))) for k in range(5)]
    assert ends.tolist() == expected == [0, 5, 19, 40, 64]


def test_first_ranked_counts_unknown_tokens_only():
    ranks = torch.tensor([[3, 0, 1, 2, 4]])
    unknown = torch.tensor([[True, False, True, True, True]])
    chosen = sampling.first_ranked(ranks, unknown, torch.tensor([1]), torch.tensor([3]))
    assert chosen.tolist() == [[True, False, False, True, False]]  # of 2, 3, 0, 4 the middle two


@given(st.lists(st.floats(-6, 6), min_size=2, max_size=12), st.integers(1, 14), st.floats(0.01, 1))
def test_filters_keep_the_likeliest(values, top_k, top_p):
    logits = torch.tensor(values, dtype=torch.float64)
    kept = sampling.filter_logits(logits, top_k=top_k).isfinite()
    assert int(kept.sum()) == min(top_k, len(values))
    assert logits[kept].min() >= (logits[~kept].max() if (~kept).any() else -math.inf)

    kept = sampling.filter_logits(logits, top_p=top_p).isfinite()
    shares = logits.softmax(0)
    assert float(shares[kept].sum()) >= top_p - 1e-9
    least = shares[kept].min()
    assert float(shares[kept].sum() - least) < top_p, "one less would have been enough"
    assert least >= (shares[~kept].max() if (~kept).any() else 0)


def test_filters_work_one_after_the_other():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    kept = sampling.filter_logits(logits, top_k=2, top_p=0.6).isfinite()
    assert kept.tolist() == [True, False, False, False]  # 0.625 of what top_k leaves
    assert torch.equal(sampling.filter_logits(logits), logits)
    for top_p, count in ((0.49, 1), (0.51, 2), (0.79, 2), (0.82, 3), (0.96, 4), (1.0, 4)):
        assert int(sampling.filter_logits(logits, top_p=top_p).isfinite().sum()) == count


def test_draws_follow_the_distribution():
    shares = torch.tensor([0.5, 0.3, 0.2, 0.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    count = 100_000
    codes = sampling.draw(shares.log().expand(count, 4), generator)
    found = torch.bincount(codes, minlength=4) / count
    # Four standard deviations of a share of 0.5.
    torch.testing.assert_close(found.double(), shares, atol=4 * 0.5 / math.sqrt(count), rtol=0)
    assert found[3] == 0


def test_guidance_moves_from_the_unconditional_over_the_conditional_logits():
    conditional, unconditional = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    for scale, expected in ((0.0, [0.0, 2.0]), (1.0, [1.0, 0.0]), (3.0, [3.0, -4.0])):
        found = sampling.guided(conditional, unconditional, scale)
        assert found.tolist() == [expected]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "temperature 0: must be above 0"),
        ({"temperature": math.nan}, "temperature nan"),
        ({"guidance_scale": -0.5}, "guidance_scale -0.5: must be at least 0"),
        ({"guidance_scale": math.inf}, "guidance_scale inf"),
        ({"top_k": 0}, "top_k 0: must be at least 1"),
        ({"top_p": 0.0}, "top_p 0: must be above 0 and at most 1"),
        ({"top_p": 1.5}, "top_p 1.5"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, message):
    usual = {"temperature": 1.0, "guidance_scale": 1.0, "top_k": None, "top_p": None}
    sampling.check_sampling(**usual)
    with pytest.raises(ValueError, match=message):
        sampling.check_sampling(**usual | changes)
