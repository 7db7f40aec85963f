"""Silhouettes that vote: hulls of known solids, and who is found to be wrong."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unflat.geometry import Camera
from unflat.geometry.hull import agreement, cell_centers, mattes_at, voted
from unflat.geometry.pose import orbit_pose
from unflat.geometry.rays import image_rays

SIDE = 40


def cameras(count: int) -> Camera:
    number = torch.arange(count)
    elevation = torch.asin(-0.4 + 1.2 * ((number * 0.618) % 1))
    pose = orbit_pose(elevation, number * 2 * math.pi / count, torch.full((count,), 1.8))
    return Camera.from_fov(math.radians(49.1), pose)


def ball_masks(view: Camera, middle: torch.Tensor, radius: float) -> torch.Tensor:
    """Exact: a ray meets a ball if it comes near enough to its middle."""
    rays = image_rays(view, SIDE, SIDE)
    to = middle - rays.origins
    off = (to - (to * rays.directions).sum(-1, keepdim=True) * rays.directions).norm(dim=-1)
    return (off < radius).float()


def two_balls(view: Camera) -> torch.Tensor:
    first = ball_masks(view, torch.tensor([0.25, 0.0, 0.0]), 0.22)
    return torch.maximum(first, ball_masks(view, torch.tensor([-0.2, 0.1, 0.1]), 0.15))


def test_voxels_are_counted_z_first():
    points = cell_centers(torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]), (3, 2, 1))
    assert points.shape == (3, 2, 1, 3)
    torch.testing.assert_close(points[0, 0, 0], torch.tensor([0.5, 0.5, 0.5]))
    torch.testing.assert_close(points[2, 1, 0], torch.tensor([0.5, 1.5, 2.5]))


def test_the_hull_of_a_ball_is_about_the_ball():
    view, middle, radius = cameras(12), torch.tensor([0.1, -0.05, 0.0]), 0.3
    points = cell_centers(torch.tensor([[-0.6] * 3, [0.6] * 3]), (40,) * 3).reshape(-1, 3)
    values = mattes_at(ball_masks(view, middle, radius), view, points)
    hull = voted(values, torch.ones(12)) > 0.5
    away = (points - middle).norm(dim=-1)
    assert hull[away < radius - 0.03].all()
    assert not hull[away > radius + 0.08].any()


@given(st.integers(2, 6), st.integers(0, 5), st.integers(0, 1000))
def test_so_many_views_may_be_outvoted(views, outvoted, seed):
    """With weights of 1 it is the order statistic."""
    values = torch.rand(views, 7, generator=torch.Generator().manual_seed(seed))
    if outvoted >= views:
        return
    found = voted(values, torch.ones(views), float(outvoted))
    torch.testing.assert_close(found, values.sort(0).values[outvoted])


def test_a_view_without_weight_has_no_say():
    values = torch.tensor([[0.0, 0.1], [0.9, 0.8], [0.7, 0.95]])
    torch.testing.assert_close(
        voted(values, torch.tensor([0.0, 1.0, 1.0])), torch.tensor([0.7, 0.8])
    )


def test_silhouettes_of_one_object_agree():
    view = cameras(8)
    assert agreement(two_balls(view), view).min() > 0.97


@pytest.mark.parametrize("kind", ["moved", "small", "mirrored", "empty", "full"])
def test_the_wrong_silhouette_is_found_and_nobody_else_is_blamed(kind):
    view = cameras(8)
    masks = two_balls(view)
    wrong = masks.clone()
    if kind == "moved":
        wrong[3] = masks[3].roll(9, 1)
    elif kind == "small":
        wrong[3] = ball_masks(view, torch.tensor([0.25, 0.0, 0.0]), 0.1)[3]
    elif kind == "mirrored":
        wrong[3] = masks[3].flip(0)
    else:
        wrong[3] = float(kind == "full")
    scores = agreement(wrong, view)
    others = torch.cat([scores[:3], scores[4:]])
    assert others.min() > 0.95
    assert scores[3] < others.min() - 0.1
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_one_view_cannot_agree():
    view = cameras(1)
    with pytest.raises(ValueError, match="cannot agree"):
        agreement(two_balls(view), view)
