import numpy as np
import pytest
import torch
import trimesh

from made_scenes import GREEN, Ball
from unflat.data.object_mesh import ObjectSurface, SurfacePart
from unflat.data.voxelize import voxelize, voxels_of_field
from unflat.fields import FieldOutput
from unflat.rendering import even_edges, render_rays

RESOLUTION = 32


def surface_of(mesh: trimesh.Trimesh, has_light: bool = True) -> ObjectSurface:
    triangles = np.asarray(mesh.triangles, dtype=np.float64)
    return ObjectSurface([SurfacePart(triangles, np.full_like(triangles, 0.6))], has_light)


def sphere(has_light: bool = True) -> ObjectSurface:
    return surface_of(trimesh.creation.icosphere(4, 2.0), has_light)


def along(field, origins: torch.Tensor, directions: torch.Tensor):
    edges = even_edges(600).expand(1, len(origins), -1) * 8
    return render_rays(field, origins[None], directions[None], edges, opaque_last=False)


def test_a_sphere_stops_rays_where_it_is() -> None:
    """Within two voxels of the true distance, from all sides; and a ray beside it passes."""
    field = voxelize(sphere(), RESOLUTION)
    ways = torch.nn.functional.normalize(
        torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    seen = along(field, -4 * ways, ways)
    assert seen.opacity.min() > 0.999
    distance = (seen.weights * seen.middles).sum(-1)
    voxel = 4 / RESOLUTION
    assert (distance - 2).abs().max() < 2 * voxel
    assert (distance - 2).std() < 0.25 * voxel, "smooth: no steps of voxels"
    color = seen.features[0].mean(0)
    torch.testing.assert_close(color, torch.full((3,), 0.6), atol=0.01, rtol=0)
    side = torch.linalg.cross(ways, torch.tensor([0.3, 0.5, 0.8]).expand(40, 3))
    beside = torch.nn.functional.normalize(side, dim=1) * (2 + 3 * voxel)
    assert along(field, beside - 4 * ways, ways).opacity.max() < 1e-3


def test_an_open_sheet_and_a_lone_triangle_are_opaque() -> None:
    triangle = np.array([[[-1.0, -1, 0], [1, -1, 0], [0, 1, 0.2]]])
    field = voxelize(ObjectSurface([SurfacePart(triangle, np.ones_like(triangle))]), RESOLUTION)
    origins = torch.tensor([[0.0, -0.3, -4.0], [0.9, 0.9, -4.0]])
    hit, miss = along(field, origins, torch.tensor([0.0, 0.0, 1.0]).expand(2, 3)).opacity[0]
    assert hit > 0.99
    assert miss == 0


def test_what_has_no_light_is_shaded_from_above() -> None:
    field = voxelize(sphere(has_light=False), RESOLUTION, light=(0.0, 1.0, 0.0))
    up = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
    seen = along(field, 4 * up, -up)
    top, bottom = seen.features[0].mean(-1)
    assert top == pytest.approx(0.6, abs=0.03)
    assert bottom < 0.8 * top
    plain = along(voxelize(sphere(), RESOLUTION), 4 * up, -up).features[0]
    torch.testing.assert_close(plain[0], plain[1], atol=1e-3, rtol=0)


def test_size_is_measured_in_the_surfaces_own_units() -> None:
    """Twice as large: twice as far across and as opaque."""
    small, large = (
        voxelize(sphere(), 16),
        voxelize(surface_of(trimesh.creation.icosphere(4, 4)), 16),
    )
    torch.testing.assert_close(large.bounds, 2 * small.bounds)
    torch.testing.assert_close(large.density * 2, small.density, rtol=1e-3, atol=1e-3)


def test_each_part_has_its_own_color() -> None:
    left, right = (
        np.asarray(trimesh.creation.icosphere(3, 0.5).triangles) + offset
        for offset in ([-1, 0, 0], [1, 0, 0])
    )
    red, blue = (np.broadcast_to(color, left.shape) for color in ([1.0, 0, 0], [0, 0, 1.0]))
    surface = ObjectSurface([SurfacePart(left, red), SurfacePart(right, blue)], has_light=True)
    field = voxelize(surface, RESOLUTION)
    origins = torch.tensor([[-1.0, 0.0, -4.0], [1.0, 0.0, -4.0]])
    colors = along(field, origins, torch.tensor([0.0, 0.0, 1.0]).expand(2, 3)).features[0]
    torch.testing.assert_close(colors, torch.tensor([[1.0, 0, 0], [0, 0, 1]]), atol=0.01, rtol=0)


def test_any_field_with_bounds_becomes_voxels() -> None:
    field = voxels_of_field(Ball(), 40)
    points = torch.rand(1, 500, 3, generator=torch.Generator().manual_seed(0)) * 2.2 - 1.1
    exact = Ball()(points).density
    difference = (field(points).density - exact).abs()
    assert difference.mean() < 0.06 * exact.max()
    torch.testing.assert_close(field.features[0].flatten(1).mT[0], torch.tensor(GREEN))


def test_what_cannot_become_voxels_is_refused() -> None:
    with pytest.raises(ValueError, match="resolution is 7; a surface needs at least 8"):
        voxelize(sphere(), 7)

    def endless(points, directions=None):
        return FieldOutput(points[..., 0], points)

    with pytest.raises(ValueError, match="function has no bounds: nothing says where it ends"):
        voxels_of_field(endless, 16)
