"""The parts of the pose solver: triangles, derivatives, medians."""

import pytest
import torch
from made_cameras import points_before, random_camera
from torch import Tensor

from unflat.geometry import rotation_from_vector
from unflat.geometry.pnp_refine import (
    FocalPrior,
    Matches,
    Poses,
    loss_width,
    noise_variance,
    normal_equations,
    pose_loss,
    refine,
    residuals,
    weighted_median,
)
from unflat.geometry.pnp_start import different, orthographic_triangles, perspective_triangles


def normal(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def edges(triangles: Tensor) -> Tensor:
    return (triangles - triangles.roll(1, dims=-2)).norm(dim=-1)


def test_three_points_before_a_perspective_camera():
    """The true corners are among the answers, and every answer is the triangle on its rays."""
    camera = random_camera(0, (200,))
    world = points_before(camera, 3)
    local = camera.to_camera(world)
    rays = torch.nn.functional.normalize(local, dim=-1)
    answers = perspective_triangles(world, rays)
    distance = (answers - local[:, None]).norm(dim=-1).amax(dim=-1).nan_to_num(nan=torch.inf)
    assert float((distance.amin(dim=1) < 1e-6).double().mean()) > 0.98  # but for double roots
    exact = (edges(answers) - edges(world)[:, None]).abs().amax(dim=-1) < 1e-6
    is_some = answers.isfinite().all(dim=-1).all(dim=-1)
    # A few are the real parts of nearly real roots.
    assert float(exact[is_some].double().mean()) > 0.95
    on_ray = torch.cross(answers, rays[:, None].expand_as(answers), dim=-1).norm(dim=-1)
    assert float(on_ray[is_some].max()) < 1e-9
    assert bool(((answers * rays[:, None]).sum(dim=-1)[is_some] > 0).all())


def test_three_points_before_an_orthographic_camera():
    rotation, scale = rotation_from_vector(normal(0, 200, 3)), normal(1, 200).exp()
    world = normal(2, 200, 3, 3)
    local = scale[:, None, None] * (world @ rotation.mT)
    answers = orthographic_triangles(world, local[..., :2] + 0.3)
    raised = local - local[:, :1] * torch.tensor([0.0, 0.0, 1.0])
    raised = raised + torch.tensor([0.3, 0.3, 0.0])
    distance = (answers - raised[:, None]).norm(dim=-1).amax(dim=-1)
    assert float(distance.amin(dim=1).max()) < 1e-6
    ratio = edges(answers) / edges(world)[:, None]
    torch.testing.assert_close(ratio, scale[:, None, None].expand(200, 2, 3))
    mirrored = answers[:, 0] * torch.tensor([1.0, 1.0, -1.0])
    torch.testing.assert_close(mirrored, answers[:, 1])


def some(seed: int, count: int, is_perspective: bool) -> tuple[Poses, Matches]:
    poses = Poses(
        rotation_from_vector(normal(seed, count, 3)),
        0.1 * normal(seed + 1, count, 2),
        0.2 * normal(seed + 2, count) - 1.0,
        0.3 * normal(seed + 3, count) if is_perspective else None,
    )
    points = 0.5 * normal(seed + 4, 40, 3)
    weights = torch.rand(40, generator=torch.Generator().manual_seed(seed)).double()
    return poses, Matches(points, 0.3 * normal(seed + 5, 40, 2), weights / weights.mean())


@pytest.mark.parametrize("is_perspective", [True, False])
@pytest.mark.parametrize("has_prior", [True, False])
def test_the_gradient_is_the_loss_s_own(is_perspective: bool, has_prior: bool):
    """By autograd through the loss, with and without the focal length."""
    poses, matches = some(0, 5, is_perspective)
    width = torch.full((5,), 0.3, dtype=torch.float64)
    prior = FocalPrior(0.2, 0.01) if has_prior else None
    size = 7 if is_perspective else 6
    step = torch.zeros(5, size, dtype=torch.float64, requires_grad=True)

    def moved(step: Tensor) -> Poses:
        focal = poses.log_focal
        return Poses(
            rotation_from_vector(step[:, :3]) @ poses.rotation,
            poses.middle + step[:, 3:5],
            poses.log_scale + step[:, 5],
            None if focal is None else focal + step[:, 6],
        )

    loss = pose_loss(moved(step), matches, width, prior) * 0.5 * width**2 * 40
    (expected,) = torch.autograd.grad(loss.sum(), step)
    matrix, gradient = normal_equations(poses, matches, width, prior, True)
    assert gradient.shape == (5, size)
    torch.testing.assert_close(gradient, expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(matrix, matrix.mT)
    assert float(torch.linalg.eigvalsh(matrix).min()) > 0.0
    _, held = normal_equations(poses, matches, width, prior, False)
    torch.testing.assert_close(held, gradient[:, :6])


def seen_by(poses: Poses, points: Tensor) -> Tensor:
    """Where the first pose sees points, from the camera's equation alone."""
    turned, scale = points @ poses.rotation[0].T, poses.log_scale[0].exp()
    if poses.log_focal is None:
        return poses.middle[0] + scale * turned[:, :2]
    focal = poses.log_focal[0].exp()
    depth = turned[:, 2:] + focal / scale
    return focal * (turned[:, :2] + poses.middle[0] / scale) / depth


@pytest.mark.parametrize("is_perspective", [True, False])
def test_nothing_is_left_where_the_camera_sees_the_points(is_perspective: bool):
    poses, matches = some(10, 3, is_perspective)
    matches = matches._replace(seen=seen_by(poses, matches.points))
    found = residuals(poses, matches)
    assert float(found.across[0].norm(dim=-1).max()) < 1e-12
    assert float(found.across[1].norm(dim=-1).min()) > 1e-3


@pytest.mark.parametrize("is_perspective", [True, False])
def test_refining_ends_where_the_loss_is_least(is_perspective: bool):
    true, matches = some(10, 1, is_perspective)
    matches = matches._replace(seen=seen_by(true, matches.points))
    matches = matches._replace(points=matches.points + 0.02 * normal(20, 40, 3))
    poses = true.take(torch.zeros(6, dtype=torch.long))
    poses = poses._replace(rotation=rotation_from_vector(0.1 * normal(21, 6, 3)) @ poses.rotation)
    width = torch.full((6,), 0.1, dtype=torch.float64)
    after = refine(poses, matches, width, None, True, 30)
    loss = pose_loss(after, matches, width, None)
    assert bool((loss < pose_loss(poses, matches, width, None) - 1e-3).all())
    assert bool((loss < pose_loss(true, matches, width[:1], None)).all())
    torch.testing.assert_close(loss, loss.mean().expand(6), atol=1e-9, rtol=0)
    _, gradient = normal_equations(after, matches, width, None, True)
    assert float(gradient.abs().max()) < 1e-5
    # One that is no pose at all harms no other.
    broken = poses._replace(log_scale=poses.log_scale.clone())
    broken.log_scale[0] = torch.nan
    others = refine(broken, matches, width, None, True, 30)
    torch.testing.assert_close(others.rotation[1:], after.rotation[1:], atol=1e-6, rtol=0)


def test_weighted_medians():
    values = torch.tensor([[3.0, 1.0, 2.0, 9.0], [5.0, 5.0, 1.0, 0.0]])
    torch.testing.assert_close(weighted_median(values, torch.ones(4)), torch.tensor([2.0, 1.0]))
    heavy = torch.tensor([0.0, 0.0, 1.0, 5.0])
    torch.testing.assert_close(weighted_median(values, heavy), torch.tensor([9.0, 0.0]))
    torch.testing.assert_close(weighted_median(values, 0 * heavy), torch.tensor([1.0, 0.0]))


def test_the_loss_is_twice_as_wide_as_the_near_errors():
    """Of Gaussian errors beside twice as many far ones; and their variance comes back."""
    squared = (0.02 * normal(0, 1, 4000, 2)).square().sum(dim=-1)
    squared = torch.cat([squared, torch.full((1, 8000), 4.0).double()], dim=-1)
    matches = Matches(normal(1, 12000, 3), normal(2, 12000, 2), torch.ones(12000).double())
    width = loss_width(squared, matches, 0.25)
    assert float(noise_variance(width).sqrt()) == pytest.approx(0.02, rel=0.03)
    assert float(loss_width(squared, matches, 0.03)) <= 0.03


def test_only_different_poses_are_kept():
    angles = torch.tensor([0.0, 0.1, 1.0, 1.05, 2.0], dtype=torch.float64)
    axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    zero = torch.zeros(5, dtype=torch.float64)
    poses = Poses(
        rotation_from_vector(angles[:, None] * axis), zero[:, None].expand(5, 2), zero, None
    )
    loss = torch.tensor([0.3, 0.2, 0.5, 0.4, torch.inf], dtype=torch.float64)
    assert different(poses, loss, 5, 0.2).tolist() == [1, 3]
    assert different(poses, loss, 1, 0.2).tolist() == [1]
    assert different(poses, loss, 5, 0.0).tolist() == [1, 0, 3, 2]
