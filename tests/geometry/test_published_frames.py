"""Cameras of EG3D, zero123 and nerf-from-image against their own projections and stored rays."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_cameras import assert_same_camera, points_before, random_camera

from unflat.geometry.camera import Camera, CameraKind
from unflat.geometry.frames import object_to_z_up
from unflat.geometry.pose import orbit_coordinates, orbit_pose
from unflat.geometry.published_frames import (
    ZERO123_FOV,
    NerfFromImageCamera,
    from_eg3d,
    from_nerf_from_image,
    from_zero123,
    full_box,
    to_eg3d,
    to_nerf_from_image,
    to_zero123,
)
from unflat.geometry.rays import image_rays

QUIET = settings(max_examples=15, deadline=None, derandomize=True)
SEED = st.integers(0, 10_000)
KINDS = pytest.mark.parametrize("kind", ["perspective", "orthographic"])


@QUIET
@given(seed=SEED)
def test_eg3d(seed: int):
    camera = random_camera(seed, (2,))
    label = to_eg3d(camera)
    assert_same_camera(from_eg3d(label), camera)
    points = points_before(camera)
    expected = camera.project(points)[0].numpy()
    for b in range(2):
        numbers = label[b].numpy()
        pose, calibration = numbers[:16].reshape(4, 4), numbers[16:].reshape(3, 3)
        for k, point in enumerate(points[b].numpy()):
            local = np.linalg.solve(pose, np.append(point, 1.0))[:3]
            image = calibration @ local
            np.testing.assert_allclose(image[:2] / image[2], expected[b, k], atol=1e-9)


def test_eg3d_label_of_a_face_camera_has_the_published_layout():
    label = to_eg3d(
        Camera(
            camera_to_world=orbit_pose(0.0, 0.0, 2.7),
            intrinsics=torch.tensor([4.2647, 4.2647, 0.5, 0.5]),
        )
    )
    pose = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 2.7, 0.0, 0.0, 0.0, 1.0]
    calibration = [4.2647, 0.0, 0.5, 0.0, 4.2647, 0.5, 0.0, 0.0, 1.0]
    torch.testing.assert_close(label, torch.tensor(pose + calibration))


@QUIET
@given(seed=SEED)
def test_zero123(seed: int):
    camera = Camera.from_fov(ZERO123_FOV, random_camera(seed).camera_to_world)
    matrix = to_zero123(camera)
    assert_same_camera(from_zero123(matrix), camera)
    points = points_before(camera)
    expected = camera.project(points)[0].numpy() * 128.0
    focal = 35.0 / 32.0 * 128.0
    for k, point in enumerate(object_to_z_up(points).numpy()):
        x, y, z = matrix[:, :3].numpy() @ point + matrix[:, 3].numpy()
        pixel = [64.0 + focal * x / -z, 64.0 - focal * y / -z]
        np.testing.assert_allclose(pixel, expected[k], atol=1e-8)


@QUIET
@given(elevation=st.floats(-1.4, 1.4), azimuth=st.floats(-3.0, 3.0), radius=st.floats(1.5, 2.2))
def test_zero123_angles(elevation: float, azimuth: float, radius: float):
    """Their polar angle counts down from the top; their azimuth 0 is ours of a quarter turn."""
    numbers = torch.tensor([elevation, azimuth, radius], dtype=torch.float64)
    matrix = to_zero123(Camera.from_fov(ZERO123_FOV, orbit_pose(*numbers.unbind()))).numpy()
    x, y, z = -matrix[:, :3].T @ matrix[:, 3]
    assert math.atan2(math.hypot(x, y), z) == pytest.approx(math.pi / 2.0 - elevation)
    turned = math.atan2(y, x) - (azimuth - math.pi / 2.0)
    assert math.cos(turned) == pytest.approx(1.0)
    position = from_zero123(torch.from_numpy(matrix)).position
    torch.testing.assert_close(torch.stack(orbit_coordinates(position)), numbers)


def nerf_from_image_projection(stored: NerfFromImageCamera, point: np.ndarray) -> np.ndarray:
    """(u, v) from the left upper corner of the box, by inverting their rays on paper."""
    pose, box = stored.camera_to_world.numpy(), stored.box.numpy()
    element = pose[3, 3]
    rotation = pose[:3, :3] / element
    right, up, backward = rotation.T @ (point - pose[:3, 3])
    if stored.focal is None:
        full = np.array([right, up]) / element
    else:
        full = 2.0 * float(stored.focal) * np.array([right, up]) / -backward
    inside = (full - box[0]) / box[1]
    return np.array([inside[0], 1.0 - inside[1]])


@KINDS
@QUIET
@given(seed=SEED)
def test_nerf_from_image(kind: CameraKind, seed: int):
    camera = random_camera(seed, kind=kind)
    stored = to_nerf_from_image(camera)
    assert (stored.focal is None) == (kind == "orthographic")
    assert_same_camera(from_nerf_from_image(stored), camera)
    sized = to_nerf_from_image(camera, height=48, width=64)
    assert_same_camera(from_nerf_from_image(sized, height=48, width=64), camera)
    points = points_before(camera)
    expected = camera.project(points)[0].numpy()
    for k, point in enumerate(points.numpy()):
        np.testing.assert_allclose(
            nerf_from_image_projection(stored, point), expected[k], atol=1e-9
        )
        # Their column j is at j / width, ours at (j + 1/2) / width: the same column for a point.
        column = nerf_from_image_projection(sized, point) * [64.0, 48.0]
        np.testing.assert_allclose(column, expected[k] * [64.0, 48.0] - 0.5, atol=1e-8)


@pytest.mark.parametrize("kind", ["persp", "ortho"])
@pytest.mark.parametrize("crop", ["", "bbox_"])
def test_nerf_from_image_rays_of_the_published_code(kind: str, crop: str):
    """Rays of google-research/nerf-from-image (Apache-2.0, commit fddf72a): 6 poses, 5x5 pixels."""
    with np.load(Path(__file__).with_name("nerf_from_image_rays.npz")) as archive:
        arrays = {name: torch.from_numpy(archive[name]).double() for name in archive.files}
    pose = arrays[f"{kind}_cam2world"]
    box = torch.tensor([[-0.8, -0.6], [1.4, 1.4]]).double() if crop else full_box(pose)
    stored = NerfFromImageCamera(pose, arrays.get(f"{kind}_focal"), box.expand(6, 2, 2))
    rays = image_rays(from_nerf_from_image(stored, height=5, width=5), 5, 5)
    torch.testing.assert_close(rays.origins, arrays[f"{kind}_rays_{crop}origin"], atol=2e-6, rtol=0)
    directions = torch.nn.functional.normalize(arrays[f"{kind}_rays_{crop}direction"], dim=-1)
    torch.testing.assert_close(rays.directions, directions, atol=1e-6, rtol=0.0)


def test_what_a_format_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="EG3D's are perspective"):
        to_eg3d(random_camera(0, kind="orthographic"))
    label = to_eg3d(random_camera(0))
    label[17] = 0.1
    with pytest.raises(ValueError, match="skew"):
        from_eg3d(label)
