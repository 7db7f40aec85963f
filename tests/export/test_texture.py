"""Textures baked from fields whose colours are known in closed form."""

import json
import sys

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from unflat.data import read_object_mesh
from unflat.errors import UserError
from unflat.export import Mesh, can_texture, mesh_of_field, mesh_report, textured, write_mesh
from unflat.fields import FieldOutput, VoxelField

RADIUS = 0.7
HALF_A_CELL = 2.0 / 256  # how far below the surface colours are asked
SIDE = 256


def color(points: np.ndarray) -> np.ndarray:
    """[0, 1], of four to six waves along a side of the box."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    waves = [np.sin(12 * x + 2 * z), np.sin(16 * y - x), np.sin(14 * z + 3 * y)]
    return 0.5 + 0.4 * np.stack(waves, -1)


class Ball(torch.nn.Module):
    """Smooth colours on a ball that is hollow, and closed: the inner surface counts as well."""

    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])

    def distance(self, points):
        return ((points.norm(dim=-1) - RADIUS + 0.15).abs() - 0.15).float()

    def forward(self, points, directions=None):
        rgb = torch.from_numpy(color(points.double().numpy())).float()
        return FieldOutput((self.distance(points) < 0).float(), rgb)


def bilinear(image: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Colours [0, 1] as a graphics card reads them: (0, 0) the upper left, clamped at the edge."""
    height, width = image.shape[:2]
    at = uv.astype(np.float64) * [width, height] - 0.5
    low = np.floor(at).astype(int)
    share = at - low
    total = np.zeros((len(uv), 3))
    for right in (0, 1):
        for down in (0, 1):
            column = (low[:, 0] + right).clip(0, width - 1)
            row = (low[:, 1] + down).clip(0, height - 1)
            part = np.where(right, share[:, 0], 1 - share[:, 0])
            part = part * np.where(down, share[:, 1], 1 - share[:, 1])
            total += part[:, None] * image[row, column] / 255
    return total


def spread(mesh: Mesh, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Triangles and shares of their corners, even over the surface."""
    generator = np.random.default_rng(0)
    a, b, c = (mesh.vertices[mesh.faces[:, corner]].astype(float) for corner in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    faces = generator.choice(len(area), count, p=area / area.sum())
    return faces, generator.dirichlet((1, 1, 1), count)


def mix(values: np.ndarray, mesh: Mesh, faces: np.ndarray, shares: np.ndarray) -> np.ndarray:
    return (values[mesh.faces[faces]].astype(np.float64) * shares[..., None]).sum(1)


def wanted_colors(points: np.ndarray) -> np.ndarray:
    """Half a cell below the surface, which is around the ball's middle on both of its sides."""
    length = np.linalg.norm(points, axis=1, keepdims=True)
    is_outer = length > RADIUS - 0.15
    return color(points / length * (length - np.where(is_outer, HALF_A_CELL, -HALF_A_CELL)))


@pytest.fixture(scope="module")
def coarse() -> Mesh:
    return mesh_of_field(Ball(), 17)


@pytest.fixture(scope="module")
def painted(coarse) -> Mesh:
    return textured(coarse, Ball(), side=SIDE, most_faces=None)


def test_every_point_of_the_surface_finds_its_own_colour(painted):
    """Also at the islands' edges, where the look-up reads texels that lie beyond them."""
    assert painted.texture is not None
    faces, shares = spread(painted)
    found = bilinear(painted.texture.image, mix(painted.texture.uv, painted, faces, shares))
    wanted = wanted_colors(mix(painted.vertices, painted, faces, shares))
    off = np.abs(found - wanted).max(1)
    # A texel is 1/65 wide: between two, a wave of 17 radians a unit bends by 0.4 (17 / 65)^2 / 8,
    # and at an island's edge colours may be half a texel off, 0.4 x 17 / 130.
    assert np.sqrt(((found - wanted) ** 2).mean()) < 0.004
    assert off.max() < 0.055


def test_a_texture_is_nearer_than_vertex_colours(painted):
    assert painted.texture is not None
    faces, shares = spread(painted)
    wanted = wanted_colors(mix(painted.vertices, painted, faces, shares))
    by_texture = bilinear(painted.texture.image, mix(painted.texture.uv, painted, faces, shares))
    by_vertex = mix(painted.colors / 255, painted, faces, shares)
    errors = [np.sqrt(((found - wanted) ** 2).mean()) for found in (by_texture, by_vertex)]
    assert errors[1] > 0.05, "so coarse that waves are lost between the vertices"
    assert errors[0] < errors[1] / 8


def test_no_texel_near_an_island_is_left_empty(painted):
    """Read coarsely, as from afar, colours are still those of the surface: no black creeps in."""
    assert painted.texture is not None
    image = painted.texture.image
    assert image.min() >= 0.1 * 255 - 1, "the field has nothing darker, an empty texel is 0"
    small = np.asarray(Image.fromarray(image).reduce(4))
    faces, shares = spread(painted)
    found = bilinear(small, mix(painted.texture.uv, painted, faces, shares))
    wanted = wanted_colors(mix(painted.vertices, painted, faces, shares))
    assert np.sqrt(((found - wanted) ** 2).mean()) < 0.03


def test_the_surface_is_the_same_but_for_its_cuts(painted, coarse):
    assert mesh_report(coarse).watertight
    assert len(painted.vertices) > len(coarse.vertices)
    np.testing.assert_array_equal(
        painted.vertices[painted.faces], coarse.vertices[coarse.faces], strict=True
    )
    solid = trimesh.Trimesh(painted.vertices, painted.faces, process=False)
    solid.merge_vertices(merge_tex=True, merge_norm=True)
    assert solid.is_watertight
    assert painted.normals is not None
    assert np.linalg.norm(painted.normals, axis=1) == pytest.approx(1, abs=1e-5)


def test_islands_do_not_overlap(painted):
    """Their areas sum to less than the texture, and no texel is inside of two triangles."""
    assert painted.texture is not None
    corners = painted.texture.uv[painted.faces].astype(np.float64) * 128
    count = np.zeros((128, 128), int)
    middles = np.stack(np.meshgrid(np.arange(128) + 0.5, np.arange(128) + 0.5), -1)
    for a, b, c in corners:
        low, high = np.min([a, b, c], 0).astype(int), np.max([a, b, c], 0).astype(int) + 1
        window = (slice(low[1], high[1]), slice(low[0], high[0]))
        sides = [
            (q - p)[0] * (middles[window] - p)[..., 1] - (q - p)[1] * (middles[window] - p)[..., 0]
            for p, q in ((a, b), (b, c), (c, a))
        ]
        count[window] += (np.min(sides, 0) > 1e-6) | (np.max(sides, 0) < -1e-6)
    assert count.max() == 1
    assert 0.4 < count.mean() < 1, "and much of the texture is used"


def test_many_triangles_become_fewer_and_the_shape_stays():
    whole = mesh_of_field(Ball(), 48)
    fewer = textured(whole, Ball(), side=64, most_faces=4000)
    assert len(whole.faces) > 10_000
    assert 0.95 * 4000 < len(fewer.faces) <= 4000
    solid = trimesh.Trimesh(fewer.vertices, fewer.faces, process=False)
    solid.merge_vertices(merge_tex=True, merge_norm=True)
    assert solid.is_watertight
    assert solid.volume == pytest.approx(mesh_report(whole).volume, rel=0.005)
    off = Ball().distance(torch.from_numpy(fewer.vertices)).abs()
    assert float(off.max()) < 0.25 * 2 / 47, "a quarter of a cell"


def test_a_glb_with_a_texture_is_read_by_others(painted, tmp_path):
    from pygltflib import GLTF2

    path = write_mesh(painted, tmp_path / "ball.glb", describe="a ball")
    loaded = GLTF2().load(str(path))
    assert loaded is not None
    document = json.loads(loaded.to_json())
    (material,) = document["materials"]
    shine = material["pbrMetallicRoughness"]
    assert (shine["metallicFactor"], shine["roughnessFactor"]) == (0.0, 1.0)
    assert shine.get("baseColorFactor", [1.0] * 4) == [1.0] * 4
    assert material.get("alphaMode", "OPAQUE") == "OPAQUE"
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    assert attributes.get("COLOR_0") is None, "it would darken the texture"
    source = document["textures"][shine["baseColorTexture"]["index"]]["source"]
    assert document["images"][source]["mimeType"] == "image/png"
    length = document["buffers"][0]["byteLength"]
    for view in document["bufferViews"]:
        start = view.get("byteOffset", 0)
        assert start % 4 == 0
        assert start + view["byteLength"] <= length

    scene = trimesh.load_scene(path, process=False)
    (mesh,) = scene.geometry.values()
    assert painted.texture is not None
    texture = mesh.visual.material.baseColorTexture
    assert texture.mode == "RGB", "no alpha"
    np.testing.assert_array_equal(np.asarray(texture), painted.texture.image)
    np.testing.assert_array_equal(mesh.faces, painted.faces)
    np.testing.assert_allclose(mesh.vertices, painted.vertices)
    uv = np.asarray(mesh.visual.uv) * [1, -1] + [0, 1]  # trimesh counts v upwards
    np.testing.assert_allclose(uv, painted.texture.uv, atol=1e-6)


@pytest.mark.parametrize("suffix", [".glb", ".obj"])
def test_our_own_reader_finds_the_colours_in_place(painted, tmp_path, suffix):
    path = write_mesh(painted, tmp_path / f"my ball{suffix}")
    (part,) = read_object_mesh(path).parts
    faces, shares = spread(painted, 5000)
    points = (part.triangles[faces] * shares[..., None]).sum(1)
    np.testing.assert_allclose(
        points, mix(painted.vertices, painted, faces, shares), atol=1e-5, err_msg="same order"
    )
    off = np.abs(part.colors_at(faces, shares) - wanted_colors(points))
    assert np.sqrt((off**2).mean()) < 0.04, "the nearest texel"
    assert off.max() < 0.25
    names = {file.name for file in tmp_path.iterdir()}
    beside = {"my ball.png", "my ball.mtl"} if suffix == ".obj" else set()
    assert names == {path.name} | beside


def test_ply_keeps_vertex_colours(painted, tmp_path):
    path = write_mesh(painted, tmp_path / "a.ply")
    (loaded,) = trimesh.load_scene(path, process=False).geometry.values()
    np.testing.assert_array_equal(loaded.visual.vertex_colors[:, :3], painted.colors)


def test_what_is_missing_is_told(coarse, monkeypatch):
    monkeypatch.setitem(sys.modules, "xatlas", None)
    assert not can_texture()
    with pytest.raises(UserError, match=r'a texture needs the mesh extra: pip install "unflat\['):
        textured(coarse, Ball())


def test_what_cannot_be_painted_is_an_error(coarse):
    with pytest.raises(ValueError, match="Identity has no bounds"):
        textured(coarse, torch.nn.Identity())  # pyright: ignore[reportArgumentType]
    empty = Mesh(coarse.vertices, coarse.faces[:0], coarse.colors, world="object")
    with pytest.raises(ValueError, match="no triangle"):
        textured(empty, Ball())


def test_a_sponge_gets_no_texture():
    """Hundreds of holes leave no fewer triangles; cutting them all open would take minutes."""
    generator = torch.Generator().manual_seed(0)
    grids = [torch.rand(1, count, 16, 16, 16, generator=generator) for count in (1, 3)]
    field = VoxelField(60 * grids[0][:, 0].square(), grids[1], Ball.bounds)
    mesh = mesh_of_field(field, 32)
    with pytest.raises(UserError, match=r"texture: the surface is so rough that \d+ triangles are"):
        textured(mesh, field, most_faces=500)
