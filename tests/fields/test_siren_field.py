import pytest
import torch
from torch import nn

from unflat.fields import Bounded
from unflat.fields.distance import LaplaceDensity
from unflat.fields.siren import DistanceSirenField, SirenField
from unflat.losses import eikonal
from unflat.nn.siren import FilmSiren

BOUNDS = torch.tensor([[-1.0, 0.0, 2.0], [3.0, 1.0, 5.0]])
CUBE = torch.tensor([[-0.3] * 3, [0.3] * 3])


def network() -> FilmSiren:
    torch.manual_seed(0)
    return FilmSiren(width=8, depth=2)


def film(generator, batch=2) -> torch.Tensor:
    return 0.3 * torch.randn(batch, 3, 2, 8, generator=generator)


def test_the_network_sees_the_box_as_the_unit_cube(generator):
    siren, one = network(), film(generator)
    field = SirenField(siren, one, BOUNDS)
    share = torch.rand(2, 20, 3, generator=generator)
    directions = nn.functional.normalize(torch.randn(2, 20, 3, generator=generator), dim=-1)
    out = field(BOUNDS[0] + share * (BOUNDS[1] - BOUNDS[0]), directions)
    raw, color = siren(2 * share - 1, one, directions)
    torch.testing.assert_close(out.density, raw.clamp_min(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out.features, color, atol=1e-4, rtol=1e-4)
    assert (out.density > 0).any()
    assert (out.density == 0).any()


def test_it_is_empty_outside_its_box_and_says_that_it_has_one(generator):
    with torch.no_grad():
        siren = network()
        siren.to_raw.bias.fill_(5.0)
    for field in (
        SirenField(siren, film(generator), BOUNDS),
        DistanceSirenField(siren, film(generator), LaplaceDensity(), BOUNDS),
    ):
        assert isinstance(field, Bounded)
        assert (field(torch.zeros(2, 1, 3)).density == 0).all()
        assert (field(BOUNDS.mean(0).expand(2, 1, 3)).density > 0).all()


def test_noise_is_added_before_the_relu_for_each_point(generator):
    siren, one = network(), film(generator)
    asked = []

    def noise(shape: tuple[int, ...]) -> torch.Tensor:
        asked.append(shape)
        return torch.full((2, *shape), 0.4)

    points = BOUNDS[0] + torch.rand(2, 4, 5, 3, generator=generator) * (BOUNDS[1] - BOUNDS[0])
    quiet, noisy = SirenField(siren, one, BOUNDS), SirenField(siren, one, BOUNDS, noise=noise)
    share = (points - BOUNDS[0]) / (BOUNDS[1] - BOUNDS[0])
    raw = siren.raw((2 * share - 1).flatten(1, 2), one).unflatten(1, (4, 5))
    torch.testing.assert_close(noisy(points).density, (raw + 0.4).relu(), atol=1e-4, rtol=1e-4)
    assert asked == [(4, 5)]
    assert float((noisy(points).density - quiet(points).density).detach().max()) > 0.1


def test_distance_and_density_belong_together(generator):
    density = LaplaceDensity(alpha=0.2, beta=0.05)
    field = DistanceSirenField(network(), film(generator), density, BOUNDS)
    points = BOUNDS[0] + torch.rand(2, 3, 7, 3, generator=generator) * (BOUNDS[1] - BOUNDS[0])
    torch.testing.assert_close(field(points).density, density(field.distance(points)))
    assert not hasattr(SirenField(network(), film(generator), BOUNDS), "distance")


def test_a_distance_in_half_sides_has_the_slope_of_one_in_world_units(generator):
    """A network that says |x| - 0.5 in the unit cube: a sphere of half the box's half side."""

    class Sphere(FilmSiren):
        def raw(self, points: torch.Tensor, film: torch.Tensor) -> torch.Tensor:
            return points.norm(dim=-1) - 0.5

    field = DistanceSirenField(Sphere(8, 2), film(generator, 1), LaplaceDensity(), CUBE)
    points = (0.3 * torch.randn(1, 50, 3, generator=generator)).requires_grad_()
    distance = field.distance(points)
    torch.testing.assert_close(distance, points.norm(dim=-1) - 0.15)
    assert float(eikonal(distance, points).detach().max()) < 1e-8


def test_a_sphere_can_be_taught(generator):
    """The start of a distance: regression to a sphere with the eikonal term beside it."""
    torch.manual_seed(0)
    siren = FilmSiren(width=24, depth=2)
    one = 0.1 * torch.randn(1, 3, 2, 24, generator=generator)
    field = DistanceSirenField(siren, one, LaplaceDensity(), CUBE)
    optimizer = torch.optim.Adam(siren.parameters(), lr=3e-3)

    def asked() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        points = (0.6 * torch.rand(1, 300, 3, generator=generator) - 0.3).requires_grad_()
        distance = field.distance(points)
        return distance, points.norm(dim=-1) - 0.2, eikonal(distance, points).mean()

    for _ in range(150):
        optimizer.zero_grad()
        distance, sphere, uneven = asked()
        ((distance - sphere).square().mean() / 0.09 + 0.1 * uneven).backward()
        optimizer.step()
    distance, sphere, uneven = asked()
    assert float((distance - sphere).detach().abs().mean()) < 0.02
    assert float(uneven.detach()) < 0.15
    assert (field(torch.zeros(1, 1, 3)).density > 0.5).all(), "the middle is inside"


def test_film_given_as_a_parameter_is_learned(generator):
    field = SirenField(network(), nn.Parameter(film(generator)), CUBE)
    assert "film" in dict(field.named_parameters())
    assert "film" in dict(SirenField(network(), film(generator), CUBE).named_buffers())
    field(torch.zeros(2, 4, 3)).features.sum().backward()
    assert isinstance(field.film, nn.Parameter)
    assert field.film.grad is not None
    assert (field.film.grad.flatten(1).abs().sum(1) > 0).all()


def test_a_box_without_volume_is_refused(generator):
    with pytest.raises(ValueError, match="bounds must grow"):
        SirenField(network(), film(generator), torch.zeros(2, 3))
