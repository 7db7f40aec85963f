import math

import pytest
import torch

from unflat.fields import (
    ViewSpaceDecoder,
    ViewSpaceField,
    ViewSpacePlanes,
    assumed_points,
    sample_plane,
    view_coordinates,
)
from unflat.fields.viewspace import MARGIN, SURFACE_CHANNELS
from unflat.geometry import Camera, Frame, camera_rays, rotation_about
from unflat.rendering import RenderOptions, render, render_rays

TRUE = Frame(focal_assumed=1.207, focal_true=0.9, a=1.7, b=0.06)
ASSUMED = Frame(focal_assumed=1.207, focal_true=1.207)


def made(frame=ASSUMED, batch=1, channels=6, seed=0) -> ViewSpaceField:
    """A random field in double precision whose matter differs from place to place."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)

    def plane(wide, height, width):
        return torch.randn(batch, wide, height, width, generator=generator, dtype=torch.float64)

    uv = 0.5 * plane(SURFACE_CHANNELS + channels, 8, 9)
    planes = ViewSpacePlanes(uv, plane(channels, 7, 6), plane(channels, 7, 5))
    decoder = ViewSpaceDecoder(channels).double()
    torch.nn.init.normal_(decoder.mlp[3].weight, std=0.5)
    return ViewSpaceField(planes, decoder, frame)


def wall(density: float) -> ViewSpaceField:
    """The same density per unit of delta everywhere."""

    class Constant(ViewSpaceDecoder):
        def forward(self, uv, ud, vd, delta):
            return torch.full_like(delta, density), torch.ones(*delta.shape, 3).to(delta)

    field = made()
    return ViewSpaceField(field.planes, Constant(6), field.frame)


def assumed_frame_points(count=60, seed=1) -> torch.Tensor:
    """Coordinates inside the picture and between nearest and farthest."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.rand(1, count, 3, generator=generator, dtype=torch.float64)
    return q * torch.tensor([2.0, 2.0, 0.98]) + torch.tensor([-1.0, -1.0, 0.01])


def canonical_rays(focal: float, side=4) -> tuple[torch.Tensor, torch.Tensor]:
    """Origins and unit directions through a grid of the picture, `1 rays 3`."""
    across = (torch.arange(side, dtype=torch.float64) + 0.5) / side * 2 - 1
    v, u = torch.meshgrid(across, across, indexing="ij")
    local = torch.stack([u / focal, v / focal, torch.ones_like(u)], dim=-1).reshape(1, -1, 3)
    return torch.zeros_like(local), torch.nn.functional.normalize(local, dim=-1)


# Lookups and the decoder


def test_on_grid_is_at_point_by_point():
    field = made(batch=2)
    v = torch.linspace(-1.2, 1.1, 5, dtype=torch.float64)
    u = torch.linspace(-1.0, 1.3, 4, dtype=torch.float64)
    delta = torch.linspace(-0.1, 1.2, 6, dtype=torch.float64)
    density, rgb = field.on_grid(v, u, delta)
    vs, us, ds = torch.meshgrid(v, u, delta, indexing="ij")
    q = torch.stack([us, vs, ds], dim=-1).expand(2, -1, -1, -1, -1)
    at_density, at_rgb = field.at(q)
    torch.testing.assert_close(density, at_density, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(rgb, at_rgb, atol=1e-12, rtol=1e-10)
    assert density.std() > 0.1
    assert (density[0] - density[1]).abs().max() > 0.1


def test_planes_are_looked_up_as_documented():
    """(u, v) spans the picture; the others reach MARGIN further and hold the nearest in row 0."""
    seen = []

    class Listener(ViewSpaceDecoder):
        def forward(self, uv, ud, vd, delta):
            seen.append((uv, ud, vd))
            return super().forward(uv, ud, vd, delta)

    field = made()
    field = ViewSpaceField(field.planes, Listener(6).double(), field.frame)
    q = assumed_frame_points()
    field.at(q)
    uv, ud, vd = seen[0]
    u, v, delta = q.unbind(-1)
    for found, plane, column, row in (
        (uv, field.uv, u, v),
        (ud, field.ud, u / MARGIN, 1 - 2 * delta),
        (vd, field.vd, v / MARGIN, 1 - 2 * delta),
    ):
        torch.testing.assert_close(found, sample_plane(plane, torch.stack([column, row], -1)))


def test_an_untrained_field_stands_where_the_surface_channel_says():
    """The slab behind the surface channel: learning depth begins as regression."""
    surface = torch.tensor([-0.3, 0.0, 0.25], dtype=torch.float64)
    uv = torch.zeros(1, SURFACE_CHANNELS + 4, 1, 3, dtype=torch.float64)
    uv[0, 3, 0] = surface
    flat = torch.zeros(1, 4, 2, 2, dtype=torch.float64)
    torch.manual_seed(0)
    field = ViewSpaceField(ViewSpacePlanes(uv, flat, flat), ViewSpaceDecoder(4).double(), ASSUMED)
    edges = torch.linspace(1.0, 0.0, 201, dtype=torch.float64)
    u = torch.tensor([-2 / 3, 0.0, 2 / 3], dtype=torch.float64)
    density, _ = field.on_grid(
        torch.zeros(1, dtype=torch.float64), u, 0.5 * (edges[1:] + edges[:-1])
    )
    depth = density[0, 0] * 0.005
    light = torch.exp(-depth.cumsum(-1))
    halfway = edges[1:][(light < 0.5).double().argmax(-1)]
    assert (light[:, -1] < 0.5).all(), "the slab stops most of the light"
    assert (light[:, 20] > 0.7).all(), "in front of it there is little"
    torch.testing.assert_close(halfway, surface + 0.5, atol=0.07, rtol=0)


def test_without_a_surface_the_slab_is_gone():
    torch.manual_seed(0)
    decoder = ViewSpaceDecoder(4, surface=False).double()
    field = made(channels=4)
    shifted = field.uv.clone()
    shifted[:, 3:5] += 1.0
    q = assumed_frame_points()
    one = ViewSpaceField(field.planes, decoder, ASSUMED).at(q)
    planes = ViewSpacePlanes(shifted, field.ud, field.vd)
    two = ViewSpaceField(planes, decoder, ASSUMED).at(q)
    assert torch.equal(one[0], two[0])


def test_scene_takes_one_of_the_batch():
    field = made(batch=3)
    q = assumed_frame_points().expand(3, -1, -1)
    whole, _ = field.at(q)
    one, _ = field.scene(1).at(q[1:2])
    torch.testing.assert_close(one[0], whole[1], atol=1e-12, rtol=1e-12)


# Coordinates


@pytest.mark.parametrize("frame", [ASSUMED, TRUE])
def test_view_coordinates_are_the_frames_own(frame):
    assumed = frame.from_view_coordinates(assumed_frame_points())
    true = frame.unwarp(assumed)
    q, factor = view_coordinates(true, frame)
    torch.testing.assert_close(q, frame.view_coordinates(frame.warp(true)), atol=1e-12, rtol=0)
    torch.testing.assert_close(q, assumed_frame_points(), atol=1e-11, rtol=0)
    expected = 1 / (assumed[..., 2].square() * (frame.d_near - frame.d_far))
    torch.testing.assert_close(factor, expected, atol=1e-12, rtol=1e-10)


def test_assumed_points_are_the_frames_warp_and_stop_at_the_far_wall():
    true = TRUE.unwarp(TRUE.from_view_coordinates(assumed_frame_points()))
    torch.testing.assert_close(assumed_points(true, TRUE), TRUE.warp(true), atol=1e-10, rtol=1e-10)
    beyond = torch.tensor([[[0.1, -0.2, 1.0]]], dtype=torch.float64) * 1e9
    shifted = Frame(focal_assumed=1.207, focal_true=0.9, a=1.7, b=-0.3)
    found = assumed_points(beyond, shifted)
    assert found[0, 0, 2].item() == pytest.approx(1 / (0.2 * shifted.d_far))
    torch.testing.assert_close(
        found[..., :2] / found[..., 2:], beyond[..., :2] / beyond[..., 2:] * 0.9 / 1.207
    )


def test_nothing_is_behind_the_camera_or_too_near():
    field = wall(5.0)
    z = torch.tensor([-3.0, -1e-3, 0.0, 1e-7, 0.3, 0.499, 0.501, 1.0, 50.0], dtype=torch.float64)
    points = torch.stack([torch.zeros_like(z), 0.2 * z, z], dim=-1)[None]
    density = field(points).density[0]
    assert (density[:6] == 0).all(), "nearer than half of the nearest depth, 1"
    assert (density[6:] > 0).all()
    assert field(points.requires_grad_()).density.sum().isfinite()


def test_gradients_are_finite_everywhere():
    field = made()
    points = torch.tensor(
        [[[0.0, 0, 0], [0, 0, 1e-12], [1, 1, -4], [1e6, 0, 1e-5], [0, 0, 1e12], [0.1, 0, 2]]],
        dtype=torch.float64,
        requires_grad=True,
    )
    out = field(points)
    (out.density.sum() + out.features.sum() + field.warp(points).sum()).backward()
    assert points.grad is not None
    assert points.grad.isfinite().all()


# Density and light


@pytest.mark.parametrize("frame", [ASSUMED, TRUE])
def test_optical_depth_is_density_times_disparity_times_slant(frame):
    """sigma_world |dX| = sigma_net |d delta| sqrt(1 + tan^2) along a canonical ray."""
    field = made(frame)
    origins, directions = canonical_rays(frame.focal_true)
    delta = torch.linspace(0.99, 0.01, 4001, dtype=torch.float64)
    depth = frame.true_depth(frame.depth_of_disparity(delta))
    edges = depth / directions[..., 2:]  # rays edges: distances of equal steps in delta
    out = render_rays(field, origins, directions, edges, opaque_last=False)
    middles = 0.5 * (delta[1:] + delta[:-1])
    uv = frame.focal_true * directions[..., :2] / directions[..., 2:]
    q = torch.cat(
        [uv[:, :, None].expand(-1, -1, 4000, -1), middles.expand(1, 16, -1)[..., None]], -1
    )
    density, _ = field.at(q)
    # tan^2 in the assumed space, where the density is per unit of length
    slant = (1 + (uv / frame.focal_assumed).square().sum(-1)).sqrt()
    depth_of_light = (density * delta.diff().abs()).sum(-1) * slant
    assert depth_of_light.min() > 0.05
    assert depth_of_light.std() > 0.5
    torch.testing.assert_close(-torch.log1p(-out.opacity), depth_of_light, rtol=2e-4, atol=0)


def test_sideways_rays_meet_matter_too():
    """A ray at constant depth crosses no disparity at all; its lengths are Euclidean."""
    field, z, length = wall(3.0), 2.0, 1.5
    origins = torch.tensor([[[-0.7, 0.1, z]]], dtype=torch.float64)
    directions = torch.tensor([[[1.0, 0.0, 0.0]]], dtype=torch.float64)
    edges = torch.linspace(0.0, length, 33, dtype=torch.float64)[None, None]
    out = render_rays(field, origins, directions, edges, opaque_last=False)
    expected = 1 - math.exp(-3.0 / (z**2 * 0.9) * length)
    assert out.opacity.item() == pytest.approx(expected, abs=1e-12)


def test_cameras_turned_against_each_other_see_the_same_opacity():
    field = made(TRUE)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = torch.tensor([0.3, -0.1, -0.2], dtype=torch.float64)
    straight = Camera.from_fov(1.2, pose[None])
    options = RenderOptions(samples=96, near=0.5, far=15.0, opaque_last=False, least_light=0.0)
    picture = render(field, straight, 9, 9, options)
    for row, column in ((1, 2), (4, 7), (8, 0)):
        uv = torch.tensor([[[(column + 0.5) / 9, (row + 0.5) / 9]]], dtype=torch.float64)
        forward = camera_rays(straight, uv).directions[0, 0]
        axis = torch.linalg.cross(straight.forward[0], forward)
        angle = torch.atan2(axis.norm(), (straight.forward[0] * forward).sum())
        turned = pose.clone()
        turned[:3, :3] = rotation_about(axis / axis.norm(), angle) @ pose[:3, :3]
        # The middle pixel of the turned camera looks where that pixel of the straight one looks.
        other = render(field, Camera.from_fov(0.4, turned[None]), 3, 3, options)
        here = picture.opacity[0, row, column].item()
        assert 0.02 < here < 1
        assert other.opacity[0, 1, 1].item() == pytest.approx(here, abs=1e-9)
        assert other.rgb[0, :, 1, 1].tolist() == pytest.approx(
            picture.rgb[0, :, row, column].tolist(), abs=1e-9
        )


def test_another_frame_renames_points_and_nothing_else():
    field = made(ASSUMED)
    renamed = field.with_frame(TRUE)
    assumed = TRUE.from_view_coordinates(assumed_frame_points())
    true = TRUE.unwarp(assumed)
    assert (true - assumed).abs().min(dim=1).values.max() > 0.01
    one, two = field(assumed), renamed(true)
    torch.testing.assert_close(two.density, one.density, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(two.features, one.features, atol=1e-10, rtol=0)
    torch.testing.assert_close(renamed.warp(true), field.warp(assumed), atol=1e-12, rtol=1e-10)


def test_another_frame_leaves_the_canonical_picture_unchanged():
    """Up to where an interval's middle lies, which differs by the square of its length."""
    field = made(ASSUMED)

    def canonical(frame: Frame, samples: int, into: ViewSpaceField | None = None):
        origins, directions = canonical_rays(frame.focal_true)
        delta = torch.linspace(0.99, 0.01, samples + 1, dtype=torch.float64)
        edges = frame.true_depth(frame.depth_of_disparity(delta)) / directions[..., 2:]
        into = into or field.with_frame(frame)
        return render_rays(into, origins, directions, edges, opaque_last=True).features

    assert canonical(ASSUMED, 64).std() > 0.05
    apart = {n: (canonical(TRUE, n) - canonical(ASSUMED, n)).abs().max() for n in (64, 256)}
    assert apart[64] < 2e-3
    assert apart[256] < 2e-4
    # The true camera without the map makes another picture.
    assert (canonical(TRUE, 256, into=field) - canonical(ASSUMED, 256)).abs().max() > 0.05


def test_another_frame_moves_novel_views():
    field = made(ASSUMED)
    pose = torch.eye(4, dtype=torch.float64)
    pose[0, 3] = 0.5
    camera = Camera.from_fov(0.8, pose[None])
    options = RenderOptions(samples=64, near=0.6, far=12.0)
    one = render(field, camera, 8, 8, options).rgb
    two = render(field.with_frame(TRUE), camera, 8, 8, options).rgb
    assert (one - two).abs().mean() > 0.01
