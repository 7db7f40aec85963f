import pytest
import torch
from torch import nn

from unflat.nn import from_published, published_shapes


def build():
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))


def state():
    drawn = {
        name: torch.rand(shape).half() + 0.5 for name, shape in published_shapes(build).items()
    }
    return {**drawn, "other.weight": torch.ones(1)}


def test_weights_are_copies_frozen_and_float32_and_norms_use_their_statistics():
    given = state()
    network = from_published(build, given)
    assert not network.training
    assert all(value.dtype == torch.float32 for value in network.parameters())
    assert not any(value.requires_grad for value in network.parameters())
    x = torch.rand(2, 3, 4, 4)
    before = network(x)
    for value in given.values():
        value.zero_()
    torch.testing.assert_close(network(x), before)
    torch.testing.assert_close(network(x)[:1], network(x[:1]))


def test_counters_of_norms_are_not_asked_for():
    assert "1.running_mean" in published_shapes(build)
    assert "1.num_batches_tracked" not in published_shapes(build)


def test_missing_or_misshapen_weights_are_named():
    given = state()
    del given["1.running_var"]
    with pytest.raises(ValueError, match=r"1\.running_var must be of shape \(2,\), got nothing"):
        from_published(build, given)
    given = {**state(), "0.bias": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"0\.bias must be of shape \(2,\), got \(3,\)"):
        from_published(build, given)
