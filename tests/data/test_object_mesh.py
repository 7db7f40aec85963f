import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from unflat.data import read_object_mesh
from unflat.data.object_mesh import surface_of_mesh
from unflat.errors import UserError
from unflat.export import Mesh, write_mesh

MIDDLE = np.full((1, 3), 1 / 3)


def box(**visual) -> trimesh.Trimesh:
    return trimesh.Trimesh(**trimesh.creation.box((1, 2, 3)).to_dict(), process=False, **visual)


def color_of(path: Path, face: int = 0) -> np.ndarray:
    (part,) = read_object_mesh(path).parts
    return part.colors_at(np.array([face]), MIDDLE)[0]


@pytest.mark.parametrize("ending", ["ply", "obj", "glb", "off", "stl"])
def test_a_file_of_each_kind_keeps_its_size(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"box.{ending}"
    box().export(path)
    surface = read_object_mesh(path)
    assert surface.triangles.shape == (12, 3, 3)
    np.testing.assert_allclose(surface.bounds[1] - surface.bounds[0], [1, 2, 3])


def test_vertex_colors_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "box.ply"
    box(vertex_colors=np.tile([200, 100, 50, 255], (8, 1))).export(path)
    np.testing.assert_allclose(color_of(path), np.array([200, 100, 50]) / 255, atol=1e-6)


def test_what_unflat_wrote_comes_back_in_its_own_world_and_light(tmp_path: Path) -> None:
    """GLB keeps linear light; y and z turn over and back."""
    mesh = Mesh(
        vertices=np.array([[0, 0, 2], [1, 0, 2], [0, 1, 3]], dtype=np.float32),
        faces=np.array([[0, 1, 2]]),
        colors=np.full((3, 3), (180, 60, 20), dtype=np.uint8),
    )
    write_mesh(mesh, tmp_path / "a.glb")
    read, direct = read_object_mesh(tmp_path / "a.glb"), surface_of_mesh(mesh)
    np.testing.assert_allclose(read.triangles, direct.triangles)
    np.testing.assert_allclose(direct.triangles[0, 2], [0, -1, -3])
    assert read.has_light
    assert direct.has_light
    expected = np.array([180, 60, 20]) / 255
    np.testing.assert_allclose(color_of(tmp_path / "a.glb"), expected, atol=0.01)


def test_glb_of_trimesh_keeps_srgb_and_of_others_linear_light(tmp_path: Path) -> None:
    path = tmp_path / "box.glb"
    box(vertex_colors=np.tile([128, 128, 128, 255], (8, 1))).export(path)
    np.testing.assert_allclose(color_of(path), 128 / 255, atol=0.01)
    content = path.read_bytes()
    length = struct.unpack("<I", content[12:16])[0]
    about = json.loads(content[20 : 20 + length])
    about["asset"]["generator"] = "another"
    text = json.dumps(about, separators=(",", ":")).encode().ljust(length)
    path.write_bytes(content[:20] + text[:length] + content[20 + length :])
    np.testing.assert_allclose(color_of(path), 0.735, atol=0.01)  # sRGB of half the light


@pytest.mark.parametrize("ending", ["glb", "obj"])
def test_a_texture_is_read_where_uv_points(tmp_path: Path, ending: str) -> None:
    """Upper half red, lower half blue; a triangle in each."""
    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    picture[:4], picture[4:] = (250, 10, 10), (10, 10, 250)
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]] * 2, dtype=float)
    vertices[3:] += 2
    uv = np.array([[0.1, 0.6], [0.9, 0.6], [0.5, 0.9], [0.1, 0.1], [0.9, 0.1], [0.5, 0.4]])
    image = Image.fromarray(picture)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=image)
    if ending == "obj":
        material = trimesh.visual.material.SimpleMaterial(image=image)
    visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    mesh = trimesh.Trimesh(vertices, [[0, 1, 2], [3, 4, 5]], visual=visual, process=False)
    path = tmp_path / f"cloth.{ending}"
    mesh.export(path)
    np.testing.assert_allclose(color_of(path, 0), np.array([250, 10, 10]) / 255, atol=0.02)
    np.testing.assert_allclose(color_of(path, 1), np.array([10, 10, 250]) / 255, atol=0.02)


def test_parts_stand_where_the_file_places_them(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    scene.add_geometry(box())
    scene.add_geometry(box(), transform=trimesh.transformations.translation_matrix([5, 0, 0]))
    scene.export(tmp_path / "two.glb")
    surface = read_object_mesh(tmp_path / "two.glb")
    assert len(surface.parts) == 2
    np.testing.assert_allclose(surface.bounds, [[-0.5, -1, -1.5], [5.5, 1, 1.5]])


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jpg", b"", "a.jpg: is no mesh unflat can read (glb, gltf, obj, ply, off, stl)."),
        ("a.glb", b"glTF", "a.glb: is no whole mesh ("),
        ("a.glb", b"", "a.glb: is no whole mesh ("),
        ("a.ply", "ply\nformat ascii 1.0\n", "a.ply: is no whole mesh ("),
        ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\n", "a.obj: "),
        ("a.obj", "v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n", "a.obj: has no extent, or an endless"),
        ("a.obj", "v 0 0 0\nv nan 0 0\nv 0 1 0\nf 1 2 3\n", "a.obj: has no extent, or an endless"),
    ],
)
def test_a_bad_file_is_a_sentence(tmp_path: Path, name: str, content, sentence: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UserError) as told:
        read_object_mesh(path)
    assert str(told.value).startswith(f"{tmp_path}/{sentence}")
    assert "\n" not in str(told.value)


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lost.glb: there is no such file; give a mesh \(glb"):
        read_object_mesh(tmp_path / "lost.glb")


def test_a_mesh_without_triangles_is_refused() -> None:
    nothing = np.zeros((0, 3))
    empty = Mesh(nothing.astype(np.float32), nothing.astype(int), nothing.astype(np.uint8))
    with pytest.raises(ValueError, match="the mesh has no triangle"):
        surface_of_mesh(empty)


def test_real_meshes_are_read(data_folder: Path, tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(data_folder / "objects-val-meshes.tar") as tar:
        member = next(part for part in tar.getmembers() if part.name.endswith(".glb"))
        tar.extract(member, tmp_path, filter="data")
    surface = read_object_mesh(tmp_path / member.name)
    assert np.abs(surface.bounds).max() == pytest.approx(0.5, abs=1e-3)
    assert not surface.has_light
    assert surface.parts[0].colors.std() > 0.01
