import torch
from torch import nn

from unflat.fields import Bounded, FeatureDecoder, TriplaneField, contract, sample_triplane

BOUNDS = torch.tensor([[-1.0, 0.0, 2.0], [3.0, 1.0, 5.0]])


def made(generator, bounds=None, batch=2) -> TriplaneField:
    torch.manual_seed(0)
    planes = torch.randn(batch, 3, 8, 6, 6, generator=generator)
    return TriplaneField(planes, FeatureDecoder(8, hidden=16), bounds)


def test_a_box_spans_the_planes(generator):
    field = made(generator, BOUNDS)
    share = torch.rand(2, 20, 3, generator=generator)
    out = field(BOUNDS[0] + share * (BOUNDS[1] - BOUNDS[0]))
    density, color = field.decoder(sample_triplane(field.planes, 2 * share - 1))
    torch.testing.assert_close(out.density, density, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out.features, color, atol=1e-5, rtol=1e-4)


def test_it_is_empty_outside_its_box_and_says_that_it_has_one(generator):
    field = made(generator, BOUNDS)
    assert isinstance(field, Bounded)
    assert (field(torch.zeros(2, 1, 3)).density == 0).all()
    assert (field(BOUNDS.mean(0).expand(2, 1, 3)).density > 0).all()


def test_without_a_box_it_reaches_all_of_space(generator):
    field = made(generator)
    assert not isinstance(field, Bounded)
    far = 1000 * torch.randn(2, 20, 3, generator=generator)
    out = field(far)
    density, color = field.decoder(sample_triplane(field.planes, contract(far) / 2))
    assert torch.equal(out.density, density)
    assert torch.equal(out.features, color)
    assert (out.density > 0).all()
    assert out.density.std() > 1e-3, "far points differ by direction"


def test_all_three_planes_matter(generator):
    field = made(generator)
    points = torch.randn(2, 10, 3, generator=generator)
    before = field(points).density
    for plane in range(3):
        changed = field.planes.clone()
        changed[:, plane] += torch.randn(changed[:, plane].shape, generator=generator)
        after = TriplaneField(changed, field.decoder)(points).density
        assert (after - before).abs().min() > 0


def test_the_decoder_is_the_formula_and_keeps_its_range(generator):
    decoder = FeatureDecoder(4, hidden=5, out=2)
    features = 30 * torch.randn(200, 4, generator=generator)
    density, color = decoder(features)
    hidden = torch.log1p(torch.exp((features @ decoder.into.weight.T + decoder.into.bias).double()))
    raw = hidden @ decoder.out.weight.T.double() + decoder.out.bias.double()
    expected = torch.log1p(torch.exp(raw[:, 0] - 1))
    torch.testing.assert_close(density.double(), expected, atol=1e-4, rtol=1e-4)
    squashed = (1.002 / (1 + torch.exp(-raw[:, 1:])) - 0.001).clamp(0, 1)
    torch.testing.assert_close(color.double(), squashed, atol=1e-4, rtol=0)
    assert density.min() >= 0
    assert (color == 0).any(), "black and white are reached"
    assert (color == 1).any()


def test_planes_given_as_a_parameter_are_learned(generator):
    planes = nn.Parameter(torch.randn(1, 3, 4, 5, 5, generator=generator))
    field = TriplaneField(planes, FeatureDecoder(4))
    out = field(torch.randn(1, 30, 3, generator=generator))
    (out.density.sum() + out.features.sum()).backward()
    assert planes.grad is not None
    assert (planes.grad.flatten(2).abs().sum(-1) > 0).all(), "each of the three planes"
    assert "planes" in dict(field.named_parameters())
