"""Hulls of a ball: outlines are known in closed form."""

import math

import pytest
import torch

from unflat.geometry import Camera, look_at
from unflat.metrics.visual_hull import HALF_SIDE, RESOLUTION, HullGrid, hull_agreement

FOV = 2 * math.atan(16 / 35)


def around(count=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ways = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    return Camera.from_fov(FOV, look_at(ways * 1.8))


def ball_masks(count, radius, side=96, shift=0.0):
    """A ball at the origin is the same disc from every side; shifted it is another's outline."""
    focal = 35 / 32 * side
    disc = focal * radius / math.sqrt(1.8**2 - radius**2)
    line = torch.arange(side) + 0.5 - side / 2
    away = ((line - shift * side)[None] ** 2 + line[:, None] ** 2).sqrt()
    return (away < disc).float().expand(count, -1, -1)


def test_outlines_of_a_ball_agree_on_it():
    camera, masks = around(), ball_masks(16, 0.4)
    assert hull_agreement(masks, camera).min() > 0.99
    voxel = (2 * HALF_SIDE / RESOLUTION) ** 3
    volume = float(HullGrid(camera).hull(masks).sum()) * voxel
    true = 4 / 3 * math.pi * 0.4**3
    assert true < volume < 1.5 * true  # hulls hold the object, and a coarse pixel around it


def test_outlines_that_move_with_their_camera_do_not():
    """Each camera sees the ball off to its own right, where no ball can be for all of them."""
    values = hull_agreement(ball_masks(16, 0.2, shift=0.2), around())
    assert values.mean() < 0.2


def test_one_wrong_view_costs_the_others_and_an_empty_one_all():
    camera = around()
    masks = ball_masks(16, 0.4).clone()
    masks[3] = ball_masks(1, 0.15)[0]
    values = hull_agreement(masks, camera)
    assert values[3] > 0.95
    assert values[torch.arange(16) != 3].max() < 0.9
    masks[3] = 0
    values = hull_agreement(masks, camera)
    assert values[3].isnan()
    assert values[torch.arange(16) != 3].max() == 0


def test_what_lies_outside_a_picture_is_not_contradicted():
    near = Camera.from_fov(FOV, look_at(torch.tensor([[0.0, 0.0, 0.8], [1.8, 0.0, 0.0]])))
    grid = HullGrid(near)
    hull = grid.hull(torch.ones(2, 64, 64))
    assert hull.all()
    beyond = grid.places[0] == grid.side**2
    assert 0 < int(beyond.sum()) < len(beyond)


@pytest.mark.parametrize("side", [32, 48, 128])
def test_the_size_of_masks_does_not_matter_much(side):
    values = hull_agreement(ball_masks(16, 0.4, side=side), around())
    assert values.min() > 0.98
