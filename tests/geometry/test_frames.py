"""Each format there and back, and against its own documented projection written out plainly."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_cameras import assert_same_camera, points_before, random_camera

from unflat.geometry.camera import Camera, CameraKind
from unflat.geometry.frames import (
    BlenderCamera,
    OpenGLCamera,
    camera_object_to_z_up,
    camera_scene_to_export,
    camera_z_up_to_object,
    from_blender,
    from_colmap,
    from_opengl,
    from_pytorch3d,
    object_to_z_up,
    scene_to_export,
    to_blender,
    to_colmap,
    to_opengl,
    to_pytorch3d,
    to_scene_world,
    z_up_to_object,
)
from unflat.geometry.pose import orbit_pose

QUIET = settings(max_examples=15, deadline=None, derandomize=True)
SEED = st.integers(0, 10_000)
KINDS = pytest.mark.parametrize("kind", ["perspective", "orthographic"])
HEIGHT, WIDTH = 48, 64
ASPECT = WIDTH / HEIGHT


def pixels_by_camera(camera: Camera, points: torch.Tensor) -> np.ndarray:
    """Positions in pixels from the picture's left upper corner, as this package projects."""
    return (camera.project(points)[0] * torch.tensor([WIDTH, HEIGHT]).double()).numpy()


def pixel_by_opengl(view: np.ndarray, projection: np.ndarray, point: np.ndarray) -> list[float]:
    clip = projection @ (view @ np.append(point, 1.0))
    x, y, z = clip[:3] / clip[3]
    assert -1.0 <= z <= 1.0  # between the clipping planes
    return [(x + 1.0) / 2.0 * WIDTH, HEIGHT - (y + 1.0) / 2.0 * HEIGHT]


def pixel_by_blender(
    matrix_world: np.ndarray,
    angle_x: float | None,
    ortho_scale: float | None,
    shift: np.ndarray,
    point: np.ndarray,
) -> list[float]:
    x, y, z = (np.linalg.inv(matrix_world) @ np.append(point, 1.0))[:3]
    if angle_x is None:
        per_unit = WIDTH / ortho_scale
    else:
        assert z < 0.0
        per_unit = WIDTH / (2.0 * math.tan(angle_x / 2.0)) / -z
    right, up = x * per_unit - shift[0] * WIDTH, y * per_unit - shift[1] * WIDTH
    return [WIDTH / 2.0 + right, HEIGHT / 2.0 - up]


def pixel_by_colmap(
    qvec: np.ndarray, tvec: np.ndarray, params: np.ndarray, point: np.ndarray
) -> list[float]:
    def times(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        scalar = p[0] * q[0] - p[1:] @ q[1:]
        return np.append(scalar, p[0] * q[1:] + q[0] * p[1:] + np.cross(p[1:], q[1:]))

    conjugate = qvec * np.array([1.0, -1.0, -1.0, -1.0])
    x, y, z = times(times(qvec, np.append(0.0, point)), conjugate)[1:] + tvec
    fx, fy, cx, cy = params
    return [fx * x / z + cx, fy * y / z + cy]


def pixel_by_pytorch3d(
    R: np.ndarray,
    T: np.ndarray,
    focal: np.ndarray,
    principal: np.ndarray,
    is_orthographic: bool,
    point: np.ndarray,
) -> list[float]:
    left, up, forward = point @ R + T
    scale = 1.0 if is_orthographic else 1.0 / forward
    ndc = focal * np.array([left, up]) * scale + principal
    half_short_side = min(WIDTH, HEIGHT) / 2.0
    return [WIDTH / 2.0 - half_short_side * ndc[0], HEIGHT / 2.0 - half_short_side * ndc[1]]


@KINDS
@QUIET
@given(seed=SEED)
def test_opengl(kind: CameraKind, seed: int):
    camera = random_camera(seed, (2,), kind)
    stored = to_opengl(camera, near=0.01, far=50.0)
    assert_same_camera(from_opengl(stored), camera)
    points = points_before(camera)
    expected = pixels_by_camera(camera, points)
    for b in range(2):
        for k, point in enumerate(points[b].numpy()):
            pixel = pixel_by_opengl(stored.view[b].numpy(), stored.projection[b].numpy(), point)
            np.testing.assert_allclose(pixel, expected[b, k], atol=1e-8)


@KINDS
@pytest.mark.parametrize("z_up", [True, False])
@QUIET
@given(seed=SEED)
def test_blender(kind: CameraKind, z_up: bool, seed: int):
    camera = random_camera(seed, kind=kind, aspect=ASPECT)
    stored = to_blender(camera, ASPECT, z_up)
    assert_same_camera(from_blender(stored, ASPECT, z_up), camera)
    points = points_before(camera)
    theirs = object_to_z_up(points) if z_up else points
    for k, point in enumerate(theirs.numpy()):
        pixel = pixel_by_blender(
            stored.matrix_world.numpy(),
            None if stored.angle_x is None else float(stored.angle_x),
            None if stored.ortho_scale is None else float(stored.ortho_scale),
            stored.shift.numpy(),
            point,
        )
        np.testing.assert_allclose(pixel, pixels_by_camera(camera, points)[k], atol=1e-8)


@QUIET
@given(seed=SEED)
def test_colmap(seed: int):
    camera = random_camera(seed)
    stored = to_colmap(camera, HEIGHT, WIDTH)
    assert_same_camera(from_colmap(stored, HEIGHT, WIDTH), camera)
    points = points_before(camera)
    expected = pixels_by_camera(camera, points)
    for k, point in enumerate(points.numpy()):
        pixel = pixel_by_colmap(*(part.numpy() for part in stored), point)
        np.testing.assert_allclose(pixel, expected[k], atol=1e-8)


@KINDS
@QUIET
@given(seed=SEED)
def test_pytorch3d(kind: CameraKind, seed: int):
    camera = random_camera(seed, kind=kind)
    is_orthographic = kind == "orthographic"
    stored = to_pytorch3d(camera, ASPECT)
    assert_same_camera(from_pytorch3d(stored, ASPECT, is_orthographic), camera)
    points = points_before(camera)
    expected = pixels_by_camera(camera, points)
    for k, point in enumerate(points.numpy()):
        pixel = pixel_by_pytorch3d(*(part.numpy() for part in stored), is_orthographic, point)
        np.testing.assert_allclose(pixel, expected[k], atol=1e-8)


def test_pytorch3d_upright_picture():
    camera = random_camera(5)
    assert_same_camera(from_pytorch3d(to_pytorch3d(camera, 0.75), 0.75), camera)
    wide = to_pytorch3d(Camera.from_fov(math.pi / 2.0), 1.0)
    torch.testing.assert_close(wide.focal_length, torch.ones(2))


@QUIET
@given(seed=SEED)
def test_worlds_there_and_back(seed: int):
    camera = random_camera(seed, (3,))
    assert_same_camera(camera_z_up_to_object(camera_object_to_z_up(camera)), camera)
    assert_same_camera(camera_scene_to_export(camera_scene_to_export(camera)), camera)
    points = points_before(camera)
    torch.testing.assert_close(z_up_to_object(object_to_z_up(points)), points)
    for turn_camera, turn in (
        (camera_object_to_z_up, object_to_z_up),
        (camera_z_up_to_object, z_up_to_object),
        (camera_scene_to_export, scene_to_export),
    ):
        moved = turn_camera(camera)
        torch.testing.assert_close(moved.project(turn(points))[0], camera.project(points)[0])
        assert (torch.linalg.det(moved.rotation) > 0.99).all()


def test_fronts_and_ups_of_the_worlds():
    front_of_z_up = torch.tensor([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    expected = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(z_up_to_object(front_of_z_up), expected)
    torch.testing.assert_close(
        scene_to_export(torch.tensor([1.0, 1.0, 1.0])), torch.tensor([1.0, -1.0, -1.0])
    )


def test_scene_world_is_what_the_canonical_camera_sees():
    canonical, camera = random_camera(1), random_camera(2, (4,))
    points = points_before(camera)
    moved = to_scene_world(camera, canonical)
    local = canonical.to_camera(points.reshape(-1, 3)).reshape(points.shape)
    torch.testing.assert_close(moved.project(local)[0], camera.project(points)[0])
    itself = to_scene_world(canonical, canonical).camera_to_world
    torch.testing.assert_close(itself, torch.eye(4, dtype=torch.float64))


def test_impossible_conversions_are_refused():
    orthographic = random_camera(0, kind="orthographic")
    with pytest.raises(ValueError, match="orthographic; COLMAP"):
        to_colmap(orthographic, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match="not square"):
        to_blender(random_camera(0), ASPECT)
    with pytest.raises(ValueError, match="at least 1"):
        to_blender(random_camera(0), 0.5)
    with pytest.raises(ValueError, match="either"):
        from_blender(BlenderCamera(torch.eye(4), None, None, torch.zeros(2)))
    both = [to_opengl(random_camera(0, kind=kind)) for kind in ("perspective", "orthographic")]
    mixed = OpenGLCamera(*(torch.stack(parts) for parts in zip(*both, strict=True)))
    with pytest.raises(ValueError, match="one batch"):
        from_opengl(mixed)


def test_blender_default_camera_looks_down():
    """A new Blender camera without rotation looks along -z of its z-up world: at the ground."""
    stored = BlenderCamera(torch.eye(4), torch.tensor(math.radians(40.0)), None, torch.zeros(2))
    camera = from_blender(stored)
    torch.testing.assert_close(camera.forward, torch.tensor([0.0, -1.0, 0.0]))
    from_above = orbit_pose(math.pi / 2.0, 0.0, 1.0)
    torch.testing.assert_close(camera.rotation, from_above[:3, :3], atol=1e-6, rtol=0.0)
