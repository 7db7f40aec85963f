import json
import math
import tarfile

import numpy as np
import pytest
import torch

from unflat.data.dataset import PictureDataset
from unflat.data.posed import INVERSE_DEPTH_UNIT, PosedScenes
from unflat.data.procedural import seen_scene, write_procedural
from unflat.data.synthetic import CLASSES, render_view
from unflat.errors import UserError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "set"
    return write_procedural(out, count=6, resolution=24, seed=1, views=4, val_count=4)


def test_train_is_a_data_set(files):
    dataset = PictureDataset(files.train, 24)
    assert dataset.classes == list(CLASSES)
    assert dataset.counts["pictures"] == dataset.counts["disparity"] == files.train_count == 6
    assert dataset.rejects == []
    assert PictureDataset(files.train.parent, 24).counts == dataset.counts  # the folder means it
    assert dataset.labels.tolist() == [0, 1, 2, 3, 0, 1]
    assert [n.rsplit(":")[-1] for n in dataset.names][:2] == ["000000", "000001"]


def test_train_disparity_is_the_mean_of_two_by_two_pixels(files):
    scene, _ = seen_scene(2, 1, 0)
    view = render_view(scene, scene.camera, 24)
    blocks = view.inverse_depth.reshape(12, 2, 12, 2).mean(axis=(1, 3))
    ranges = json.loads(files.train.with_name("train-ranges.json").read_text())
    low, high = ranges["disparity_min_max"]["000002"]
    assert low == pytest.approx(blocks.min(), abs=1e-5)
    assert high == pytest.approx(blocks.max(), abs=1e-5)
    assert ranges["counts"] == {"ball": 2, "box": 2, "hook": 1, "post": 1}
    stored = PictureDataset(files.train, 12).batch([2])["disparity"][0, 0].numpy()
    np.testing.assert_allclose(stored, (blocks - low) / (high - low), atol=0.51 / 255)


def test_val_is_read_back_as_it_was_rendered(files):
    scenes = PosedScenes(files.val)
    read = list(scenes)
    assert len(scenes) == len(read) == files.val_count == 4
    assert scenes.rejects == []
    for index, posed in enumerate(read):
        scene, _ = seen_scene(index, 1, 1)
        assert posed.class_name == scene.class_name == CLASSES[index]
        torch.testing.assert_close(
            posed.camera.camera_to_world[0], scene.camera.camera_to_world.float()
        )
        torch.testing.assert_close(posed.camera.intrinsics[0], scene.camera.intrinsics.float())
        assert posed.images.shape == (5, 3, 24, 24)
        assert posed.angle_deg[0] == 0
        assert posed.angle_deg[-1] == 30
        assert all(4 <= angle <= 20 for angle in posed.angle_deg[1:-1])
        for number in range(5):
            view = render_view(
                scene, posed.camera[number].to(dtype=torch.float64), posed.images.shape[-1]
            )
            image = posed.images[number].permute(1, 2, 0).numpy()
            assert np.abs(image - view.rgb).mean() < 0.004  # rounding, and jumps of patterns
            gap = np.abs(posed.inverse_depth[number].numpy() - view.inverse_depth)
            assert np.median(gap) <= INVERSE_DEPTH_UNIT
            assert posed.masks is not None
            assert (posed.masks[number].numpy() == view.mask).mean() > 0.99
            assert posed.normals is not None
            normals = posed.normals[number].permute(1, 2, 0).numpy()
            assert np.abs(normals - view.normal).mean() < 0.01


def test_training_and_validation_scenes_differ(files):
    first, second = seen_scene(0, 1, 0)[0], seen_scene(0, 1, 1)[0]
    assert not torch.equal(first.camera.camera_to_world, second.camera.camera_to_world)


def test_same_seed_same_bytes(files, tmp_path):
    again = write_procedural(tmp_path / "a", 6, 24, 1, 4, val_count=4)
    assert again.train.read_bytes() == files.train.read_bytes()
    assert again.val.read_bytes() == files.val.read_bytes()
    other = write_procedural(tmp_path / "b", 6, 24, 2, 4, val_count=4)
    assert other.train.read_bytes() != files.train.read_bytes()


def test_progress_counts_every_scene(tmp_path):
    told = []
    write_procedural(
        tmp_path / "a", 2, 8, views=1, val_count=1, progress=lambda *now: told.append(now)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_nothing_is_overwritten_without_force(tmp_path):
    out = tmp_path / "a"
    write_procedural(out, 1, 8, views=1, val_count=1)
    before = (out / "train.tar").read_bytes()
    with pytest.raises(UserError, match="already holds a result; add --force"):
        write_procedural(out, 1, 8, seed=5, views=1, val_count=1)
    assert (out / "train.tar").read_bytes() == before
    write_procedural(out, 1, 8, seed=5, views=1, val_count=1, force=True)
    assert (out / "train.tar").read_bytes() != before


@pytest.mark.parametrize(
    "options", [{"count": 0}, {"resolution": 7}, {"resolution": 33}, {"views": 0}]
)
def test_impossible_numbers(tmp_path, options):
    with pytest.raises(UserError, match=r"^--[a-z]+ \d+: must be .*\.$"):
        write_procedural(tmp_path / "a", **options)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_writing_leaves_nothing(tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_procedural(tmp_path / "a", 3, 8, views=1, val_count=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_canonical_frame_and_resolution(files):
    posed = PosedScenes(files.val, 12)[2]
    whole = PosedScenes(files.val)[2]
    assert posed.images.shape == (5, 3, 12, 12)
    blocks = whole.inverse_depth.reshape(5, 12, 2, 12, 2).mean(dim=(2, 4))
    torch.testing.assert_close(posed.inverse_depth, blocks)
    torch.testing.assert_close(
        posed.images, whole.images.reshape(5, 3, 12, 2, 12, 2).mean(dim=(3, 5))
    )
    moved = posed.in_canonical_frame()
    torch.testing.assert_close(moved.camera.camera_to_world[0], torch.eye(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        moved.pivot, torch.tensor([0.0, 0.0, posed.median_depth]), atol=1e-4, rtol=0
    )
    # A world point falls on the same place of every view before and after.
    points = posed.pivot + torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.2, 0.1]])
    pose = posed.camera.camera_to_world[0]
    inside = (points - pose[:3, 3]) @ pose[:3, :3]
    before = posed.camera[3].project(points)[0]
    torch.testing.assert_close(moved.camera[3].project(inside)[0], before, atol=1e-5, rtol=0)
    # Normals turn with the world: those of the ground point against gravity.
    up = whole.camera.rotation[0].T @ torch.tensor([0.0, 0.0, 1.0])
    ground = whole.in_canonical_frame().normals[0, :, -1, 0]
    torch.testing.assert_close(ground, up, atol=0.02, rtol=0)
    turned = torch.rad2deg(
        torch.acos((moved.camera.forward @ moved.camera.forward[0]).clamp(-1, 1))
    )
    assert math.isclose(float(turned[-1]), 30.0, abs_tol=0.05)


def test_folder_layout_and_damage(files, tmp_path):
    with tarfile.open(files.val) as archive:
        archive.extractall(tmp_path / "val", filter="data")
    scenes = PosedScenes(tmp_path / "val")
    torch.testing.assert_close(scenes[1].images, PosedScenes(files.val)[1].images)
    (tmp_path / "val/0000/rgb_2.png").unlink()
    (tmp_path / "val/0001/invdepth_0.png").write_bytes(b"x")
    (tmp_path / "val/0002/meta.json").write_text('{"views": []}')
    assert [scene.name for scene in scenes] == ["0003"]
    assert [r.name for r in scenes.rejects] == ["val:0000", "val:0001", "val:0002"]
    assert all(reject.reason for reject in scenes.rejects)
    assert len(PosedScenes(files.val, limit=2)) == 2


def test_wrong_kinds_of_tar_say_so(files):
    with pytest.raises(UserError, match="holds no posed scene"):
        PosedScenes(files.train)
    with pytest.raises(UserError, match="posed scenes to evaluate on"):
        PictureDataset(files.val, 8)
