import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from unflat.nn import Attention, Block, Transformer, sincos_positions


def made(seed=0, **changes) -> Transformer:
    torch.manual_seed(seed)
    sizes = {"width": 16, "depth": 2, "heads": 4, "residual_std": 0.3} | changes
    return Transformer(**sizes).double()


def tokens(seed=1, batch=2, n=6, width=16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, n, width, generator=generator, dtype=torch.float64)


def test_attention_equals_a_slow_loop_over_heads_and_tokens():
    torch.manual_seed(0)
    attention = Attention(12, heads=3).double()
    x = tokens(width=12, n=5)
    found = attention(x).detach().numpy()
    both = functional.linear(x, attention.query_key_value.weight, attention.query_key_value.bias)
    query, key, value = both.detach().numpy().reshape(2, 5, 3, 3, 4).transpose(2, 0, 3, 1, 4)
    for scene in range(2):
        mixed = np.zeros((5, 12))
        for head in range(3):
            for i in range(5):
                scores = np.array([query[scene, head, i] @ key[scene, head, j] for j in range(5)])
                shares = np.exp(scores / math.sqrt(4))
                shares /= shares.sum()
                mixed[i, 4 * head : 4 * head + 4] = shares @ value[scene, head]
        weight, bias = attention.out.weight.detach().numpy(), attention.out.bias.detach().numpy()
        np.testing.assert_allclose(found[scene], mixed @ weight.T + bias, atol=1e-12)


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        ("tanh", torch.tanh),
        ("silu", lambda x: x * torch.sigmoid(x)),
        ("gelu", lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))),
    ],
)
def test_a_block_is_pre_norm_attention_and_mlp(activation, formula):
    torch.manual_seed(0)
    block = Block(16, 4, mlp_ratio=3.0, activation=activation, residual_std=0.3).double()
    x = tokens()

    def norm(values):  # layer norm with its untrained weights 1 and 0
        centred = values - values.mean(-1, keepdim=True)
        return centred / (values.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()

    y = x + block.attention(norm(x))
    hidden = formula(norm(y) @ block.mlp[0].weight.T + block.mlp[0].bias)
    assert hidden.shape[-1] == 48
    expected = y + hidden @ block.mlp[2].weight.T + block.mlp[2].bias
    torch.testing.assert_close(block(x), expected, atol=1e-10, rtol=1e-10)
    assert (block(x) - x).abs().max() > 0.1


def test_without_positions_the_order_of_tokens_does_not_matter(generator):
    model, x = made(), tokens()
    order = torch.randperm(6, generator=generator)
    assert order.tolist() != list(range(6))
    torch.testing.assert_close(model(x)[:, order], model(x[:, order]), atol=1e-12, rtol=1e-10)
    positions = tokens(seed=5, batch=1)
    with_places = model(x[:, order] + positions)
    assert (with_places - model(x + positions)[:, order]).abs().max() > 0.1


def test_every_token_hears_every_other_and_no_other_scene():
    model, x = made(), tokens()
    before = model(x)
    changed = x.clone()
    changed[0, 3] = -changed[0, 3]
    after = model(changed)
    assert ((after - before)[0].abs().amax(-1) > 1e-4).all()
    assert torch.equal(after[1], before[1])


def test_an_untrained_stack_passes_its_input_through():
    """Small residual outputs: what comes out is the normalised input, nearly."""
    torch.manual_seed(0)
    x = tokens(width=64)
    model = Transformer(width=64, depth=4, heads=4).double()
    passed = functional.layer_norm(x, (64,))
    assert (model(x) - passed).std() < 0.15
    loud = Transformer(width=64, depth=4, heads=4, residual_std=0.2).double()
    assert (loud(x) - passed).std() > 0.5


def test_gradients_are_those_of_finite_differences():
    model = made(width=4, heads=2, depth=1)
    assert torch.autograd.gradcheck(model, (tokens(batch=1, n=3, width=4).requires_grad_(),))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width 10 is not a multiple of heads 4"):
        Attention(10, 4)


def test_sincos_positions_equal_a_slow_loop():
    side, width = 5, 12
    found = sincos_positions(side, width)
    for row in range(side):
        for column in range(side):
            expected = []
            for place in (row, column):
                angles = [place / 10000 ** (k / 3) for k in range(3)]
                expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            assert found[row * side + column].tolist() == pytest.approx(expected, abs=1e-6)


def test_sincos_positions_are_all_different_and_translate():
    positions = sincos_positions(8, 32).double()
    apart = (positions[:, None] - positions).norm(dim=-1) + 10 * torch.eye(64)
    assert apart.min() > 0.1
    # Inner products depend on the difference of places alone.
    grid = (positions @ positions.T).reshape(8, 8, 8, 8)
    torch.testing.assert_close(grid[1, 2, 3, 5], grid[4, 1, 6, 4], atol=1e-5, rtol=0)


def test_sincos_width_must_be_a_multiple_of_four():
    with pytest.raises(ValueError, match="width 10 is not a multiple of 4"):
        sincos_positions(4, 10)


def test_a_causal_stack_does_not_hear_what_comes_later():
    model, x = made(causal=True), tokens()
    before = model(x)
    changed = x.clone()
    changed[:, 3] = -changed[:, 3]
    after = model(changed)
    assert torch.equal(after[:, :3], before[:, :3])
    assert ((after - before)[:, 3:].abs().amax(-1) > 1e-4).all()


def test_causal_attention_is_attention_among_the_tokens_so_far():
    """The last output of a causal attention is that of a full one over the same tokens."""
    torch.manual_seed(0)
    causal = Attention(12, heads=3, causal=True).double()
    full = Attention(12, heads=3).double()
    full.load_state_dict(causal.state_dict())
    x = tokens(width=12, n=7)
    found = causal(x)
    for end in range(1, 8):
        torch.testing.assert_close(found[:, end - 1], full(x[:, :end])[:, -1])


@pytest.mark.parametrize("parts", [[1] * 9, [9], [4, 5], [3, 1, 4, 1], [1, 8]])
def test_a_cache_changes_nothing(parts):
    model, x = made(causal=True), tokens(n=9)
    caches = model.caches(9)
    found = torch.cat([model(part, caches) for part in x.split(parts, dim=1)], dim=1)
    torch.testing.assert_close(found, model(x), atol=1e-12, rtol=1e-10)
    with pytest.raises(ValueError, match="10 tokens do not fit into a cache of 9"):
        model(x[:, :1], caches)


def test_only_causal_attention_has_a_cache():
    model = made()
    with pytest.raises(ValueError, match="causal"):
        model(tokens(), model.caches(6))


def test_dropout_is_for_training_and_leaves_the_mean():
    model = made(dropout=0.3, depth=1)
    x = tokens(batch=1)
    model.eval()
    whole = model(x)
    assert torch.equal(whole, made(depth=1)(x))
    block = model.blocks[0].train()
    many = torch.stack([block(x) for _ in range(3000)])
    assert many.std(0).max() > 0.01
    change = model.blocks[0].eval()(x) - x  # the MLP sees dropped tokens, so roughly only
    torch.testing.assert_close(many.mean(0) - x, change, atol=0.05, rtol=0.2)
