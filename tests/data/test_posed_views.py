import json
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_objects import SIDE, srn_instance, turntable_object, zero123_object
from made_pictures import picture_of, png

from unflat.data import (
    PosedBatches,
    PosedObjects,
    PosedViews,
    open_views,
)
from unflat.errors import UserError
from unflat.geometry import Camera, mirrored_camera, orbit_pose, to_eg3d

SRN = {
    **srn_instance("train/a", views=3),
    **srn_instance("train/b", views=5, seed=1),
    **srn_instance("val/c", views=2, seed=2),
}


def write_folder(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def cameras(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    angle = torch.rand(count, 2, generator=generator) * 2 - 1
    poses = orbit_pose(angle[:, 0], 3 * angle[:, 1], 2.0)
    center = 0.5 + 0.1 * torch.rand(count, 2, generator=generator)
    return Camera(
        camera_to_world=poses,
        intrinsics=torch.cat([torch.full((count, 2), 1.2), center], dim=1),
    )


def made_views(count, side=4):
    """Pictures whose every value is their own number."""
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, side, side)
    masks = torch.arange(side, dtype=torch.uint8).expand(count, side, side)
    objects = torch.arange(count) // 2
    return PosedViews.of(images, name="made", masks=masks, camera=cameras(count), objects=objects)


@pytest.mark.parametrize("resolution", [SIDE, SIDE // 2])
def test_views_are_those_of_the_objects(tmp_path, resolution):
    path = write_folder(tmp_path / "srn", SRN)
    told = []
    views = PosedViews(
        path, "train", resolution=resolution, progress=lambda *numbers: told.append(numbers)
    )
    assert told == [(1, 2), (2, 2)]
    assert (views.names, views.objects.tolist()) == (["a", "b"], [0] * 3 + [1] * 5)
    assert (views.has_cameras, views.has_masks, len(views)) == (True, True, 8)
    assert views.counts == {"pictures": 8, "objects": 2, "rejected": 0}
    for number, item in enumerate(PosedObjects(path, "train", resolution=resolution)):
        here = views.objects == number
        assert (views.images[here] / 255.0 - item.images).abs().max() <= 0.5001 / 255
        assert (views.masks[here] / 255.0 - item.masks).abs().max() <= 0.5001 / 255
        assert torch.equal(views.camera[here].camera_to_world, item.camera.camera_to_world)
        assert torch.equal(views.camera[here].intrinsics, item.camera.intrinsics)


def test_objects_that_cannot_be_read_are_listed_and_leave_no_gap(tmp_path):
    files = {**SRN, "train/a/rgb/000001.png": b"no picture"}
    views = PosedViews(write_folder(tmp_path / "srn", files), "train", resolution=8)
    assert (views.names, views.objects.tolist()) == (["b"], [0] * 5)
    assert [reject.name for reject in views.rejects] == ["srn:train/a"]
    files = {name: content for name, content in files.items() if name.startswith("train/a")}
    with pytest.raises(UserError, match=r"lost: none of its 1 objects can be used \(.*train/a"):
        PosedViews(write_folder(tmp_path / "lost", files), resolution=8)


def test_a_turntable_tells_no_masks(tmp_path):
    views = open_views(write_folder(tmp_path / "set", turntable_object("cup")), 16)
    assert (views.has_cameras, views.has_masks) == (True, False)
    assert "mask" not in PosedBatches(views, 2).batch(0)


@given(
    count=st.integers(1, 40),
    share=st.integers(1, 6),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 3),
)
def test_an_epoch_over_two_processes_shows_every_picture_once(count, share, seed, epoch):
    views = made_views(count)
    sources = [PosedBatches(views, 2 * share, seed, rank, 2) for rank in range(2)]
    whole = PosedBatches(views, 2 * share, seed)
    seen = []
    for step in range((epoch + 1) * count // (2 * share) + 1):
        parts = [source.batch(step) for source in sources]
        batch = whole.batch(step)
        for key, value in batch.items():
            assert torch.equal(value, torch.cat([part[key] for part in parts]))
        numbers = (batch["image"][:, 0, 0, 0] * 255).round().long()
        assert torch.equal(views.objects[numbers], batch["object"])
        assert torch.equal(views.camera[numbers].camera_to_world, batch["camera_to_world"])
        assert torch.equal(views.camera[numbers].intrinsics, batch["intrinsics"])
        seen += numbers.tolist()
    assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_a_step_is_the_same_however_it_is_reached_and_epochs_differ():
    views = made_views(64)
    source = PosedBatches(views, 32, seed=3)
    orders = [source.indices(step).tolist() for step in range(6)]
    assert PosedBatches(views, 32, seed=3).indices(5).tolist() == orders[5]
    assert source.indices(0).tolist() == orders[0]
    assert orders[0] != orders[2] != orders[4]
    assert PosedBatches(views, 32, seed=4).indices(0).tolist() != orders[0]
    assert source.epoch(3) == 1.5


def test_cameras_of_generated_pictures_are_independent_of_the_real_ones():
    """Each of n cameras is as likely beside each picture: a pair falls together once in n."""
    count, steps, size = 8, 400, 16
    views = made_views(count)
    source = PosedBatches(views, size)
    table = torch.zeros(count, count)
    for step in range(steps):
        batch = source.batch(step)
        real = (batch["image"][:, 0, 0, 0] * 255).round().long()
        same = batch["fake_camera_to_world"][:, None] == views.camera.camera_to_world
        fake = same.all(-1).all(-1).int().argmax(1)
        assert torch.equal(views.camera[fake].intrinsics, batch["fake_intrinsics"])
        table.index_put_((real, fake), torch.ones(size), accumulate=True)
    expected = steps * size / count**2
    squares = float(((table - expected) ** 2 / expected).sum())
    assert squares < 110  # chi-square with 56 degrees of freedom: above once in 30,000
    alike = PosedBatches(views, size, seed=1).batch(0)["fake_camera_to_world"]
    assert not torch.equal(alike, source.batch(0)["fake_camera_to_world"])


@given(
    numbers=st.lists(st.floats(-0.6, 0.6), min_size=3, max_size=3),
    orthographic=st.booleans(),
)
def test_a_mirrored_camera_sees_the_mirrored_point_at_the_mirrored_place(numbers, orthographic):
    camera = cameras(5).to(dtype=torch.float64)
    if orthographic:
        camera = Camera(
            camera_to_world=camera.camera_to_world,
            intrinsics=camera.intrinsics,
            kind="orthographic",
        )
    point = torch.tensor([numbers], dtype=torch.float64).expand(5, 1, 3)
    uv, depth = camera.project(point)
    other, other_depth = mirrored_camera(camera).project(point * torch.tensor([-1.0, 1.0, 1.0]))
    torch.testing.assert_close(other[..., 0], 1.0 - uv[..., 0])
    torch.testing.assert_close(other[..., 1], uv[..., 1])
    torch.testing.assert_close(other_depth, depth)
    assert torch.equal(
        mirrored_camera(mirrored_camera(camera)).camera_to_world, camera.camera_to_world
    )
    assert (torch.linalg.det(mirrored_camera(camera).rotation) > 0.99).all()


def test_half_of_the_pictures_are_mirrored_with_mask_and_camera():
    views = made_views(50)
    source, plain = PosedBatches(views, 50, mirror=True), PosedBatches(views, 50)
    flips, fake_flips = [], []
    for step in range(20):
        one, other = source.batch(step), plain.batch(step)
        mirrored = one["mask"][:, 0, 0, 0] > 0
        assert torch.equal(
            one["mask"],
            torch.where(mirrored[:, None, None, None], other["mask"].flip(-1), other["mask"]),
        )
        for prefix, is_turned in (("", mirrored), ("fake_", None)):
            camera = Camera(
                camera_to_world=other[f"{prefix}camera_to_world"],
                intrinsics=other[f"{prefix}intrinsics"],
            )
            turned, got = mirrored_camera(camera), one[f"{prefix}camera_to_world"]
            if is_turned is None:
                is_turned = (got != camera.camera_to_world).any(-1).any(-1)
                fake_flips.append(is_turned)
            wanted = torch.where(
                is_turned[:, None, None], turned.camera_to_world, camera.camera_to_world
            )
            assert torch.equal(got, wanted)
            centers = torch.where(is_turned[:, None], turned.intrinsics, camera.intrinsics)
            assert torch.equal(one[f"{prefix}intrinsics"], centers)
        flips.append(mirrored)
    flips, fake_flips = torch.cat(flips).float(), torch.cat(fake_flips).float()
    for share in (flips.mean(), fake_flips.mean(), (flips == fake_flips).float().mean()):
        assert abs(float(share) - 0.5) < 0.07  # 4 standard deviations of 1000 coins


def test_pictures_without_cameras(tmp_path):
    files = {f"cat/{number}.png": png(picture_of(number, 8)) for number in range(3)}
    path = write_folder(tmp_path / "cats", {**files, "cat/9.png": b"?"})
    views = open_views(path, 8)
    assert (views.has_cameras, views.has_masks) == (False, False)
    assert views.counts == {"pictures": 3, "objects": 3, "rejected": 1}
    assert torch.equal(views.images[1], torch.from_numpy(picture_of(1, 8)).permute(2, 0, 1))
    assert views.images.equal(open_views(path, 8).images)
    assert len(open_views(path, 8, limit=2)) == 2
    batch = PosedBatches(views, 3, mirror=True).batch(0)
    assert set(batch) == {"image"}
    assert (batch["image"].dtype, batch["image"].shape) == (torch.float32, (3, 3, 8, 8))
    with pytest.raises(UserError, match="cats: has no splits, but split val was asked for; leave"):
        open_views(path, 8, "val")


def eg3d_files(count=3, alpha=False, **changes):
    camera = cameras(count)
    files, labels = {}, []
    for number in range(count):
        pixels = picture_of(number, 8)
        if alpha:
            matte = np.full((8, 8, 1), 255, np.uint8)
            matte[:4] = 51 * number
            pixels = np.concatenate([pixels, matte], axis=2)
        name = f"00000/img{number}.png"
        files[name] = png(pixels)
        labels.append([name, to_eg3d(camera[number]).tolist()])
    for number, label in changes.get("labels", {}).items():
        labels[number][1] = label(labels[number][1])
    files["dataset.json"] = json.dumps({"labels": labels[::-1]}).encode()
    return files, camera


def write_zip(path, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("kind", ["folder", "stored", "deflated"])
def test_eg3d_layout_gives_pictures_and_cameras(tmp_path, kind, alpha):
    files, camera = eg3d_files(alpha=alpha)
    if kind == "folder":
        path = write_folder(tmp_path / "set", files)
    else:
        method = zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
        path = write_zip(tmp_path / "set.zip", files, method)
    views = open_views(path, 8)
    assert views.names == [f"00000/img{number}.png" for number in range(3)]
    assert (views.objects.tolist(), views.has_masks) == ([0, 1, 2], alpha)
    assert torch.equal(views.camera.camera_to_world, camera.camera_to_world)
    assert torch.equal(views.camera.intrinsics, camera.intrinsics)
    below = torch.from_numpy(picture_of(1, 8)).permute(2, 0, 1)[:, 4:]
    assert torch.equal(views.images[1, :, 4:], below)  # opaque in both
    if alpha:
        assert views.masks[1, :4].unique().tolist() == [51]
        assert views.images[0, :, :4].unique().tolist() == [255]  # white where transparent
    assert len(open_views(path, 4, limit=2)) == 2


def test_eg3d_pictures_that_cannot_be_read_are_listed(tmp_path):
    files, camera = eg3d_files()
    del files["00000/img0.png"]
    views = open_views(write_zip(tmp_path / "set.zip", files), 8)
    assert views.names == ["00000/img1.png", "00000/img2.png"]
    assert torch.equal(views.camera.camera_to_world, camera.camera_to_world[1:])
    assert views.rejects[0].name == "set.zip:00000/img0.png"
    assert views.rejects[0].reason == "the picture is missing"
    lost = {"dataset.json": files["dataset.json"]}
    with pytest.raises(UserError, match="none of its 3 pictures can be used"):
        open_views(write_zip(tmp_path / "lost.zip", lost), 8)


def scaled(label):
    return [value * (1.001 if place < 11 else 1.0) for place, value in enumerate(label)]


def mirrored(label):
    return [-value if place in (0, 4, 8) else value for place, value in enumerate(label)]


def skewed(label):
    return [0.1 if place == 17 else value for place, value in enumerate(label)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (scaled, "img1.png holds a matrix that is not a rotation"),
        (mirrored, "img1.png holds a matrix that is not a rotation"),
        (skewed, "img1.png holds intrinsics with a skew"),
        (lambda label: [float("nan"), *label[1:]], "img1.png holds numbers that are not finite"),
        (lambda label: label[:24], "img1.png is no camera; it must be 25 numbers"),
        (lambda label: 7, "img1.png is no camera; it must be 25 numbers"),
    ],
)
def test_eg3d_labels_that_are_no_cameras_are_refused_with_their_picture(tmp_path, change, reason):
    files, _ = eg3d_files(labels={1: change})
    with pytest.raises(UserError, match=rf"set\.zip:dataset\.json: the label of 00000/{reason}"):
        open_views(write_zip(tmp_path / "set.zip", files), 8)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (b"{", "cannot be read"),
        (b'{"labels": null}', "cannot be read"),
        (b"[1]", "cannot be read"),
        (b'{"labels": []}', "lists no picture"),
    ],
)
def test_eg3d_lists_that_are_none_are_refused(tmp_path, labels, reason):
    path = write_folder(tmp_path / "set", {"dataset.json": labels})
    with pytest.raises(UserError, match=rf"set:dataset\.json: {reason}"):
        open_views(path, 8)
    with pytest.raises(UserError, match=r"a\.zip: is no whole zip; copy"):
        open_views(write_folder(tmp_path, {"a.zip": b"PK"}) / "a.zip", 8)
    with pytest.raises(UserError, match=r"b\.zip: holds no dataset\.json"):
        open_views(write_zip(tmp_path / "b.zip", {"a.png": b""}), 8)
    for name in ("gone.zip", "gone"):
        with pytest.raises(UserError, match=f"{name}: there is no such file or folder; check"):
            open_views(tmp_path / name, 8)


def test_the_training_split_is_taken_unless_another_is_named(tmp_path):
    path = write_folder(tmp_path / "srn", SRN)
    assert open_views(path, 8).names == ["a", "b"]
    assert open_views(path, 8, "val").names == ["c"]
    assert PosedViews(path, resolution=8).names == ["a", "b", "c"]
    with pytest.raises(UserError, match="has no split test"):
        open_views(path, 8, "test")
    without = write_folder(tmp_path / "uids", zero123_object("u1"))
    assert open_views(without, 8).names == ["u1"]


def test_counts_that_differ_are_refused():
    images = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="cameras"):
        PosedViews.of(images, name="made", camera=cameras(2))
    with pytest.raises(ValueError, match="1 names"):
        PosedViews.of(images, name="made", names=["a"])
    with pytest.raises(ValueError, match="3 pictures cannot be shared by 2"):
        PosedBatches(made_views(4), 3, world_size=2)
