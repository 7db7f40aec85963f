import math

import numpy as np
import pytest
import torch

from unflat.geometry.camera import Camera
from unflat.rendering.forward_warp import Warped, fill_holes, forward_warp


def turned(yaw=0.0, pitch=0.0, roll=0.0, move=(0.0, 0.0, 0.0)):
    """Camera to world: rotations about y, x, z (radians), then a move."""
    cy, sy, cx, sx, cz, sz = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    matrix = torch.eye(4)
    matrix[:3, :3] = torch.tensor(about_y @ about_x @ about_z).float()
    matrix[:3, 3] = torch.tensor(move)
    return matrix


def camera(*poses, focal=1.2):
    matrices = torch.stack(poses) if poses else torch.eye(4)[None]
    intrinsics = torch.tensor([focal, focal, 0.5, 0.5]).expand(len(matrices), 4)
    return Camera(camera_to_world=matrices, intrinsics=intrinsics)


def random_picture(batch=1, height=12, width=10, seed=0, sky=0.2):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, 3, height, width, generator=generator)
    inverse_depth = 0.2 + torch.rand(batch, height, width, generator=generator)
    gone = torch.rand(batch, height, width, generator=generator) < sky
    return image, inverse_depth.masked_fill(gone, 0)


def slow_warp(image, inverse_depth, camera_from, camera_to, subpixels):
    """One point at a time in float64, through Camera.project."""
    batch, _, height, width = image.shape
    out = image.mean(dim=(2, 3))[..., None, None].expand_as(image).clone()
    best = torch.full((batch, height, width), -1.0, dtype=torch.float64)
    start_intrinsics = camera_from.intrinsics.double()
    for b in range(batch):
        to = Camera(
            camera_to_world=camera_to.camera_to_world[b].double(),
            intrinsics=camera_to.intrinsics[b].double(),
        )
        for i in range(height * subpixels):
            for j in range(width * subpixels):
                near = inverse_depth[b, i // subpixels, j // subpixels].double()
                depth = 1 / near.clamp_min(1e-9)
                uv = torch.tensor(
                    [(j + 0.5) / (width * subpixels), (i + 0.5) / (height * subpixels)]
                ).double()
                across = (uv - start_intrinsics[b, 2:]) / start_intrinsics[b, :2]
                point = torch.cat([across * depth, depth[None]])
                pose = camera_from.camera_to_world[b].double()
                world = pose[:3, :3] @ point + pose[:3, 3]
                seen, z = to.project(world[None])
                u, v = (seen[0] * torch.tensor([width, height])).tolist()
                if z.item() <= 0 or not (0 <= u < width and 0 <= v < height):
                    continue
                r, c = int(v), int(u)
                if 1 / z.item() > best[b, r, c]:
                    best[b, r, c] = 1 / z.item()
                    out[b, :, r, c] = image[b, :, i // subpixels, j // subpixels]
    return Warped(out, best.clamp_min(0).float(), best >= 0)


def slow_fill(warped):
    """The rule word by word, in two passes."""
    image, depth, known = (t.clone() for t in warped)
    for _ in range(2):
        start_image, start_depth, start_known = image.clone(), depth.clone(), known.clone()
        batch, height, width = known.shape
        for b in range(batch):
            for i in range(height):
                for j in range(width):
                    if start_known[b, i, j]:
                        continue
                    found = []
                    for di, dj in ((0, -1), (0, 1), (-1, 0), (1, 0)):
                        r, c = i + di, j + dj
                        while 0 <= r < height and 0 <= c < width and not start_known[b, r, c]:
                            r, c = r + di, c + dj
                        if 0 <= r < height and 0 <= c < width:
                            found.append((start_depth[b, r, c].item(), r, c))
                    if found:
                        _, r, c = min(found, key=lambda item: item[0])
                        image[b, :, i, j] = start_image[b, :, r, c]
                        depth[b, i, j] = start_depth[b, r, c]
                        known[b, i, j] = True
    return Warped(image, depth, warped.visible)


@pytest.mark.parametrize("subpixels", [1, 2, 3])
def test_the_same_camera_gives_the_picture_back(subpixels):
    image, inverse_depth = random_picture(batch=2)
    pose = turned(0.3, 0.1, 0.2, (1.0, 2.0, 3.0))
    same = camera(pose, pose)
    warped = forward_warp(image, inverse_depth, same, same, subpixels)
    assert warped.visible.all()
    torch.testing.assert_close(warped.image, image, rtol=0, atol=0)
    torch.testing.assert_close(warped.inverse_depth, inverse_depth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("subpixels", [1, 2])
def test_equal_to_one_point_at_a_time(subpixels):
    image, inverse_depth = random_picture(batch=2, seed=3)
    start = camera(turned(0.1, move=(0.1, 0, 0)), turned(0.1, 0.2, 0.1))
    end = camera(
        turned(-0.2, 0.1, move=(0.4, -0.2, 0.1)), turned(0.3, -0.2, 0.4, (0.3, 0.2, 0.9)), focal=1.0
    )
    fast = forward_warp(image, inverse_depth, start, end, subpixels)
    slow = slow_warp(image, inverse_depth, start, end, subpixels)
    assert 0.2 < slow.visible.float().mean() < 0.95
    # a point on the border of two pixels may fall to either side in float32
    agree = (fast.visible == slow.visible) & ((fast.image - slow.image).abs().amax(1) < 1e-6)
    near_sky = (slow.inverse_depth < 1e-6) & (fast.inverse_depth < 1e-6)  # sky ties with sky
    assert (agree | near_sky).float().mean() > 0.99
    same = agree & slow.visible
    torch.testing.assert_close(
        fast.inverse_depth[same], slow.inverse_depth[same], rtol=1e-4, atol=1e-5
    )


def test_cameras_with_uneven_intrinsics_equal_one_point_at_a_time():
    image, inverse_depth = random_picture(batch=2, seed=4)
    uneven = torch.tensor([[1.1, 1.6, 0.42, 0.55], [0.9, 1.3, 0.6, 0.47]])
    pose = turned(0.05, -0.1, 0.1, (0.1, -0.1, 0.2))
    start = Camera(camera_to_world=torch.eye(4).expand(2, 4, 4), intrinsics=uneven)
    end = Camera(camera_to_world=pose.expand(2, 4, 4), intrinsics=uneven.flip(0))
    fast = forward_warp(image, inverse_depth, start, end)
    slow = slow_warp(image, inverse_depth, start, end, 2)
    assert 0.2 < slow.visible.float().mean() < 0.95
    assert (fast.visible == slow.visible).float().mean() > 0.99
    same = fast.visible & slow.visible & (slow.inverse_depth > 1e-6)  # sky ties with sky
    assert ((fast.image - slow.image).abs().amax(1) < 1e-6)[same].float().mean() > 0.98
    torch.testing.assert_close(
        fast.inverse_depth[same], slow.inverse_depth[same], rtol=1e-4, atol=1e-5
    )


def test_a_pure_rotation_moves_near_and_far_alike():
    image, inverse_depth = random_picture(height=16, width=16, seed=5)
    start, end = camera(), camera(turned(yaw=0.2, pitch=-0.1))
    real = forward_warp(image, torch.ones_like(inverse_depth), start, end)
    sky = forward_warp(image, torch.zeros_like(inverse_depth), start, end)
    assert torch.equal(real.visible, sky.visible)
    assert (sky.inverse_depth == 0).all()
    # depths all equal: the farthest along the new axis may tie differently from sky, so compare
    # only pixels that one source pixel covers
    assert ((real.image - sky.image).abs().amax(1) < 1e-6)[real.visible].float().mean() > 0.7


def test_turning_the_camera_right_moves_the_picture_left():
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 1
    end = camera(turned(yaw=math.atan(3 / 9 / 1.2)))  # +x to the right: three pixels of 9
    warped = forward_warp(image, torch.zeros(1, 9, 9), camera(), end, 3)
    assert warped.image[0, 0, 4].argmax() == 1


def test_a_near_point_moves_by_its_parallax_and_hides_what_is_behind():
    image = torch.full((1, 1, 8, 8), 0.25)
    inverse_depth = torch.full((1, 8, 8), 0.0)
    image[0, 0, 3:5, 3:5], inverse_depth[0, 3:5, 3:5] = 1.0, 0.5
    # f = 1.2 widths; 2 pixels of 8 at depth 2: move by 2/8 * 2 / 1.2 to the left
    end = camera(turned(move=(-2 / 8 * 2 / 1.2, 0, 0)))
    warped = forward_warp(image, inverse_depth, camera(), end)
    expected = torch.full((8, 8), 0.25)
    expected[3:5, 5:7] = 1.0
    seen = warped.visible[0]
    torch.testing.assert_close(warped.image[0, 0][seen], expected[seen])
    assert (~seen).nonzero().tolist() == [[3, 3], [3, 4], [4, 3], [4, 4]]
    filled = fill_holes(warped)
    torch.testing.assert_close(filled.image[0, 0], expected)
    assert torch.equal(filled.visible, warped.visible)
    torch.testing.assert_close(filled.inverse_depth[0], torch.where(expected == 1, 0.5, 0.0))


def test_points_behind_the_camera_are_dropped():
    image, _ = random_picture()
    wall = torch.full((1, 12, 10), 0.5)
    past = camera(turned(move=(0, 0, 3.0)))  # the wall is at 2
    warped = forward_warp(image, wall, camera(), past)
    assert not warped.visible.any()
    mean = image.mean(dim=(2, 3), keepdim=True).expand_as(image)
    torch.testing.assert_close(warped.image, mean)
    torch.testing.assert_close(fill_holes(warped).image, mean)
    around = camera(turned(yaw=math.pi))
    assert not forward_warp(image, torch.zeros_like(wall), camera(), around).visible.any()


def test_inverse_depth_scales_with_the_distance_moved():
    image, _ = random_picture()
    warped = forward_warp(
        image, torch.full((1, 12, 10), 0.5), camera(), camera(turned(move=(0, 0, 1.0)))
    )
    torch.testing.assert_close(
        warped.inverse_depth[warped.visible], torch.ones(int(warped.visible.sum()))
    )


def test_blending_averages_what_lies_near_the_front():
    """Four sub-points of four pixels meet in one: near colours are averaged, the far one is not."""
    image = torch.tensor([1.0, 2.0, 4.0, 8.0]).reshape(1, 1, 2, 2)
    inverse_depth = torch.tensor([1.0, 0.97, 0.98, 0.5]).reshape(1, 2, 2)
    small = torch.tensor([[0.1, 0.1, 0.25, 0.25]])  # the whole picture falls into one pixel
    wide = Camera(camera_to_world=torch.eye(4)[None], intrinsics=small)
    nearest = forward_warp(image, inverse_depth, camera(), wide, 1)
    assert nearest.image[0, 0][nearest.visible[0]].tolist() == [1.0]
    blended = forward_warp(image, inverse_depth, camera(), wide, 1, blend=0.05)
    assert torch.equal(blended.visible, nearest.visible)
    assert blended.image[0, 0][blended.visible[0]].item() == pytest.approx((1 + 2 + 4) / 3)
    torch.testing.assert_close(blended.inverse_depth, nearest.inverse_depth)
    mean = image.mean()
    assert (blended.image[0, 0][~blended.visible[0]] == mean).all()


def test_blending_keeps_the_picture_of_the_same_camera():
    image, inverse_depth = random_picture(batch=2)
    same = camera(*[turned(0.3, move=(1.0, 2.0, 3.0))] * 2)
    warped = forward_warp(image, inverse_depth, same, same, blend=0.1)
    torch.testing.assert_close(warped.image, image)


def test_negative_zero_is_sky():
    image, _ = random_picture()
    for value in (-0.0, -1.0):
        assert forward_warp(image, torch.full((1, 12, 10), value), camera(), camera()).visible.all()


@pytest.mark.parametrize("seed", range(4))
def test_filling_is_the_rule_word_by_word(seed):
    image, inverse_depth = random_picture(batch=2, seed=seed, sky=0)
    share = (0.9, 0.5, 0.05, 0.02)[seed]
    generator = torch.Generator().manual_seed(seed)
    visible = torch.rand(2, 12, 10, generator=generator) < share
    visible[1, 3, 2] = True
    warped = Warped(image, inverse_depth * visible, visible)
    fast, slow = fill_holes(warped), slow_fill(warped)
    torch.testing.assert_close(fast.image, slow.image)
    torch.testing.assert_close(fast.inverse_depth, slow.inverse_depth)


def test_orthographic_cameras_are_refused():
    image, inverse_depth = random_picture()
    flat = Camera(
        camera_to_world=torch.eye(4)[None],
        intrinsics=torch.tensor([[1.0, 1.0, 0.5, 0.5]]),
        kind="orthographic",
    )
    with pytest.raises(ValueError, match="orthographic"):
        forward_warp(image, inverse_depth, camera(), flat)
