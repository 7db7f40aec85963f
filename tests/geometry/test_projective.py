"""The checks of the derivation, in double precision with f* = 0.9, f = 1.207, a = 1.7, b = 0.06."""

import math
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unflat.geometry.camera import Camera, rigid
from unflat.geometry.pose import rotation_from_vector
from unflat.geometry.projective import Frame
from unflat.geometry.rays import camera_rays

FRAME = Frame(focal_assumed=1.207, focal_true=0.9, a=1.7, b=0.06)
QUIET = settings(max_examples=20, deadline=None, derandomize=True)


def true_points(count: int = 200, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    low = torch.tensor([-3.0, -3.0, 0.5], dtype=torch.float64)
    return low + share * torch.tensor([6.0, 6.0, 8.0], dtype=torch.float64)


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


def test_pixels_are_kept_and_disparity_is_affine():
    true = true_points()
    assumed = FRAME.warp(true)
    close(1.207 * assumed[:, :2] / assumed[:, 2:], 0.9 * true[:, :2] / true[:, 2:], 1e-14)
    close(1.0 / assumed[:, 2], 1.7 / true[:, 2] + 0.06, 1e-14)
    close(FRAME.unwarp(assumed), true, 1e-13)
    # The warp is not the identity, so the line above does not hold for nothing.
    assert (assumed - true).abs().min(dim=0).values.max() > 0.1


def test_inverse_has_the_closed_form():
    true = true_points()
    homogeneous = torch.cat([true, torch.ones_like(true[:, :1])], dim=-1)
    mapped = homogeneous @ FRAME.matrix(true).mT
    assumed = mapped[:, :3] / mapped[:, 3:]
    close(FRAME.warp(true), assumed, 1e-14)
    x, y, z = assumed.unbind(-1)
    depth = 1.7 * z / (1.0 - 0.06 * z)
    k = 0.9 / 1.207
    by_hand = torch.stack([x * (1.7 + 0.06 * depth) / k, y * (1.7 + 0.06 * depth) / k, depth], -1)
    close(FRAME.unwarp(assumed), by_hand, 1e-13)
    close(FRAME.true_depth(z), depth, 1e-14)
    close(FRAME.assumed_depth(depth), z, 1e-14)


def test_jacobian_equals_central_differences_and_keeps_handedness():
    true = true_points(50)
    step = 1e-6
    columns = [
        (FRAME.warp(true + offset) - FRAME.warp(true - offset)) / (2.0 * step)
        for offset in step * torch.eye(3, dtype=torch.float64)
    ]
    jacobian = FRAME.jacobian(true)
    close(jacobian, torch.stack(columns, dim=-1), 1e-8)
    w = 1.7 + 0.06 * true[:, 2]
    close(torch.linalg.det(jacobian), (0.9 / 1.207) ** 2 * 1.7 / w**4, 1e-12)


def test_a_mapped_ray_is_straight_and_keeps_its_order():
    origin = torch.tensor([0.8, 0.1, 0.2], dtype=torch.float64)
    direction = torch.nn.functional.normalize(torch.tensor([0.3, -0.2, 1.0]).double(), dim=0)
    points = FRAME.warp(origin + torch.linspace(0.1, 9.0, 50).double()[:, None] * direction)
    chord = points[-1] - points[0]
    off = torch.linalg.cross(points - points[0], chord.expand(50, 3)).norm(dim=-1) / chord.norm()
    assert off.max() < 1e-14
    along = (points - points[0]) @ chord
    assert (along.diff() > 0.0).all()


def test_equivalent_camera_sees_mapped_points_where_the_true_one_sees_true_points():
    pose = rigid(
        rotation_from_vector(torch.tensor([0.05, 0.2, -0.03], dtype=torch.float64)),
        torch.tensor([0.8, 0.1, 0.2], dtype=torch.float64),
    )
    camera = Camera.from_fov(FRAME.fov_true, pose)
    fx, fy, cx, cy = camera.intrinsics.tolist()
    calibration = pose.new_tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    true_matrix = calibration @ torch.linalg.inv(pose)[:3]
    matrix = true_matrix @ torch.linalg.inv(FRAME.matrix(pose))
    true = true_points()
    mapped = torch.cat([FRAME.warp(true), torch.ones(200, 1).double()], dim=-1) @ matrix.mT
    close(mapped[:, :2] / mapped[:, 2:], camera.project(true)[0], 1e-11)
    center = FRAME.warp(camera.position)
    assert (matrix @ torch.cat([center, torch.ones(1).double()])).abs().max() < 1e-14


def test_regression_recovers_scale_and_shift():
    true = 1.0 / true_points()[:, 2]
    assert Frame.fit(1.7 * true + 0.06, true) == pytest.approx((1.7, 0.06), abs=1e-13)
    spoiled = 1.7 * true + 0.06
    spoiled[:20] += 3.0
    weights = torch.ones_like(true)
    weights[:20] = 0.0
    assert Frame.fit(spoiled, true, weights) == pytest.approx((1.7, 0.06), abs=1e-13)
    assert Frame.fit(spoiled, true)[1] > 0.2
    assert Frame.fit(spoiled, true, robust=True) == pytest.approx((1.7, 0.06), abs=1e-3)
    with pytest.raises(ValueError, match="does not vary"):
        Frame.fit(true, torch.ones_like(true))


def test_canonical_rays_of_the_true_lens_map_to_canonical_rays_of_the_assumed_one():
    uv = torch.rand(9, 2, dtype=torch.float64)
    identity = torch.eye(4, dtype=torch.float64)
    true = camera_rays(Camera.from_fov(FRAME.fov_true, identity), uv)
    seen = FRAME.warp(true.at(torch.full((9, 1), 3.0).double())[:, 0])
    close(Camera.from_fov(FRAME.fov_assumed, identity).project(seen)[0], uv, 1e-14)


def test_view_coordinates_in_one_line():
    true = true_points()
    coordinates = FRAME.view_coordinates(FRAME.warp(true))
    x, y, z = true.unbind(-1)
    disparity = (1.7 / z + 0.06 - FRAME.d_far) / (FRAME.d_near - FRAME.d_far)
    close(coordinates, torch.stack([0.9 * x / z, 0.9 * y / z, disparity], -1), 1e-13)
    close(FRAME.from_view_coordinates(coordinates), FRAME.warp(true), 1e-12)
    close(FRAME.depth_of_disparity(torch.tensor([0.0, 1.0])), torch.tensor([10.0, 1.0]), 1e-6)


@QUIET
@given(
    focal=st.floats(0.7, 4.0),
    a=st.floats(0.2, 5.0),
    b=st.floats(-0.05, 0.3),
    seed=st.integers(0, 99),
)
def test_there_and_back_is_the_identity(focal: float, a: float, b: float, seed: int):
    frame = Frame(focal_true=focal, a=a, b=b)
    true = true_points(50, seed)
    true = true[a + b * true[:, 2] > 0.02]
    close(frame.unwarp(frame.warp(true)), true, 1e-9)
    close(frame.true_depth(frame.assumed_depth(true[:, 2])), true[:, 2], 1e-9)


def test_default_is_the_identity_of_a_50_degree_lens():
    frame = Frame()
    assert frame.is_identity
    assert math.degrees(frame.fov_true) == pytest.approx(50.0)
    close(frame.warp(true_points()), true_points(), 0.0)
    assert Frame(**asdict(FRAME)) == FRAME
    assert not frame.with_fov(1.0).is_identity
    assert frame.with_fov(1.0).fov_true == pytest.approx(1.0)


def test_beyond_infinity_is_very_far_and_finite_also_in_float32():
    frame = Frame(a=1.0, b=-0.2)
    far = frame.warp(torch.tensor([[1.0, 1.0, 4.9], [1.0, 1.0, 5.0], [1.0, 1.0, 90.0]]))
    assert far.isfinite().all()
    assert (far[1:, 2] > 1e5).all()
    back = FRAME.unwarp(torch.tensor([[1.0, 1.0, 16.0], [1.0, 1.0, 20.0]]))
    assert back.isfinite().all()
    assert back[1, 2] > 1e5


@pytest.mark.parametrize(
    "change", [{"a": 0.0}, {"b": math.inf}, {"d_far": 1.0}, {"focal_true": -1.0}]
)
def test_impossible_frames_are_refused(change: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(change))):
        Frame(**change)
