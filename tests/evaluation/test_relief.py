import math

import pytest
import torch

from unflat.evaluation.relief import origin_depth, outline_depth, place, placed_depth
from unflat.geometry import Camera, look_at


def camera(distance=2.0, focal=1.1):
    pose = look_at(torch.tensor([0.0, 0.0, distance]), torch.zeros(3))
    return Camera(camera_to_world=pose, intrinsics=torch.tensor([focal, focal, 0.5, 0.5]))


def disc(side, radius):
    steps = torch.arange(side) + 0.5 - side / 2
    squared = steps[:, None].square() + steps.square()
    return (squared <= radius**2).float(), squared.sqrt()


def test_the_outline_of_a_disc_becomes_half_a_sphere_about_the_origin():
    mask, from_center = disc(128, 40)
    depth = outline_depth(mask, camera())
    pixel = 2.0 / (1.1 * 128)
    inner = from_center < 36
    expected = 2.0 - pixel * (40**2 - from_center.square()).clamp_min(0).sqrt()
    assert (depth - expected)[inner].abs().max() < 1.5 * pixel
    assert (depth[mask == 0] == 2.0).all()
    assert depth.min().item() == pytest.approx(2.0 - 40 * pixel, abs=2 * pixel)


def test_an_object_at_the_border_ends_there():
    mask = torch.ones(32, 32)
    mask[:, :4] = 0
    depth = outline_depth(mask, camera())
    # the frame's border counts as an outline: as shallow there as beside the masked columns
    assert depth[0, 18] == depth[16, 4] == depth[16, 31]
    assert depth[16, 18] < depth[16, 31] - 0.2


def test_a_mask_of_the_whole_frame_is_a_plane():
    assert (outline_depth(torch.ones(32, 32), camera()) == 2).all()


def test_a_relative_disparity_gets_the_depths_of_a_sphere_of_its_area():
    mask, from_center = disc(200, 40)
    pixel = 2.0 / (1.1 * 200)
    radius = 40 * pixel
    true = 2.0 - pixel * (40**2 - from_center.square()).clamp_min(0).sqrt()
    for scale, shift in ((1.0, 0.0), (3.0, 7.0), (0.01, -2.0)):
        found = place(scale / true + shift, mask, camera())
        assert found.scale == pytest.approx(scale, rel=0.03)
        assert found.shift == pytest.approx(shift, abs=0.03 * scale)
        depth = placed_depth(scale / true + shift, mask, camera())
        assert (depth - true)[mask > 0].abs().max() < 0.03 * radius


def test_a_constant_disparity_is_flat_at_the_sphere_s_median():
    mask, _ = disc(100, 20)
    depth = placed_depth(torch.full((100, 100), 4.0), mask, camera())
    radius = math.sqrt(float(mask.sum()) / math.pi) * 2.0 / 110
    expected = torch.full((100, 100), 2.0 - radius / math.sqrt(2))
    torch.testing.assert_close(depth, expected, rtol=1e-3, atol=0)


def test_placed_depths_stay_in_the_box_and_an_empty_mask_is_no_error():
    mask, _ = disc(64, 25)
    wild = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)) * 100
    depth = placed_depth(wild, mask, camera())
    assert ((depth >= 1.5 - 1e-5) & (depth <= 2.5 + 1e-5)).all()
    assert placed_depth(wild, torch.zeros(64, 64), camera()).isfinite().all()


def test_depth_of_the_origin():
    assert origin_depth(camera(1.7)) == pytest.approx(1.7)
