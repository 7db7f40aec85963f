"""Renders of meshes against closed forms, and against renders by another program."""

import io
import math
import tarfile

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from unflat.data import read_object_mesh
from unflat.data.mesh_views import (
    RADII,
    Light,
    area,
    draw_cameras,
    draw_light,
    face_finder,
    render_surface,
    to_unit_size,
)
from unflat.data.mesh_views import _z_buffer as z_buffer
from unflat.data.object_mesh import ObjectSurface, SurfacePart
from unflat.geometry import Camera, from_zero123, look_at, to_zero123
from unflat.geometry.published_frames import ZERO123_FOV

FOCAL = 35 / 32  # of the picture's width
WAYS = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
SIX = np.array(
    [[0.9, 0.1, 0.2], [0.2, 0.8, 0.3], [0.3, 0.2, 0.7], [0.8, 0.8, 0.1], [0.5] * 3, [0.1] * 3]
)


def camera_at(*positions):
    return Camera.from_fov(
        ZERO123_FOV, look_at(torch.tensor(np.array(positions), dtype=torch.float64))
    )


def surface_of(mesh, colors):
    triangles = np.asarray(mesh.triangles, dtype=np.float64)
    colors = np.broadcast_to(np.asarray(colors)[..., None, :], triangles.shape)
    return ObjectSurface([SurfacePart(triangles, colors.astype(np.float64))])


def colored_box():
    """A cube of side 1 whose six sides differ."""
    mesh = trimesh.creation.box((1, 1, 1))
    side = (mesh.face_normals @ WAYS.T).argmax(axis=1)
    return surface_of(mesh, SIX[side])


def inside(corners, size, factor):
    """Whether points of a finer grid lie in a triangle, by the signs of its sides."""
    points = np.stack(np.meshgrid(*2 * [(np.arange(size * factor) + 0.5) / factor]), axis=-1)
    signs = []
    for first, second in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along, away = second - first, points - first
        signs.append(along[0] * away[..., 1] - along[1] * away[..., 0] > 0)
    return np.all(signs, axis=0) | ~np.any(signs, axis=0)


def test_a_ball_is_a_disc_of_its_color_without_a_fringe():
    color = np.array([200, 40, 90])
    ball = surface_of(trimesh.creation.icosphere(4, 0.5), np.broadcast_to(color / 255, (5120, 3)))
    distance, size = 1.7, 96
    (picture,) = render_surface(ball, camera_at([0.3, 1.2, distance]), None, size)
    distance = math.hypot(0.3, 1.2, distance)
    radius = FOCAL * size * 0.5 / math.sqrt(distance**2 - 0.25)
    alpha = picture[..., 3] / 255
    assert alpha.sum() == pytest.approx(math.pi * radius**2, rel=0.01)
    row, column = np.mgrid[:size, :size] + 0.5 - size / 2
    away = np.hypot(row, column)
    assert (alpha[away < radius - 1.5] == 1).all()
    assert (alpha[away > radius + 1.5] == 0).all()
    partial = (alpha > 0) & (alpha < 1)
    assert partial.sum() > 50
    assert (picture[alpha > 0][:, :3] == color).all()


@pytest.mark.parametrize("supersample", [1, 2, 3])
def test_sides_of_a_box_have_their_color_in_their_light(supersample):
    light = Light(sun=(0.6, 0.64, 0.48), gain=1.1)
    place = np.array([1.1, 0.9, 1.3])
    (picture,) = render_surface(colored_box(), camera_at(place), light, 64, supersample)
    for way, color in zip(WAYS, SIX, strict=True):
        center = 0.5 * way
        if (place - center) @ way <= 0:
            continue
        to_camera = camera_at(place)[0].project(torch.from_numpy(center)[None])[0][0]
        column, row = (to_camera * 64).long().tolist()
        # 1.1 * color * (0.6 (0.8 + 0.2 up) + 0.4 max(0, n . sun))
        direct = max(0.0, float(way @ np.array(light.sun)))
        expected = 1.1 * color * (0.6 * (0.8 + 0.2 * way[1]) + 0.4 * direct)
        assert picture[row, column, :3] == pytest.approx(255 * expected.clip(0, 1), abs=1)


def test_files_hold_the_published_matrices(tmp_path):
    """Vertices projected by the formula of the layout fall where the picture is opaque."""
    mesh = trimesh.Trimesh(
        [[0, 0, 0], [2, 0, 0], [0, 1, 0], [0, 0, 0.6]], [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]
    )
    mesh.export(tmp_path / "a.glb")
    surface = to_unit_size(read_object_mesh(tmp_path / "a.glb"))
    corners = (np.array(mesh.vertices) - [1, 0.5, 0.3]) / 2
    corners = corners @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])  # (x, y, z) -> (x, -z, y)
    rng, size = np.random.default_rng(1), 128
    camera = draw_cameras(6, "sphere", rng)
    pictures = render_surface(surface, camera, None, size)
    for matrix, picture in zip(to_zero123(camera).numpy(), pictures, strict=True):
        x, y, z = matrix[:, :3] @ corners.T + matrix[:, 3:]
        uv = np.stack([size / 2 + FOCAL * size * x / -z, size / 2 - FOCAL * size * y / -z], axis=1)
        truth = np.any([inside(uv[face], size, 2) for face in mesh.faces], axis=0)
        covered = truth.reshape(size, 2, size, 2).mean(axis=(1, 3))
        assert covered.sum() > 100
        assert np.abs(covered - picture[..., 3] / 255).sum() < 0.005 * covered.sum()


def test_files_with_z_up_are_turned():
    z_up = surface_of(trimesh.creation.box((0.2, 0.5, 1.0)), [0.5] * 3)
    y_up = to_unit_size(z_up, "z")
    np.testing.assert_allclose(np.ptp(y_up.bounds, axis=0), [0.2, 1.0, 0.5], atol=1e-9)
    front = surface_of(trimesh.Trimesh([[0, -1, 0], [1, 1, 0], [-1, 1, 0]], [[0, 1, 2]]), [0.5] * 3)
    assert to_unit_size(front, "z").triangles[0, 0, 2] == pytest.approx(0.5)  # -y becomes +z


@pytest.mark.parametrize(("rule", "share"), [("sphere", 0.3), ("cube", math.pi * 0.2346 / 4)])
def test_directions_follow_their_law(rule, share):
    """Share of directions within acos 0.9 of an axis: caps on a sphere, discs on a cube's faces."""
    camera = draw_cameras(20_000, rule, np.random.default_rng(0))
    radius = camera.position.norm(dim=1)
    assert RADII[0] <= float(radius.min()) < 1.501
    assert 2.199 < float(radius.max()) <= RADII[1]
    ways = camera.position / radius[:, None]
    near = (ways.abs().amax(dim=1) > 0.9).double().mean().item()
    assert near == pytest.approx(share, abs=0.01)
    torch.testing.assert_close(camera.forward, -ways)
    assert (camera.rotation[:, 1, 0].abs() < 1e-9).all()  # no roll: right is level
    assert (camera.rotation[:, 1, 1] <= 1e-9).all()  # and down is not up


def test_suns_stand_above_and_even_light_has_the_same_cameras():
    for seed in range(20):
        sunny, even = (np.random.default_rng(seed) for _ in range(2))
        light = draw_light("sun", sunny)
        assert draw_light("even", even) is None
        assert light.sun[1] > 0.3
        assert 1 <= light.gain <= 1.2
        assert math.hypot(*light.sun) == pytest.approx(1)
        first, second = (draw_cameras(2, "sphere", rng) for rng in (sunny, even))
        assert torch.equal(first.camera_to_world, second.camera_to_world)


def test_both_ways_to_find_faces_agree():
    surface = colored_box()
    camera = draw_cameras(5, "sphere", np.random.default_rng(3))
    light = Light(sun=(0.0, 1.0, 0.0), gain=1.0)
    pytest.importorskip("embreex")
    one = render_surface(surface, camera, light, 48, find=face_finder(surface.triangles))
    two = render_surface(surface, camera, light, 48, find=z_buffer(surface.triangles))
    differ = (one.astype(int) - two).max(axis=3) > 1
    assert differ.mean() < 0.002


def test_factors_in_linear_light_textures_and_unlit_materials(tmp_path):
    from trimesh.visual.material import PBRMaterial

    quad = {
        "vertices": [[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]],
        "faces": [[0, 1, 2], [0, 2, 3]],
    }
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=float)
    image = Image.fromarray(np.uint8([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]]))
    material = PBRMaterial(baseColorFactor=[0.5, 1.0, 1.0, 1.0], baseColorTexture=image)
    mesh = trimesh.Trimesh(**quad, process=False)
    mesh.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    mesh.export(tmp_path / "a.glb")
    surface = to_unit_size(read_object_mesh(tmp_path / "a.glb"))
    (picture,) = render_surface(surface, camera_at([0.0, 0.0, 1.5]), None, 64)
    half = round(255 * (1.055 * 0.5 ** (1 / 2.4) - 0.055))
    found = [
        picture[row, column, :3].tolist()
        for row, column in ((20, 20), (20, 44), (44, 20), (44, 44))
    ]
    assert found == [[half, 0, 0], [0, 255, 0], [0, 0, 255], [half, 255, 0]]


def test_area_of_a_box():
    assert area(colored_box()) == pytest.approx(6)


@pytest.mark.parametrize("number", [1, 12])
def test_held_out_objects_look_as_another_program_rendered_them(data_folder, tmp_path, number):
    with tarfile.open(data_folder / "objects-zero123.tar") as renders:
        uid = renders.extractfile("val.txt").read().decode().split()[number]
        pictures, matrices = [], []
        for view in range(8):
            stem = f"{uid}/{view:03d}"
            pictures.append(np.asarray(Image.open(renders.extractfile(f"{stem}.png"))))
            matrices.append(np.load(io.BytesIO(renders.extractfile(f"{stem}.npy").read())))
    with tarfile.open(data_folder / "objects-val-meshes.tar") as meshes:
        (tmp_path / "a.glb").write_bytes(meshes.extractfile(f"{uid}.glb").read())
    surface = to_unit_size(read_object_mesh(tmp_path / "a.glb"))
    camera = from_zero123(torch.from_numpy(np.stack(matrices)))
    true = np.stack(pictures)
    made = render_surface(surface, camera, None, true.shape[1])
    ours, theirs = made[..., 3] > 127, true[..., 3] > 127
    assert ((ours & theirs).sum((1, 2)) / (ours | theirs).sum((1, 2))).min() > 0.98
    # their light is another, of one hue: shares of red, green and blue are the same
    full = (made[..., 3] == 255) & (true[..., 3] == 255) & (true[..., :3].max(axis=3) < 250)
    full &= made[..., :3].sum(axis=3) > 150
    one, two = (p[full][:, :3] / p[full][:, :3].sum(axis=1, keepdims=True) for p in (made, true))
    assert np.abs(one - two).mean() < 0.01
