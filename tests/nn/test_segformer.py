import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from unflat.nn.segformer import (
    MIX_SIZES,
    MapDecoder,
    MixBlock,
    MixMlp,
    MixTransformer,
    ReducedAttention,
    SegFormer,
)


def draw(*shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_attention_without_reduction_is_torchs_multihead_attention():
    torch.manual_seed(0)
    ours = ReducedAttention(12, heads=3).double()
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    cells = draw(2, 4, 5, 12)
    tokens = cells.flatten(1, 2)
    torch.testing.assert_close(
        ours(cells), theirs(tokens, tokens, tokens)[0].view_as(cells), rtol=0, atol=1e-12
    )


def test_reduced_attention_equals_slow_loops():
    """Over queries, heads and blocks of 2 x 2 cells; the last row, left over, answers nothing."""
    torch.manual_seed(0)
    attention = ReducedAttention(8, heads=2, reduction=2).double()
    assert attention.reduce is not None
    assert attention.reduce_norm is not None
    nn.init.normal_(attention.reduce_norm.weight)
    nn.init.normal_(attention.reduce_norm.bias)
    cells = draw(1, 5, 6, 8)
    plain = {name: value.detach().numpy() for name, value in attention.state_dict().items()}
    picture = cells[0].numpy()
    answering = []
    for row, column in np.ndindex(2, 3):
        block = picture[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]  # rows columns into
        mixed = np.einsum("yxi,oiyx->o", block, plain["reduce.weight"]) + plain["reduce.bias"]
        mixed = (mixed - mixed.mean()) / np.sqrt(mixed.var() + 1e-5)
        mixed = mixed * plain["reduce_norm.weight"] + plain["reduce_norm.bias"]
        answering.append(plain["key_value.weight"] @ mixed + plain["key_value.bias"])
    expected = np.zeros((5, 6, 8))
    for place in np.ndindex(5, 6):
        query = plain["query.weight"] @ picture[place] + plain["query.bias"]
        mixed = np.zeros(8)
        for own in (slice(0, 4), slice(4, 8)):
            scores = np.array([query[own] @ each[:8][own] / math.sqrt(4) for each in answering])
            shares = np.exp(scores) / np.exp(scores).sum()
            mixed[own] = sum(s * each[8:][own] for s, each in zip(shares, answering, strict=True))
        expected[place] = plain["out.weight"] @ mixed + plain["out.bias"]
    np.testing.assert_allclose(attention(cells)[0].detach().numpy(), expected, atol=1e-12)


def test_a_map_smaller_than_the_reduction_answers_as_one_cell():
    torch.manual_seed(0)
    attention = ReducedAttention(8, heads=2, reduction=4).double()
    cells = draw(2, 1, 3, 8)
    out = attention(cells)
    torch.testing.assert_close(out, out[:, :, :1].expand_as(out))
    below = functional.pad(cells, (0, 0, 0, 1, 0, 3))  # zeros beside and below change nothing
    torch.testing.assert_close(attention(below)[:, :1, :3], out)
    assert (attention(2 * cells) - out).abs().max() > 1e-3


def test_the_mlp_sees_eight_neighbors_and_zeros_beyond():
    torch.manual_seed(0)
    mlp = MixMlp(3, 6).double()
    cells = draw(2, 4, 5, 3)
    hidden = functional.pad(
        cells @ mlp.first.weight.T + mlp.first.bias, (0, 0, 1, 1, 1, 1)
    )  # zeros after the first layer, not before: this is what tells the border
    mixed = torch.zeros(2, 4, 5, 6, dtype=torch.float64) + mlp.neighbors.bias
    for row, column in np.ndindex(3, 3):
        shifted = hidden[:, row : row + 4, column : column + 5]
        mixed = mixed + shifted * mlp.neighbors.weight[:, 0, row, column]
    mixed = 0.5 * mixed * (1 + torch.erf(mixed / math.sqrt(2)))
    torch.testing.assert_close(mlp(cells), mixed @ mlp.last.weight.T + mlp.last.bias)


def test_a_block_is_passed_over_for_some_samples_while_training():
    torch.manual_seed(0)
    block = MixBlock(8, 2, 2, path_drop=0.3).double()
    one = draw(1, 4, 4, 8)
    many = one.expand(4000, -1, -1, -1)

    def norm(cells):
        spread = cells.var(-1, keepdim=True, unbiased=False)
        return (cells - cells.mean(-1, keepdim=True)) / (spread + 1e-6).sqrt()

    with torch.no_grad():
        block.eval()
        first = block.attention(norm(one))
        whole = one + first + block.mlp(norm(one + first))
        torch.testing.assert_close(block(one), whole)
        block.train()
        out = block(many)
        untouched = (out == one).flatten(1).all(1)
        without_first = (out - one - block.mlp(norm(one)) / 0.7).flatten(1).abs().amax(1) < 1e-9
    assert untouched.double().mean() == pytest.approx(0.3 * 0.3, abs=0.02)
    assert without_first.double().mean() == pytest.approx(0.3 * 0.7, abs=0.03)
    with torch.no_grad():
        block.mlp.last.weight.zero_()
        block.mlp.last.bias.zero_()
        mean = block(many).mean(0)
    torch.testing.assert_close(mean, (one + first)[0], rtol=0, atol=0.03 * float(first.abs().max()))


def test_the_last_block_is_passed_over_most():
    network = MixTransformer(replace(MIX_SIZES["tiny"], depths=(1, 2, 1, 1), path_drop=0.2))
    drops = [block.path_drop for stage in network.stages for block in stage.blocks]
    assert drops == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_maps_joined_before_they_are_enlarged_are_as_after():
    torch.manual_seed(0)
    decoder = MapDecoder((4, 5, 6, 7), width=8, out=3).double()
    sides = [(8, 12), (4, 6), (2, 3), (1, 2)]
    maps = [draw(2, 4 + i, *side, seed=i) for i, side in enumerate(sides)]
    large = []
    for project, features in zip(decoder.project, maps, strict=True):
        cells = project(features.movedim(1, -1)).movedim(-1, 1)
        large.insert(0, functional.interpolate(cells, (8, 12), mode="bilinear"))
    torch.testing.assert_close(decoder(maps), decoder.predict(decoder.fuse(torch.cat(large, 1))))


def test_a_shift_by_the_total_stride_shifts_features_where_no_border_is_near():
    """Without attention, which looks everywhere, all that is left sees only what is near."""
    torch.manual_seed(0)
    network = MixTransformer(MIX_SIZES["tiny"]).double()
    for stage in network.stages:
        for block in stage.blocks:
            nn.init.zeros_(block.attention.out.weight)
    stride = network.sizes.first_stride * 8
    image = draw(1, 3, 12 * stride, 12 * stride)
    here, there = network(image), network(image.roll((stride, -stride), (-2, -1)))
    for number, (a, b) in enumerate(zip(here, there, strict=True)):
        cells = 2 ** (3 - number)
        edge = 4 * cells
        shifted = a.roll((cells, -cells), (-2, -1))[..., edge:-edge, edge:-edge]
        torch.testing.assert_close(b[..., edge:-edge, edge:-edge], shifted)
        assert shifted.std() > 1e-2


def test_the_border_is_told_without_positions():
    """On an empty picture only the zeros beyond its border tell one cell from another."""
    torch.manual_seed(0)
    finest = MixTransformer(MIX_SIZES["tiny"])(torch.full((1, 3, 64, 64), 0.3))[0]
    assert (finest[..., 0, 0] - finest[..., 16, 16]).abs().max() > 1e-2


@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_any_sides(height: int, width: int):
    torch.manual_seed(0)
    network = SegFormer(MIX_SIZES["tiny"], width=16, out=5)
    out = network(torch.zeros(1, 3, height, width))
    assert out.shape == (1, 5, math.ceil(height / 2), math.ceil(width / 2))
    assert out.isfinite().all()


@pytest.mark.parametrize(
    ("name", "millions"),
    [("b0", 3.4), ("b1", 13.1), ("b2", 24.2), ("b3", 44.0), ("b4", 60.8), ("b5", 81.4)],
)
def test_sizes_are_the_papers(name: str, millions: float):
    """Table 1, parameters of the encoder."""
    with torch.device("meta"):
        network = MixTransformer(MIX_SIZES[name])
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.09)


def test_first_weights():
    torch.manual_seed(0)
    block = MixTransformer(MIX_SIZES["b0"]).stages[3].blocks[0]
    assert float(block.mlp.first.weight.detach().std()) == pytest.approx(0.02, rel=0.03)
    near = block.mlp.neighbors.weight.detach()
    assert float(near.std()) == pytest.approx(math.sqrt(2 / 9), rel=0.03)
    assert not block.mlp.first.bias.any()
    assert (block.mlp_norm.weight == 1).all()


def test_sizes_that_cannot_be_are_refused():
    for change in (
        {"heads": (3, 1, 1, 1)},
        {"depths": (1, 1, 0, 1)},
        {"path_drop": 1.0},
    ):
        with pytest.raises(ValueError, match=r"multiple of|four numbers|path_drop"):
            replace(MIX_SIZES["tiny"], **change)
