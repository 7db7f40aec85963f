"""Objects made of fields in closed form: no model is built here."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from made_figure import BALL, BLUE, GREEN, RADIUS, RED, YELLOW, Cloud, Figure, front_camera
from unflat.cli.main import main
from unflat.data.voxelize import voxels_of_field
from unflat.errors import UserError
from unflat.export import colorize_normals, mesh_report, to_uint8
from unflat.fields import (
    DistanceDecoder,
    DistanceTriplaneField,
    FeatureDecoder,
    LaplaceDensity,
    PaletteField,
    TriplaneField,
    VoxelField,
)
from unflat.geometry import Camera, look_at, orbit_coordinates
from unflat.geometry.rays import image_rays
from unflat.object_scene import FORMAT, ObjectScene, load_scene
from unflat.scene import Scene, SceneHeader

SIDE = 32
HEADER = SceneHeader(system="made", model="figure", settings={"seed": 3})


def scene(field: torch.nn.Module | None = None, camera: Camera | None = None) -> ObjectScene:
    camera = front_camera() if camera is None else camera
    return ObjectScene(field or Figure(), HEADER, camera, size=(SIDE, SIDE))


@pytest.fixture(scope="module")
def voxels() -> VoxelField:
    return voxels_of_field(Figure(), 64)


def traced(camera: Camera, size: int = SIDE) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance along each ray to the figure and its colour there, by sphere tracing in float64."""
    rays = image_rays(camera.to(dtype=torch.float64), size, size)
    figure = Figure().double()
    distance = torch.zeros(1, size, size, dtype=torch.float64)
    for _ in range(200):
        points = rays.origins + distance[..., None] * rays.directions
        distance = (distance + figure.distance(points)).clamp_max(50)
    points = rays.origins + distance[..., None] * rays.directions
    hit = figure.distance(points).abs() < 1e-3
    colors = torch.where(hit[..., None], figure(points).features, 1.0)
    forward = (rays.directions * camera.forward[:, None, None].double()).sum(-1)
    return torch.where(hit, distance * forward, torch.inf)[0], colors[0].permute(2, 0, 1)


def away_from_edges(colors: torch.Tensor) -> torch.Tensor:
    """Pixels whose neighbours have their colour: there a picture has nothing to blur."""
    same = torch.ones(colors.shape[1:], dtype=torch.bool)
    for axis in (1, 2):
        for step in (-1, 1):
            same &= ((colors - colors.roll(step, axis)).abs() < 1e-6).all(0)
    return same


@pytest.mark.parametrize("azimuth", [0.0, 1.0, math.pi])
def test_pictures_are_what_sphere_tracing_sees(azimuth):
    camera = front_camera(azimuth)
    seen = scene().render(camera)
    depth, colors = traced(camera)
    sure = away_from_edges(colors)
    off = (seen.rgb[0] - colors).abs().amax(0)[sure]
    assert float(off.quantile(0.98)) < 0.02
    assert float(off.max()) < 0.1, "where rays graze the surface"
    hit = sure & depth.isfinite()
    found = scene(camera=camera).depth()
    assert float((found - depth).abs()[hit].median()) < 0.02
    assert bool(found[sure & ~depth.isfinite()].isinf().all())
    assert float((seen.opacity[0] > 0.5).eq(depth.isfinite()).float().mean()) > 0.98


def test_up_is_up_and_front_is_front():
    picture = scene(camera=front_camera(0.0, 0.0)).render(size=(96, 96)).rgb[0]

    def middle(color: tuple[float, float, float]) -> tuple[float, float]:
        close = ((picture - torch.tensor(color)[:, None, None]).abs() < 0.03).all(0)
        rows, columns = close.nonzero().float().unbind(1)
        return float(rows.mean()), float(columns.mean())

    assert middle(RED)[0] < middle(BLUE)[0] - 15, "the ball is above the block"
    assert middle(GREEN)[1] > 60, "+x is on the right of a picture from the front"
    assert middle(YELLOW) == pytest.approx((27.5, 47.5), abs=1.5), (
        "the nose is in front of the ball"
    )


def test_normals_point_out_of_the_surface():
    camera = front_camera(0.3)
    normals = scene().normals(camera, size=(48, 48))
    depth, colors = traced(camera, 48)
    sure = away_from_edges(colors) & depth.isfinite()
    points = camera.unproject(uv_grid(48), depth.float().clamp_max(9).reshape(1, -1))[0]
    red = ((colors - torch.tensor(RED)[:, None, None]).abs() < 1e-3).all(0) & sure
    ball = (points.reshape(48, 48, 3) - torch.tensor(BALL)) / RADIUS
    along = (normals[0].permute(1, 2, 0) * ball).sum(-1)[red]
    assert float(along.median()) > 0.995
    assert float((along > 0.95).float().mean()) > 0.95
    assert bool((normals[0, :, 0, 0] == 0).all()), "nothing beside the object"
    length = normals.norm(dim=1)[0]
    assert bool(((length - 1).abs() < 1e-4)[sure].all())
    painted = colorize_normals(normals[0])
    assert tuple(painted[0, 0]) == (255, 255, 255)
    top = sure & (normals[0, 1] > 0.9)
    assert (painted[top.numpy()][:, 1] > 240).all(), "green looks up"


def test_depth_of_what_is_translucent_is_where_it_stops_light():
    density, near, far = 0.6, 2.0, 4.0
    box = torch.tensor([[-9.0, -9.0, -1.0], [9.0, 9.0, 1.0]])
    slab = VoxelField(torch.full((1, 2, 2, 2), density), torch.zeros(1, 3, 2, 2, 2), box)
    found = scene(slab, front_camera(0.0, 0.0)).depth((3, 3))[1, 1]
    way = np.linspace(0, far - near, 100_001)
    stopped = density * np.exp(-density * way)
    expected = stopped.sum() / (stopped / (near + way)).sum()
    assert float(found) == pytest.approx(expected, rel=1e-3)


def uv_grid(side: int) -> torch.Tensor:
    place = (torch.arange(side) + 0.5) / side
    v, u = torch.meshgrid(place, place, indexing="ij")
    return torch.stack([u, v], dim=-1).reshape(1, -1, 2)


def test_a_density_without_distance_has_normals_too():
    camera = front_camera(0.0)
    soft = scene(Cloud(Figure(sharpness=40.0))).normals(camera)
    exact = scene(Figure()).normals(camera)
    both = (soft.norm(dim=1) > 0) & (exact.norm(dim=1) > 0)
    along = (soft * exact).sum(1)[both]
    assert float(along.median()) > 0.98


@pytest.mark.parametrize("path", ["orbit", "spiral", "wiggle"])
def test_a_frame_is_the_picture_from_its_pose(path):
    made = scene()
    told = []
    film = made.orbit(path, 4, (32, 40), progress=lambda done, all_: told.append((done, all_)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert film.images.shape == (4, 32, 40, 3)
    for pose, image in zip(made.path(path, 4), film.images, strict=True):
        camera = Camera(camera_to_world=pose[None], intrinsics=made.camera.intrinsics)
        expected = to_uint8(made.render(camera, (32, 40), made.quick_samples).rgb[0])
        assert np.abs(image.astype(int) - expected).max() <= 1
        still = to_uint8(made.render(camera, (32, 40)).rgb[0])
        assert np.square(image.astype(float) - still).mean() < 8.0, "39 dB to many samples"
    different = np.abs(film.images[1].astype(int) - film.images[0]).mean()
    assert different > 3, "the camera moves"


def test_paths_keep_radius_and_elevation():
    made = scene(camera=front_camera(0.7, 0.3, 2.5))
    for path, change in (("orbit", 0.0), ("spiral", 0.2)):
        poses = made.path(path, 8, max_angle=0.2)
        elevation, _, radius = orbit_coordinates(poses[:, :3, 3] - made.pivot)
        assert float(radius.std()) < 1e-5
        assert float(elevation.max() - elevation[0]) == pytest.approx(change, abs=1e-5)
    torch.testing.assert_close(poses[0], made.camera.camera_to_world[0])
    steep = scene(camera=front_camera(0.0, math.radians(80)))
    elevation, _, _ = orbit_coordinates(steep.path("spiral", 8)[:, :3, 3] - steep.pivot)
    assert math.degrees(float(elevation.max())) == pytest.approx(85, abs=0.5)


def test_a_camera_that_looks_past_the_middle_still_begins_every_path():
    pose = look_at(torch.tensor([0.3, 0.5, 2.5]), torch.tensor([0.3, 0.2, 0.0]))[None]
    made = scene(camera=Camera.from_fov(0.8, pose))
    for path in ("orbit", "spiral", "wiggle"):
        torch.testing.assert_close(made.path(path, 5)[0], pose[0])
    first = made.orbit("orbit", 3).images[0]
    still = to_uint8(made.render(samples=made.quick_samples).rgb[0])
    assert np.abs(first.astype(int) - still).max() <= 1


def test_orthographic_cameras_see_the_object():
    camera = Camera(
        camera_to_world=front_camera().camera_to_world,
        intrinsics=torch.tensor([[0.4, 0.4, 0.5, 0.5]]),
        kind="orthographic",
    )
    seen = scene(camera=camera).render()
    assert 0.15 < float(seen.opacity.mean()) < 0.5
    assert float((seen.rgb - scene().render().rgb).abs().mean()) > 0.01


def test_voxels_render_and_mesh(voxels):
    made, exact = scene(voxels), scene()
    difference = (made.render().rgb - exact.render().rgb).abs().mean()
    assert float(difference) < 0.03
    report = mesh_report(made.mesh(48, level=100.0))  # half of the figure's density
    assert report.watertight
    assert report.volume == pytest.approx(mesh_report(exact.mesh(48)).volume, rel=0.05)


def test_films_see_thin_shells_of_voxels():
    density = torch.zeros(1, 64, 64, 64)
    density[:, 43:44, 12:52, 12:52] = 300.0  # a plate of one voxel, seen from the front
    box = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    plate = scene(VoxelField(density, torch.zeros(1, 3, 64, 64, 64), box), front_camera(0.0, 0.1))
    assert plate.quick_samples == 32
    still = plate.render(samples=256).opacity
    assert float(still.mean()) > 0.1
    quick = plate.render(samples=plate.quick_samples).opacity
    assert float((quick - still).abs().mean()) < 0.005
    few = plate.render(samples=8).opacity
    assert float((few - still).abs().mean()) > 0.01, "there are too few"


def triplane() -> TriplaneField:
    torch.manual_seed(0)
    box = torch.tensor([[-0.5] * 3, [0.5] * 3])
    return TriplaneField(2 * torch.randn(1, 3, 8, 16, 16), FeatureDecoder(8, 16), box)


def palette(seed: int = 0) -> PaletteField:
    torch.manual_seed(seed)
    box = torch.tensor([[-0.6] * 3, [0.6] * 3])
    choices = DistanceTriplaneField(
        2 * torch.randn(1, 3, 8, 4, 4), DistanceDecoder(8, 16, 4), LaplaceDensity(0.02, 0.01), box
    )
    return PaletteField(choices, torch.rand(1, 4, 3))


def test_a_generator_s_distances_have_a_mesh_in_the_palette_s_colours():
    field = palette()
    mesh = scene(field).mesh(40)
    assert mesh_report(mesh).watertight
    off = field.distance(torch.from_numpy(mesh.vertices)[None])[0].detach()
    inner = (np.abs(mesh.vertices) < 0.59).all(1)
    assert float(off[torch.from_numpy(inner)].abs().median()) < 0.02
    low, high = field.palette.amin(1)[0], field.palette.amax(1)[0]
    colors = torch.from_numpy(mesh.colors) / 255
    assert bool(((colors > low - 0.01) & (colors < high + 0.01)).all())


@pytest.mark.parametrize("kind", ["triplane", "palette", "voxels"])
def test_a_file_holds_all_of_it(tmp_path, voxels, kind):
    picture = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0))
    made = ObjectScene(
        {"triplane": triplane, "palette": palette, "voxels": lambda: voxels}[kind](),
        HEADER,
        front_camera(0.4),
        size=(24, 32),
        background=(0.5, 0.25, 1.0),
        picture=picture,
    )
    first = made.save(tmp_path / "first.safetensors")
    again = load_scene(first)
    assert isinstance(again, ObjectScene)
    assert again.header == HEADER
    assert again.size == (24, 32)
    assert again.background == (0.5, 0.25, 1.0)
    assert again.photo is not None
    torch.testing.assert_close(again.photo, picture, atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(again.camera.camera_to_world, made.camera.camera_to_world)
    torch.testing.assert_close(again.render().rgb, made.render().rgb, atol=4e-3, rtol=0)
    # What went through the file once comes back to the bit.
    second = again.save(tmp_path / "second.safetensors")
    assert first.read_bytes() == second.read_bytes()
    torch.testing.assert_close(load_scene(second).render().rgb, again.render().rgb, atol=0, rtol=0)


def test_background_is_seen_beside_the_object():
    made = ObjectScene(Figure(), HEADER, front_camera(), background=(0.2, 0.4, 0.6))
    corner = made.render(size=(16, 16)).rgb[0, :, 0, 0]
    torch.testing.assert_close(corner, torch.tensor([0.2, 0.4, 0.6]))


def test_what_is_no_object_is_refused():
    boundless = TriplaneField(torch.zeros(1, 3, 4, 4, 4), FeatureDecoder(4))
    with pytest.raises(ValueError, match="TriplaneField has no bounds"):
        scene(boundless)
    with pytest.raises(ValueError, match=r"one canonical camera is needed, not \(2,\)"):
        scene(camera=front_camera()[torch.tensor([0, 0])])
    with pytest.raises(ValueError, match="no packing for Figure"):
        scene().save("nowhere.safetensors")
    assert not Path("nowhere.safetensors").exists()


def rewritten(path: Path, change) -> None:
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["unflat"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header, tensors)
    save_file(tensors, path, metadata={"unflat": json.dumps(header)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda header, tensors: header.update(format=FORMAT + 1),
            rf"newer unflat \(format {FORMAT + 1}, this reads up to {FORMAT}\); upgrade unflat",
        ),
        (
            lambda header, tensors: header["field"].update(kind="mist"),
            "its parts do not fit together; make the object again",
        ),
        (
            lambda header, tensors: tensors.pop("intrinsics"),
            "its parts do not fit together; make the object again",
        ),
        (
            lambda header, tensors: header.update(size=[3]),
            "its parts do not fit together; make the object again",
        ),
        (
            lambda header, tensors: tensors.pop("field/decoder.out.bias"),
            "its parts do not fit together; make the object again",
        ),
        (
            lambda header, tensors: header.pop("kind"),
            "holds no scene of unflat's; give a scene file",
        ),
    ],
    ids=["newer", "other field", "no camera", "no size", "no decoder", "no kind"],
)
def test_what_is_no_whole_object_is_a_sentence(tmp_path, change, words):
    path = scene(triplane()).save(tmp_path / "object.safetensors")
    rewritten(path, change)
    with pytest.raises(UserError, match=f"object.safetensors: .*{words}"):
        load_scene(path)


def test_each_kind_of_scene_is_told_from_the_other(tmp_path):
    path = scene(triplane()).save(tmp_path / "object.safetensors")
    with pytest.raises(UserError, match="holds an object, not the scene of a photo; give"):
        Scene.load(path)
    rewritten(path, lambda header, tensors: header.update(kind="scene", format=1))
    with pytest.raises(UserError, match="holds the scene of a photo, not an object; give"):
        ObjectScene.load(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="is not a whole safetensors file"):
        load_scene(path)
    with pytest.raises(UserError, match="there is no such file; give a scene file"):
        load_scene(tmp_path / "nothing.safetensors")


def test_an_object_takes_the_colors_of_another_and_keeps_its_shape():
    one, other = scene(palette(1)), scene(palette(2))
    assert not torch.equal(one.field.palette, other.field.palette)
    mixed = one.recolored(other)
    points = torch.rand(1, 200, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    density, colors = mixed.field(points)
    torch.testing.assert_close(density, one.field(points).density)
    choices = one.field.field(points).features
    torch.testing.assert_close(colors, choices @ other.field.palette)
    assert mixed.photo is None
    with pytest.raises(UserError, match="it \\(figure\\) keeps no palette"):
        scene().recolored(one)
    with pytest.raises(UserError, match="the other \\(figure\\) keeps no palette"):
        one.recolored(scene())
    stranger = ObjectScene(palette(), SceneHeader(system="made", model="birds"), front_camera())
    with pytest.raises(UserError, match="of figure and birds"):
        one.recolored(stranger)


def test_colors_are_exchanged_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    first, second = scene(palette(1)), scene(palette(2))
    for name, one in (("red", first), ("blue", second)):
        (tmp_path / name).mkdir()
        one.save(tmp_path / name / "scene.safetensors")
    quick = ("--frames", "2", "--size", "16", "--quiet")
    assert main(["edit", "red", "--colors-from", "blue", *quick]) == 0
    made = load_scene(tmp_path / "red-edited" / "scene.safetensors")
    assert isinstance(made, ObjectScene)
    assert torch.equal(made.field.palette, second.field.palette)
    assert (tmp_path / "red-edited" / "preview.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--insert", "blue"), "--at: is not given"),
        (("--at", "0,0"), "--insert: is not given"),
        (("--colors-from", "blue", "--at", "0,0"), "--colors-from: does not go with"),
    ],
)
def test_an_edit_is_one_thing_and_whole(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "red").mkdir()
    scene(palette()).save(tmp_path / "red" / "scene.safetensors")
    assert main(["edit", "red", *arguments]) == 2
    assert sentence in capsys.readouterr().err
