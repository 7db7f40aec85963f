import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from unflat.nn import FiniteScalarQuantizer, VectorQuantizer, code_usage

MIXED = [(8, 5, 5, 5), (3,), (16, 2)]


def every_index(quantizer) -> torch.Tensor:
    """All integers of each code, `1 n codes`; shorter codes begin again."""
    longest = max(quantizer.codebook_sizes)
    columns = [torch.arange(longest) % size for size in quantizer.codebook_sizes]
    return torch.stack(columns, dim=-1)[None]


# Finite scalar quantisation


def test_fsq_sizes_and_bits():
    fsq = FiniteScalarQuantizer(MIXED)
    assert fsq.dim == 7
    assert fsq.codebook_sizes == (1000, 3, 32)
    assert fsq.bits == pytest.approx(math.log2(1000 * 3 * 32))


def test_fsq_every_code_survives_the_way_there_and_back():
    fsq = FiniteScalarQuantizer(MIXED)
    indices = every_index(fsq)
    tokens = fsq.decode(indices)
    assert tokens.abs().max() < 1
    out = fsq(tokens.atanh())
    assert torch.equal(out.indices, indices)
    torch.testing.assert_close(out.tokens, tokens, atol=1e-6, rtol=0)
    assert out.loss.item() == 0


def test_fsq_packing_is_one_to_one():
    """Every integer of a code is a different vector, and together they are the whole grid."""
    fsq = FiniteScalarQuantizer([(4, 3, 5)])
    vectors = {tuple(v) for v in fsq.decode(torch.arange(60)[None, :, None])[0].tolist()}
    middles = [[(2 * cell + 1) / n - 1 for cell in range(n)] for n in (4, 3, 5)]
    grid = {tuple(torch.tensor(place).tolist()) for place in itertools.product(*middles)}
    assert len(vectors) == 60
    for vector in vectors:
        assert min(math.dist(vector, place) for place in grid) < 1e-6


def test_fsq_first_number_counts_fastest():
    """The paper's basis: 1, then the product of the levels before."""
    fsq = FiniteScalarQuantizer([(4, 3, 5), (2, 7)])
    cells = torch.tensor([3, 1, 4, 1, 6])
    tokens = (2 * cells + 1) / torch.tensor([4, 3, 5, 2, 7]) - 1
    indices = fsq(tokens.atanh()[None, None]).indices
    assert indices.tolist() == [[[3 + 4 * 1 + 12 * 4, 1 + 2 * 6]]]


@given(st.lists(st.floats(-6, 6), min_size=7, max_size=7))
def test_fsq_takes_the_middle_of_the_cell_that_holds_the_number(numbers):
    fsq = FiniteScalarQuantizer(MIXED)
    tokens = torch.tensor(numbers, dtype=torch.float64)
    found = fsq(tokens[None, None]).tokens[0, 0]
    for value, middle, levels in zip(
        tokens.tanh().tolist(), found.tolist(), fsq.levels, strict=True
    ):
        n = int(levels)
        middles = [(2 * cell + 1) / n - 1 for cell in range(n)]
        assert min(abs(middle - m) for m in middles) < 1e-6  # middles are made in float32
        assert abs(value - middle) <= 1 / n + 1e-6


@given(st.integers(0, 1000))
def test_fsq_is_the_papers_rounding_with_even_cells(seed):
    """bound, round, pack as printed (2309.15505, appendix), its half-width (L-1)/2 made L/2."""
    levels = np.array([8, 5, 6, 3])
    z = 2 * np.random.default_rng(seed).standard_normal((40, 4))
    offset = np.where(levels % 2 == 0, 0.5, 0.0)
    rounded = np.round(np.tanh(z) * levels / 2 - offset)
    codes = rounded + levels // 2
    basis = np.concatenate([[1], np.cumprod(levels[:-1])])
    expected = (codes * basis).sum(-1).astype(int)
    out = FiniteScalarQuantizer([tuple(levels.tolist())])(torch.from_numpy(z)[None])
    assert out.indices[0, :, 0].tolist() == expected.tolist()


def test_fsq_cells_are_equally_likely_for_even_input():
    fsq = FiniteScalarQuantizer([(5,), (4,)])
    even = torch.linspace(-1, 1, 20_001, dtype=torch.float64)[1:-1]
    out = fsq(even.atanh()[None, :, None].expand(1, -1, 2))
    for slot, n in enumerate((5, 4)):
        counts = torch.bincount(out.indices[0, :, slot], minlength=n)
        assert (counts - 19_999 / n).abs().max() <= 2


def test_fsq_gradient_is_that_of_tanh():
    fsq = FiniteScalarQuantizer([(4, 3)])
    tokens = torch.tensor([[[0.3, -1.2], [2.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(fsq(tokens).tokens.sum(), tokens)
    torch.testing.assert_close(grad, 1 - tokens.tanh().square())


@pytest.mark.parametrize("rounding", [0.0, 0.25, 1.0])
def test_fsq_rounding_mixes_the_bounded_and_the_rounded(rounding):
    fsq = FiniteScalarQuantizer([(4, 3)])
    tokens = torch.tensor([[[0.3, -1.2]]], dtype=torch.float64)
    rounded = fsq(tokens).tokens
    found = fsq(tokens, rounding).tokens
    expected = (1 - rounding) * tokens.tanh() + rounding * rounded
    torch.testing.assert_close(found, expected)


def test_fsq_extremes_stay_in_the_outer_cells():
    fsq = FiniteScalarQuantizer([(8, 5)])
    far = torch.tensor([[[1e4, -1e4], [-1e4, 1e4]]])
    out = fsq(far)
    assert out.indices.flatten().tolist() == [7, 8 * 4]
    torch.testing.assert_close(out.tokens, torch.tensor([[[0.875, -0.8], [-0.875, 0.8]]]))


@pytest.mark.parametrize("levels", [[], [(1, 4)], [(4,), (0,)]])
def test_fsq_needs_two_levels(levels):
    with pytest.raises(ValueError, match="at least 2 levels"):
        FiniteScalarQuantizer(levels)


# Vector quantisation


def made(codes=11, code_dim=4, codes_per_token=3, seed=0) -> VectorQuantizer:
    torch.manual_seed(seed)
    return VectorQuantizer(codes, code_dim, codes_per_token).double()


def some_tokens(seed=1, batch=2, n=5, dim=12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, n, dim, generator=generator, dtype=torch.float64)


def test_vq_takes_the_nearest_code_on_the_sphere():
    vq, tokens = made(), some_tokens()
    with torch.no_grad():
        vq.table.mul_(torch.linspace(0.2, 5, 11)[:, None])  # its lengths must not matter
    out = vq(tokens)
    table = vq.table.detach().numpy()
    table = table / np.linalg.norm(table, axis=-1, keepdims=True)
    for scene, place, slot in itertools.product(range(2), range(5), range(3)):
        vector = tokens[scene, place, 4 * slot : 4 * slot + 4].numpy()
        vector = vector / np.linalg.norm(vector)
        nearest = int(np.argmin([np.linalg.norm(vector - code) for code in table]))
        assert out.indices[scene, place, slot].item() == nearest
        found = out.tokens[scene, place, 4 * slot : 4 * slot + 4].detach().numpy()
        np.testing.assert_allclose(found, table[nearest], atol=1e-12)
    assert out.indices.unique().numel() > 3


def test_vq_gives_unit_vectors_and_decodes_its_own_indices():
    vq = made()
    out = vq(some_tokens())
    norms = out.tokens.unflatten(-1, (3, 4)).norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    torch.testing.assert_close(vq.decode(out.indices), out.tokens)
    again = vq(vq.decode(every_index(vq).expand(1, 11, 3)))
    assert torch.equal(again.indices, every_index(vq))
    assert vq.bits == pytest.approx(3 * math.log2(11))


def test_vq_loss_is_the_formula():
    """Means over all elements of |e - z|^2, once for the codes, 0.25 times for the tokens."""
    vq, tokens = made(), some_tokens()
    out = vq(tokens)
    vectors = functional.normalize(tokens.unflatten(-1, (3, 4)), dim=-1)
    square = (out.tokens.unflatten(-1, (3, 4)) - vectors).square().mean()
    torch.testing.assert_close(out.loss, 1.25 * square)
    loud = VectorQuantizer(11, 4, 3, commitment=2.0).double()
    loud.load_state_dict(vq.state_dict())
    torch.testing.assert_close(loud(tokens).loss, 3.0 * square)


def test_vq_stop_gradients_are_the_right_way_round():
    """The first term moves the codes to the tokens, the second the tokens to the codes."""
    vq, tokens = made(codes_per_token=1), some_tokens(dim=4).requires_grad_()
    out = vq(tokens)
    to_tokens, to_table = torch.autograd.grad(out.loss, (tokens, vq.table))

    fixed_codes = functional.normalize(vq.table, dim=-1).detach()[out.indices[..., 0]]
    vectors = functional.normalize(tokens, dim=-1)
    (expected,) = torch.autograd.grad(0.25 * (vectors - fixed_codes).square().mean(), tokens)
    torch.testing.assert_close(to_tokens, expected)

    codes = functional.normalize(vq.table, dim=-1)[out.indices[..., 0]]
    fixed = functional.normalize(tokens, dim=-1).detach()
    (expected,) = torch.autograd.grad((codes - fixed).square().mean(), vq.table)
    torch.testing.assert_close(to_table, expected)
    assert to_tokens.abs().max() > 0
    assert to_table.abs().max() > 0


def test_vq_passes_the_decoders_gradient_to_the_tokens_and_not_to_the_table():
    vq, tokens = made(codes_per_token=1), some_tokens(dim=4).requires_grad_()
    wanted = some_tokens(seed=9, dim=4)
    out = (vq(tokens).tokens * wanted).sum()
    to_tokens, to_table = torch.autograd.grad(out, (tokens, vq.table), allow_unused=True)
    straight = (functional.normalize(tokens, dim=-1) * wanted).sum()
    (expected,) = torch.autograd.grad(straight, tokens)
    torch.testing.assert_close(to_tokens, expected)
    assert to_table is None


@pytest.mark.parametrize("rounding", [0.0, 0.5])
def test_vq_rounding_mixes_tokens_and_codes_and_fades_the_loss(rounding):
    vq, tokens = made(), some_tokens()
    whole, part = vq(tokens), vq(tokens, rounding)
    vectors = functional.normalize(tokens.unflatten(-1, (3, 4)), dim=-1).flatten(-2)
    torch.testing.assert_close(part.tokens, (1 - rounding) * vectors + rounding * whole.tokens)
    torch.testing.assert_close(part.loss, rounding * whole.loss)


def test_dead_codes_come_back_as_recent_tokens(generator):
    vq = made(codes=16, codes_per_token=1).train()
    tokens = vq.decode(torch.tensor([[[3], [5]]])).repeat(4, 20, 1)
    tokens = tokens + 0.02 * some_tokens(batch=4, n=40, dim=4)
    before = vq.table.detach().clone()
    assert vq.restart_dead(generator) == 0, "nothing is known yet"
    for _ in range(250):
        vq(tokens)
    assert vq.restart_dead(generator) == 14
    kept = torch.tensor([3, 5])
    assert torch.equal(vq.table[kept], before[kept])
    revived = torch.ones(16, dtype=torch.bool)
    revived[kept] = False
    seen = functional.normalize(tokens.reshape(-1, 4), dim=-1)
    apart = (vq.table[revived][:, None] - seen).norm(dim=-1).amin(-1)
    assert apart.max() < 1e-12, "each is one of the tokens seen last"
    assert vq.restart_dead(generator) == 0, "they have a while to prove themselves"
    assert vq(tokens).indices.unique().numel() > 5


def test_codes_in_even_use_are_never_restarted(generator):
    vq = made(codes=8, codes_per_token=1).train()
    tokens = vq.decode(torch.arange(8)[None, :, None])
    for _ in range(300):
        vq(tokens)
    torch.testing.assert_close(vq.recent_use, torch.ones_like(vq.recent_use))
    assert vq.restart_dead(generator) == 0


def test_looking_is_not_using(generator):
    """In evaluation nothing is remembered."""
    vq = made(codes=8, codes_per_token=1).eval()
    before = {name: value.clone() for name, value in vq.state_dict().items()}
    for _ in range(20):
        vq(some_tokens(dim=4))
    assert all(torch.equal(vq.state_dict()[name], value) for name, value in before.items())
    assert len(vq.recent_inputs) == 0


# Usage


def test_usage_and_perplexity_have_closed_forms():
    half = code_usage(torch.arange(8)[:, None].repeat(3, 1), (16,))
    assert half.usage == pytest.approx(0.5)
    assert half.perplexity == pytest.approx(8)
    one = code_usage(torch.full((2, 5, 1), 7), (16,))
    assert one.usage == pytest.approx(1 / 16)
    assert one.perplexity == pytest.approx(1)
    uneven = code_usage(torch.tensor([[0], [0], [0], [1]]), (4,))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert uneven.perplexity == pytest.approx(math.exp(entropy))


def test_usage_is_the_mean_over_a_tokens_codes():
    indices = torch.stack([torch.arange(10), torch.zeros(10, dtype=torch.long)], dim=-1)
    found = code_usage(indices.reshape(2, 5, 2), (10, 4))
    assert found.usage == pytest.approx((1 + 1 / 4) / 2)
    assert found.perplexity == pytest.approx((10 + 1) / 2)


# Learning


def autoencoder_usage(restarts: bool, steps: int = 300) -> tuple[float, float]:
    """Usage of 32 codes, and error, of a tiny autoencoder on 32 clusters."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(32, 16, generator=generator)
    encoder, decoder = torch.nn.Linear(16, 8), torch.nn.Linear(8, 16)
    torch.nn.init.constant_(encoder.bias, 8.0)  # all tokens begin in one corner of the sphere
    vq = VectorQuantizer(32, 8)
    learned = [*encoder.parameters(), *decoder.parameters(), *vq.parameters()]
    optimizer = torch.optim.Adam(learned, lr=5e-3)

    def batch(count):
        which = torch.randint(32, (count,), generator=generator)
        return (centres[which] + 0.05 * torch.randn(count, 16, generator=generator))[None]

    for step in range(steps):
        x = batch(256)
        out = vq(encoder(x))
        loss = functional.mse_loss(decoder(out.tokens), x) + out.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if restarts and step % 20 == 19 and step < steps - 100:
            vq.restart_dead(generator, threshold=0.7)
    with torch.no_grad():
        x = batch(2000)
        out = vq.eval()(encoder(x))
        error = functional.mse_loss(decoder(out.tokens), x).item()
    return code_usage(out.indices, (32,)).usage, error


def test_with_restarts_a_codebook_is_used_and_without_it_collapses():
    used, error = autoencoder_usage(restarts=True)
    collapsed, error_without = autoencoder_usage(restarts=False)
    assert used > 0.9
    assert collapsed < 0.3
    assert error < 0.6 * error_without
