import pytest
import torch

from unflat.fields import FeatureDecoder, FieldOutput, TriplaneField, outward
from unflat.fields.field import Distanced

BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
MIDDLE = torch.tensor([0.1, -0.2, 0.3])


class Fog:
    """Density that falls off as a bell around MIDDLE."""

    bounds = BOX

    def __call__(self, points, directions=None):
        square = (points - MIDDLE).square().sum(-1)
        return FieldOutput(3 * torch.exp(-2 * square), points)


class Ball(Fog):
    def distance(self, points):
        return (points - MIDDLE).norm(dim=-1) - 0.5


def points() -> torch.Tensor:
    return 0.9 * (2 * torch.rand(1, 5, 7, 3, generator=torch.Generator().manual_seed(0)) - 1)


def test_slope_of_density_is_its_gradient_turned_around():
    where = points()
    expected = 4 * (where - MIDDLE) * Fog()(where).density[..., None]
    torch.testing.assert_close(outward(Fog(), where), expected, atol=2e-4, rtol=2e-3)


def test_slope_of_distance_has_unit_length_and_points_out():
    where = points()
    expected = torch.nn.functional.normalize(where - MIDDLE, dim=-1)
    torch.testing.assert_close(outward(Ball(), where), expected, atol=1e-3, rtol=0)


def test_step_is_a_share_of_the_longest_side():
    class Rough(Ball):
        """Flat but for a step of 1 at x = 0."""

        bounds = torch.tensor([[-1.0, -1.0, -2.0], [1.0, 1.0, 3.0]])

        def distance(self, points):
            return (points[..., 0] > 0).float()

    near = torch.tensor([[[0.0, 0.3, 0.0], [5.1 / 256, 0.0, 0.0]]])
    slope = outward(Rough(), near)
    torch.testing.assert_close(slope[0, 0], torch.tensor([256 / 10, 0.0, 0.0]))
    assert not bool(slope[0, 1].any()), "more than a step away"
    assert bool(outward(Rough(), near, step=0.1)[0, 1, 0] > 0)


def test_fields_without_an_end_are_refused():
    field = TriplaneField(torch.zeros(1, 3, 4, 4, 4), FeatureDecoder(4))
    assert not isinstance(field, Distanced)
    with pytest.raises(ValueError, match="TriplaneField has no bounds"):
        outward(field, points())
