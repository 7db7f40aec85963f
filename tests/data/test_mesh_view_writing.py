"""Folders of meshes become sets: whole objects, reasons, the same bytes however it is run."""

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import trimesh
from PIL import Image

from unflat.cli.main import main
from unflat.data import PosedObjects
from unflat.data.mesh_view_writing import RenderConfig, find_meshes, render_meshes
from unflat.data.worker_pool import results_of
from unflat.errors import UserError

SMALL = RenderConfig(views=3, size=24)


def write_boxes(folder, count=3):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        mesh = trimesh.creation.box((1, 0.5, 0.2 + 0.1 * number))
        mesh.visual.face_colors = np.tile([200, 100, 50 + number, 255], (12, 1))
        mesh.export(folder / f"box{number}.{('ply', 'glb', 'obj')[number % 3]}")
    return folder


def digests(out):
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "report.json"
    }


def reasons(done):
    return {reject.name: reject.reason for reject in done.rejects}


def test_a_set_is_read_back(tmp_path):
    folder = write_boxes(tmp_path / "in" / "toy")
    told = []
    out = tmp_path / "out"
    done = render_meshes(
        folder.parent, out, SMALL, val_share=0.3, progress=lambda *now: told.append(now)
    )
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert done.whole == ["box0", "box1", "box2"]
    assert done.rejects == []
    objects = PosedObjects(out)
    assert objects.layout == "zero123"
    assert set(objects.splits) == {"train", "val"}
    assert len(PosedObjects(out, "val")) == 1
    item = objects[0]
    assert item.class_name == "toy"
    assert item.images.shape == (3, 3, 24, 24)
    assert 0.05 < float(item.masks.mean()) < 0.5
    assert np.load(out / "box0" / "000.npy").dtype == np.float64
    with Image.open(out / "box0" / "000.png") as picture:
        assert picture.mode == "RGBA"
    assert sorted(json.loads((out / "valid_paths.json").read_text())) == done.whole


def test_bytes_depend_on_seed_and_name_alone(tmp_path):
    folder = write_boxes(tmp_path / "in")
    render_meshes(folder, tmp_path / "one", SMALL)
    render_meshes(folder, tmp_path / "two", SMALL, jobs=2)
    (folder / "box0.ply").rename(tmp_path / "box0.ply")
    render_meshes(folder, tmp_path / "three", SMALL)
    (tmp_path / "box0.ply").rename(folder / "box0.ply")
    later = render_meshes(folder, tmp_path / "three", SMALL)
    assert later.rendered == ["box0"]
    assert later.kept == ["box1", "box2"]
    assert digests(tmp_path / "one") == digests(tmp_path / "two") == digests(tmp_path / "three")
    other = RenderConfig(views=3, size=24, seed=1)
    render_meshes(folder, tmp_path / "four", other)
    one, four = digests(tmp_path / "one"), digests(tmp_path / "four")
    assert one["box1/000.npy"] != four["box1/000.npy"]
    assert len({value for name, value in one.items() if name.endswith("000.npy")}) == 3


def test_what_is_there_is_kept_and_other_settings_are_refused(tmp_path):
    folder, out = write_boxes(tmp_path / "in"), tmp_path / "out"
    render_meshes(folder, out, SMALL)
    mark = out / "box0" / "000.png"
    mark.write_bytes(b"mine")
    assert render_meshes(folder, out, SMALL).rendered == []
    assert mark.read_bytes() == b"mine"
    with pytest.raises(UserError, match=r"was rendered with size 24; .*--force"):
        render_meshes(folder, out, RenderConfig(views=3, size=32))
    render_meshes(folder, out, RenderConfig(views=3, size=32), force=True)
    with Image.open(mark) as picture:
        assert picture.size == (32, 32)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    with pytest.raises(UserError, match="holds something else"):
        render_meshes(folder, tmp_path / "full", SMALL, force=True)
    with pytest.raises(UserError, match="holds no mesh"):
        render_meshes(tmp_path / "full", out, SMALL)


def test_bad_meshes_are_named_with_their_reasons(tmp_path):
    folder = write_boxes(tmp_path / "in")
    (folder / "cut.glb").write_bytes((folder / "box1.glb").read_bytes()[:200])
    (folder / "empty.obj").touch()
    (folder / "box1.stl").write_bytes(b"")
    trimesh.PointCloud(np.eye(3)).export(folder / "points.ply")
    flat = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]])
    trimesh.Trimesh(flat, [[0, 1, 2]], process=False).export(folder / "line.ply")
    (folder / "nan.off").write_text("OFF\n3 1 0\n0 0 0\n1 0 nan\n0 1 0\n3 0 1 2\n")
    trimesh.creation.icosphere(3).export(folder / "many.ply")
    write_skinned(folder / "bones.glb", folder / "box1.glb")
    done = render_meshes(folder, tmp_path / "out", RenderConfig(views=1, size=16, max_faces=1000))
    found = reasons(done)
    assert done.total == 11
    assert done.whole == ["box0", "box1", "box2"]
    assert "whole mesh" in found["cut.glb"]
    assert "no triangle" in found["empty.obj"] or "whole mesh" in found["empty.obj"]
    assert found["box1.stl"] == "has the name of box1.glb; rename one"
    assert "surface, not points" in found["points.ply"]
    assert "no area" in found["line.ply"]
    assert "extent" in found["nan.off"]
    assert "1,280 triangles" in found["many.ply"]
    assert "bones" in found["bones.glb"]
    assert not [path for path in (tmp_path / "out").iterdir() if "partial" in path.name]


def write_skinned(path, like):
    """The same mesh, hung on a bone."""
    content = like.read_bytes()
    (length,) = struct.unpack("<I", content[12:16])
    about, rest = json.loads(content[20 : 20 + length]), content[20 + length :]
    node = next(node for node in about["nodes"] if "mesh" in node)
    node["skin"], about["skins"] = 0, [{"joints": [0]}]
    text = json.dumps(about).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sIIII", b"glTF", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A)
    path.write_bytes(head + text + rest)


def test_names_of_several_folders_stay_apart(tmp_path):
    for place in ("a/x.obj", "b/x.obj", "b/my cup.obj", ".hidden/y.obj"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    found, rejects = find_meshes(tmp_path)
    assert [(mesh.uid, mesh.class_name) for mesh in found] == [
        ("a__x", "a"), ("b__x", "b"), ("my_cup", "b"),
    ]  # fmt: skip
    assert rejects == []


def work_that_may_die(number):
    if number == 2:
        os._exit(1)
    return number * number


def test_a_process_that_dies_costs_its_own_task_alone():
    found = dict(results_of(work_that_may_die, range(6), jobs=2))
    assert found == {0: 0, 1: 1, 2: None, 3: 9, 4: 16, 5: 25}


def test_the_verb_says_what_it_left_out(tmp_path, capsys):
    folder, out = write_boxes(tmp_path / "in", 1), tmp_path / "out"
    words = ["data", "from-meshes", str(folder), "--out", str(out), "--size", "16", "--jobs", "1"]
    assert main([*words, "--dry-run"]) == 0
    assert "would render 1 meshes, 12 views of 16 px" in capsys.readouterr().out
    assert not out.exists()
    assert main(words) == 0
    (folder / "bad.stl").write_bytes(b"solid")
    assert main(words) == 3
    assert "bad.stl: " in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert report["figures"]["kept"] == report["figures"]["skipped"] == 1
    assert report["failures"][0]["input"] == "bad.stl"
    for wrong, told in (
        (["--size", "8"], "--size 8: must be from 16"),
        (["--val-share", "1"], "--val-share 1: must be above 0 and below 1"),
        (["--seed", "4"], "was rendered with seed 0"),
    ):
        assert main([*words, *wrong]) == 2
        assert told in capsys.readouterr().err
    (folder / "box0.ply").unlink()
    assert main([*words[:4], str(tmp_path / "none"), *words[5:]]) == 2
    assert "none of its meshes could be rendered" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_keeps_whole_objects_and_the_rest_follows(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(8):
        trimesh.creation.icosphere(3).export(folder / f"ball{number}.ply")
    command = [sys.executable, "-m", "unflat", "data", "from-meshes", str(folder)]
    command += ["--out", str(out), "--size", "192", "--jobs", "2"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    end = time.monotonic() + 60
    while not list(out.glob("ball?/000.npy")) and time.monotonic() < end:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert b"what is whole is kept" in errors
    uids = json.loads((out / "valid_paths.json").read_text())
    assert 1 <= len(uids) < 8
    assert all(len(list((out / uid).iterdir())) == 24 for uid in uids)
    assert {path.name for path in out.iterdir() if path.is_dir()} == set(uids)
    assert json.loads((out / "report.json").read_text())["figures"]["rendered"] == len(uids)
    again = subprocess.run(command, capture_output=True, timeout=110, check=True)
    assert f"{len(uids)} were there".encode() in again.stdout
    assert len(json.loads((out / "valid_paths.json").read_text())) == 8
