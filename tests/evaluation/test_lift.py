import json
import math

import numpy as np
import pytest
import torch

from box_object import FACES, box, cameras_around, views_of, write_objects
from unflat.cli.main import main
from unflat.errors import UserError
from unflat.evaluation.lift import TRUTH, evaluate_lift
from unflat.evaluation.lift_baselines import carve, relief_surface
from unflat.evaluation.mesh_files import MeshFiles
from unflat.geometry import Camera, look_at
from unflat.metrics import Triangles, chamfer, sample_surface, volumetric_iou, watertightness


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    return write_objects(tmp_path_factory.mktemp("lift") / "objects", train=0, views=10, side=32)


@pytest.fixture(autouse=True)
def few_points(monkeypatch):
    """The floor of Chamfer grows with the spacing of points: to 0.02 here."""
    monkeypatch.setattr("unflat.evaluation.lift.POINTS", 1500)


@pytest.fixture(scope="module")
def meshes(objects):
    return objects.parent / "objects-meshes"


class Oracle:
    """Knows the boxes; turned about up by degrees, scaled, and shifted."""

    name = "oracle"

    def __init__(self, turn=0.0, scale=1.0, shift=0.0, spoil=None):
        self.turn, self.scale, self.shift, self.spoil = turn, scale, shift, spoil

    def describe(self):
        return {}

    def lift(self, picture, seed):
        number = int(picture.name[1:])
        vertices = box((1.0, 0.5 + 0.1 * number, 0.7 - 0.1 * number)).numpy().astype(float)
        cos, sin = math.cos(math.radians(self.turn)), math.sin(math.radians(self.turn))
        turn = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
        vertices = self.scale * vertices @ turn.T + [self.shift, 0, 0]
        faces = FACES.numpy()
        if self.spoil == "empty":
            faces = faces[:0]
        if self.spoil == "nan":
            vertices[0, 0] = math.nan
        return Triangles(vertices, faces)


def figures_of(lifter, objects, meshes, **options):
    return evaluate_lift(lifter, objects, meshes, **options).figures["oracle"]


def test_who_knows_the_truth_is_perfect(objects, meshes):
    found = evaluate_lift(Oracle(), objects, meshes, resolution=32)
    figures = found.figures["oracle"]
    assert figures == found.figures[TRUTH]
    assert figures["chamfer"] < 0.024
    assert figures["f_0.02"] > 0.4
    assert figures["f_0.05"] > 0.97
    assert figures["iou"] == 1
    assert figures["outline_iou"] > 0.99
    assert figures["closed_edges"] == figures["is_closed"] == 1
    assert next(iter(found.figures)) == "oracle"
    others = ["relief", "sphere", "box", "hull-1-mask", "visual-hull-8-masks"]
    assert list(found.figures) == ["oracle", *others, TRUTH]
    for name in others:
        assert found.figures[name]["chamfer"] > 1.3 * figures["chamfer"]
        assert found.figures[name]["iou"] < 0.95
    assert found.figures["visual-hull-8-masks"]["iou"] > 0.75
    assert found.figures["visual-hull-8-masks"]["iou"] > found.figures["sphere"]["iou"] + 0.1
    assert found.protocol["objects"] == 2


def test_turned_moved_and_scaled_surfaces_pay(objects, meshes):
    for wrong in (Oracle(turn=40.0), Oracle(scale=1.4)):
        figures = figures_of(wrong, objects, meshes, resolution=16, limit=1)
        assert figures["chamfer"] > 0.05
        assert figures["iou"] < 0.75
        assert figures["outline_iou"] < 0.85
        assert figures["f_0.02"] < 0.35


def test_a_shift_has_its_own_length(objects, meshes):
    figures = figures_of(Oracle(shift=2.0), objects, meshes, resolution=16, limit=1)
    # points of two congruent boxes 2 apart: at least the gap of 1, at most the shift
    assert 1 < figures["accuracy"] < 2
    assert figures["iou"] == 0


def test_alignment_forgives_what_it_is_named_after(objects, meshes):
    wrong = Oracle(turn=12.0, scale=0.8, shift=0.3)
    found = evaluate_lift(
        wrong, objects, meshes, resolution=16, limit=1, alignment="similarity-icp"
    )
    figures = found.figures["oracle"]
    assert figures["chamfer"] < 0.026
    assert figures["iou"] > 0.9
    assert "trimmed ICP" in found.protocol["alignment"]
    assert "none" in evaluate_lift("box", objects, meshes, limit=1).protocol["alignment"]


def test_files_of_another_program_are_a_method(objects, meshes, tmp_path):
    import trimesh

    other = tmp_path / "mine"
    other.mkdir()
    for name in ("v0", "v1"):
        mesh = trimesh.load(meshes / f"{name}.ply")
        mesh.export(other / f"{name}.{'obj' if name == 'v0' else 'glb'}")
    found = evaluate_lift(MeshFiles(other), objects, meshes, resolution=16)
    assert next(iter(found.figures)) == "mine"
    assert found.figures["mine"]["iou"] == 1
    (other / "v1.glb").unlink()
    found = evaluate_lift(MeshFiles(other), objects, meshes, resolution=16)
    assert found.protocol["objects"] == 1
    assert "has no mesh of v1; add v1.glb" in found.rejected[0].reason


def test_equal_seeds_give_equal_reports(objects, meshes):
    one, two, other = (
        evaluate_lift("relief", objects, meshes, resolution=16, limit=1, seed=seed).json(True)
        for seed in (1, 1, 2)
    )
    assert json.dumps(one) == json.dumps(two)
    assert one["figures"] != other["figures"]


def test_sheets_show_truth_over_what_was_made(objects, meshes):
    sheet = evaluate_lift(Oracle(), objects, meshes, resolution=16, limit=1).sheet(0)
    assert sheet.shape == (3, 96, 128)
    torch.testing.assert_close(sheet[:, :32, 32:], sheet[:, 32:64, 32:], rtol=0, atol=0.02)
    assert (sheet[:, :32, 32:] < 0.9).any()


def test_bad_input_is_told(objects, meshes, tmp_path):
    with pytest.raises(UserError, match=r"oracle: its surface of v0 cannot be measured.*no area"):
        evaluate_lift(Oracle(spoil="empty"), objects, meshes)
    with pytest.raises(UserError, match=r"vertex 0 is \[nan"):
        evaluate_lift(Oracle(spoil="nan"), objects, meshes)
    with pytest.raises(UserError, match=r"--model cone: is not known; choose from sphere, box"):
        evaluate_lift("cone", objects, meshes)
    with pytest.raises(UserError, match=r"there is no such file or folder; check"):
        evaluate_lift("box", objects, tmp_path / "nothing")
    with pytest.raises(UserError, match=r"holds no mesh; put one file NAME.glb"):
        evaluate_lift("box", objects, objects)
    few = write_objects(tmp_path / "few", train=0, views=8, side=32)
    with pytest.raises(UserError, match=r"has 8 views and outlines are compared in 8.*add views"):
        evaluate_lift("box", few, meshes)


def test_bad_mesh_files_are_told(tmp_path):
    (tmp_path / "a.glb").write_bytes(b"glTF but not really")
    (tmp_path / "b.obj").write_text("v 0 0 0\nv 1 0 0\n")
    (tmp_path / "c.obj").write_text("v 0 0 0\nv 1 0 nan\nv 0 1 0\nf 1 2 3\n")
    files = MeshFiles(tmp_path)
    assert files.names == ["a", "b", "c"]
    for name in "abc":
        with pytest.raises(UserError, match=rf"{name}\.(glb|obj) "):
            files.read(name)


def test_a_carved_box_holds_the_box():
    cameras = cameras_around(24, 3)
    vertices = box((1.0, 0.6, 0.7))
    masks = views_of(vertices, cameras, 96)[:, 3]
    hull = carve(masks, cameras)
    truth = Triangles(vertices.double().numpy(), FACES.numpy())
    assert watertightness(hull).is_closed
    assert volumetric_iou(hull, truth, 48) > 0.85
    few = carve(masks[:3], cameras[:3])
    found = chamfer(sample_surface(few, 3000), sample_surface(truth, 3000))
    assert (
        found.accuracy > chamfer(sample_surface(hull, 3000), sample_surface(truth, 3000)).accuracy
    )
    with pytest.raises(UserError, match="nothing in common; check masks"):
        carve(torch.zeros_like(masks), cameras)


def test_a_relief_is_closed_and_as_thick_as_it_says():
    camera = Camera.from_fov(0.8, look_at(torch.tensor([0.0, 0.0, 2.0]), torch.zeros(3)))
    mask = torch.zeros(40, 40)
    mask[10:30, 12:24] = 1
    mask[5, 5] = 1  # one pixel alone still has a volume
    front = torch.full((40, 40), 1.8)
    made = relief_surface(mask, front, 4 - front, camera)
    assert watertightness(made).is_closed
    corner = made.vertices[made.faces]
    volume = np.einsum("ni,ni->n", corner[:, 0], np.cross(corner[:, 1], corner[:, 2])).sum() / 6
    assert volume > 0  # wound outward
    assert np.ptp(made.vertices[:, 2]) == pytest.approx(0.4, abs=1e-5)
    with pytest.raises(UserError, match="mask is empty"):
        relief_surface(torch.zeros(40, 40), front, front, camera)


def test_the_verb_takes_files_of_another_program(objects, meshes, tmp_path, capsys):
    report, page = tmp_path / "f.json", tmp_path / "f.html"
    words = ["evaluate", "lift", "--data", str(objects), "--meshes", str(meshes), "--limit", "1"]
    written = ["--report", str(report), "--html", str(page)]
    assert main([*words, "--model", str(meshes), *written]) == 0
    found = json.loads(report.read_text())
    assert found["figures"]["objects-meshes"]["iou"] == 1
    assert found["protocol"]["methods"]["objects-meshes"]["count"] == 2
    assert page.read_text().count("<img") >= 1
    assert "visual-hull-8-masks" in capsys.readouterr().out
    assert main([*words, "--model", "cone"]) == 2
    assert "cone: there is no such model" in capsys.readouterr().err
