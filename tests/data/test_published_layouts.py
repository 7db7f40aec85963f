"""Cameras of each published layout put known balls where its pictures show them."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from made_balls import (
    COLORS,
    cub_rows,
    detections_and_poses,
    save_cub,
    save_detections,
    write_carla,
    write_cub,
    write_textured3d,
    write_transforms,
)

from unflat.data import PosedBatches, batch_camera, open_views
from unflat.errors import UserError
from unflat.geometry import mirrored_camera

SIDE = 180
"""Of the pictures' longer side: they are not resampled."""
SIZES = [(180, 120), (121, 180)]


def require_balls(views, balls):
    """Each ball's disc has its middle where the camera projects the ball's centre, to a pixel."""
    for number, (image, mask) in enumerate(zip(views.images, views.masks, strict=True)):
        uv, _ = views.camera[number].project(balls)
        found = 0
        for color, place in zip(COLORS, uv * SIDE, strict=True):
            rows, columns = (image == torch.from_numpy(color)[:, None, None]).all(0).nonzero().T
            if not len(rows):
                continue
            wide, high = (int(axis.max() - axis.min()) + 1 for axis in (columns, rows))
            if len(rows) < 0.95 * math.pi / 4 * wide * high or abs(wide - high) > 2:
                continue  # partly hidden by another
            middle = torch.stack([axis.float().mean() + 0.5 for axis in (columns, rows)])
            assert (middle - place).abs().max() < 1
            assert (mask[rows, columns] == 255).all()
            found += 1
        assert found >= 2
        assert (image[:, mask == 0] == 255).all()
        assert 0 < (mask > 0).sum() < mask.numel() / 2


def camera_is_upright(views):
    """Level cameras look with their own up along the world's y."""
    up = -views.camera.camera_to_world[:, :3, 1]
    return bool((up[:, 1] > 0.6).all())


def test_carla(tmp_path):
    balls = write_carla(tmp_path / "carla", side=SIDE)
    views = open_views(tmp_path / "carla", SIDE)
    require_balls(views, balls)
    assert views.camera.kind == "perspective"
    assert camera_is_upright(views)
    assert torch.allclose(views.camera.position.norm(dim=1), torch.tensor(10 * 0.55 / 3))
    # The poses may lie beside the folder of pictures.
    (tmp_path / "set").mkdir()
    shutil.move(tmp_path / "carla" / "carla_poses", tmp_path / "set" / "carla_poses")
    shutil.move(tmp_path / "carla", tmp_path / "set" / "carla")
    assert open_views(tmp_path / "set", SIDE).images.equal(views.images)


@pytest.mark.parametrize("up", ["-y", "y", "z"])
@pytest.mark.parametrize("size", SIZES)
def test_cub(tmp_path, up, size):
    balls = write_cub(tmp_path / "cub", up=up, width=size[0], height=size[1])
    write_cub(tmp_path / "cub", "val", count=1, up=up, width=size[0], height=size[1])
    views = open_views(tmp_path / "cub", SIDE)
    assert (views.camera.kind, len(views)) == ("orthographic", 3)
    require_balls(views, balls)
    assert camera_is_upright(views)
    assert len(open_views(tmp_path, SIDE, "val")) == 1  # the folder around it is as good
    with pytest.raises(UserError, match=r"has no split test; the splits there are: train, val\."):
        open_views(tmp_path / "cub", SIDE, "test")


@pytest.mark.parametrize(("kind", "category"), [("p3d", "p3d_car"), ("imagenet", "imagenet_zebra")])
@pytest.mark.parametrize("size", SIZES)
def test_p3d_and_imagenet(tmp_path, kind, category, size):
    balls = write_textured3d(tmp_path, kind, category, width=size[0], height=size[1])
    views = open_views(tmp_path / kind / category, SIDE)
    require_balls(views, balls)
    assert (views.camera.kind, len(views), views.rejects) == ("perspective", 3, [])
    assert camera_is_upright(views)
    shutil.move(tmp_path / kind, tmp_path / "other")  # nobody has to call the folder like that
    for path in (tmp_path / "other", tmp_path):
        assert open_views(path, SIDE).images.equal(views.images)


@pytest.mark.parametrize("lens", ["angle", "pixels", "ortho"])
@pytest.mark.parametrize("size", SIZES)
def test_transforms(tmp_path, lens, size):
    balls = write_transforms(tmp_path, lens=lens, width=size[0], height=size[1])
    views = open_views(tmp_path, SIDE)
    require_balls(views, balls)
    assert views.camera.kind == ("orthographic" if lens == "ortho" else "perspective")
    assert (len(views.names), views.objects.tolist()) == (1, [0, 0, 0])


def test_transforms_of_many_objects_and_splits(tmp_path):
    for name in ("train/a", "train/b", "val/c"):
        write_transforms(tmp_path / name, count=2)
    views = open_views(tmp_path, 16)
    assert (views.names, views.objects.tolist()) == (["train/a", "train/b"], [0, 0, 1, 1])
    assert open_views(tmp_path, 16, "val").names == ["val/c"]
    assert len(open_views(tmp_path, 16, limit=1)) == 2
    write_transforms(tmp_path / "one", count=2, file="transforms_train.json")
    write_transforms(tmp_path / "one", count=3, file="transforms_test.json")
    assert len(open_views(tmp_path / "one", 16)) == 2
    assert len(open_views(tmp_path / "one", 16, "test")) == 3
    stored = json.loads((tmp_path / "one/transforms_test.json").read_text())
    for number, frame in enumerate(stored["frames"]):
        frame["object"] = f"car{number // 2}"
    (tmp_path / "one/transforms_test.json").write_text(json.dumps(stored))
    views = open_views(tmp_path / "one", 16, "test")
    assert (views.names, views.objects.tolist()) == (["one/car0", "one/car1"], [0, 0, 1])


def test_poses_that_invert_writes_are_read_as_they_are(tmp_path):
    balls = write_transforms(tmp_path / "made", width=SIDE, height=120)
    views = open_views(tmp_path / "made", SIDE)
    for number in range(3):
        name = "car" if number else "cup"
        shutil.copy(tmp_path / f"made/images/{number}.png", tmp_path / f"{name}{number}.png")
        camera = views.camera[number]
        intrinsics = dict(zip(("fx", "fy", "cx", "cy"), camera.intrinsics.tolist(), strict=True))
        pose = {"camera_to_world": camera.camera_to_world.tolist(), "intrinsics": intrinsics}
        (tmp_path / f"{name}{number}").mkdir()
        (tmp_path / f"{name}{number}/pose.json").write_text(json.dumps({**pose, "zoom": 1.0}))
    shutil.rmtree(tmp_path / "made")
    again = open_views(tmp_path, SIDE)
    assert again.names == ["car1", "car2", "cup0"]
    require_balls(again, balls)
    for name in again.names:
        file = tmp_path / name / "pose.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "zoom": None}))
    assert open_views(tmp_path, 16).camera.kind == "orthographic"


def test_batches_carry_what_kind_their_cameras_are(tmp_path):
    write_cub(tmp_path / "cub", count=4)
    write_textured3d(tmp_path)
    for path, kind in ((tmp_path / "cub", "orthographic"), (tmp_path / "p3d", "perspective")):
        views = open_views(path, 16)
        batch = PosedBatches(views, 3, mirror=True).batch(2)
        for prefix in ("", "fake_"):
            camera = batch_camera(batch, prefix)
            assert camera.kind == kind
            for one in range(3):
                pose = camera.camera_to_world[one]
                both = (views.camera, mirrored_camera(views.camera))
                assert any((pose == every.camera_to_world).all((1, 2)).any() for every in both)


def reasons(views):
    return {reject.name.rsplit("/", 1)[-1]: reject.reason for reject in views.rejects}


def test_bad_pictures_of_carla_are_left_out(tmp_path):
    write_carla(tmp_path, count=4)
    (tmp_path / "carla_poses/000000_extrinsics.npy").unlink()
    np.save(tmp_path / "carla_poses/000001_extrinsics.npy", np.eye(4))
    (tmp_path / "000002.png").write_bytes(b"no picture")
    views = open_views(tmp_path, 16)
    assert (views.names, views.counts["rejected"]) == (["000003"], 3)
    told = [reject.reason for reject in views.rejects]
    assert told[0] == "000000_extrinsics.npy is missing"
    assert told[1] == "its matrix has the shape (4, 4), not (3, 4)"
    assert "not a picture" in told[2]
    bad = np.eye(4)[:3]
    bad[0, 0] = 2
    np.save(tmp_path / "carla_poses/000003_extrinsics.npy", bad)
    with pytest.raises(UserError, match=r"none of its 4 pictures can be used \(.*is missing\)"):
        open_views(tmp_path, 16)
    (tmp_path / "carla_poses/intrinsics.npy").write_bytes(b"x")
    with pytest.raises(UserError, match=r"intrinsics\.npy: holds no .* unpack carla_poses\.zip"):
        open_views(tmp_path, 16)
    (tmp_path / "carla_poses/intrinsics.npy").unlink()
    with pytest.raises(UserError, match=r"intrinsics\.npy: is missing; unpack"):
        open_views(tmp_path, 16)


def test_bad_birds_are_left_out_and_bad_files_refused(tmp_path):
    _, pictures, poses = cub_rows(tmp_path, 5, "-y", 60, 40)
    pictures[0]["mask"] = np.zeros((0, 0), np.uint8)
    pictures[1]["mask"] = np.ones((40, 50), np.uint8)
    poses[2] = {**poses[2], "rot": np.diag([1.0, 1.0, -1.0])}
    (tmp_path / "CUB_200_2011/images/001.Bird/bird_3.png").unlink()
    save_cub(tmp_path, "train", pictures, poses)
    views = open_views(tmp_path, 16)
    assert views.names == ["001.Bird/bird_4"]
    assert reasons(views) == {
        "bird_0.png": "it has no mask",
        "bird_1.png": "its mask is 50x40, its picture 60x40",
        "bird_2.png": "its camera's matrix is not a rotation with a position",
        "bird_3.png": "bird_3.png is missing",
    }
    file = tmp_path / "data/train_cub_cleaned.mat"
    whole = file.read_bytes()
    for part in (0, 100, 200, len(whole) // 2, len(whole) - 9):
        file.write_bytes(whole[:part])
        with pytest.raises(UserError, match=r"train_cub_cleaned\.mat: .*download it again\."):
            open_views(tmp_path, 16)
    file.write_bytes(whole)
    save_cub(tmp_path, "train", pictures[:2], poses)
    with pytest.raises(UserError, match=r"has 2 pictures and .* 5 poses; take both"):
        open_views(tmp_path, 16)
    (tmp_path / "sfm/anno_train.mat").unlink()
    with pytest.raises(UserError, match=r"sfm/anno_train\.mat: is missing; add CMR's"):
        open_views(tmp_path, 16)


def test_bad_detections_are_left_out(tmp_path):
    _, detections, poses = detections_and_poses(tmp_path, "p3d", count=6)
    detections[0]["mask"] = None
    detections[2]["mask"] = {"size": [40, 60], "counts": [5, 5]}
    detections[3]["image_path"] = "../outside.png"
    detections[4]["image_path"] = "datasets/p3d/images/n01/lost.png"
    poses["s"][4] = float("nan")
    folder = tmp_path / "p3d/p3d_car"
    save_detections(folder, detections, poses)
    views = open_views(folder, 16)
    assert len(views) == 1
    assert [reject.reason for reject in views.rejects] == [
        "its detection has no mask",
        "its mask's runs do not fill 60x40 pixels",
        "its picture ../outside.png lies outside of the data set",
        "lost.png is missing",
        "its camera holds numbers that are not finite",
    ]
    for change, message in (
        ({"t": poses["t"][:, :1]}, r"t has the shape \(6, 1\) for 6 poses"),
        ({"indices": poses["indices"] + 9}, "has poses of 16 detections, of which"),
    ):
        save_detections(folder, detections, {**poses, **change})
        with pytest.raises(UserError, match=message):
            open_views(folder, 16)
    save_detections(folder, detections, {"z0": poses["z0"]})
    with pytest.raises(UserError, match="does not hold indices, z0, s, t and R"):
        open_views(folder, 16)
    file = folder / "poses_estimated_singletpl_perspective.bin"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(UserError, match="the poses are damaged"):
        open_views(folder, 16)
    file.unlink()
    with pytest.raises(UserError, match=r"detections\.npy but no poses_.*; add the poses"):
        open_views(folder, 16)
    (tmp_path / "p3d/other").mkdir()
    shutil.copy(folder / "detections.npy", tmp_path / "p3d/other")
    with pytest.raises(UserError, match="holds several categories; give one of"):
        open_views(tmp_path / "p3d", 16)


def test_bad_frames_are_left_out(tmp_path):
    write_transforms(tmp_path, count=6)
    stored = json.loads((tmp_path / "transforms.json").read_text())
    frames = stored["frames"]
    frames[0]["file_path"] = "images/lost"
    frames[1]["transform_matrix"] = [[1, 2], [3, 4]]
    frames[2]["k1"] = 0.2
    frames[3]["file_path"] = "../../etc/passwd"
    frames[4]["ortho_scale"] = 2.0
    (tmp_path / "transforms.json").write_text(json.dumps(stored))
    views = open_views(tmp_path, 16)
    # The first that can be read says which kind of camera the others must have.
    assert len(views) == 1
    told = [reject.reason for reject in views.rejects]
    assert told[:4] == [
        "its picture images/lost is missing",
        "its matrix has the shape (2, 2), not (4, 4)",
        "its lens bends lines (k1 is not 0); undistort the pictures first",
        "its file ../../etc/passwd lies outside of the data set",
    ]
    assert told[4] == "its camera is perspective, that of the first picture orthographic"
    (tmp_path / "transforms.json").write_text('{"frames": [')
    with pytest.raises(UserError, match=r"none of its 1 files of cameras lists a frame \(.*JSON"):
        open_views(tmp_path, 16)
