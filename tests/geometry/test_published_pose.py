"""Poses of nerf-from-image (Apache-2.0, commit fddf72a) against numbers of its own code."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from seeded import FIXTURES
from unflat.geometry import Camera
from unflat.geometry.camera_augment import augment_camera
from unflat.geometry.published_frames import (
    NerfFromImageCamera,
    from_nerf_from_image,
    full_box,
    to_nerf_from_image,
)
from unflat.geometry.published_pose import (
    ObjectPose,
    camera_from_pose,
    critic_condition,
    pose_from_camera,
)

KINDS = pytest.mark.parametrize("kind", ["persp", "ortho", "persp_flipped", "ortho_flipped"])


def arrays() -> dict[str, Tensor]:
    with np.load(FIXTURES / "pose_augment.npz") as archive:
        return {name: torch.from_numpy(archive[name]).double() for name in archive.files}


def camera_of(stored: dict[str, Tensor], kind: str) -> Camera:
    matrix = stored[f"{kind}_cam2world"]
    box = full_box(matrix).expand(6, 2, 2)
    return from_nerf_from_image(NerfFromImageCamera(matrix, stored.get(f"{kind}_focal"), box))


@KINDS
def test_cameras_of_poses_are_the_published_ones(kind):
    stored = arrays()
    zoom = stored["z0"] if "persp" in kind else None
    pose = ObjectPose(stored["q"], stored["t2"], stored["s"], zoom)
    camera = to_nerf_from_image(camera_from_pose(pose, is_flipped="flipped" in kind))
    torch.testing.assert_close(
        camera.camera_to_world, stored[f"{kind}_cam2world"], atol=5e-6, rtol=0
    )
    assert (camera.focal is None) == ("ortho" in kind)
    if camera.focal is not None:
        torch.testing.assert_close(camera.focal, stored[f"{kind}_focal"], atol=1e-6, rtol=0)


@KINDS
def test_poses_and_conditions_of_cameras_are_the_published_ones(kind):
    stored, flipped = arrays(), "flipped" in kind
    pose = pose_from_camera(camera_of(stored, kind), is_flipped=flipped)
    sign = (pose.quaternion * stored[f"{kind}_back_q"]).sum(-1, keepdim=True).sign()
    for ours, name in ((pose.quaternion * sign, "q"), (pose.shift, "t2"), (pose.scale, "s")):
        torch.testing.assert_close(ours, stored[f"{kind}_back_{name}"], atol=2e-6, rtol=0)
    assert (pose.zoom is None) == ("ortho" in kind)
    if pose.zoom is not None:
        torch.testing.assert_close(pose.zoom, stored[f"{kind}_back_z0"], atol=2e-6, rtol=0)
    condition = critic_condition(camera_of(stored, kind), is_flipped=flipped)
    torch.testing.assert_close(condition, stored[f"{kind}_condition"], atol=2e-6, rtol=0)


@KINDS
def test_changed_cameras_are_the_published_ones(kind):
    stored = arrays()
    changes = stored["aug_rot"], stored["aug_scale"], stored["aug_translation"]
    camera = to_nerf_from_image(augment_camera(camera_of(stored, kind), *changes))
    expected = stored[f"{kind}_aug_cam2world"]
    torch.testing.assert_close(camera.camera_to_world, expected, atol=1e-5, rtol=0)
    if camera.focal is not None:
        torch.testing.assert_close(camera.focal, stored[f"{kind}_aug_focal"], atol=1e-6, rtol=0)


@given(seed=st.integers(0, 1000), flipped=st.booleans(), perspective=st.booleans())
def test_there_and_back(seed, flipped, perspective):
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    zoom = numbers[:, 7] if perspective else None
    turned = torch.nn.functional.normalize(numbers[:, :4], dim=-1)
    pose = ObjectPose(turned, numbers[:, 4:6], numbers[:, 6].exp(), zoom)
    back = pose_from_camera(camera_from_pose(pose, is_flipped=flipped), is_flipped=flipped)
    torch.testing.assert_close(back.shift, pose.shift, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(back.scale, pose.scale)
    assert float(((back.quaternion * turned).sum(-1).abs() - 1).abs().max()) < 1e-9
    if pose.zoom is not None:
        torch.testing.assert_close(back.zoom, pose.zoom, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("perspective", [True, False])
def test_what_the_numbers_mean_on_the_picture(perspective, generator):
    """By projection: where the origin falls, and how far apart the ends of a short bar there."""
    numbers = torch.randn(4, 8, generator=generator).double()
    zoom = numbers[:, 7] if perspective else None
    pose = ObjectPose(numbers[:, :4], 0.3 * numbers[:, 4:6], numbers[:, 6].exp(), zoom)
    camera = camera_from_pose(pose)
    origin = camera.project(torch.zeros(4, 1, 3, dtype=torch.float64))[0][:, 0]
    right, up = 2 * origin[:, 0] - 1, 1 - 2 * origin[:, 1]
    torch.testing.assert_close(torch.stack([right, up], dim=-1), -pose.shift)
    bar = 0.5 * camera.rotation[:, None, :, 0]  # half a unit along the picture's columns
    ends = camera.project(torch.cat([-bar, bar], dim=1))[0]
    torch.testing.assert_close(2 * (ends[:, 1, 0] - ends[:, 0, 0]), pose.scale)
