import math

import pytest
import torch

from unflat.geometry import Camera, turn_about_pivot
from unflat.rendering import LayeredPicture

SIDE = 32


def camera(pose: torch.Tensor | None = None) -> Camera:
    return Camera.from_fov(math.radians(50), (torch.eye(4) if pose is None else pose)[None])


def shifted(x=0.0, y=0.0, z=0.0) -> Camera:
    pose = torch.eye(4)
    pose[:3, 3] = torch.tensor([x, y, z])
    return camera(pose)


def smooth_photo() -> torch.Tensor:
    across = torch.linspace(0, 1, SIDE)
    return torch.stack(
        [
            across.expand(SIDE, SIDE),
            across[:, None].expand(SIDE, SIDE),
            0.5 + 0.3 * torch.sin(6 * across).expand(SIDE, SIDE),
        ]
    )


def everywhere() -> torch.Tensor:
    return torch.ones(SIDE, SIDE, dtype=torch.bool)


def two_layers() -> LayeredPicture:
    """A red square at depth 2 before a blue wall at depth 8 that goes on behind it."""
    square = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    square[12:20, 12:20] = True
    front = torch.zeros(3, SIDE, SIDE)
    front[0] = square.float()
    front[2] = 1 - front[0]
    blue = torch.zeros(3, SIDE, SIDE)
    blue[2] = 1
    depth = torch.where(square, 1 / 2, 1 / 8)
    return LayeredPicture(
        [front, blue], [depth, torch.full_like(depth, 1 / 8)], [everywhere(), square], camera()
    )


def test_its_own_camera_sees_the_front_layer_again():
    photo = smooth_photo()
    depth = 1 / (2 + photo[0])
    picture = LayeredPicture([photo], [depth], [everywhere()], camera())
    torch.testing.assert_close(picture.view(camera()), photo, atol=1e-6, rtol=0)


def test_a_camera_that_moves_sideways_shifts_near_things_more():
    """A point at depth z moves by focal x / z: 0.25 units are 4.3 pixels at 2 and 1.1 at 8."""
    view = two_layers().view(shifted(x=0.25))
    red = (view[0] > 0.5).nonzero()
    assert red[:, 0].float().mean().item() == pytest.approx(15.5, abs=0.1)
    focal = 0.5 / math.tan(math.radians(25)) * SIDE
    assert red[:, 1].float().mean().item() == pytest.approx(15.5 - focal * 0.25 / 2, abs=0.5)
    assert 56 <= len(red) <= 72


def test_what_is_uncovered_comes_from_the_layer_behind():
    view = two_layers().view(shifted(x=0.25))
    uncovered = view[:, 14:18, 17:20]  # red before, and now?
    torch.testing.assert_close(uncovered[0], torch.zeros(4, 3))
    assert (uncovered[2] > 0.99).all(), "blue from the second layer, not a stretched red"


def test_what_no_layer_shows_is_closed_with_the_farthest_neighbour():
    picture = two_layers()
    alone = LayeredPicture(
        [torch.where(torch.arange(3)[:, None, None] == 2, 0.9, torch.zeros(3, SIDE, SIDE))],
        [torch.full((SIDE, SIDE), 1 / 8)],
        [everywhere()],
        camera(),
    )
    for layered in (picture, alone):
        view = layered.view(shifted(x=-1.5))
        assert view.isfinite().all()
        assert (view[2, :, :3] > 0.8).all(), "blue goes on beyond the picture's edge"


def test_coming_nearer_leaves_no_cracks():
    """Twice as large: every sub-pixel still lands on a pixel of its own."""
    white = torch.ones(3, SIDE, SIDE)
    picture = LayeredPicture([white], [torch.full((SIDE, SIDE), 0.5)], [everywhere()], camera())
    view = picture.view(shifted(z=1.0))
    torch.testing.assert_close(view, white, atol=1e-6, rtol=0)


def test_a_wall_seen_by_a_turned_camera_is_the_warped_photo():
    """A plane at depth 4 is moved by a homography, which is written out here."""
    photo = smooth_photo()
    picture = LayeredPicture([photo], [torch.full((SIDE, SIDE), 0.25)], [everywhere()], camera())
    pose = turn_about_pivot(torch.tensor([0.1]), torch.tensor([0.1]), 4.0)[0]
    pose[0, 3] += 0.3
    turned = camera(pose)
    view = picture.view(turned)
    across = (torch.arange(SIDE) + 0.5) / SIDE
    uv = torch.stack([across.expand(SIDE, SIDE), across[:, None].expand(SIDE, SIDE)], -1)
    local = torch.cat([(uv - 0.5) / turned.intrinsics[0, 0], torch.ones(SIDE, SIDE, 1)], -1)
    rays = local @ pose[:3, :3].T
    hit = pose[:3, 3] + rays * ((4 - pose[2, 3]) / rays[..., 2])[..., None]
    source, _ = camera().project(hit.reshape(1, -1, 3))
    expected = torch.nn.functional.grid_sample(
        photo[None], (2 * source - 1).reshape(1, SIDE, SIDE, 2), align_corners=False
    )[0]
    inside = ((source > 0.05) & (source < 0.95)).all(-1).reshape(SIDE, SIDE)
    assert inside.sum() > 0.7 * SIDE * SIDE
    assert (view - expected)[:, inside].abs().mean() < 0.01
    assert (view - photo)[:, inside].abs().mean() > 0.01


def test_nothing_and_parallel_rays_are_refused():
    with pytest.raises(ValueError, match="need layers"):
        LayeredPicture([], [], [], camera())
    flat = Camera(
        camera_to_world=torch.eye(4)[None],
        intrinsics=torch.tensor([[0.25, 0.25, 0.5, 0.5]]),
        kind="orthographic",
    )
    with pytest.raises(ValueError, match="got orthographic"):
        LayeredPicture([smooth_photo()], [torch.ones(SIDE, SIDE)], [everywhere()], flat)
