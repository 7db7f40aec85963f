import pytest
import torch
from made_solids import Balls
from torch import nn

from made_figure import Cloud, Figure
from unflat.evaluation import TrueObjects
from unflat.evaluation.object_surface import find_surface, surface_figures
from unflat.fields import FieldOutput

CUBE = torch.tensor([[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]])


class Spheres(nn.Module):
    """Distance to some spheres, times a factor; density and a color."""

    def __init__(self, centers, radii, factor=1.0, bounds=CUBE):
        super().__init__()
        self.centers, self.radii = torch.tensor(centers), torch.tensor(radii)
        self.factor, self.bounds = factor, bounds

    def distance(self, points):
        each = (points[..., None, :] - self.centers).norm(dim=-1) - self.radii
        return self.factor * each.amin(-1)

    def forward(self, points, directions=None):
        density = 100 * (self.distance(points) < 0).float()
        return FieldOutput(density, torch.full_like(points, 0.5))


class Maker:
    name, count = "made", None

    def __init__(self, *fields):
        self.fields = fields

    def field(self, number):
        return self.fields[number]


@pytest.mark.parametrize("factor", [1.0, 1.7])
def test_the_slope_of_a_distance_is_its_factor(factor):
    found = find_surface(Spheres([[0.1, 0.0, 0.0]], [0.3], factor), resolution=24)
    torch.testing.assert_close(
        found.gradient, torch.full_like(found.gradient, factor), atol=1e-4, rtol=0
    )
    assert found.is_watertight
    assert not found.is_cut
    assert found.parts == 1
    assert found.main_share == 1


def test_parts_count_by_their_area():
    found = find_surface(Spheres([[-0.2, 0, 0], [0.3, 0, 0]], [0.22, 0.11]), resolution=48)
    assert found.parts == 2
    assert found.main_share == pytest.approx(0.8, abs=0.01)  # areas 4 to 1


def test_what_the_box_cuts_is_closed_and_said():
    for center, is_cut in ((0.0, False), (0.25, True), (-0.25, True)):
        found = find_surface(Spheres([[0.0, center, 0.0]], [0.3]), resolution=24)
        assert found.is_watertight
        assert found.is_cut == is_cut


def test_figures_are_shares_of_all_objects():
    sphere, nothing = Spheres([[0.0, 0.0, 0.0]], [0.3]), Spheres([[9.0, 0.0, 0.0]], [0.3])
    cut = Spheres([[0.0, 0.0, 0.4]], [0.3], factor=3.0)
    figures = surface_figures(Maker(sphere, nothing, cut), range(3), resolution=20)
    assert figures["with_surface"] == figures["watertight"] == pytest.approx(2 / 3)
    assert figures["cut_by_box"] == 0.5
    assert figures["main_share"] == figures["parts"] == 1
    assert figures["gradient_p10"] == pytest.approx(1, abs=1e-3)
    assert figures["gradient_p90"] == pytest.approx(3, abs=1e-3)


def test_density_alone_has_a_mesh_and_no_slope():
    figures = surface_figures(Maker(Cloud(Figure())), [0], resolution=32)
    assert figures["watertight"] == 1
    assert "gradient_median" not in figures


def test_who_has_no_fields_has_no_figures():
    assert surface_figures(Maker(None, None), range(2)) == {}
    assert surface_figures(TrueObjects(Balls(2)), range(2)) == {}
    with pytest.raises(ValueError, match="Module has no bounds"):
        find_surface(nn.Module())
