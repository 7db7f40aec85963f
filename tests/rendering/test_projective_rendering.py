"""True cameras for a scene of assumed field of view and relative disparity, by pictures.

The numbers of the derivation: f* = 0.9, f = 1.207, a = 1.7, b = 0.06, three soft spheres, 24 pixels
across, double precision. The first two must hold to rounding and convergence; the last two show
what a missing warp costs.
"""

import math
from dataclasses import replace

import pytest
import torch
from analytic_fields import ProjectiveSpheres, SoftSpheres

from unflat.geometry import Camera, Frame, image_rays, rotation_about
from unflat.rendering import RenderOptions, integrate, render, render_rays, weights

FRAME = Frame(focal_assumed=1.207, focal_true=0.9, a=1.7, b=0.06)
SIDE = 24


def camera(fov: float, pose: torch.Tensor | None = None) -> Camera:
    pose = torch.eye(4, dtype=torch.float64) if pose is None else pose
    return Camera.from_fov(fov, pose[None])


def novel_pose() -> torch.Tensor:
    """Yaw 0.2 rad, moved by (0.8, 0.1, 0.2)."""
    pose = torch.eye(4, dtype=torch.float64)
    up = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    pose[:3, :3] = rotation_about(up, torch.tensor(-0.2, dtype=torch.float64))
    pose[:3, 3] = torch.tensor([0.8, 0.1, 0.2], dtype=torch.float64)
    return pose


def psnr(one: torch.Tensor, two: torch.Tensor) -> float:
    return -10 * math.log10((one - two).square().mean().item())


def novel_view(field, samples: int, fov: float, near=0.8, far=14.0) -> torch.Tensor:
    """From before the first sphere to behind the last, wherever the field's space puts them."""
    options = RenderOptions(samples=samples, near=near, far=far, opaque_last=False, least_light=0.0)
    return render(field, camera(fov, novel_pose()), SIDE, SIDE, options).rgb


@pytest.fixture(scope="module")
def right_view() -> torch.Tensor:
    """Through the warp, as finely as need be."""
    return novel_view(ProjectiveSpheres(FRAME), 512, FRAME.fov_true)


def test_the_assumed_and_the_true_camera_make_the_same_canonical_picture():
    """To rounding: samples correspond, distances are mapped, lengths are those of assumed space."""
    field, spheres = ProjectiveSpheres(FRAME), SoftSpheres()
    disparity = torch.linspace(0.95, 0.1, 257, dtype=torch.float64)
    true_rays = image_rays(camera(FRAME.fov_true), SIDE, SIDE)
    assumed_rays = image_rays(camera(FRAME.fov_assumed), SIDE, SIDE)

    def points(rays, depth):
        """At the same assumed depths on every ray, however slanted."""
        distance = depth / rays.directions[..., 2:]
        return rays.origins[..., None, :] + distance[..., None] * rays.directions[..., None, :]

    middle = 1 / (0.5 * (disparity[1:] + disparity[:-1]))
    pictures = []
    for rays, asked, to_depth, warp in (
        (assumed_rays, spheres, lambda depth: depth, lambda x: x),
        (true_rays, field, FRAME.true_depth, field.warp),
    ):
        answer = asked(points(rays, to_depth(middle)))
        lengths = warp(points(rays, to_depth(1 / disparity))).diff(dim=-2).norm(dim=-1)
        pictures.append(integrate(weights(answer.density, lengths), answer.features))
    assert pictures[0].std() > 0.05
    assert (pictures[0] - pictures[1]).abs().max() < 1e-12


def test_render_makes_the_same_canonical_picture_up_to_its_sampling():
    """render cuts either ray evenly in its own disparity: equal up to the quadrature's error."""
    options = RenderOptions(samples=256, opaque_last=False, least_light=0.0)
    assumed = render(
        SoftSpheres(),
        camera(FRAME.fov_assumed),
        SIDE,
        SIDE,
        replace(options, near=1.0, far=12.0),
    )
    true = render(
        ProjectiveSpheres(FRAME),
        camera(FRAME.fov_true),
        SIDE,
        SIDE,
        replace(options, near=1.6, far=60.0),
    )
    assert psnr(assumed.rgb, true.rgb) > 60
    # Depth is the true one: that of the assumed picture, mapped.
    seen = assumed.opacity > 0.999
    assert seen.sum() > 20
    disparity = FRAME.a * true.disparity + FRAME.b  # affine, so it passes the expectation
    torch.testing.assert_close(disparity[seen], assumed.disparity[seen], atol=2e-3, rtol=0)


def test_a_novel_view_converges(right_view):
    coarse = novel_view(ProjectiveSpheres(FRAME), 128, FRAME.fov_true)
    assert psnr(coarse, right_view) > 60
    assert right_view.std() > 0.05


def test_a_line_of_sight_sees_the_same_in_either_space(right_view):
    """A true ray is a straight segment of the assumed space: march that segment itself."""
    rays = image_rays(camera(FRAME.fov_true, novel_pose()), SIDE, SIDE)
    row = slice(SIDE // 2, SIDE // 2 + 1)
    origins, directions = rays.origins[:, row], rays.directions[:, row]
    start = FRAME.warp(origins + 0.8 * directions)
    stop = FRAME.warp(origins + 14.0 * directions)
    lengths = (stop - start).norm(dim=-1)
    even = torch.linspace(0, 1, 513, dtype=torch.float64)
    out = render_rays(
        SoftSpheres(),
        start,
        (stop - start) / lengths[..., None],
        even * lengths[..., None],
        opaque_last=False,
    )
    pictured = right_view[0, :, SIDE // 2].T
    assert psnr(out.features[0, 0], pictured) > 60


def test_ignoring_the_warp_costs_many_decibels(right_view):
    """The true pose used in the assumed space, with the assumed field of view: 11.8 dB there."""
    wrong = novel_view(SoftSpheres(), 128, FRAME.fov_assumed)
    assert psnr(wrong, right_view) < 22


def test_dropping_the_shift_costs_decibels_too(right_view):
    """k and a right, b forgotten: better than nothing, far from right (22.0 dB there)."""
    without = novel_view(ProjectiveSpheres(replace(FRAME, b=0.0)), 128, FRAME.fov_true)
    wrong = novel_view(SoftSpheres(), 128, FRAME.fov_assumed)
    assert psnr(wrong, right_view) + 3 < psnr(without, right_view) < 35
