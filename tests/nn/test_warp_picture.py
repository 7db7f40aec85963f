import math

import numpy as np
import pytest
import torch
from torch import Tensor

from seeded import FIXTURES, seeded
from unflat.geometry import Camera, look_at
from unflat.geometry.camera_augment import augment_camera
from unflat.nn.warp_picture import warp_picture


def arrays() -> dict[str, Tensor]:
    with np.load(FIXTURES / "pose_augment.npz") as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def test_pictures_are_warped_as_published():
    """nerf-from-image (Apache-2.0, commit fddf72a), with zeros outside, and with white."""
    stored = arrays()
    changes = stored["aug_rot"], stored["aug_scale"], stored["aug_translation"]
    images = seeded("aug.image", (6, 4, 16, 16), std=0.3)
    warped = warp_picture(images, *changes)
    torch.testing.assert_close(warped, stored["aug_image"], atol=1e-5, rtol=0)
    white = warp_picture(images[:, :3], *changes, outside=1.0)
    torch.testing.assert_close(white, stored["aug_image_white"], atol=1e-5, rtol=0)


def dot(place: Tensor, side: int) -> Tensor:
    """A small blot at (u, v) of a picture."""
    line = (torch.arange(side, dtype=place.dtype) + 0.5) / side
    across = (line - place[:, :1]).square()[:, None, None, :]
    down = (line - place[:, 1:]).square()[:, None, :, None]
    return torch.exp(-(across + down) / (2 * 0.02**2))


def middle(images: Tensor) -> Tensor:
    """(u, v) of the blot."""
    side = images.shape[-1]
    line = (torch.arange(side, dtype=images.dtype) + 0.5) / side
    total = images.sum((1, 2, 3))
    u = (images * line).sum((1, 2, 3)) / total
    return torch.stack([u, (images * line[:, None]).sum((1, 2, 3)) / total], dim=-1)


@pytest.mark.parametrize(
    ("kind", "moved", "deep"),
    [("orthographic", True, True), ("perspective", False, True), ("perspective", True, False)],
)
def test_a_picture_and_its_camera_stay_a_pair(kind, moved, deep, generator):
    """A blot where a point falls is, in the warped picture, where the changed camera sees it.

    Exact up to resampling for all points, except that a perspective camera is moved as is right at
    the origin's depth.
    """
    count = 8
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    pose = look_at(4 * direction).double()
    focal = torch.tensor([0.25, 0.25, 0.5, 0.5] if kind == "orthographic" else [1.1, 1.1, 0.5, 0.5])
    camera = Camera(camera_to_world=pose, intrinsics=focal.double().expand(count, 4), kind=kind)
    points = 0.4 * torch.randn(count, 1, 3, generator=generator).double()
    if not deep:  # into the plane through the origin
        forward = camera.forward[:, None]
        points = points - (points * forward).sum(-1, keepdim=True) * forward
    turn = 2 * math.pi * torch.rand(count, generator=generator).double()
    scale = 2 ** (0.3 * torch.randn(count, generator=generator).double())
    shift = 0.1 * torch.randn(count, 2, generator=generator).double() * moved
    images = dot(camera.project(points)[0][:, 0], 96)
    warped = warp_picture(images, turn, scale, shift)
    seen = augment_camera(camera, turn, scale, shift).project(points)[0][:, 0]
    assert float(((seen - 0.5).abs() < 0.4).all(-1).double().mean()) > 0.7
    inside = ((seen - 0.5).abs() < 0.4).all(-1)
    torch.testing.assert_close(middle(warped)[inside], seen[inside], atol=2e-3, rtol=0)
    assert float((seen - camera.project(points)[0][:, 0]).abs().max()) > 0.1


def test_no_change_is_the_picture_itself():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    still = torch.zeros(2), torch.ones(2), torch.zeros(2, 2)
    torch.testing.assert_close(warp_picture(images, *still, outside=1.0), images)


def test_a_quarter_turn_and_a_move_by_whole_pixels():
    """The window turned clockwise shows things turned the other way; moved right, moved left."""
    images = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    one = torch.ones(1)
    quarter = warp_picture(images, 0.5 * math.pi * one, one, torch.zeros(1, 2))
    torch.testing.assert_close(quarter, images.rot90(1, (2, 3)), atol=1e-5, rtol=0)
    right = warp_picture(images, 0 * one, one, torch.tensor([[2 / 3, 0.0]]), outside=0.25)
    torch.testing.assert_close(right[..., :4], images[..., 2:], atol=1e-5, rtol=0)
    torch.testing.assert_close(right[..., 4:], torch.full((1, 1, 6, 2), 0.25))
    upwards = warp_picture(images, 0 * one, one, torch.tensor([[0.0, 2 / 3]]), outside=0.25)
    torch.testing.assert_close(upwards[..., 2:, :], images[..., :4, :], atol=1e-5, rtol=0)
