import math
import sys

import pytest
import torch

from unflat.geometry import Camera, look_at
from unflat.rendering import rasterize, silhouette

CUBE = torch.tensor([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)], dtype=torch.float64) - 0.5
FACES = torch.tensor(
    [
        *([0, 4, 6], [0, 6, 2], [1, 3, 7], [1, 7, 5], [0, 1, 5], [0, 5, 4]),
        *([2, 6, 7], [2, 7, 3], [0, 2, 3], [0, 3, 1], [4, 5, 7], [4, 7, 6]),
    ]
)


def cameras(*positions):
    poses = torch.stack(
        [
            look_at(torch.tensor(p, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
            for p in positions
        ]
    )
    return Camera.from_fov(math.radians(50), poses)


def slow(vertices, faces, camera, height, width):
    """1 / depth by one ray at a time against every triangle (Moeller and Trumbore 1997)."""
    found = torch.zeros(height, width, dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            uv = torch.tensor([[(column + 0.5) / width, (row + 0.5) / height]]).double()
            one = torch.ones(1).double()
            direction = camera.unproject(uv, one)[0] - camera.position
            a, b, c = vertices[faces].unbind(dim=1)
            p = torch.linalg.cross(direction.expand_as(a), c - a)
            scale = ((b - a) * p).sum(1)
            offset = camera.position - a
            q = torch.linalg.cross(offset, b - a)
            u, v = (offset * p).sum(1) / scale, (q @ direction) / scale
            depth = ((c - a) * q).sum(1) / scale
            hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (depth > 0) & (scale.abs() > 1e-12)
            found[row, column] = torch.where(hit, 1 / depth, 0).max()
    return found


def test_every_pixel_is_the_ray_of_its_middle():
    views = cameras((1.2, 0.9, 1.9), (-0.4, -1.5, 1.7))
    seen = rasterize(CUBE, FACES, views, 14, 11)
    for view in range(2):
        expected = slow(CUBE, FACES, views[view], 14, 11)
        torch.testing.assert_close(seen.inverse_depth[view], expected, rtol=1e-6, atol=0)
        assert ((seen.face[view] >= 0) == (expected > 0)).all()
        assert (expected > 0).sum() > 25


def test_the_faces_seen_are_those_towards_the_camera():
    seen = rasterize(CUBE, FACES, cameras((3.0, 0.0, 0.0), (0.0, 0.0, -3.0)), 32, 32)
    assert set(seen.face[0].unique().tolist()) == {-1, 2, 3}  # +x
    assert set(seen.face[1].unique().tolist()) == {-1, 8, 9}  # -z


def test_silhouette_of_a_square_covers_its_area():
    square = torch.tensor([[-0.3, -0.2, 0.0], [0.3, -0.2, 0.0], [0.3, 0.2, 0.0], [-0.3, 0.2, 0.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    camera = Camera(
        camera_to_world=look_at(torch.tensor([0.0, 0.0, 2.0]), torch.zeros(3))[None],
        intrinsics=torch.tensor([[1.0, 1.0, 0.5, 0.5]]),
    )
    covered = silhouette(square, faces, camera, 40, 40, rays=4)
    assert covered.sum().item() == pytest.approx(0.3 * 0.2 * 1600, rel=0.01)
    assert covered.dtype == torch.float32
    assert set(covered.unique().tolist()) <= {i / 16 for i in range(17)}


def test_what_reaches_behind_a_camera_is_left_out():
    floor = torch.tensor([[-9.0, -1.0, -9.0], [9.0, -1.0, -9.0], [0.0, -1.0, 9.0]])
    seen = rasterize(floor, torch.tensor([[0, 1, 2]]), cameras((0.0, 0.0, 3.0)), 8, 8)
    assert (seen.face == -1).all()
    assert (seen.inverse_depth == 0).all()


def test_groups_do_not_change_the_picture(monkeypatch):
    views = cameras((1.2, 0.9, 1.9))
    whole = rasterize(CUBE, FACES, views, 33, 33)
    monkeypatch.setattr(sys.modules[rasterize.__module__], "_PAIRS", 50)
    pieces = rasterize(CUBE, FACES, views, 33, 33)
    assert torch.equal(whole.face, pieces.face)
    assert torch.equal(whole.inverse_depth, pieces.inverse_depth)


def test_an_orthographic_camera_is_refused():
    views = cameras((0.0, 0.0, 3.0))
    flat = Camera(
        camera_to_world=views.camera_to_world, intrinsics=views.intrinsics, kind="orthographic"
    )
    with pytest.raises(ValueError, match="orthographic"):
        rasterize(CUBE, FACES, flat, 8, 8)
