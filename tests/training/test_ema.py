import torch

from unflat.training.ema import Ema


def test_average_follows_the_closed_form():
    """average_n = sum over k of w_k (1 - d_k) times the later decays, plus the start's share."""
    net = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.constant_(net.weight, 4.0)
    ema = Ema(net, 0.9)
    values = [1.0, -2.0, 3.0, 0.5]
    for step, value in enumerate(values):
        torch.nn.init.constant_(net.weight, value)
        ema.update(step)
    decays = [min(0.9, (1 + k) / (10 + k)) for k in range(4)]
    share, expected = 1.0, 0.0
    for value, decay in zip(reversed(values), reversed(decays), strict=True):
        expected += share * (1 - decay) * value
        share *= decay
    expected += share * 4.0
    assert torch.allclose(ema.state["weight"], torch.tensor([[expected]], dtype=torch.float64))


def test_buffers_are_followed():
    net = torch.nn.BatchNorm1d(2)
    ema = Ema(net, 0.99)
    net(torch.randn(8, 2))
    ema.update(0)
    assert torch.equal(ema.state["running_mean"], net.running_mean)
    assert int(ema.state["num_batches_tracked"]) == 1


def test_applied_gives_the_average_and_takes_it_back():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
    ema = Ema(net, 0.9)
    averaged = ema.state["0.weight"].clone()
    with torch.no_grad():
        net[0].weight.add_(1.0)
    trained = net[0].weight.detach().clone()
    with ema.applied():
        assert torch.equal(net[0].weight, averaged)
        assert not net[1].training
    assert torch.equal(net[0].weight, trained)
    assert net[1].training
