import math

import numpy as np
import pytest
import torch
import trimesh

from made_figure import (
    BALL,
    BLUE,
    BOX,
    GREEN,
    HALF,
    KNOB_RADIUS,
    NOSE_RADIUS,
    RADIUS,
    RED,
    YELLOW,
    Cloud,
    Figure,
)
from unflat.errors import UserError
from unflat.export import Mesh, mesh_of_field, mesh_report, solid_level, write_mesh
from unflat.fields import FieldOutput, VoxelField

RESOLUTION = 64
CELL = float((BOX[1] - BOX[0]).max()) / (RESOLUTION - 1)


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return mesh_of_field(Figure(), RESOLUTION)


def figure_volume() -> float:
    """The ball with the nose (less the lens they share), the block with half of the knob."""
    lens_distance = RADIUS  # the nose's middle lies on the ball
    lens = (
        math.pi
        * (RADIUS + NOSE_RADIUS - lens_distance) ** 2
        * (
            lens_distance**2
            + 2 * lens_distance * (RADIUS + NOSE_RADIUS)
            - 3 * (RADIUS - NOSE_RADIUS) ** 2
        )
        / (12 * lens_distance)
    )
    ball = 4 / 3 * math.pi * (RADIUS**3 + NOSE_RADIUS**3) - lens
    return ball + 8 * math.prod(HALF) + 2 / 3 * math.pi * KNOB_RADIUS**3


def test_volume_is_the_closed_form(mesh):
    report = mesh_report(mesh)
    assert report.watertight
    assert report.volume == pytest.approx(figure_volume(), rel=0.01)


def test_without_a_distance_the_surface_is_where_it_is_solid():
    """A little outside: there the density is high enough already."""
    level = 32 * math.log(2) / 2
    sharpness = Figure().sharpness
    outside = math.log(sharpness / level - 1) / sharpness
    expected = mesh_report(mesh_of_field(Figure(), RESOLUTION, level=outside)).volume
    found = mesh_report(mesh_of_field(Cloud(), RESOLUTION))
    assert found.watertight
    assert found.volume == pytest.approx(expected, rel=0.02)


def test_a_step_in_density_lies_midway():
    class Step(Figure):
        def forward(self, points, directions=None):
            _, colors = super().forward(points)
            return FieldOutput(1000.0 * (self.distance(points) < 0), colors)

    found = mesh_report(mesh_of_field(Cloud(Step()), RESOLUTION))
    assert found.volume == pytest.approx(figure_volume(), rel=0.03)


def test_vertices_lie_on_the_surface(mesh):
    off = Figure().distance(torch.from_numpy(mesh.vertices)).abs()
    assert float(off.max()) < 0.5 * CELL, "at the block's edges"
    assert float(off.median()) < 0.01 * CELL


def test_triangles_and_normals_look_outwards(mesh):
    vertices = torch.from_numpy(mesh.vertices).requires_grad_()
    (outwards,) = torch.autograd.grad(Figure().distance(vertices).sum(), vertices)
    assert mesh.normals is not None
    along = (outwards.numpy() * mesh.normals).sum(-1)
    assert np.mean(along > 0.9) > 0.95
    assert np.linalg.norm(mesh.normals, axis=1) == pytest.approx(1, abs=1e-5)
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    turned = (np.cross(b - a, c - a) * mesh.normals[mesh.faces].sum(1)).sum(-1)
    # Beyond rounding, no triangle is the other way round.
    assert float((turned * (turned < 0)).sum()) > -1e-4 * np.abs(turned).sum()


def test_colours_are_those_of_the_part_beneath(mesh):
    parts = Figure().parts(torch.from_numpy(mesh.vertices)).numpy()
    sorted_parts = np.sort(parts, axis=1)
    sure = sorted_parts[:, 1] - sorted_parts[:, 0] > 2 * CELL
    expected = np.array([RED, BLUE, YELLOW, GREEN])[parts.argmin(1)] * 255
    assert sure.mean() > 0.8
    assert np.abs(mesh.colors[sure] - expected[sure]).max() <= 1


def test_colours_are_asked_below_the_surface():
    class Apple(Figure):
        """Blue around, red from a fifth of a cell below the surface on."""

        def forward(self, points, directions=None):
            density, _ = super().forward(points)
            below = self.distance(points) < -0.2 * CELL
            colors = points.new_tensor([BLUE, RED])[below.long()]
            return FieldOutput(density, colors)

    colors = mesh_of_field(Apple(), RESOLUTION).colors
    assert (np.abs(colors - np.array(RED) * 255).max(-1) <= 1).mean() > 0.95


def test_floating_parts_are_kept_and_counted(mesh):
    report = mesh_report(mesh)
    assert report.parts == 2
    block = 8 * (HALF[0] * HALF[1] + HALF[1] * HALF[2] + HALF[0] * HALF[2])
    block += math.pi * KNOB_RADIUS**2  # half a ball on top instead of a disc
    assert report.main_share * report.area == pytest.approx(block, rel=0.05), "edges are cut off"
    assert "2 parts (the main one has" in str(report)
    assert str(report).endswith("watertight")


def test_grid_points_lie_where_they_should():
    """A plane across a box of other proportions, told by its crossing of the edges."""

    class Slab(torch.nn.Module):
        bounds = torch.tensor([[1.0, -2.0, 0.5], [3.0, 2.0, 1.5]])

        def distance(self, points):
            return points[..., 0] + 0.25 * points[..., 1] - 2.0

        def forward(self, points, directions=None):
            return FieldOutput((self.distance(points) < 0).float(), points.clamp(0, 1))

    mesh = mesh_of_field(Slab(), 17)
    low, high = Slab.bounds.numpy()
    assert mesh.vertices.min(0) == pytest.approx(low, abs=1e-3)
    assert mesh.vertices.max(0)[1:] == pytest.approx(high[1:], abs=1e-3)
    inner = ((mesh.vertices > low + 0.01) & (mesh.vertices < high - 0.01)).all(1)
    off = Slab().distance(torch.from_numpy(mesh.vertices[inner]))
    assert inner.sum() > 30
    assert float(off.abs().max()) < 1e-5, "linear interpolation of a plane is exact"
    assert mesh_report(mesh).volume == pytest.approx(4.0, rel=2e-3), "half of the box of 2 x 4 x 1"


def test_a_box_that_cuts_the_object_closes_it():
    low = torch.tensor([-0.8, BALL[1], -0.8])  # through the ball's middle
    figure = Figure(torch.stack([low, torch.tensor([0.8, 1.0, 0.0])]))
    report = mesh_report(mesh_of_field(figure, 48))
    assert report.watertight
    assert report.parts == 1
    assert report.volume == pytest.approx(math.pi / 3 * RADIUS**3, rel=0.01), "a quarter of a ball"
    level = mesh_of_field(figure, 48, level=0.05)
    assert mesh_report(level).volume == pytest.approx(math.pi / 3 * (RADIUS + 0.05) ** 3, rel=0.02)


def test_voxels_have_a_surface_where_they_are_solid():
    axis = (torch.arange(32) + 0.5) / 16 - 1
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    inside = (x.square() + (y / 0.5).square() + z.square() < 0.64).float()
    colors = torch.stack([(x > 0).float(), (y > 0).float(), (z > 0).float()])
    field = VoxelField(100 * inside[None], colors[None], torch.tensor([[-1.0] * 3, [1.0] * 3]))
    mesh = mesh_of_field(field, 48, level=50.0)
    report = mesh_report(mesh)
    assert report.watertight
    assert report.parts == 1
    assert report.volume == pytest.approx(4 / 3 * math.pi * 0.8**2 * 0.8 * 0.5, rel=0.02)
    assert mesh_report(mesh_of_field(field, 48)).volume == pytest.approx(
        4 / 3 * math.pi * 0.83**2 * 0.83 * 0.53, rel=0.15
    ), "half of the light is gone before half of the density is reached"
    far = np.abs(mesh.vertices) > 0.2
    agree = (mesh.vertices > 0) == (mesh.colors > 127)
    assert agree[far].mean() > 0.99


def test_level_halves_light_over_a_share_of_the_box():
    dense = torch.tensor([0.0, 100.0])
    level = solid_level(dense, 2.0)
    assert math.exp(-level * 2.0 / 32) == pytest.approx(0.5)
    assert solid_level(torch.tensor([0.0, 5.0]), 2.0) == 2.5, "half of the densest"
    with pytest.raises(UserError, match="has no surface, even its densest part lets most light"):
        solid_level(torch.tensor([0.0, 0.3]), 2.0)


def test_what_has_no_surface_is_told():
    figure = Figure(torch.tensor([[0.9, 0.9, 0.9], [1.0, 1.0, 1.0]]))
    with pytest.raises(UserError, match="no part of the object has a signed distance below 0;"):
        mesh_of_field(figure, 8)
    with pytest.raises(UserError, match="no part of the object is denser than 500; look at"):
        mesh_of_field(Cloud(), 16, level=500.0)
    bad = VoxelField(
        torch.full((1, 2, 2, 2), torch.nan), torch.zeros(1, 3, 2, 2, 2), torch.stack([*BOX])
    )
    with pytest.raises(UserError, match="values that are no numbers"):
        mesh_of_field(bad, 8)
    with pytest.raises(ValueError, match="Linear has no bounds"):
        mesh_of_field(torch.nn.Linear(3, 3), 8)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="resolution is 1"):
        mesh_of_field(Figure(), 1)


def test_an_open_mesh_is_not_called_watertight(mesh):
    report = mesh_report(Mesh(mesh.vertices, mesh.faces[10:], mesh.colors, world="object"))
    assert not report.watertight
    assert report.volume is None


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
def test_files_are_upright_and_face_front(mesh, tmp_path, suffix):
    path = write_mesh(mesh, tmp_path / f"figure{suffix}")
    loaded = trimesh.load(path, process=False, force="mesh")
    vertices = np.asarray(loaded.vertices)
    if suffix == ".glb":  # a material hides the colours, which stay in the mesh's order
        np.testing.assert_allclose(vertices, mesh.vertices, atol=1e-6)
        colors = mesh.colors
    else:
        colors = np.asarray(loaded.visual.vertex_colors)[:, :3]
    middle = {
        name: vertices[(np.abs(colors - np.array(color) * 255) < 3).all(1)].mean(0)
        for name, color in (("red", RED), ("blue", BLUE), ("yellow", YELLOW), ("green", GREEN))
    }
    assert middle["red"][1] > middle["blue"][1] + 0.7, "the ball is on top"
    assert middle["yellow"][2] > 0.4, "the nose is in front"
    assert middle["green"][0] > 0.5, "the knob is on the right of a viewer in front"
    assert loaded.volume > 0, "triangles look outwards"
