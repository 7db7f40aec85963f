import json
from pathlib import Path

import numpy as np
import pytest
from command import Run
from PIL import Image


@pytest.fixture
def scene(unflat: Run, photo: Path, tiny_model: Path) -> Path:
    """A result folder's scene."""
    arguments = ("--model", tiny_model, "--frames", "2", "--size", "24", "--quiet")
    done = unflat("reconstruct", photo.name, *arguments)
    assert done.returncode == 0, done.stderr
    return photo.parent / "cat" / "scene.safetensors"


def test_render_and_export_write_beside_the_scene(unflat: Run, scene: Path) -> None:
    arguments = ("--path", "wiggle", "--format", "webp", "--frames", "3", "--size", "32")
    done = unflat("render", "cat/scene.safetensors", *arguments)
    assert done.returncode == 0, done.stderr
    with Image.open(scene.parent / "render-wiggle.webp") as film:
        assert film.size == (32, 32)
        assert film.n_frames == 3
    assert json.loads((scene.parent / "render.json").read_text())["verb"] == "render"

    done = unflat("export", "cat", "--format", "glb,ply,obj,splat,depth", "--out", "files")
    assert done.returncode == 0, done.stderr
    files = scene.parent.parent / "files"
    assert {"mesh.glb", "mesh.ply", "mesh.obj", "splats.ply", "depth.png", "depth.npy"} <= {
        path.name for path in files.iterdir()
    }
    scale = json.loads((files / "export.json").read_text())["figures"]["depth_units_per_level"]
    levels = np.asarray(Image.open(files / "depth.png")).astype(np.float64)
    np.testing.assert_allclose(levels * scale, np.load(files / "depth.npy"), atol=scale)

    again = unflat("export", "cat", "--format", "glb", "--out", "files")
    assert again.returncode == 2
    assert again.stderr.startswith("files/mesh.glb: is there already; add --force")


def test_view_finds_the_page(unflat: Run, scene: Path) -> None:
    env = {"BROWSER": "true"}
    done = unflat("view", "cat/scene.safetensors", "--json", env=env)
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout.splitlines()[-1])["viewer"]
    assert Path(page) == (scene.parent / "viewer.html").resolve()


def test_a_scene_cut_in_half_is_a_sentence(unflat: Run, scene: Path) -> None:
    whole = scene.read_bytes()
    scene.write_bytes(whole[: len(whole) // 2])
    done = unflat("export", "cat", "--format", "glb", "--quiet")
    assert done.returncode == 2
    assert "is not a whole safetensors file" in done.stderr
    assert not (scene.parent / "mesh.glb").exists()
