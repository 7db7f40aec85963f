import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from command import Run
from PIL import Image

from unflat.fields import CutoutField, EditedField, VoxelField
from unflat.scene import Scene

QUICK = ("--frames", "2", "--size", "24")


@pytest.fixture
def scene(unflat: Run, photo: Path, tiny_model: Path) -> Path:
    """A result folder."""
    done = unflat("reconstruct", photo.name, "--model", tiny_model, *QUICK, "--quiet")
    assert done.returncode == 0, done.stderr
    return photo.parent / "cat"


def objects(folder: Path) -> list[str]:
    field = Scene.load(folder / "scene.safetensors").field
    assert isinstance(field, EditedField)
    return [type(placed.field).__name__ for placed in field.objects]


@pytest.mark.slow
def test_a_mesh_and_then_a_scene_are_put_into_a_scene(unflat: Run, scene: Path) -> None:
    here = scene.parent
    box = trimesh.creation.box((1, 1, 1))
    box.visual.vertex_colors = np.tile([20, 30, 250, 255], (8, 1))
    box.export(here / "box.glb")
    put = ("--insert", "box.glb", "--at", "-0.3,0.1,0.9", "--resolution", "32")
    done = unflat("edit", "cat", *put, *QUICK, "--format", "glb")
    assert done.returncode == 0, done.stderr
    folder = here / "cat-edited"
    names = {path.name for path in folder.iterdir()}
    report = json.loads((folder / "report.json").read_text())
    assert set(report["files"]) == names
    assert {"scene.safetensors", "preview.png", "viewer.html", "mesh.glb"} <= names
    assert report["figures"]["nearness"] == 0.9
    assert "what is seen there lies at Z " in done.stdout
    with Image.open(folder / "preview.png") as preview:
        second = np.asarray(preview)[:204, 205:409].astype(int)  # input, edited, ...
    rows, columns = np.nonzero(second[..., 2] > 140)  # the photo has little blue
    assert 300 < len(rows) < 8000
    assert columns.mean() / 204 == pytest.approx(0.35, abs=0.04)
    assert rows.mean() / 204 == pytest.approx(0.45, abs=0.04)

    arguments = ("--insert", "cat", "--at", "0.4,-0.4", "--farthest", "0", "--out", "twice")
    again = unflat("edit", "cat-edited", *arguments, *QUICK)
    assert again.returncode == 0, again.stderr
    assert objects(here / "twice") == [VoxelField.__name__, CutoutField.__name__]
    rendered = unflat("render", "twice", "--frames", "2", "--size", "24", "--format", "webp")
    assert rendered.returncode == 0, rendered.stderr
