import math

import pytest
import torch
from torch.nn import functional

from unflat.fields import (
    Bounded,
    DistanceDecoder,
    DistanceTriplaneField,
    LaplaceDensity,
    PaletteField,
    mix,
)
from unflat.rendering import render_rays

BOUNDS = torch.tensor([[-0.5, -1.0, -2.0], [0.5, 1.0, 2.0]])


def made(generator, batch=2, channels=8, colors=5, side=6, **rest) -> DistanceTriplaneField:
    torch.manual_seed(0)
    planes = torch.randn(batch, 3, channels, side, side, generator=generator)
    decoder = DistanceDecoder(channels, hidden=16, out=colors)
    return DistanceTriplaneField(planes, decoder, LaplaceDensity(), BOUNDS, **rest)


def inside(generator, count=20, batch=2):
    share = torch.rand(batch, count, 3, generator=generator)
    return BOUNDS[0] + share * (BOUNDS[1] - BOUNDS[0])


def test_laplace_density_in_numbers():
    density = LaplaceDensity(alpha=1.0, beta=0.1)
    got = density(torch.tensor([-0.2, 0.0, 0.2]))
    expected = [1 - 0.5 * math.exp(-2), 0.5, 0.5 * math.exp(-2)]
    torch.testing.assert_close(got.detach(), torch.tensor(expected))
    assert LaplaceDensity(alpha=0.25)(torch.tensor(-50.0)).item() == pytest.approx(4.0)


def test_sharpness_is_the_slope_of_the_share():
    density = LaplaceDensity(beta=0.07).double()
    distance = torch.tensor([-0.3, -0.01, 0.02, 0.4], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(density.share(distance).sum(), distance)
    torch.testing.assert_close(-slope, density.sharpness(distance).detach())


def test_hold_keeps_both_numbers_above_their_least():
    density = LaplaceDensity(alpha=-1.0, beta=1e-9)
    before = density(torch.tensor([0.1, -0.1])).detach()
    assert before.isfinite().all()
    density.hold()
    assert density.alpha.item() == density.beta.item() == pytest.approx(1e-3)
    torch.testing.assert_close(density(torch.tensor([0.1, -0.1])).detach(), before)


def test_it_answers_as_its_parts_do(generator):
    field = made(generator)
    points = inside(generator)
    out = field(points)
    distance = field.distance(points)
    torch.testing.assert_close(out.density, field.density(distance))
    torch.testing.assert_close(out.features.sum(-1), torch.ones(2, 20))
    assert isinstance(field, Bounded)
    assert (field(2 * BOUNDS[:1].expand(2, 1, 3)).density == 0).all()


def test_layers_are_the_decoder(generator):
    decoder = DistanceDecoder(8, hidden=16, out=5)
    torch.nn.init.normal_(decoder.into.bias)
    torch.nn.init.normal_(decoder.out.bias)
    features = torch.randn(7, 8, generator=generator)
    into, into_bias, out, out_bias = decoder.layers()
    raw = functional.softplus(features @ into.T + into_bias) @ out.T + out_bias
    distance, logits = decoder(features)
    torch.testing.assert_close(torch.cat([distance[:, None], logits], 1), raw)


def test_aligned_corners_are_those_of_torch(generator):
    field = made(generator, align_corners=True)
    points = inside(generator)
    place = 2 * (points - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0]) - 1
    found = torch.zeros(2, 20, 8)
    for plane, axes in enumerate(([0, 1], [0, 2], [1, 2])):
        looked = functional.grid_sample(
            field.planes[:, plane],
            place[:, None][..., axes],
            align_corners=True,
            padding_mode="border",
        )
        found += looked[:, :, 0].mT
    torch.testing.assert_close(field.distance(points), field.decoder(found)[0])


def test_rendering_is_linear_in_the_palette(generator):
    field = made(generator)
    palette = torch.rand(2, 5, 3, generator=generator)
    origins = torch.tensor([0.1, 0.2, -4.0]).expand(2, 9, 3).clone()
    aim = inside(generator, 9)
    directions = functional.normalize(aim - origins, dim=-1)
    edges = torch.linspace(1, 7, 49).expand(2, 9, 49)
    choices = render_rays(field, origins, directions, edges, opaque_last=False)
    colors = render_rays(PaletteField(field, palette), origins, directions, edges, False)
    torch.testing.assert_close(mix(choices.features, palette), colors.features)
    assert choices.opacity.max() > 0.1


def test_the_slope_of_the_distance_can_be_differentiated(generator):
    field = made(generator, batch=1).double()
    points = inside(generator, 3, batch=1).double().requires_grad_()
    planes = field.planes.detach().clone().requires_grad_()

    def distance(where, table):
        return DistanceTriplaneField(table, field.decoder, field.density, BOUNDS.double()).distance(
            where
        )

    assert torch.autograd.gradgradcheck(distance, (points, planes))


def test_without_an_alpha_light_reaches_the_surface_however_thick_it_is():
    for beta in (0.01, 0.08):
        density = LaplaceDensity(None, beta).double()
        assert [name for name, _ in density.named_parameters()] == ["beta"]
        distance = torch.linspace(0, 40 * beta, 200_001, dtype=torch.float64)
        depth = torch.trapezoid(density(distance).detach(), distance)
        assert float(torch.exp(-depth)) == pytest.approx(math.exp(-0.5), abs=1e-4)
