"""Adapters: nothing at first, then exactly W + (alpha / rank) B A, and nothing else learns."""

import pytest
import torch
from torch import nn

from unflat.nn.lora import LowRank, add_adapters, merge_adapters


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_q, self.to_k = nn.Linear(6, 8), nn.Linear(6, 8, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(8, 6), nn.Dropout(0.0)])

    def forward(self, x):
        return self.to_out[0](self.to_q(x) * self.to_k(x))


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(Attention(), Attention())


def test_an_adapter_is_the_formula():
    torch.manual_seed(1)
    adapter = LowRank(nn.Linear(5, 7), rank=3, alpha=6.0)
    x = torch.randn(4, 5)
    torch.testing.assert_close(adapter(x), adapter.layer(x), rtol=0, atol=0)
    nn.init.normal_(adapter.up.weight)
    whole = adapter.layer.weight + 2.0 * adapter.up.weight @ adapter.down.weight
    wanted = nn.functional.linear(x, whole, adapter.layer.bias)
    torch.testing.assert_close(adapter(x), wanted)
    assert (adapter(x) - adapter.layer(x)).abs().max() > 0.1


def test_adapters_change_nothing_until_they_learn_and_nothing_else_learns():
    plain, adapted = network(), network()
    learned = add_adapters(adapted, r"to_q|to_out\.0", rank=2, alpha=4.0)
    names = {
        f"{i}.{stem}.{end}.weight"
        for i in (0, 1)
        for stem in ("to_q", "to_out.0")
        for end in ("down", "up")
    }
    assert set(learned.state_dict()) == names
    x = torch.randn(3, 6)
    torch.testing.assert_close(adapted(x), plain(x), rtol=0, atol=0)
    adapted(x).square().sum().backward()
    asking = {id(each) for each in adapted.parameters() if each.requires_grad}
    assert asking == {id(each) for each in learned.parameters()}
    # B moves from the first step on, A once B is not zero
    grown = {name: bool(each.grad.any()) for name, each in learned.named_parameters()}
    assert all(has == name.endswith("up.weight") for name, has in grown.items())


def test_merged_is_unmerged():
    plain, adapted = network(), network()
    learned = add_adapters(adapted, r"to_q|to_out\.0", rank=2, alpha=4.0)
    for weight in learned.parameters():
        nn.init.normal_(weight)
    x = torch.randn(3, 6)
    before = plain(x)
    merge_adapters(plain, {**learned.state_dict(), "other.weight": torch.ones(1)}, scale=2.0)
    torch.testing.assert_close(plain(x), adapted(x), rtol=1e-5, atol=1e-4)
    assert (plain(x) - before).abs().max() > 0.5


def test_what_fits_no_layer_is_refused():
    with pytest.raises(ValueError, match="no linear layer's name ends with to_v"):
        add_adapters(network(), "to_v", rank=2, alpha=2.0)
    weights = {"0.to_q.down.weight": torch.ones(2, 5), "0.to_q.up.weight": torch.ones(8, 2)}
    with pytest.raises(ValueError, match=r"0\.to_q is no layer of \(8, 5\) weights"):
        merge_adapters(network(), weights, 1.0)
