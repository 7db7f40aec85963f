"""What is written of an object: all formats from one figure whose sides can be told apart."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from made_figure import BLUE, BOX, RED, YELLOW, Figure, front_camera
from unflat.cli.options import formats_of
from unflat.data import read_object_mesh
from unflat.data.voxelize import voxels_of_field
from unflat.errors import UserError
from unflat.export import Texture, can_texture, read_splats
from unflat.fields import VoxelField
from unflat.object_scene import ObjectScene, load_scene
from unflat.report import Report
from unflat.result import FORMATS, usual_video, write_formats, write_preview, write_result
from unflat.scene import SceneHeader

HEADER = SceneHeader(system="made", model="figure", licence="CC0")


@pytest.fixture(scope="module")
def scene() -> ObjectScene:
    """Voxels, since these can be saved; small pictures."""
    return ObjectScene(voxels_of_field(Figure(), 48), HEADER, front_camera(), size=(40, 40))


@pytest.fixture(scope="module")
def fog() -> ObjectScene:
    """So thin that it has no surface."""
    grids = torch.full((1, 4, 4, 4), 0.05), torch.rand(1, 3, 4, 4, 4)
    return ObjectScene(VoxelField(*grids, BOX), HEADER, front_camera(), size=(16, 16))


def close_to(colors: np.ndarray, wanted: tuple[float, float, float]) -> np.ndarray:
    return np.abs(colors / 255 - np.array(wanted)).max(-1) < 0.06


def test_a_result_folder_is_whole(scene, tmp_path):
    report = Report("generate", inputs=["figure"])
    formats = ("webp", "glb", "ply", "obj", "splat", "depth")
    folder = write_result(
        lambda: scene,
        tmp_path / "figure",
        report,
        name="figure",
        formats=formats,
        frames=8,
        size=32,
    )
    files = {path.name for path in folder.iterdir()}
    assert files == set(report.files) | {"depth.npy"}
    assert "input.png" not in files
    assert {"scene.safetensors", "preview.png", "orbit.webp", "viewer.html", "mesh.glb"} <= files
    written = json.loads((folder / "report.json").read_text())
    assert written["licences"]["model"] == "CC0"
    assert written["figures"]["mesh"]["watertight"] is True
    assert written["figures"]["mesh"]["parts"] == 2
    again = load_scene(folder / "scene.safetensors")
    torch.testing.assert_close(again.render().rgb, scene.render().rgb, atol=5e-3, rtol=0)
    with Image.open(folder / "orbit.webp") as film:
        assert film.n_frames == 8
        assert film.size == (32, 32)
    page = (folder / "viewer.html").read_text()
    assert "a generated object, figure" in page
    assert '"licence": "CC0"' in page

    vertices, colors = {}, {}
    for kind in ("glb", "ply", "obj"):
        (part,) = read_object_mesh(folder / f"mesh.{kind}").parts
        middle = np.full((len(part.triangles), 3), 1 / 3)
        vertices[kind] = part.triangles.mean(1)
        colors[kind] = part.colors_at(np.arange(len(middle)), middle) * 255
    splats = read_splats(folder / "splats.ply")
    vertices["splat"] = splats.centers * [1, -1, -1]
    colors["splat"] = splats.colors * 255
    for kind, places in vertices.items():
        red, blue = (places[close_to(colors[kind], color)].mean(0) for color in (RED, BLUE))
        nose = places[close_to(colors[kind], YELLOW)].mean(0)
        assert red[1] > blue[1] + 0.5, f"{kind}: the ball is on top"
        assert nose[2] > 0.35, f"{kind}: the nose is in front"
    if can_texture():
        texture = {"side_texels": 512, "faces": 10_000, "watertight": True}
        assert written["figures"]["texture"] == texture
        assert len(vertices["glb"]) == 10_000 < written["figures"]["mesh"]["faces"]
        assert {"mesh.mtl", "mesh.png"} <= files
    assert len(vertices["ply"]) == written["figures"]["mesh"]["faces"], "PLY has all of them"

    depth = np.load(folder / "depth.npy")
    assert np.isinf(depth[0, 0])
    levels = np.asarray(Image.open(folder / "depth.png")).astype(float)
    assert levels[0, 0] == 0
    seen = np.isfinite(depth)
    scale = written["figures"]["depth_units_per_level"]
    np.testing.assert_allclose(levels[seen] * scale, depth[seen], atol=scale)
    assert 2.3 < depth[seen].min() < 2.7, "the camera is 3 away, the nose half a unit nearer"


def test_without_the_extra_colours_are_those_of_vertices(scene, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "xatlas", None)
    report = Report("export", inputs=["figure"])
    write_formats(scene, tmp_path, ["glb", "obj"], report, name="figure")
    (warning,) = report.json()["warnings"]
    assert warning["warning"] == (
        "glb and obj with vertex colours, without a texture, which needs the mesh extra: "
        'pip install "unflat[mesh]"'
    )
    assert {path.name for path in tmp_path.iterdir()} == {"mesh.glb", "mesh.obj"}
    (glb,) = trimesh.load_scene(tmp_path / "mesh.glb", process=False).geometry.values()
    assert "color" in glb.visual.vertex_attributes
    assert len(glb.faces) == report.figures["mesh"]["faces"]


def test_what_a_texture_cannot_be_made_for_or_opens_is_told(scene, tmp_path, monkeypatch):
    def refuse(mesh, field):
        raise UserError("texture: the surface is too rough.")

    monkeypatch.setattr("unflat.object_result.textured", refuse)
    report = Report("export", inputs=["figure"])
    write_formats(scene, tmp_path, ["glb"], report, name="figure")
    (warning,) = report.json()["warnings"]
    assert warning["warning"] == (
        "glb with vertex colours, without a texture: texture: the surface is too rough."
    )
    (glb,) = trimesh.load_scene(tmp_path / "mesh.glb", process=False).geometry.values()
    assert "color" in glb.visual.vertex_attributes

    def open_up(mesh, field):
        image = np.zeros((4, 4, 3), np.uint8)
        texture = Texture(np.zeros((len(mesh.vertices), 2), np.float32), image)
        return dataclasses.replace(mesh, faces=mesh.faces[1:], texture=texture)

    monkeypatch.setattr("unflat.object_result.textured", open_up)
    report = Report("export", inputs=["figure"])
    write_formats(scene, tmp_path, ["glb"], report, name="figure")
    (warning,) = report.json()["warnings"]
    assert warning["warning"] == "glb of fewer triangles, which are not closed; ply has all, closed"
    assert report.figures["texture"]["watertight"] is False


def test_preview_shows_all_sides(scene, tmp_path):
    write_preview(scene, tmp_path)
    assert not (tmp_path / "input.png").exists()
    strip = np.asarray(Image.open(tmp_path / "preview.png").convert("RGB"))[:-24]
    assert strip.shape[1] == 1024
    front, left, right, back, depth, normals = np.array_split(strip, 6, axis=1)
    noses = [close_to(side, YELLOW).sum() for side in (front, left, right, back)]
    assert min(noses[:3]) > 40
    assert noses[3] < 10, "the nose is not seen from behind"
    column = [close_to(side, YELLOW).nonzero()[1].mean() for side in (left, front, right)]
    assert column[0] > column[1] + 5 > column[2] + 10, "from the left it looks to the right"
    assert (depth[2, 2] == 128).all(), "nothing is there"
    assert depth.std() > 20
    top = normals[..., 1].astype(int) - normals[..., 0]
    assert (top > 100).any(), "what looks up is green"

    made = ObjectScene(
        scene.field, HEADER, scene.camera, size=(16, 16), picture=torch.full((3, 8, 8), 0.25)
    )
    write_preview(made, tmp_path)
    assert np.asarray(Image.open(tmp_path / "input.png"))[0, 0].tolist() == [64, 64, 64]


def test_what_has_no_surface_is_written_without_one(fog, tmp_path):
    report = Report("generate", inputs=["fog"])
    write_result(lambda: fog, tmp_path / "fog", report, name="fog", formats=("webp",), frames=2)
    assert not (tmp_path / "fog" / "viewer.html").exists()
    assert (tmp_path / "fog" / "orbit.webp").exists()
    (warning,) = report.json()["warnings"]
    assert "no viewer.html: mesh: the object has no surface" in str(warning)
    report = Report("generate", inputs=["fog"])
    write_result(
        lambda: fog,
        tmp_path / "thin",
        report,
        name="fog",
        formats=("webp", "glb"),
        frames=2,
        optional=("glb",),
    )
    assert "no viewer.html, mesh.glb" in str(report.json()["warnings"])


def test_what_was_asked_for_must_be_possible(fog, tmp_path):
    about = Report("export", inputs=["fog"])
    with pytest.raises(UserError, match="mesh: the object has no surface, even its densest part"):
        write_formats(fog, tmp_path, ["html"], about, name="fog")
    with pytest.raises(UserError, match="has no surface"):
        write_result(
            lambda: fog, tmp_path / "a", about, name="fog", formats=("webp", "glb"), frames=2
        )
    assert not (tmp_path / "a").exists()
    with pytest.raises(UserError, match="--quality layers: objects are rendered from their field"):
        write_formats(fog, tmp_path, ["webp"], about, name="fog", quality="layers")
    assert list(tmp_path.iterdir()) == []


def test_orbit_and_mesh_are_names_of_formats():
    assert formats_of("orbit,mesh", FORMATS) == (usual_video(), "glb")
    assert formats_of("mesh,glb,ply", FORMATS) == ("glb", "ply")
    assert formats_of("orbit", ("mp4", "webp")) == (usual_video(),)
    with pytest.raises(UserError, match="--format mesh: is not known; choose from mp4,webp,orbit"):
        formats_of("mesh", ("mp4", "webp"))
    with pytest.raises(UserError, match=r"--format usdz: is not known; choose .*,orbit,mesh\."):
        formats_of("usdz", FORMATS)
