import math

import numpy as np
import pytest
import torch

from unflat.data.shapes import Box, Cylinder, Plane, Sphere, Texture
from unflat.data.synthetic import CLASSES, ProceduralScene, make_scene, novel_cameras, render_view
from unflat.geometry import Camera, pixel_grid

PLAIN = Texture(first=(0.5, 0.5, 0.5), second=(0.5, 0.5, 0.5))
SIDE = 24


def scene_of(*shapes, pose=None, fov=0.8):
    pose = torch.eye(4, dtype=torch.float64) if pose is None else pose
    return ProceduralScene(
        class_name="ball",
        shapes=shapes,
        object_shapes=1,
        sun=np.array([0.0, 0.0, 1.0]),
        ambient=0.5,
        sky=((0.8, 0.8, 0.8), (0.5, 0.6, 0.9)),
        camera=Camera.from_fov(fov, pose),
    )


def local_rays(camera):
    """x/z and y/z of pixel centres."""
    uv = pixel_grid(SIDE, SIDE, dtype=torch.float64).numpy()
    fx, fy, cx, cy = camera.intrinsics.numpy()
    return (uv[..., 0] - cx) / fx, (uv[..., 1] - cy) / fy


def test_depth_of_a_sphere_is_its_closed_form():
    scene = scene_of(Sphere(center=np.array([0.0, 0.0, 3.0]), radius=1.0, texture=PLAIN))
    view = render_view(scene, scene.camera, SIDE)
    x, y = local_rays(scene.camera)
    square = x**2 + y**2 + 1.0  # |z (x, y, 1) - (0, 0, 3)| = 1
    inside = 9.0 - 8.0 * square
    expected = np.where(inside > 0, (3.0 - np.sqrt(np.maximum(inside, 0))) / square, np.inf)
    np.testing.assert_allclose(view.inverse_depth, 1.0 / expected, rtol=1e-12)
    np.testing.assert_array_equal(view.mask, inside > 0)
    assert 0.2 < view.mask.mean() < 0.9
    points = np.stack([x, y, np.ones_like(x)], -1)[view.mask] * expected[view.mask][:, None]
    np.testing.assert_allclose(view.normal[view.mask], points - [0, 0, 3.0], atol=1e-12)
    assert np.all(view.normal[~view.mask] == 0)


def test_depth_of_a_plane_is_linear_in_disparity():
    # y is down in the picture: a floor one unit below the camera has 1/z = y/z.
    floor = Plane(
        point=np.array([0.0, 1.0, 0.0]), direction=np.array([0.0, -1.0, 0.0]), texture=PLAIN
    )
    scene = scene_of(floor)
    view = render_view(scene, scene.camera, SIDE)
    _, y = local_rays(scene.camera)
    np.testing.assert_allclose(view.inverse_depth, np.maximum(y, 0.0), atol=1e-12)
    assert view.inverse_depth[0, 0] == 0  # sky above


def test_turned_box_seen_face_on():
    angle = 0.3
    pose = torch.eye(4, dtype=torch.float64)
    cos, sin = math.cos(angle), math.sin(angle)
    pose[:3, :3] = torch.tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], dtype=torch.float64)
    rotation = pose[:3, :3].numpy()
    center = rotation @ np.array([0.0, 0.0, 4.0])
    box = Box(center=center, half_size=np.array([9.0, 9.0, 1.0]), rotation=rotation, texture=PLAIN)
    scene = scene_of(box, pose=pose)
    view = render_view(scene, scene.camera, SIDE)
    np.testing.assert_allclose(view.inverse_depth, 1.0 / 3.0, rtol=1e-12)
    np.testing.assert_allclose(
        view.normal, np.broadcast_to(-rotation[:, 2], view.normal.shape), atol=1e-12
    )


def marched(shape_inside, origin, direction, far=6.0, steps=20_000):
    t = np.linspace(0, far, steps)
    inside = shape_inside(origin + t[:, None] * direction)
    return t[inside.argmax()] if inside.any() else np.inf


def test_intersections_equal_marching_along_the_ray():
    generator = np.random.default_rng(0)
    cylinder = Cylinder(
        center=np.array([0.1, 0.0, 0.2]), radius=0.5, half_height=0.7, texture=PLAIN
    )
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    box = Box(center=np.zeros(3), half_size=np.array([0.3, 0.5, 0.8]), rotation=turn, texture=PLAIN)

    def in_cylinder(points):
        local = points - cylinder.center
        return (np.hypot(local[:, 0], local[:, 1]) < 0.5) & (np.abs(local[:, 2]) < 0.7)

    def in_box(points):
        return np.all(np.abs(points @ turn) < box.half_size, axis=1)

    for shape, inside in ((cylinder, in_cylinder), (box, in_box)):
        hits = 0
        for _ in range(60):
            origin = generator.normal(size=3)
            origin *= 3.0 / np.linalg.norm(origin)
            direction = generator.normal(size=3) * 0.4 - origin
            direction /= np.linalg.norm(direction)
            got = shape.intersect(origin[None], direction[None])[0]
            expected = marched(inside, origin, direction)
            if np.isinf(got) or np.isinf(expected):
                # marching may step over a sliver that the ray only grazes
                assert np.isinf(expected)
                continue
            hits += 1
            assert abs(got - expected) < 6.0 / 20_000 + 1e-9
            normal = shape.normal((origin + got * direction)[None])[0]
            assert np.linalg.norm(normal) == pytest.approx(1.0)
            assert normal @ direction < 0
        assert hits > 25


@pytest.mark.parametrize("class_name", CLASSES)
def test_views_agree_by_reprojection(class_name):
    generator = np.random.default_rng(3)
    scene = make_scene(class_name, generator)
    first = render_view(scene, scene.camera, SIDE)
    pivot_depth = float(np.median(1 / first.inverse_depth[first.inverse_depth > 0]))
    cameras = novel_cameras(scene, pivot_depth, [0.2, 0.5], generator)
    surface = first.inverse_depth > 0
    x, y = local_rays(scene.camera)
    depth = 1.0 / first.inverse_depth[surface]
    local = np.stack([x[surface] * depth, y[surface] * depth, depth], axis=1)
    pose = scene.camera.camera_to_world.numpy()
    world = local @ pose[:3, :3].T + pose[:3, 3]
    for number in range(2):
        camera = cameras[number]
        # Every surface point is met first from the new camera, or hidden by something nearer.
        origin = camera.position.numpy()
        toward = world - origin
        hits = np.min(
            [
                s.intersect(np.broadcast_to(origin, toward.shape), toward) for s in scene.shapes
            ],
            axis=0,
        )  # fmt: skip
        assert np.all(hits < 1 + 1e-6)
        visible = hits > 1 - 1e-6
        assert visible.mean() > 0.5
        uv, z = camera.project(torch.from_numpy(world[visible]))
        fx, fy, cx, cy = camera.intrinsics.numpy()
        rays = np.stack(
            [(uv[:, 0].numpy() - cx) / fx, (uv[:, 1].numpy() - cy) / fy, np.ones(len(uv))], axis=1
        )
        rays = rays @ camera.rotation.numpy().T
        seen = np.min(
            [s.intersect(np.broadcast_to(origin, rays.shape), rays) for s in scene.shapes], axis=0
        )
        np.testing.assert_allclose(seen, z.numpy(), rtol=1e-6)


def test_turned_cameras_keep_pivot_and_distance():
    generator = np.random.default_rng(5)
    scene = make_scene("hook", generator)
    angles = [0.1, 0.3, math.radians(30)]
    cameras = novel_cameras(scene, 2.0, angles, generator)
    pivot = scene.camera.position + 2.0 * scene.camera.forward
    for camera, angle in zip((cameras[k] for k in range(3)), angles, strict=True):
        uv, depth = camera.project(pivot[None])
        torch.testing.assert_close(uv, torch.full_like(uv, 0.5))
        assert float(depth) == pytest.approx(2.0)
        cosine = float(camera.forward @ scene.camera.forward)
        assert math.acos(cosine) == pytest.approx(angle, abs=1e-6)
        assert float(camera.position[2]) > 0.1


def corners(shapes):
    """Corner points of a union of boxes."""
    signs = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)])
    return np.concatenate([s.center + (signs * s.half_size) @ s.rotation.T for s in shapes])


def best_overlap(points, others):
    """Largest share of points near others over all turns about z and half turns, centred."""
    best = 0.0
    points = points - points.mean(axis=0)
    others = others - others.mean(axis=0)
    for half in (np.eye(3), np.diag([1.0, -1.0, -1.0])):
        for angle in np.radians(np.arange(0, 360, 1)):
            cos, sin = math.cos(angle), math.sin(angle)
            turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
            moved = others @ (turn @ half).T
            gaps = np.linalg.norm(points[:, None] - moved[None], axis=2).min(axis=1)
            best = max(best, float((gaps < 0.06).mean()))
    return best


def test_hook_differs_from_its_mirror_images():
    for seed in range(3):
        scene = make_scene("hook", np.random.default_rng(seed))
        points = corners(scene.shapes[: scene.object_shapes])
        assert best_overlap(points, points) == 1.0
        for flip in ([-1.0, 1.0, 1.0], [1.0, 1.0, -1.0]):
            assert best_overlap(points, points * np.array(flip)) < 0.85
    box = make_scene("box", np.random.default_rng(0))
    points = corners(box.shapes[:1])
    assert best_overlap(points, points * np.array([-1.0, 1.0, 1.0])) == 1.0  # the test can tell


def test_hook_is_not_convex():
    scene = make_scene("hook", np.random.default_rng(0))
    parts = scene.shapes[: scene.object_shapes]
    foot, arm = parts[1].center, parts[2].center
    middle = 0.5 * (foot + arm)
    inside = [np.all(np.abs((middle - p.center) @ p.rotation) <= p.half_size) for p in parts]
    assert not any(inside)


def test_same_generator_state_gives_the_same_picture():
    views = []
    for _ in range(2):
        scene = make_scene("post", np.random.default_rng(7))
        views.append(render_view(scene, scene.camera, 16))
    np.testing.assert_array_equal(views[0].rgb, views[1].rgb)
    other = make_scene("post", np.random.default_rng(8))
    assert not np.array_equal(render_view(other, other.camera, 16).rgb, views[0].rgb)


def test_pictures_show_something():
    for index in range(8):
        scene = make_scene(CLASSES[index % 4], np.random.default_rng(index))
        view = render_view(scene, scene.camera, SIDE)
        assert view.rgb.min() >= 0
        assert view.rgb.max() <= 1
        assert view.rgb.std() > 0.02
        assert view.mask.any()
