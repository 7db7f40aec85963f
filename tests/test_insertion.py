"""Objects in scenes: what hides what, from where; files, layers and meshes carry them."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from made_scenes import GREEN, SIDE, SQUARE, WALL, Ball, ball, base, depth_of, room, square
from unflat.errors import UserError
from unflat.export import Mesh
from unflat.fields import ComposedField, CutoutField, EditedField, Placed
from unflat.geometry import Camera, Placement
from unflat.geometry.trajectory import turn_about_pivot
from unflat.insertion import find_subject, foreground_cut
from unflat.scene import Scene

BEHIND = Placement(x=-0.2, y=0.0, nearness=0.5, size=0.3)
"""Behind the square, before the wall."""
BEFORE = Placement(x=-0.3, y=0.0, nearness=0.95, size=0.3)
ANGLE = 0.35


def turned(scene: Scene, right: float) -> Camera:
    pose = turn_about_pivot(torch.tensor([right]), torch.tensor([0.0]), depth_of(SQUARE))
    return Camera(camera_to_world=pose, intrinsics=scene.camera.intrinsics)


def green(picture: torch.Tensor) -> torch.Tensor:
    """Pixels nearer to the ball's colour than to any other in the room."""
    return (picture - torch.tensor(GREEN)[:, None, None]).abs().amax(0) < 0.2


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    return -10 * math.log10(max(float((one - other).square().mean()), 1e-12))


@pytest.mark.parametrize("quality", ["field", "layers"])
def test_a_ball_behind_the_square_is_hidden_and_appears_when_the_camera_moves(quality):
    scene = room()
    edited = scene.insert(ball(), BEHIND)

    def seen(some: Scene, right: float) -> torch.Tensor:
        if quality == "field":
            return some.render(turned(some, right)).rgb[0]
        return some.layered((SIDE, SIDE)).view(turned(some, right))

    assert psnr(seen(edited, 0.0), seen(scene, 0.0)) > 45
    assert not green(seen(edited, 0.0)).any()
    aside = green(seen(edited, ANGLE))
    assert aside.sum() > 10
    assert not green(seen(scene, ANGLE)).any()
    # Of a camera that moves to the right, things behind the pivot move to the right.
    assert aside.nonzero()[:, 1].float().mean() > 18


def test_a_ball_before_the_square_hides_it_within_its_silhouette():
    """Closed form: pixels whose ray passes the middle within the radius."""
    scene = room()
    seen = scene.insert(ball(), BEFORE).render()
    depth = BEFORE.depth(scene.field.frame)
    focal = scene.field.frame.focal_true
    # The box has sides of 2.4 radii and is as large as the placement says.
    radius = 0.3 * 2 * depth / focal / 2.4
    v, u = torch.meshgrid(*[(torch.arange(SIDE) + 0.5) / SIDE * 2 - 1] * 2, indexing="ij")
    rays = torch.nn.functional.normalize(torch.stack([u, v, torch.full_like(u, focal)]), dim=0)
    center = depth * torch.tensor([-0.3 / focal, 0.0, 1.0])
    along = (rays * center[:, None, None]).sum(0)
    apart = (center.square().sum() - along.square()).sqrt()
    ring = 2 / SIDE * depth / focal
    assert green(seen.rgb[0])[apart < radius - ring].all()
    assert (apart < radius - ring).sum() > 10
    untouched = apart > radius + ring
    torch.testing.assert_close(
        seen.rgb[0][:, untouched], scene.render().rgb[0][:, untouched], atol=0.02, rtol=0
    )
    near = seen.depth[0][apart < 0.3 * radius]
    torch.testing.assert_close(near, torch.full_like(near, depth - radius), rtol=0.02, atol=0.02)


def test_inserting_twice_composes_and_the_first_stays():
    scene = room()
    one = scene.insert(ball(30), Placement(x=0.5, y=0.5, nearness=0.5, size=0.2))
    two = one.insert(ball(30), Placement(x=0.5, y=-0.5, nearness=0.7, size=0.2))
    assert isinstance(two.field, EditedField)
    assert len(two.field.objects) == 2
    assert isinstance(scene.field, type(room().field)), "the scene itself is not changed"
    mask = green(two.render().rgb[0])
    rows = mask.nonzero()[:, 0]
    assert (rows < SIDE // 2).sum() > 8
    assert (rows > SIDE // 2).sum() > 8
    assert torch.equal(green(one.render().rgb[0])[: SIDE // 2], mask[: SIDE // 2])


def test_matrix_and_placement_are_two_ways_to_one_place():
    scene, part = room(), ball(24)
    low, high = part.bounds
    matrix = BEFORE.matrix(low, high, scene.field.frame)
    one, other = (scene.insert(part, where).render(size=(20, 20)) for where in (BEFORE, matrix))
    assert torch.equal(one.rgb, other.rgb)


# Other things than voxels


def test_any_field_with_bounds_can_be_put_in():
    scene = room()
    composed = ComposedField([Placed(Ball())])
    with pytest.raises(ValueError, match="ComposedField has no bounds"):
        scene.insert(composed, BEFORE)
    seen = scene.insert(Ball(), BEFORE, resolution=60).render()
    assert torch.equal(seen.rgb, scene.insert(ball(60), BEFORE).render().rgb)


def test_a_mesh_can_be_put_in_and_stands_upright():
    """A flat triangle with its tip up, in the scene world where y is down."""
    mesh = Mesh(
        vertices=np.array([[-1, 1, 0], [1, 1, 0], [0, -1, 0]], dtype=np.float32),
        faces=np.array([[0, 1, 2]]),
        colors=np.full((3, 3), (np.array(GREEN) * 255).astype(np.uint8), dtype=np.uint8),
    )
    where = Placement(x=0.5, nearness=0.6, size=0.5)
    mask = green(room().insert(mesh, where, resolution=40).render().rgb[0])
    rows = mask.any(1).nonzero().flatten()
    widths = mask.sum(1)[rows]
    assert len(rows) >= 8
    assert widths[-2] > widths[1] + 4, "wide below, a tip above"


def test_of_another_scene_the_near_part_is_put_in():
    scene = room()
    other = room()
    assert WALL < foreground_cut(other._surface(64)) < SQUARE
    where = Placement(x=0.5, y=0.5, nearness=0.6, size=0.3)
    edited = scene.insert(other, where)
    assert isinstance(edited.field, EditedField)
    assert isinstance(edited.field.objects[0].field, CutoutField)
    before, after = scene.render().rgb[0], edited.render().rgb[0]
    changed = (before - after).abs().amax(0) > 0.3
    rows, columns = changed.nonzero().float().unbind(1)
    assert columns.mean() == pytest.approx(SIDE * 0.75, abs=1.5)
    assert rows.mean() == pytest.approx(SIDE * 0.25, abs=1.5)
    assert 0.8 < (rows.max() - rows.min()) / (columns.max() - columns.min()) < 1.25
    with pytest.raises(UserError, match=r"farthest 0.95: nothing of the inserted scene is that"):
        scene.insert(other, where, farthest=0.95)


def test_objects_of_another_scene_come_along():
    other = room().insert(ball(24), Placement(x=-0.3, nearness=0.95, size=0.2))
    edited = room().insert(other, Placement(x=0.5, nearness=0.5, size=0.6))
    assert isinstance(edited.field, EditedField)
    kinds = [type(placed.field).__name__ for placed in edited.field.objects]
    assert kinds == ["CutoutField", "VoxelField"]
    mask = green(edited.render().rgb[0])
    assert mask.sum() > 10
    assert mask.nonzero()[:, 1].float().min() > SIDE / 2, "in its own place it stood on the left"


def test_what_would_reach_into_the_camera_is_refused():
    with pytest.raises(UserError, match="would reach into the camera there; give"):
        room().insert(ball(16), Placement(nearness=1.0, size=1.5))


# Files, layers, meshes


@pytest.mark.parametrize("part", [ball(24), room()], ids=["voxels", "scene"])
def test_a_saved_scene_gives_the_same_picture(tmp_path, part):
    edited = room().insert(part, Placement(x=0.4, nearness=0.6, size=0.4, turn=0.3))
    edited.save(tmp_path / "scene.safetensors")
    loaded = Scene.load(tmp_path / "scene.safetensors")
    assert isinstance(loaded.field, EditedField)
    camera = turned(edited, 0.1)
    one, other = edited.render(camera), loaded.render(camera)
    assert psnr(one.rgb, other.rgb) > 40
    assert (one.disparity - other.disparity).abs().mean() < 2e-3
    loaded.save(tmp_path / "again.safetensors")
    files = [tmp_path / name for name in ("scene.safetensors", "again.safetensors")]
    assert files[0].read_bytes() == files[1].read_bytes()
    plain = loaded.without_objects()
    assert psnr(plain.render(camera).rgb, room().render(camera).rgb) > 50


def test_a_scene_of_tokens_can_be_edited_too(tmp_path):
    scene = Scene(base(), room().header, picture=room().photo)
    edited = scene.insert(ball(24), Placement(x=0.4, nearness=0.7, size=0.3))
    path = edited.save(tmp_path / "scene.safetensors")
    loaded = Scene.load(path)
    assert green(loaded.render(size=(24, 24)).rgb[0]).sum() > 5
    assert loaded.photo is not None
    assert torch.equal(loaded.photo, room().photo)


def test_layers_are_sorted_surfaces_and_the_first_is_what_is_seen():
    edited = room().insert(ball(), BEFORE).insert(ball(), BEHIND)
    layers = edited.layers((SIDE, SIDE))
    seen = edited.render()
    front = layers[0]
    assert front.mask.all()
    assert psnr(front.rgb.permute(2, 0, 1), seen.rgb[0]) > 25
    assert (front.depth / seen.depth[0]).log().abs().median() < 0.03
    for near, far in pairwise(layers):
        both = near.mask & far.mask
        assert not (far.mask & ~near.mask).any()
        assert (far.depth >= near.depth)[both].all()
    # In the middle of both: ball, its back, square, the ball behind it, its back.
    middle = [float(layer.depth[20, 13]) for layer in layers]
    assert [bool(layer.mask[20, 13]) for layer in layers] == [True] * 5
    assert middle[2] == pytest.approx(depth_of(SQUARE), rel=0.01)
    assert green(layers[3].rgb.permute(2, 0, 1))[20, 13]
    torch.testing.assert_close(edited.depth((SIDE, SIDE)), front.depth)


def test_paths_show_objects_and_turn_about_the_same_pivot():
    scene = room()
    edited = scene.insert(ball(), BEFORE)
    assert edited.pivot_depth == scene.pivot_depth
    for quality in ("layers", "field"):
        frames = edited.orbit(frames=2, size=(SIDE, SIDE), quality=quality, max_angle=0.1)
        for image in frames.images:
            assert green(torch.tensor(image).permute(2, 0, 1) / 255).sum() > 10


def test_a_mesh_holds_room_and_ball():
    edited = room().insert(ball(), BEFORE)
    mesh = edited.mesh((SIDE, SIDE))
    plain = room().mesh((SIDE, SIDE))
    assert (mesh.vertices[: len(plain.vertices)] == plain.vertices).all()
    added = mesh.vertices[len(plain.vertices) :]
    focal, depth = edited.field.frame.focal_true, BEFORE.depth(edited.field.frame)
    radius = 0.3 * 2 * depth / focal / 2.4
    distance = np.linalg.norm(added - depth * np.array([-0.3 / focal, 0, 1]), axis=1)
    assert np.abs(distance / radius - 1).max() < 0.06, "one surface, none inside"
    colors = mesh.colors[len(plain.vertices) :]
    assert np.abs(colors - np.array(GREEN) * 255).max() <= 2
    assert mesh.normals is not None
    outwards = (added - depth * np.array([-0.3 / focal, 0, 1])) / distance[:, None]
    normals = mesh.normals[len(plain.vertices) :]
    assert ((normals * outwards).sum(1) > 0.9).mean() > 0.99


def test_a_mesh_of_a_cutout_is_its_relief():
    where = Placement(x=0.4, nearness=0.6, size=0.4)
    edited = room().insert(room(), where, farthest=0.5)
    count = len(room().mesh().vertices)
    added = edited.mesh().vertices[count:]
    uv, _ = edited.camera.project(torch.tensor(added)[None])
    assert float(uv[0, :, 0].mean()) == pytest.approx(0.72, abs=0.04)
    assert float(uv[0, :, 1].mean()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (torch.tensor([[0.1, 0.1, 0.15], [0.8, 0.9, 0.85]]), (0.15, 0.8)),
        (torch.cat([torch.full((1, 90), 0.2), torch.full((1, 10), 0.7)], 1), (0.2, 0.7)),
    ],
)
def test_a_cut_parts_two_heaps(values, expected):
    low, high = expected
    assert low < foreground_cut(values) < high


def test_the_subject_is_what_stands_on_the_ground():
    """A floor that comes nearer downwards, a wall far behind, a box on the floor."""
    rows = torch.linspace(-1, 1, 64)[:, None].expand(64, 64)
    picture = (0.4 + 0.4 * rows).clamp_min(0.1)
    box = torch.zeros(64, 64, dtype=torch.bool)
    box[20:50, 24:40] = True
    picture = torch.where(box, 0.8, picture)
    found = find_subject(picture, None)
    assert (found.mask == box).float().mean() > 0.97
    assert torch.equal(find_subject(picture, 0.1).mask[24:], found.mask[24:])
    wall = torch.where(box, 0.8, 0.3)
    assert torch.equal(find_subject(wall, None).mask, box), "without a ground, what is near"
    slope = 0.4 + 0.4 * rows
    assert find_subject(slope, 0.2).mask.any(), "a ground alone is a subject, too"


def test_of_another_scene_a_mask_says_what_is_put_in():
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[:, 14:30] = True  # the right half of the square, and wall
    scene, where = room(), Placement(x=0.5, nearness=0.6, size=0.3)
    edited = scene.insert(room(), where, mask=mask)
    assert isinstance(edited.field, EditedField)
    part = edited.field.objects[0].field
    assert isinstance(part, CutoutField)
    assert torch.equal(part.mask[0, 0] > 0.5, mask)
    near = scene.insert(room(), where, mask=mask, farthest=0.5).field.objects[0].field
    assert torch.equal(near.mask[0, 0] > 0.5, mask & square())


def test_an_object_can_stand_on_what_is_seen():
    scene = room()
    assert scene.nearness_at(-0.3, 0.0) == pytest.approx(SQUARE)
    assert scene.nearness_at(1.0, -1.0) == pytest.approx(WALL)
    where = Placement(x=0.5, y=-0.4, nearness=scene.nearness_at(0.5, -0.4), size=0.4, stands=True)
    rows = green(scene.insert(ball(), where).render().rgb[0]).any(1).nonzero().flatten()
    # The ball fills 1 / 1.2 of its box: its lowest point is a little above the box's.
    lowest = SIDE * (1 + 0.4 - 0.4 * (1 - 1 / 1.2)) / 2
    assert float(rows.max()) + 0.5 == pytest.approx(lowest, abs=1.5)
    assert where.depth(scene.field.frame) == pytest.approx(depth_of(WALL), rel=1e-5)


def test_a_flat_picture_is_cut_nowhere():
    assert foreground_cut(torch.full((4, 4), 0.3)) == pytest.approx(0.3)
