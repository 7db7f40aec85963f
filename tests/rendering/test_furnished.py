"""Rays are cut where a field says so, and quick views agree with rays through everything."""

import math

import pytest
import torch

from made_scenes import GREEN, ball, depth_of, room
from unflat.fields import CutoutField, EditedField, FieldOutput, Inserted, similarity
from unflat.geometry import Camera, Placement
from unflat.geometry.trajectory import turn_about_pivot
from unflat.rendering import RenderOptions, render
from unflat.rendering.objects import camera_in_object, see_voxels


class Speck:
    """A thin disc far away, which even samples step over."""

    distance, thickness = 3.3, 0.004

    def __call__(self, points, directions=None):
        there = (points[..., 2] - self.distance).abs() < self.thickness / 2
        color = torch.tensor([1.0, 0.0, 0.0]).expand(points.shape)
        return FieldOutput(torch.where(there, 1e4, 0.0), torch.where(there[..., None], color, 0.5))


class ToldSpeck(Speck):
    def inner_edges(self, origins, directions):
        inner = torch.linspace(-1, 1, 9) * self.thickness + self.distance
        return inner.expand(*origins.shape[:-1], -1)


def camera(right: float = 0.0, depth: float = 2.0) -> Camera:
    pose = turn_about_pivot(torch.tensor([right]), torch.tensor([0.0]), depth)
    return Camera(camera_to_world=pose, intrinsics=torch.tensor([[1.0, 1.0, 0.5, 0.5]]))


def long_lens() -> Camera:
    intrinsics = torch.tensor([[40.0, 40.0, 0.5, 0.5]])
    return Camera(camera_to_world=torch.eye(4)[None], intrinsics=intrinsics)


def test_what_samples_step_over_is_found_where_the_field_says():
    options = RenderOptions(samples=24, near=0.5, far=10.0, spacing="distance")
    pinhole = long_lens()
    missed = render(Speck(), pinhole, 2, 2, options)
    found = render(ToldSpeck(), pinhole, 2, 2, options)
    assert missed.rgb[0, 0].max() == 0.5
    torch.testing.assert_close(found.rgb[0, 0], torch.ones(2, 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.depth[0], torch.full((2, 2), 3.3), atol=0.01, rtol=0)


def test_fine_samples_go_together_with_inner_edges_and_guides_do_not():
    pinhole = long_lens()
    both = RenderOptions(samples=24, fine_samples=8, near=0.5, far=10.0)
    assert render(ToldSpeck(), pinhole, 2, 2, both).rgb[0, 0].min() > 0.99
    guided = RenderOptions(samples=24, fine_samples=8, coarse=2, near=0.5, far=10.0)
    with pytest.raises(ValueError, match="ToldSpeck has inner edges, a guide has even cells"):
        render(ToldSpeck(), pinhole, 4, 4, guided)


def test_inner_edges_that_a_ray_has_not_change_nothing():
    class Nowhere(Speck):
        def inner_edges(self, origins, directions):
            return torch.full((*origins.shape[:-1], 5), torch.inf)

    options = RenderOptions(samples=24, near=0.5, far=10.0)
    plain, other = (render(field, camera(), 4, 4, options) for field in (Speck(), Nowhere()))
    for one, same in zip(plain, other, strict=True):
        torch.testing.assert_close(one, same)


@pytest.mark.parametrize("position", [(0.0, 0.0, 2.0), (0.3, -0.25, 1.5)])
def test_a_ball_is_seen_where_a_ball_is(position):
    """Pixels whose ray passes the centre within the radius; a ring of a pixel is left open."""
    radius, size = 0.3, (96, 96)
    placed = Inserted(ball(), similarity(radius, translation=position))
    seen = see_voxels(placed, camera(), size)
    rows, columns = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    rays = torch.stack([(columns + 0.5) / 96 - 0.5, (rows + 0.5) / 96 - 0.5, torch.ones(96, 96)])
    rays = torch.nn.functional.normalize(rays, dim=0)
    center = torch.tensor(position)
    along = (rays * center[:, None, None]).sum(0)
    apart = (center.square().sum() - along.square()).sqrt()
    ring = 1.5 / 96 * position[2]
    hit, miss = apart < radius - ring, apart > radius + ring
    assert hit.sum() > 300
    assert seen.opacity[hit].min() > 0.98
    assert seen.opacity[miss].max() < 0.02
    entry = along - (radius**2 - apart.square()).clamp_min(0).sqrt()
    depth = entry * rays[2]
    assert (1 / seen.inverse_depth - depth)[hit].abs().mean() < 0.02
    color = seen.rgb[:, hit].mean(1)
    torch.testing.assert_close(color, torch.tensor(GREEN), atol=0.01, rtol=0)


def test_a_camera_in_the_objects_space_sees_the_same():
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3)))[0]
    placement = similarity(1.7, turn * torch.linalg.det(turn), (0.3, -0.2, 2.5))
    local, scale = camera_in_object(camera(0.2), placement)
    assert scale == pytest.approx(1.7)
    points = torch.rand(1, 20, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    world = points @ placement[:3, :3].T + placement[:3, 3]
    uv, depth = local.project(points)
    uv_world, depth_world = camera(0.2).project(world)
    torch.testing.assert_close(uv, uv_world)
    torch.testing.assert_close(depth * scale, depth_world)


def test_what_is_behind_the_camera_or_beside_the_picture_is_not_seen():
    for position in ((0.0, 0.0, -2.0), (5.0, 0.0, 2.0)):
        placed = Inserted(ball(16), similarity(0.3, translation=position))
        assert see_voxels(placed, camera(), (24, 24)).opacity.max() == 0


def test_a_cutout_of_a_scene_is_seen_as_rays_see_it():
    scene = room()
    shape = Placement(x=0.5, nearness=0.5, size=0.4, turn=0.3)
    edited = scene.insert(room(), shape, farthest=0.5)
    assert isinstance(edited.field, EditedField)
    assert isinstance(edited.field.objects[0].field, CutoutField)
    pose = turn_about_pivot(torch.tensor([0.15]), torch.tensor([0.0]), depth_of(0.5))
    view = Camera(camera_to_world=pose, intrinsics=scene.camera.intrinsics)
    quick, exact = edited.layered((40, 40)).view(view), edited.render(view, (40, 40)).rgb[0]
    empty = scene.render(view, (40, 40)).rgb[0]
    added = (exact - empty).abs().amax(0) > 0.2
    assert 25 < added.sum() < 400

    def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
        return -10 * math.log10(float((one - other).square().mean()))

    inner = slice(3, -3)
    assert psnr(quick[:, inner, inner], exact[:, inner, inner]) > 18
    assert psnr(quick[:, added], exact[:, added]) > psnr(empty[:, added], exact[:, added]) + 6
