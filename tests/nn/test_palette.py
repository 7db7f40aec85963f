"""Colours of an object: their range, what they depend on, and the solve that the page promises."""

import math

import torch

from unflat.nn import PaletteNetwork


def slow(network: PaletteNetwork, style: torch.Tensor) -> torch.Tensor:
    """One object, one unit at a time where it matters: norms by hand, no shared code."""

    def linear(layer, x, bias=True):
        made = layer.weight @ x / math.sqrt(layer.weight.shape[1])
        return made + layer.bias if bias else made

    x = network.constant
    for pair in ((0, 1), (2, 3)):
        h = x
        for number in pair:
            layer = network.layers[number]
            h = linear(layer.linear, h, bias=False)
            h = (h - h.mean()) / torch.sqrt(((h - h.mean()) ** 2).mean() + 1e-5)
            h = h + linear(layer.scale, style) * h + linear(layer.shift, style)
            h = torch.where(h > 0, h, 0.2 * h)
        x = (x + h) / math.sqrt(2)
    x = linear(network.last, x)
    raw = linear(network.out, torch.where(x > 0, x, 0.2 * x))
    return (2.004 / (1 + torch.exp(-raw)) - 1.002).reshape(-1, 3) / 2 + 0.5


def filled(style_dim=6, colors=4, width=None) -> PaletteNetwork:
    torch.manual_seed(0)
    network = PaletteNetwork(style_dim, colors, width=width).double()
    for weight in network.parameters():
        torch.nn.init.normal_(weight)
    return network


def test_it_is_the_formula() -> None:
    network = filled(width=9)
    style = torch.randn(3, 6, dtype=torch.float64)
    expected = torch.stack([slow(network, one) for one in style])
    torch.testing.assert_close(network(style), expected)
    assert filled()(style).shape == (3, 4, 3)


def test_black_and_white_are_reached_and_hardly_passed() -> None:
    network = filled()
    with torch.no_grad():
        network.out.bias.copy_(torch.tensor([40.0, -40.0, 0.0] * 4))
        network.out.weight.zero_()
    colors = network(torch.zeros(1, 6, dtype=torch.float64))[0]
    torch.testing.assert_close(colors, colors.new_tensor([[1.001, -0.001, 0.5]] * 4))


def test_colors_that_fit_a_picture_need_one_solve() -> None:
    network = filled()
    colors = network(torch.randn(1, 6, dtype=torch.float64))[0]
    choices = torch.randn(50, 4, dtype=torch.float64).softmax(1) * torch.rand(50, 1).double()
    light = 1 - choices.sum(1, keepdim=True)
    picture = choices @ colors + light * 0.5
    wanted = choices.T @ (picture - light * 0.5)
    torch.testing.assert_close(torch.linalg.solve(choices.T @ choices, wanted), colors)
