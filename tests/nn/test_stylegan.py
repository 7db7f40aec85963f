"""StyleGAN2's generator against a kernel for every picture, and against what it should do."""

import math

import pytest
import torch
from torch.nn import functional

from unflat.nn.stylegan import (
    MappingNetwork,
    ModulatedConv2d,
    SuperResolution,
    SynthesisNetwork,
    double_side,
)


def one_kernel_each(layer: ModulatedConv2d, maps: torch.Tensor, style: torch.Tensor):
    """The paper's form (eq. 1 and 3): the kernel itself is scaled, picture by picture."""
    found = []
    for picture, own in zip(maps, layer.affine(style), strict=True):
        weight = layer.weight * own[None, :, None, None]
        if layer.demodulate:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        else:
            weight = weight / math.sqrt(weight[0].numel())
        if layer.doubles:
            wide = torch.zeros(*picture.shape[:1], *(2 * s for s in picture.shape[1:]))
            wide = wide.to(picture)
            wide[:, ::2, ::2] = picture
            # A transposed convolution is one with the flipped kernel over zeros between pixels;
            # the low-pass has an even size, so both together need one line on one side more.
            padded = functional.pad(wide, (2, 2, 2, 2))[None]
            out = functional.conv2d(padded, weight.flip(2, 3))
            row = torch.tensor([1.0, 3.0, 3.0, 1.0]).to(out) / 4
            low = (row[:, None] * row).expand(out.shape[1], 1, -1, -1)
            side = 2 * picture.shape[1]
            out = functional.conv2d(out, low, padding=1, groups=out.shape[1])
            found.append(out[0, :, :side, :side])
        else:
            found.append(functional.conv2d(picture[None], weight, padding=1)[0])
    return torch.stack(found)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_scaling_maps_is_scaling_kernels(double: bool, demodulate: bool) -> None:
    torch.manual_seed(0)
    layer = ModulatedConv2d(5, 7, 3, 11, double=double, demodulate=demodulate).double()
    maps = torch.randn(3, 5, 6, 6, dtype=torch.float64)
    style = torch.randn(3, 11, dtype=torch.float64)
    expected = one_kernel_each(layer, maps, style)
    torch.testing.assert_close(layer(maps, style), expected, rtol=1e-9, atol=1e-9)


def test_second_derivatives_by_styles_are_right() -> None:
    torch.manual_seed(1)
    layer = ModulatedConv2d(2, 3, 3, 4, double=True).double()
    maps = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    style = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, (maps, style))


def test_doubling_keeps_the_mean_and_straight_lines() -> None:
    ramp = torch.arange(8, dtype=torch.float64).expand(1, 1, 8, 8)
    wide = double_side(ramp)
    assert wide.shape == (1, 1, 16, 16)
    inner = wide[0, 0, 4:-4, 4:-4]
    expected = (torch.arange(16, dtype=torch.float64) + 0.5) / 2 - 0.5
    torch.testing.assert_close(inner, expected[4:-4].expand(8, 8))


def test_every_code_moves_the_picture_and_the_last_moves_the_output_alone() -> None:
    torch.manual_seed(2)
    network = SynthesisNetwork(16, 6, style_dim=8, base=64, widest=16)
    assert network.codes == 6
    styles = torch.randn(1, network.codes, 8, requires_grad=True)
    (slope,) = torch.autograd.grad(network(styles).square().sum(), styles)
    assert (slope.abs().amax(dim=2) > 0).all()
    last = network.blocks[-1]
    before, _ = last(torch.ones(1, 8, 8, 8), None, styles[:, -3:])
    after, _ = last(torch.ones(1, 8, 8, 8), None, styles[:, -3:] * torch.tensor([1, 1, 2])[:, None])
    torch.testing.assert_close(before, after)


def test_first_weights_keep_the_variance() -> None:
    torch.manual_seed(3)
    network = SynthesisNetwork(32, 3, style_dim=32, base=1024, widest=64)
    mapping = MappingNetwork(32, 32)
    style = mapping(torch.randn(64, 32))
    assert 0.5 < style.square().mean() < 2
    maps = network(style[:, None].expand(-1, network.codes, -1))
    assert 1 < maps.var() < 16  # a sum of four outputs, each of about unit variance


def test_truncation_goes_to_the_average_of_styles() -> None:
    torch.manual_seed(4)
    mapping = MappingNetwork(8, 16, average_decay=0.98)
    for _ in range(400):
        mapping(torch.randn(32, 8))
        mapping(torch.randn(32, 8))
        mapping.take_in(mapping.seen)
    mapping.eval()
    many = mapping(torch.randn(20_000, 8))
    torch.testing.assert_close(mapping.average, many.mean(dim=0), rtol=0, atol=0.05)
    some = torch.randn(4, 8)
    average = mapping(some, truncation=0.0)
    torch.testing.assert_close(average, mapping.average.expand(4, -1))
    half = mapping(some, truncation=0.5)
    torch.testing.assert_close(half, 0.5 * (average + mapping(some)))
    before = mapping.average.clone()
    assert torch.equal(mapping.average, before)  # evaluation leaves the average alone


def test_the_condition_matters_and_its_length_does_not() -> None:
    torch.manual_seed(5)
    mapping = MappingNetwork(8, 16, condition_dim=3).eval()
    nn_bias = mapping.embed
    assert nn_bias is not None
    latent, condition = torch.randn(2, 8), torch.randn(2, 3)
    style = mapping(latent, condition)
    torch.testing.assert_close(mapping(latent, 5 * condition), style, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mapping(latent, -condition), style)
    with pytest.raises(ValueError, match="condition"):
        mapping(latent)


def test_noise_is_constant_and_silent_at_first() -> None:
    torch.manual_seed(6)
    noisy = SynthesisNetwork(8, 2, style_dim=4, base=32, widest=8, noise=True)
    styles = torch.randn(2, noisy.codes, 4)
    silent = noisy(styles)
    for name, weight in noisy.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(weight, 0.3)
    assert not torch.allclose(noisy(styles), silent)
    assert torch.equal(noisy(styles), noisy(styles))


def test_super_resolution_adds_to_the_first_three_channels() -> None:
    torch.manual_seed(7)
    network = SuperResolution(8, 2, style_dim=4, width=16)
    features, style = torch.randn(2, 8, 8, 8), torch.randn(2, 4)
    assert network(features, style).shape == (2, 3, 32, 32)
    for name, weight in network.named_parameters():
        if name.endswith("output.weight"):
            torch.nn.init.zeros_(weight)
    plain = double_side(double_side(features[:, :3]))
    torch.testing.assert_close(network(features, style), plain)


def test_more_blocks_than_doublings_leave_the_side_at_first() -> None:
    torch.manual_seed(8)
    network = SuperResolution(8, 1, style_dim=4, width=32, blocks=2)
    assert [block.doubles for block in network.blocks] == [False, True]
    assert [block.output_bias.shape for block in network.blocks] == [(3,), (3,)]
    assert [len(block.layers[0].bias) for block in network.blocks] == [32, 16]
    features, style = torch.randn(2, 8, 16, 16), torch.randn(2, 4)
    assert network(features, style).shape == (2, 3, 32, 32)
    with pytest.raises(ValueError, match="2 doublings want as many blocks, not 1"):
        SuperResolution(8, 2, style_dim=4, blocks=1)


def test_what_enters_is_resized_first() -> None:
    torch.manual_seed(9)
    network = SuperResolution(8, 1, style_dim=4, width=16, side=16)
    small, style = torch.randn(2, 8, 6, 6), torch.randn(2, 4)
    wide = functional.interpolate(small, (16, 16), mode="bilinear", antialias=True)
    assert network(small, style).shape == (2, 3, 32, 32)
    torch.testing.assert_close(network(small, style), network(wide, style))


def test_a_clamp_cuts_features_and_outputs_alone() -> None:
    torch.manual_seed(10)
    network = SuperResolution(8, 1, style_dim=4, width=16, clamp=0.5)
    features, style = 10 + torch.rand(2, 8, 8, 8), torch.randn(2, 4)
    maps, seen = network.blocks[0](features, features[:, :3], style[:, None].expand(-1, 3, -1))
    assert maps.abs().max() == 0.5
    added = seen - double_side(features[:, :3])
    assert 0.499 < added.abs().max() < 0.501
    assert seen.abs().max() > 5


@pytest.mark.parametrize("side", [4, 12, 0])
def test_sides_that_cannot_be_are_refused(side: int) -> None:
    with pytest.raises(ValueError, match="power of 2"):
        SynthesisNetwork(side, 3, style_dim=4)
