"""Axes are checked in the object world (y up, front +z), where the code computes in the files'."""

import io
import json
import math
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from unflat.cli.main import main
from unflat.data import PosedObjects, ProceduralObjects, open_views, write_procedural_objects
from unflat.data.procedural_objects import DEPTH_UNIT, FOCAL, RADIUS
from unflat.errors import UserError
from unflat.geometry import (
    Camera,
    depth_per_distance,
    image_rays,
    orbit_coordinates,
    orbit_pose,
    z_up_to_object,
)

SIDE = 16


def looking(azimuth_deg, elevation_deg, kind="perspective"):
    angles = torch.deg2rad(torch.tensor([azimuth_deg, elevation_deg], dtype=torch.float64))
    pose = orbit_pose(angles[1], angles[0], RADIUS)
    focal = FOCAL if kind == "perspective" else 1.0
    intrinsics = torch.tensor([focal, focal, 0.5, 0.5], dtype=torch.float64)
    return Camera(camera_to_world=pose, intrinsics=intrinsics, kind=kind)


def at(part):
    """Center of a part in the object world."""
    return z_up_to_object(torch.from_numpy(part.center))


def box_distance(points, part):
    size = torch.from_numpy(part.half_size)[[0, 2, 1]]
    beyond = (points - at(part)).abs() - size
    return beyond.clamp_min(0).norm(dim=-1) + beyond.amax(-1).clamp_max(0)


def pole_distance(points, part):
    """Of a cylinder along y."""
    local = points - at(part)
    across = local[..., [0, 2]].norm(dim=-1) - part.radius
    beyond = torch.stack([across, local[..., 1].abs() - part.half_height], dim=-1)
    return beyond.clamp_min(0).norm(dim=-1) + beyond.amax(-1).clamp_max(0)


def distance(points, parts):
    """Signed distance of an object of the object world, by formulas of its own."""
    body, cabin, ball, pole = parts
    ball_distance = (points - at(ball)).norm(dim=-1) - ball.radius
    boxes = [box_distance(points, body), box_distance(points, cabin)]
    return torch.stack([*boxes, ball_distance, pole_distance(points, pole)]).amin(0)


@pytest.fixture(scope="module")
def carts():
    return ProceduralObjects(count=4)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "carts"
    assert main([
        *("data", "objects", "--out", str(out), "--count", "3", "--resolution", str(SIDE)),
        *("--views", "5", "--seed", "7", "--quiet"),
    ]) == 0  # fmt: skip
    return out


@pytest.mark.parametrize("angles", [(20.0, 15.0), (140.0, 50.0), (-100.0, -30.0)])
@pytest.mark.parametrize("kind", ["perspective", "orthographic"])
def test_depth_and_normal_are_those_of_marching_through_the_distance(carts, angles, kind):
    camera = looking(*angles, kind)
    seen, parts = carts.view(1, camera, SIDE), carts.object(1)
    rays = image_rays(camera, SIDE, SIDE)
    far = torch.zeros(SIDE, SIDE, dtype=torch.float64)
    for _ in range(300):
        far = far + distance(rays.origins + far[..., None] * rays.directions, parts)
    points = rays.origins + far[..., None] * rays.directions
    hits = distance(points, parts).abs() < 1e-7
    assert 0.05 < hits.float().mean() < 0.6
    assert torch.equal(hits, seen.depth.isfinite())
    depth = far * depth_per_distance(camera, rays)
    assert (seen.depth - depth)[hits].abs().max() < 1e-5
    step = 1e-5 * torch.eye(3, dtype=torch.float64)
    slopes = [distance(points + d, parts) - distance(points - d, parts) for d in step]
    slope = torch.stack(slopes) / 2e-5
    is_smooth = hits & ((slope.norm(dim=0) - 1).abs() < 1e-4)  # not on an edge
    assert is_smooth.sum() > 0.9 * hits.sum()
    assert (seen.normal - slope)[:, is_smooth].abs().max() < 1e-4
    assert (seen.normal[:, ~hits] == 0).all()


def test_points_of_the_solid_fall_inside_the_mask_and_behind_the_depth(carts):
    """Points with 0.02 of solid around them, which is more than half a pixel in any direction."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(4000, 3, generator=generator, dtype=torch.float64) - 0.5
    for index in range(len(carts)):
        camera = carts.cameras(index, 6).to(dtype=torch.float64)
        inside = points[distance(points, carts.object(index)) < -0.02]
        assert len(inside) > 50
        seen = carts.view(index, camera, 64)
        uv, depth = camera.project(inside.expand(6, -1, 3))
        column, row = (uv * 64).long().unbind(-1)
        view = torch.arange(6)[:, None]
        assert (seen.mask[view, row, column] > 0).all()
        assert (seen.depth[view, row, column] < depth).all()


def test_the_box_around_an_object_has_its_middle_in_the_origin_and_diagonal_1(carts):
    side = 128
    sizes = []
    for index in range(2):
        spans = {}
        for angles, axes in (((0.0, 0.0), "xy"), ((90.0, 0.0), "zy")):
            seen = carts.view(index, looking(*angles, "orthographic"), side).mask > 0
            for axis, shown in zip(axes, (seen.any(0), seen.any(1)), strict=True):
                places = shown.nonzero()[:, 0]
                low, high = int(places[0]) / side - 0.5, (int(places[-1]) + 1) / side - 0.5
                assert abs(low + high) <= 1.01 / side
                spans[axis] = high - low
        sizes.append(math.hypot(*spans.values()))
        assert spans["z"] > max(spans["x"], spans["y"])
    assert np.abs(np.array(sizes) - 1).max() < 2 * math.sqrt(3) / side


def test_parts_are_where_their_names_say(carts):
    for index in range(len(carts)):
        _, cabin, ball, pole = (at(part) for part in carts.object(index))
        assert cabin[2] > 0.1  # in front
        assert cabin[0] < 0 < ball[0]  # left is +x
        assert ball[2] < -0.1
        assert pole[0] < 0


def test_no_side_looks_like_another_or_its_mirror_image(carts):
    angles = (-135.0, -90.0, -45.0, 0.0, 45.0, 90.0, 135.0, 180.0)
    for index in range(2):
        sides = [carts.view(index, looking(angle, 20.0), 32).rgb for angle in angles]
        for first, one in enumerate(sides):
            # The mirror image of the object seen from -a is the mirrored picture from a.
            mirror = carts.view(index, looking(-angles[first], 20.0), 32).rgb.flip(-1)
            assert (one - mirror).abs().mean() > 0.01
            for other in sides[:first]:
                assert (one - other).abs().mean() > 0.01


def test_light_is_fixed_in_the_world(carts):
    """The deck looks straight up: 0.96 albedo (0.6 + 0.4 sin 55 deg), from wherever it is seen."""
    body = carts.object(0)[0]
    expected = 0.96 * np.array(body.texture.first) * (0.6 + 0.4 * math.sin(math.radians(55.0)))
    top = float(at(body)[1]) + body.half_size[2]
    for angle in (0.0, 100.0, 200.0, 300.0):
        camera = looking(angle, 60.0)
        seen = carts.view(0, camera, 64)
        rays = image_rays(camera, 64, 64)
        ahead = seen.depth.double() / depth_per_distance(camera, rays)
        height = (rays.origins + ahead[..., None] * rays.directions)[..., 1]
        is_deck = (height - top).abs() < 1e-5
        error = (seen.rgb - torch.from_numpy(expected)[:, None, None]).abs().amax(0)
        assert is_deck.sum() > 100
        assert (error < 1e-6)[is_deck].float().mean() > 0.75  # the others lie on borders
    assert (carts.view(0, looking(0.0, 10.0), 32).rgb[:, 0, 0] == 1).all()  # white behind


def test_cameras_stand_where_they_are_said_to():
    low, high = math.radians(5), math.radians(40)
    ranges = {"azimuth": (-1.0, 2.0), "elevation": (low, high)}
    carts = ProceduralObjects(count=2, **ranges)
    camera = carts.cameras(0, 2000)
    elevation, azimuth, radius = orbit_coordinates(camera.position)
    torch.testing.assert_close(radius, torch.full_like(radius, 1.3))
    torch.testing.assert_close(camera.forward, -camera.position / 1.3, rtol=0, atol=1e-6)
    assert (camera.intrinsics == torch.tensor([FOCAL, FOCAL, 0.5, 0.5])).all()
    rest = (elevation.sin() - math.sin(low)) / (math.sin(high) - math.sin(low))
    for share in (rest, (azimuth + 1) / 3):
        ordered, even = share.sort().values, torch.linspace(0, 1, 2000)
        assert (ordered - even).abs().max() < 0.045  # Kolmogorov-Smirnov, once in 1500
    assert abs(float(torch.corrcoef(torch.stack([rest, azimuth]))[0, 1])) < 0.1
    assert not torch.equal(carts.cameras(1, 9).position, carts.cameras(0, 9).position)
    fixed = ProceduralObjects(count=2, split="val", **ranges)
    assert torch.equal(fixed.cameras(0, 9).position, fixed.cameras(1, 9).position)
    elevation, azimuth, _ = orbit_coordinates(fixed.cameras(0, 64).position)
    for share in ((azimuth + 1) / 3, elevation.sin().sub(math.sin(low))):
        gaps = (share / share.max()).sort().values.diff()
        assert gaps.max() < 0.04  # evenly spread


def test_objects_depend_on_seed_split_and_number_alone():
    def colors(**settings):
        objects = ProceduralObjects(**settings)
        return [objects.object(index)[0].texture.first for index in range(len(objects))]

    assert colors(count=5)[:2] == colors(count=2)
    drawn = colors(count=5) + colors(count=5, split="val") + colors(count=5, split="test")
    assert len(set(drawn + colors(count=5, seed=1))) == 20
    for index in (-1, 5):
        with pytest.raises(IndexError, match="among 5"):
            ProceduralObjects(count=5).object(index)


def test_batches_of_cameras_keep_their_shape(carts):
    camera = carts.cameras(2, 6)
    grid = Camera(
        camera_to_world=camera.camera_to_world.view(2, 3, 4, 4),
        intrinsics=camera.intrinsics.view(2, 3, 4),
    )
    seen, single = carts.view(2, grid, 8), carts.view(2, camera[4], 8)
    for name, shape in {
        "rgb": (3, 8, 8),
        "mask": (8, 8),
        "depth": (8, 8),
        "normal": (3, 8, 8),
    }.items():
        assert getattr(seen, name).shape == (2, 3, *shape)
        assert torch.equal(getattr(seen, name)[1, 1], getattr(single, name))


def test_what_is_written_reads_back(written):
    assert sorted(path.name for path in written.iterdir()) == ["objects.tar", "report.json"]
    path = written / "objects.tar"
    assert PosedObjects(path).splits == ("train", "val", "test")
    with tarfile.open(path) as archive:
        unit = json.loads(archive.extractfile("depth.json").read())["unit"]
        assert unit == DEPTH_UNIT
        for split, count in {"train": 3, "val": 4, "test": 4}.items():
            found = PosedObjects(path, split)
            carts = ProceduralObjects(count=count, seed=7, split=split)
            assert found.names == [carts.name(index) for index in range(count)]
            for index, item in enumerate(found):
                camera = carts.cameras(index, 5)
                assert torch.equal(item.camera.camera_to_world, camera.camera_to_world)
                torch.testing.assert_close(item.camera.intrinsics, camera.intrinsics)
                seen = carts.view(index, camera, SIDE)
                assert torch.equal(item.images, (seen.rgb * 255).round() / 255)
                assert torch.equal(item.masks, (seen.mask > 0).float())
                for view in range(5):
                    name = f"{split}/{item.name}/depth/{view:06d}.png"
                    picture = Image.open(io.BytesIO(archive.extractfile(name).read()))
                    depth = torch.from_numpy(np.asarray(picture).astype(np.float64)) * unit
                    hits = seen.depth[view].isfinite()
                    assert torch.equal(depth > 0, hits)
                    assert (depth - seen.depth[view])[hits].abs().max() <= 0.51 * unit
            assert found.rejects == []
    views = open_views(written, 8)
    assert (views.counts["pictures"], views.names) == (15, PosedObjects(path, "train").names)


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    told = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        numbers = (1, 8, seed, 2)
        write_procedural_objects(
            tmp_path / name, *numbers, held_out=1, progress=lambda *pair: told.append(pair)
        )
    first, second, third = ((tmp_path / n / "objects.tar").read_bytes() for n in "abc")
    assert first == second != third
    assert told[:3] == [(1, 3), (2, 3), (3, 3)]


def test_numbers_that_cannot_be_and_older_results_are_refused(written, tmp_path):
    for option, least in {"count": 1, "resolution": 4, "views": 1, "seed": 0}.items():
        sentence = rf"^--{option} {least - 1}: must be at least {least}\.$"
        with pytest.raises(UserError, match=sentence):
            write_procedural_objects(tmp_path / "x", **{option: least - 1})
    with pytest.raises(UserError, match="already holds a result; add --force"):
        write_procedural_objects(written)
    assert not (tmp_path / "x").exists()
    assert main(["data", "objects", "--out", str(tmp_path / "x"), "--dry-run"]) == 0
    assert not (tmp_path / "x").exists()
