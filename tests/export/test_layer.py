import math

import numpy as np
import pytest
import torch

from unflat.export import Layer, disparity_jumps, layer_points
from unflat.export.layer import surface_mask
from unflat.geometry.camera import Camera


def whole(depth: torch.Tensor) -> Layer:
    return Layer(torch.zeros(*depth.shape, 3), depth, torch.ones(depth.shape, dtype=torch.bool))


@pytest.mark.parametrize("kind", ["perspective", "orthographic"])
def test_points_project_back_onto_their_pixels(kind):
    pose = torch.eye(4)
    pose[:3, 3] = torch.tensor([0.3, -0.2, 0.1])
    camera = Camera(
        camera_to_world=pose, intrinsics=torch.tensor([0.9, 1.2, 0.45, 0.55]), kind=kind
    )
    depth = 1 + torch.rand(5, 7, generator=torch.Generator().manual_seed(0))
    uv, seen = camera.project(layer_points(whole(depth), camera).reshape(-1, 3))
    torch.testing.assert_close(seen.reshape(5, 7), depth)
    wanted_u = (torch.arange(7) + 0.5) / 7
    wanted_v = (torch.arange(5) + 0.5) / 5
    torch.testing.assert_close(uv[:, 0].reshape(5, 7), wanted_u.expand(5, 7), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        uv[:, 1].reshape(5, 7), wanted_v[:, None].expand(5, 7), atol=1e-5, rtol=0
    )


def test_batch_of_one_camera_is_taken():
    camera = Camera.from_fov(math.radians(60))
    depth = torch.full((3, 3), 2.0)
    batched = Camera(
        camera_to_world=camera.camera_to_world.reshape(1, 4, 4),
        intrinsics=camera.intrinsics.reshape(1, 4),
    )
    torch.testing.assert_close(
        layer_points(whole(depth), batched), layer_points(whole(depth), camera)
    )


def test_surface_needs_mask_and_finite_positive_depth():
    depth = torch.tensor([[1.0, 0.0, torch.inf], [torch.nan, -1.0, 2.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    assert surface_mask(Layer(torch.zeros(2, 3, 3), depth, mask)).tolist() == [
        [True, False, False],
        [False, False, False],
    ]


def test_steps_are_cut_and_planes_are_not():
    disparity = np.full((9, 40), 0.2)
    disparity[:, 20:] = 0.5
    mask = np.ones_like(disparity, dtype=bool)
    right, down = disparity_jumps(disparity, mask, 0.1)
    assert np.array_equal(np.unique(np.nonzero(right)[1]), [19])
    assert right[:, 19].all()
    assert not down.any()


def test_floor_stays_whole_up_to_its_horizon():
    rows = np.arange(1, 41) / 40
    disparity = np.tile(rows[:, None], (1, 8))
    mask = np.ones_like(disparity, dtype=bool)
    assert (np.diff(disparity, axis=0) > 0.1 * disparity[1:]).any(), "no large step to forgive"
    right, down = disparity_jumps(disparity, mask, 0.1)
    assert not right.any()
    assert not down.any()


@pytest.mark.parametrize("ramp", [1, 2, 3])
def test_blurred_step_is_cut_along_its_whole_ramp(ramp):
    row = np.interp(np.arange(30), [14, 14 + ramp], [0.2, 0.8])
    disparity = np.tile(row, (4, 1))
    right, _ = disparity_jumps(disparity, np.ones_like(disparity, dtype=bool), 0.1)
    assert np.array_equal(np.unique(np.nonzero(right)[1]), np.arange(14, 14 + ramp))


def test_masked_pixels_are_no_cuts():
    disparity = np.array([[0.5, 0.0, 0.5, 0.5]])
    right, _ = disparity_jumps(disparity, disparity > 0, 0.1)
    assert not right.any()
