"""Cameras that are written in a wrong way are noticed, and the way is named."""

import numpy as np
import pytest
import trimesh
from PIL import Image

from unflat.cli.main import main
from unflat.data.check import check
from unflat.data.mesh_view_writing import RenderConfig, render_meshes

FLIP = np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def renders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rig")
    (folder / "in").mkdir()
    for number in range(2):
        mesh = trimesh.creation.box((1, 0.5, 0.2 + 0.2 * number))
        mesh.visual.face_colors = np.tile([200, 100, 50, 255], (12, 1))
        mesh.export(folder / "in" / f"box{number}.ply")
    render_meshes(folder / "in", folder / "out", RenderConfig(views=12, size=48))
    return folder / "out"


def inverse(matrix):
    return np.concatenate([matrix[:, :3].T, -matrix[:, :3].T @ matrix[:, 3:]], axis=1)


def rewritten(renders, folder, change):
    for place in renders.glob("box*"):
        (folder / place.name).mkdir()
        for file in place.iterdir():
            if file.suffix == ".npy":
                np.save(folder / place.name / file.name, change(np.load(file)))
            else:
                (folder / place.name / file.name).write_bytes(file.read_bytes())
    return check(folder)


def test_right_cameras_agree_and_are_drawn(renders, tmp_path):
    report = check(renders)
    assert report.warnings == []
    assert report.pictures == 24
    assert report.class_counts == {"zero123": 24}
    (figures,) = report.cameras.values()
    assert figures["looks_off_deg_median"] < 0.1
    assert figures["off_center_median"] < 0.1
    assert figures["hull_agreement"] > 0.99
    assert "agree on its shape by 0.99" in report.layouts[0]
    sheet = np.asarray(report.sheet)
    assert sheet.shape == (14 + 64 + 64 + 384, 768, 3)
    rig = sheet[-384:]
    assert ((rig == (205, 40, 40)).all(axis=2)).sum() > 50  # the input
    assert ((rig == (60, 90, 200)).all(axis=2)).sum() > 500  # the others
    out = tmp_path / "checked"
    assert main(["data", "check", str(renders), "--out", str(out), "--quiet"]) == 0
    with Image.open(out / "sheet.png") as picture:
        assert picture.size == (768, 526)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: FLIP @ m, "OpenCV's axes (y down, z forward)"),
        (inverse, "if matrices are camera to world"),
        (lambda m: inverse(FLIP @ m), "camera to world, in OpenCV's axes"),
    ],
    ids=["opencv", "camera to world", "both"],
)
def test_a_wrong_convention_is_named(renders, tmp_path, change, named):
    (sentence,) = [w for w in rewritten(renders, tmp_path, change).warnings if "agree" in w]
    assert "do not agree" in sentence
    assert sentence.endswith(named)


def test_a_world_with_y_up_is_noticed(renders, tmp_path):
    turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # of the world: z up becomes y up
    report = rewritten(
        renders, tmp_path, lambda m: np.concatenate([m[:, :3] @ turn, m[:, 3:]], axis=1)
    )
    assert any("y up" in sentence for sentence in report.warnings)


def test_pictures_of_other_objects_agree_on_nothing(renders, tmp_path):
    order = iter(np.random.default_rng(0).permutation(12).tolist() * 2)

    def shuffled(_):
        return np.load(renders / "box0" / f"{next(order):03d}.npy")

    report = rewritten(renders, tmp_path, shuffled)
    assert any("any known convention" in sentence for sentence in report.warnings)


def test_opaque_pictures_are_noticed(renders, tmp_path):
    for file in renders.glob("box0/*"):
        (tmp_path / "a").mkdir(exist_ok=True)
        if file.suffix == ".npy":
            (tmp_path / "a" / file.name).write_bytes(file.read_bytes())
        else:
            with Image.open(file) as picture:
                picture.convert("RGB").save(tmp_path / "a" / file.name)
    assert any("opaque" in sentence for sentence in check(tmp_path).warnings)
