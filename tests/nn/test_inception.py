import numpy as np
import pytest
import torch
from torch.nn import functional

from published_networks import hashed_pictures, hashed_state, published_output
from unflat.nn import FidInception, from_published, published_shapes


@pytest.fixture(scope="module")
def state():
    return hashed_state(published_shapes(FidInception))


@pytest.fixture(scope="module")
def network(state):
    return from_published(FidInception, state)


def test_layout_is_pytorch_fids():
    layout = published_output("inception")["layout"]
    ours = {name: list(shape) for name, shape in published_shapes(FidInception).items()}
    assert ours == layout
    assert ours["fc.weight"] == [1008, 2048]
    assert not any(name.startswith("AuxLogits") for name in ours)


def test_features_and_logits_are_what_pytorch_fid_answers(network):
    published = published_output("inception")
    features = network(hashed_pictures(2, 40, 56))
    expected = torch.tensor(published["features_every_8th"])
    assert expected.std(0).mean() > 0.01  # the two pictures differ
    torch.testing.assert_close(features[:, ::8], expected, rtol=1e-4, atol=1e-4)
    logits = network.logits(features)
    assert logits.shape == (2, 1008)
    expected = torch.tensor(published["logits_every_8th"])
    torch.testing.assert_close(logits[:, ::8], expected, rtol=1e-4, atol=1e-4)


def conv(state, x, name, padding=(0, 0), stride=1):
    """One convolution in float64, its normalization multiplied out."""
    get = {end: state[f"{name}.bn.{end}"].double() for end in ("weight", "bias")}
    mean, variance = (state[f"{name}.bn.running_{end}"].double() for end in ("mean", "var"))
    weight = state[f"{name}.conv.weight"].double()
    y = functional.conv2d(x, weight, stride=stride, padding=padding)
    scale = get["weight"] / (variance + 0.001).sqrt()
    y = y * scale[:, None, None] + (get["bias"] - mean * scale)[:, None, None]
    return y.clamp_min(0)


def slow_pool(x, reduce):
    """Windows of 3 around each position, without positions outside the picture."""
    a = x.numpy()
    rows, columns = a.shape[-2:]
    out = np.zeros_like(a)
    for i in range(rows):
        for j in range(columns):
            window = a[..., max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            out[..., i, j] = reduce(window, axis=(-2, -1))
    return torch.from_numpy(out)


@pytest.mark.parametrize(("block", "entering"), [("Mixed_7b", 1280), ("Mixed_7c", 2048)])
def test_last_blocks_pool_as_the_published_ones_do(network, state, block, entering):
    x = hashed_pictures(1, 5, 5 * entering).reshape(1, 3 * entering, 5, 5)[:, :entering]
    ours = network.get_submodule(block)(x)
    x = x.double()
    single = conv(state, x, f"{block}.branch3x3_1")
    double = conv(state, x, f"{block}.branch3x3dbl_1")
    double = conv(state, double, f"{block}.branch3x3dbl_2", (1, 1))
    pooled = slow_pool(x, np.max if block == "Mixed_7c" else np.mean)
    parts = [
        conv(state, x, f"{block}.branch1x1"),
        conv(state, single, f"{block}.branch3x3_2a", (0, 1)),
        conv(state, single, f"{block}.branch3x3_2b", (1, 0)),
        conv(state, double, f"{block}.branch3x3dbl_3a", (0, 1)),
        conv(state, double, f"{block}.branch3x3dbl_3b", (1, 0)),
        conv(state, pooled, f"{block}.branch_pool"),
    ]
    torch.testing.assert_close(ours.double(), torch.cat(parts, 1), rtol=1e-4, atol=1e-4)


def test_averages_leave_out_the_padding(network, state):
    x = hashed_pictures(1, 6, 6 * 192).reshape(1, 3 * 192, 6, 6)[:, :192]
    pooled = slow_pool(x.double(), np.mean)
    expected = conv(state, pooled, "Mixed_5b.branch_pool")
    ours = network.Mixed_5b(x)[:, -32:]
    torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-4)


def test_a_batch_is_its_pictures(network):
    pictures = hashed_pictures(2, 20, 20)
    both = network(pictures)
    torch.testing.assert_close(both[1:], network(pictures[1:]), rtol=1e-4, atol=1e-5)
