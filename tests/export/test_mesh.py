import json
import struct
import time

import numpy as np
import pytest
import torch
import trimesh

from unflat.errors import UserError
from unflat.export import Layer, Mesh, mesh_from_layers, write_mesh
from unflat.export.mesh import grid_faces
from unflat.geometry.camera import Camera


def linear_to_srgb(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def read(path) -> tuple[trimesh.Trimesh, np.ndarray]:
    """An independent reader's mesh and its sRGB vertex colours, [0, 1]."""
    if path.suffix == ".glb":  # colours beside a material: raw, 16 bit, linear
        scene = trimesh.load(path, process=False)
        (name,) = scene.graph.nodes_geometry
        transform, geometry = scene.graph[name]
        mesh = scene.geometry[geometry]
        mesh.apply_transform(transform)
        raw = np.asarray(mesh.visual.vertex_attributes["color"])
        assert raw.dtype == np.uint16
        return mesh, linear_to_srgb(raw[:, :3] / 65535)
    mesh = trimesh.load(path, force="mesh", process=False)
    return mesh, np.asarray(mesh.visual.vertex_colors)[:, :3] / 255


def centre(mesh, colors, wanted) -> np.ndarray:
    close = np.abs(colors - wanted).max(1) < 0.02
    assert close.sum() > 20, f"marker {wanted} not found"
    return np.asarray(mesh.vertices)[close].mean(0)


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
def test_files_are_upright_and_face_front(tmp_path, marked_layers, camera, suffix):
    path = write_mesh(mesh_from_layers(marked_layers, camera), tmp_path / f"scene{suffix}")
    mesh, colors = read(path)
    red, green = centre(mesh, colors, (1, 0, 0)), centre(mesh, colors, (0, 1, 0))
    blue, white = centre(mesh, colors, (0, 0, 1)), centre(mesh, colors, (1, 1, 1))
    assert red[1] > 0.5 > -0.5 > green[1], "red is up"
    assert white[0] < red[0] - 0.5, "white is on the left"
    assert blue[2] == pytest.approx(-2, abs=1e-4), "the square is nearer to a viewer at +z"
    assert red[2] == pytest.approx(-4, abs=1e-4)
    normals = np.asarray(mesh.vertex_normals)
    assert np.median(normals[:, 2]) > 0.99, "normals look at the viewer"
    assert np.median(mesh.face_normals[:, 2]) > 0.99, "winding looks at the viewer"


def test_colours_keep_their_dark_tones_in_glb(tmp_path, camera):
    greys = torch.linspace(0, 1, 256).reshape(16, 16, 1).expand(16, 16, 3)
    layer = Layer(greys, torch.full((16, 16), 2.0), torch.ones(16, 16, dtype=torch.bool))
    path = write_mesh(mesh_from_layers([layer], camera), tmp_path / "greys.glb", describe="greys")
    document, binary = glb_chunks(path)
    accessor = document["accessors"][3]
    view = document["bufferViews"][accessor["bufferView"]]
    raw = np.frombuffer(binary, "<u2", accessor["count"] * 4, view["byteOffset"]).reshape(-1, 4)
    back = np.round(linear_to_srgb(raw[:, :3] / 65535) * 255).astype(int)
    assert sorted(back[:, 0]) == list(range(256))
    assert (raw[:, 3] == 65535).all()


def glb_chunks(path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert (kind, size % 4) == (b"JSON", 0)
    document = json.loads(data[20 : 20 + size])
    rest, kind = struct.unpack_from("<I4s", data, 20 + size)
    assert (kind, rest) == (b"BIN\0", document["buffers"][0]["byteLength"])
    return document, data[28 + size :]


def test_glb_says_that_units_are_unknown_and_describes_itself(tmp_path, marked_layers, camera):
    mesh = mesh_from_layers(marked_layers, camera)
    document, _ = glb_chunks(write_mesh(mesh, tmp_path / "a.glb", describe="a blue\nsquare"))
    assert document["asset"]["extras"]["note"] == "units unknown"
    assert document["asset"]["extras"]["description"] == "a blue square"
    material = document["materials"][0]["pbrMetallicRoughness"]
    assert (material["metallicFactor"], material["roughnessFactor"]) == (0.0, 1.0)
    positions = document["accessors"][1]
    np.testing.assert_allclose(positions["max"][2], -2, atol=1e-6)


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
def test_nothing_is_lost_on_the_way(tmp_path, marked_layers, camera, suffix):
    mesh = mesh_from_layers(marked_layers, camera)
    read_back, colors = read(write_mesh(mesh, tmp_path / f"a{suffix}"))
    turned = mesh.vertices * [1, -1, -1]
    assert len(read_back.faces) == len(mesh.faces)
    # Readers may reorder vertices, so that triangles are compared and not their numbers.
    np.testing.assert_allclose(
        np.asarray(read_back.vertices)[read_back.faces], turned[mesh.faces], atol=1e-4
    )
    np.testing.assert_allclose(
        colors[read_back.faces],
        mesh.colors[mesh.faces] / 255,
        atol=0.05 if suffix == ".glb" else 0.003,
    )


def test_no_triangle_spans_the_jump_and_none_is_missing(marked_layers, camera):
    mesh = mesh_from_layers(marked_layers[:1], camera)
    depth = mesh.vertices[mesh.faces][..., 2]
    assert np.ptp(depth, axis=1).max() < 1e-5, "a triangle connects square and wall"
    # Seen from the camera the wall goes on below the rim of the square: areas add up, in
    # square pixels of the 47x47 squares between pixel centres. The square spans 15x15; the wall
    # has lost a hole of the 14x14... squares that only blue pixels bound, and what is behind.
    wall = pixel_area(mesh, depth[:, 0] > 3, camera)
    square = pixel_area(mesh, depth[:, 0] < 3, camera)
    assert square == pytest.approx(15 * 15, rel=1e-4)
    assert wall == pytest.approx(47 * 47 - 15 * 15, rel=1e-4)


def pixel_area(mesh: Mesh, chosen: np.ndarray, camera, size: int = 48) -> float:
    uv, _ = camera.project(torch.from_numpy(mesh.vertices))
    corner = uv.numpy()[mesh.faces[chosen]] * size
    first, second = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    return float(np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).sum() / 2)


def test_skirt_has_the_colour_and_depth_of_the_surface_behind(marked_layers, camera):
    mesh = mesh_from_layers(marked_layers[:1], camera)
    blue = (mesh.colors == (0, 0, 255)).all(1)
    assert np.allclose(mesh.vertices[blue][:, 2], 2)
    assert np.allclose(mesh.vertices[~blue][:, 2], 4)


def test_masked_pixels_make_holes():
    mask = np.ones((5, 5), dtype=bool)
    mask[2, 2] = False
    no_cut = np.zeros((5, 4), dtype=bool)
    faces = grid_faces(np.where(mask, 0.5, 0), mask, no_cut, no_cut.T)
    assert 12 not in faces
    # 16 squares of two triangles; the four around the hole keep one each.
    assert len(faces) == 12 * 2 + 4
    assert len({tuple(sorted(face)) for face in faces.tolist()}) == len(faces)


def test_a_mesh_of_512_pixels_takes_less_than_two_seconds(camera):
    depth = 2 + torch.rand(512, 512, generator=torch.Generator().manual_seed(0)) * 0.02
    depth[100:300, 100:300] = 1
    layer = Layer(torch.rand(512, 512, 3), depth, torch.ones(512, 512, dtype=torch.bool))
    start = time.process_time()
    mesh = mesh_from_layers([layer], camera)
    assert time.process_time() - start < 2
    assert len(mesh.faces) > 500_000


def test_wrong_suffix_empty_mesh_and_bad_place_are_sentences(tmp_path, marked_layers, camera):
    mesh = mesh_from_layers(marked_layers, camera)
    with pytest.raises(UserError, match=r"scene\.stl: no mesh .* use \.glb, \.ply or \.obj"):
        write_mesh(mesh, tmp_path / "scene.stl")
    with pytest.raises(UserError, match="no surface"):
        write_mesh(Mesh(mesh.vertices, mesh.faces[:0], mesh.colors), tmp_path / "scene.glb")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, not a folder"):
        write_mesh(mesh, tmp_path / "file" / "scene.glb")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_layer_without_faces_does_not_break_the_mesh():
    depth = torch.full((4, 4), 2.0)
    front = Layer(rgb=torch.rand(4, 4, 3), depth=depth, mask=torch.ones(4, 4, dtype=torch.bool))
    alone = torch.zeros(4, 4, dtype=torch.bool)
    alone[1, 1] = True  # a pixel that no triangle can use
    behind = Layer(rgb=torch.rand(4, 4, 3), depth=2 * depth, mask=alone)
    nothing = Layer(rgb=torch.rand(4, 4, 3), depth=2 * depth, mask=torch.zeros_like(alone))
    camera = Camera.from_fov(1.0)
    expected = mesh_from_layers([front], camera)
    for hidden in (behind, nothing):
        mesh = mesh_from_layers([front, hidden], camera)
        assert len(mesh.faces) == len(expected.faces)
