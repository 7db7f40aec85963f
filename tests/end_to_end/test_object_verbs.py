"""render, export, view and edit with the scene of an object, as with the scene of a photo."""

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from command import Run
from PIL import Image

from made_figure import Figure, front_camera
from unflat.data.voxelize import voxels_of_field
from unflat.object_scene import ObjectScene
from unflat.scene import SceneHeader


@pytest.fixture
def figure(tmp_path: Path) -> Path:
    """A folder with the scene of an object."""
    folder = tmp_path / "figure"
    folder.mkdir()
    header = SceneHeader(system="made", model="figure", licence="CC0")
    scene = ObjectScene(voxels_of_field(Figure(), 40), header, front_camera(), size=(32, 32))
    scene.save(folder / "scene.safetensors")
    return folder


def test_verbs_work_on_objects_too(unflat: Run, figure: Path) -> None:
    arguments = ("--path", "spiral", "--format", "webp", "--frames", "3", "--size", "24")
    done = unflat("render", "figure", *arguments)
    assert done.returncode == 0, done.stderr
    with Image.open(figure / "render-spiral.webp") as film:
        assert (film.size, film.n_frames) == ((24, 24), 3)

    done = unflat("export", "figure", "--format", "mesh,obj,splat,depth,html")
    assert done.returncode == 0, done.stderr
    assert "2 parts" in done.stdout
    files = {path.name for path in figure.iterdir()}
    assert {"mesh.glb", "mesh.obj", "splats.ply", "depth.png", "viewer.html"} <= files
    written = json.loads((figure / "export.json").read_text())
    assert written["figures"]["mesh"]["watertight"]
    mesh = trimesh.load(figure / "mesh.glb", force="mesh")
    assert mesh.bounds[1][1] == pytest.approx(0.85, abs=0.05), "the ball's top, y up"

    done = unflat("view", "figure", "--json", env={"BROWSER": "true"})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["viewer"] == str(figure / "viewer.html")


def test_what_does_not_go_with_an_object_is_a_sentence(unflat: Run, figure: Path) -> None:
    done = unflat("render", "figure", "--quality", "layers", "--format", "webp", "--frames", "2")
    assert done.returncode == 2
    assert "--quality layers: objects are rendered from their field; drop" in done.stderr
    done = unflat("edit", "figure", "--insert", "figure", "--at", "0,0")
    assert done.returncode == 2
    assert "holds an object, not the scene of a photo" in done.stderr
    done = unflat("export", "figure", "--format", "meshes")
    assert done.returncode == 2
    assert "--format meshes: is not known; choose from" in done.stderr


def test_an_object_can_be_put_into_a_photo(
    unflat: Run, figure: Path, photo: Path, tiny_model: Path
) -> None:
    small = ("--frames", "2", "--size", "24", "--quiet")
    done = unflat("reconstruct", photo.name, "--model", tiny_model, *small)
    assert done.returncode == 0, done.stderr
    arguments = ("--insert", "figure", "--at", "0,0,0.9", "--object-size", "0.6")
    done = unflat("edit", "cat", *arguments, *small)
    assert done.returncode == 0, done.stderr
    assert (
        json.loads((photo.parent / "cat-edited/report.json").read_text())["licences"]["inserted"]
        == "CC0"
    )
    with Image.open(photo.parent / "cat-edited" / "preview.png") as strip:
        colors = np.asarray(strip.convert("RGB")).astype(int)
    blue = (colors[..., 2] > 180) & (colors[..., 0] < 90) & (colors[..., 1] < 110)
    assert blue.sum() > 100, "the block is seen"
