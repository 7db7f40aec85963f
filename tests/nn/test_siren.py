import math

import numpy as np
import pytest
import torch
from torch import nn

from unflat.nn.siren import FilmLayer, FilmMapping, FilmSiren


def weights(layer: nn.Linear) -> tuple[np.ndarray, np.ndarray]:
    bias = layer.bias.detach().double().numpy()
    return layer.weight.detach().double().numpy(), bias


def tiny(seed: int = 0, **options) -> FilmSiren:
    torch.manual_seed(seed)
    return FilmSiren(width=8, depth=3, out=2, **options)


def some_film(network: FilmSiren, batch: int, generator: torch.Generator) -> torch.Tensor:
    return 0.5 * torch.randn(batch, network.film_layers, 2, network.width, generator=generator)


def test_the_network_is_the_formula(generator):
    """Point by point in numpy, float64: sin((15 gamma + 30) (W x + b) + beta), layer by layer."""
    network = tiny().double()
    film = some_film(network, 2, generator).double()
    points = (2 * torch.rand(2, 5, 3, generator=generator) - 1).double()
    directions = nn.functional.normalize(torch.randn(2, 5, 3, generator=generator).double(), dim=-1)
    raw, color = network(points, film, directions)
    torch.testing.assert_close(network.raw(points, film), raw)
    for b in range(2):
        for p in range(5):
            x = points[b, p].numpy()
            for number, layer in enumerate(network.layers):
                assert isinstance(layer, FilmLayer)
                weight, bias = weights(layer.linear)
                gamma, beta = film[b, number].numpy()
                x = np.sin((15 * gamma + 30) * (weight @ x + bias) + beta)
            weight, bias = weights(network.to_raw)
            assert float(raw[b, p].detach()) == pytest.approx(
                float((weight @ x + bias)[0]), abs=1e-11
            )
            weight, bias = weights(network.color_layer.linear)
            x = np.concatenate([directions[b, p].numpy(), x])
            gamma, beta = film[b, 3].numpy()
            x = np.sin((15 * gamma + 30) * (weight @ x + bias) + beta)
            weight, bias = weights(network.to_color)
            expected = 1 / (1 + np.exp(-(weight @ x + bias)))
            np.testing.assert_allclose(color[b, p].detach().numpy(), expected, atol=1e-11)


def test_first_weights_are_pi_gan_s():
    torch.manual_seed(0)
    network = FilmSiren(width=64, depth=3)
    hidden, wide = math.sqrt(6 / 64) / 25, math.sqrt(6 / 67) / 25
    layers = [layer.linear for layer in network.layers if isinstance(layer, FilmLayer)]
    expected = [(layers[0], 1 / 3), (layers[1], hidden), (layers[2], hidden)]
    expected += [(network.to_raw, hidden), (network.to_color, hidden)]
    expected += [(network.color_layer.linear, wide)]
    for layer, bound in expected:
        largest = float(layer.weight.detach().abs().max())
        assert 0.9 * bound < largest <= bound
        spread = float(layer.weight.detach().std())
        assert spread == pytest.approx(bound / math.sqrt(3), rel=0.15), "uniform"
    mapping = FilmMapping(256, layers=2, width=64)
    gain = math.sqrt(2 / (1 + 0.2**2))
    for layer in mapping.layers:
        assert isinstance(layer, nn.Linear)
        assert float(layer.weight.detach().std()) == pytest.approx(gain / 16, rel=0.03)
    assert float(mapping.last.weight.detach().std()) == pytest.approx(gain / 64, rel=0.03)


@torch.no_grad()
def test_sines_keep_their_spread_through_all_layers(generator):
    """Half the square of a sine, layer after layer: what SIREN's start is for."""
    torch.manual_seed(0)
    network, mapping = FilmSiren(width=128, depth=8), FilmMapping(64, 9, 128, hidden=64)
    film = mapping(torch.randn(4, 64, generator=generator))
    features = 2 * torch.rand(4, 500, 3, generator=generator) - 1
    for number, layer in enumerate(network.layers):
        features = layer(features, film[:, number])
        assert float(features.square().mean()) == pytest.approx(0.5, abs=0.1)


def test_the_mapping_is_four_layers_and_orders_gamma_before_beta(generator):
    torch.manual_seed(0)
    mapping = FilmMapping(5, layers=3, width=4, hidden=6).double()
    latent = torch.randn(2, 5, generator=generator).double()
    x = latent.numpy()
    for layer in mapping.layers:
        assert isinstance(layer, nn.Linear)
        weight, bias = weights(layer)
        x = x @ weight.T + bias
        x = np.where(x > 0, x, 0.2 * x)
    weight, bias = weights(mapping.last)
    x = x @ weight.T + bias
    # the first half of what leaves are the frequencies of all layers, in order
    expected = np.stack([x[:, :12].reshape(2, 3, 4), x[:, 12:].reshape(2, 3, 4)], axis=2)
    np.testing.assert_allclose(mapping(latent).detach().numpy(), expected, atol=1e-12)


@torch.no_grad()
def test_truncation_moves_frequencies_and_phases_to_their_mean(generator):
    torch.manual_seed(0)
    mapping = FilmMapping(5, layers=3, width=4, hidden=6)
    latents = torch.randn(2, 5, generator=generator)
    full, average = mapping(latents), mapping.average()
    half, none = mapping(latents, truncation=0.5), mapping(latents, truncation=0.0)
    torch.testing.assert_close(half, (full + average) / 2)
    torch.testing.assert_close(none, average.expand(2, -1, -1, -1))
    given = torch.ones_like(average)
    torch.testing.assert_close(mapping(latents, 0.0, given), given.expand(2, -1, -1, -1))
    # the mean of the outputs of other latents, not the output of their mean
    many = mapping(torch.randn(40_000, 5, generator=generator)).mean(0)
    torch.testing.assert_close(average, many, atol=0.01, rtol=0)
    assert float((mapping(torch.zeros(1, 5))[0] - average).abs().max()) > 0.05
    for parameter in mapping.parameters():
        parameter.mul_(2)
    assert float((mapping.average() - average).abs().max()) > 0.1, "of the weights at hand"


def test_autocast_leaves_it_in_single_precision(generator):
    network = tiny()
    film, points = some_film(network, 2, generator), torch.rand(2, 9, 3, generator=generator)
    raw, color = network(points, film)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low_raw, low_color = network(points, film)
        alone = network.raw(points, film)
    assert torch.equal(raw, low_raw)
    assert torch.equal(color, low_color)
    assert torch.equal(raw, alone)
    assert network(points.bfloat16(), film.bfloat16())[0].dtype == torch.float32


def test_directions_change_colors_alone(generator):
    network = tiny()
    film, points = some_film(network, 1, generator), torch.rand(1, 9, 3, generator=generator)
    front, side = torch.tensor([0.0, 0.0, -1.0]), torch.tensor([1.0, 0.0, 0.0])
    raw, color = network(points, film, front.expand(1, 9, 3))
    assert torch.equal(network(points, film)[1], color)
    other_raw, other_color = network(points, film, side.expand(1, 9, 3))
    assert torch.equal(other_raw, raw)
    assert float((other_color - color).detach().abs().max()) > 0.01
    plain = tiny(view_dependent=False)
    colors = [plain(points, film, each.expand(1, 9, 3))[1] for each in (front, side)]
    assert torch.equal(*colors)


def test_it_can_be_differentiated_twice(generator):
    """What the eikonal term asks of distances, and R1 of what a critic sees."""
    network = tiny().double()
    film = (0.02 * some_film(network, 1, generator)).double().requires_grad_()
    points = (0.1 * torch.rand(1, 2, 3, generator=generator)).double().requires_grad_()
    directions = torch.rand(1, 2, 3, generator=generator).double()

    def ask(points: torch.Tensor, film: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return network(points, film, directions)

    torch.autograd.gradcheck(ask, (points, film), eps=1e-7, atol=1e-4)
    torch.autograd.gradgradcheck(ask, (points, film), eps=1e-7, atol=1e-3, rtol=1e-3)


def test_film_of_another_network_is_refused(generator):
    network = tiny()
    with pytest.raises(ValueError, match="film is of 5 layers, must be 4"):
        network(torch.zeros(1, 1, 3), torch.zeros(1, 5, 2, 8))


def test_latents_learn_to_draw_their_own_pictures(generator):
    """Two scenes of one network: red inside a ball, or blue; neither is learned by the other."""
    torch.manual_seed(0)
    network, mapping = FilmSiren(width=24, depth=2), FilmMapping(4, 3, 24, hidden=24)
    optimizer = torch.optim.Adam([*network.parameters(), *mapping.parameters()], lr=2e-3)
    latents = torch.randn(2, 4, generator=generator)
    targets = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.1, 0.9]])[:, None]

    def error() -> torch.Tensor:
        points = 2 * torch.rand(2, 200, 3, generator=generator) - 1
        raw, color = network(points, mapping(latents))
        inside = 0.5 - points.norm(dim=-1)
        return (raw - inside).square().mean() + (color - targets).square().mean()

    before = float(error().detach())
    for _ in range(100):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
    after = float(error().detach())
    assert before > 0.15
    assert after < 0.03
