import json
import tarfile

import numpy as np
import pytest
import torch
from made_objects import (
    COLOR,
    HIGH,
    LOW,
    SIDE,
    picture,
    srn_instance,
    table,
    turntable_object,
    zero123_object,
)
from made_pictures import add_member

from unflat.data import PosedObjects
from unflat.errors import UserError
from unflat.geometry import image_rays, orbit_coordinates

SRN = {
    **srn_instance("train/a"),
    **srn_instance("train/b", seed=1),
    **srn_instance("test/c", views=3, seed=2),
    "instances.csv": table([["instance", "split"], ["a", "train"], ["b", "train"], ["c", "test"]]),
}
ZERO123 = {
    **zero123_object("u1"),
    **zero123_object("u2", seed=1),
    "train.txt": b"u2\n",
    "val.txt": b"u1\n",
    "objects.csv": table([["uid", "split", "class"], ["u1", "val", "car"], ["u2", "train", ""]]),
}
TURNTABLE = {**turntable_object("cup"), **turntable_object("owl", views=2)}
SETS = {"srn": SRN, "zero123": ZERO123, "turntable": TURNTABLE}


def write_folder(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            add_member(archive, name, content)
    return path


def silhouette_of_box(camera, side):
    """Where rays of our camera meet the box, in the object world: (x, y, z) is (x, z, -y)."""
    low = torch.tensor([LOW[0], LOW[2], -HIGH[1]]).float()
    high = torch.tensor([HIGH[0], HIGH[2], -LOW[1]]).float()
    origins, directions = image_rays(camera, side, side)
    first, second = (low - origins) / directions, (high - origins) / directions
    enter = torch.minimum(first, second).amax(dim=-1)
    return (enter > 0) & (enter < torch.maximum(first, second).amin(dim=-1))


@pytest.mark.parametrize("kind", ["tar", "folder"])
@pytest.mark.parametrize("layout", SETS)
def test_a_box_is_seen_where_our_cameras_see_it(tmp_path, layout, kind):
    write = write_tar if kind == "tar" else write_folder
    objects = PosedObjects(write(tmp_path / "set.tar", SETS[layout]))
    assert objects.layout == layout
    seen = 0
    for item in objects:
        expected = silhouette_of_box(item.camera, SIDE)
        assert 0.01 < expected.float().mean() < 0.5
        assert (expected.flip(-1) != expected).float().mean() > 0.002  # a mirror would be noticed
        is_box = (item.images < 0.999).any(dim=1)
        assert (is_box != expected).sum() <= 1  # a ray through an edge of the box
        color = torch.tensor(COLOR) / 255.0
        assert (item.images.permute(0, 2, 3, 1)[is_box] - color).abs().max() < 0.05
        if layout == "turntable":
            assert item.masks is None
        else:
            torch.testing.assert_close(item.masks, is_box.float())
        seen += 1
    assert seen == len(objects) > 1
    assert objects.rejects == []


def test_splits_names_and_classes(tmp_path):
    srn = write_tar(tmp_path / "srn.tar", SRN)
    assert PosedObjects(srn).splits == ("train", "test")
    assert PosedObjects(srn).names == ["c", "a", "b"]
    assert PosedObjects(srn, "train").names == ["a", "b"]
    assert PosedObjects(srn, "train", limit=1).names == ["a"]
    zero123 = write_tar(tmp_path / "objects.tar", ZERO123)
    objects = PosedObjects(zero123, "val")
    assert (objects.splits, objects.names) == (("train", "val"), ["u1"])
    assert objects[0].class_name == "car"
    assert PosedObjects(zero123, "train")[0].class_name is None
    assert PosedObjects(write_tar(tmp_path / "t.tar", TURNTABLE)).splits == ()


def test_published_folders_of_srn(tmp_path):
    """cars_train is train; chairs have a folder more; both together keep their names."""
    chairs = write_folder(
        tmp_path / "chairs",
        {**srn_instance("chairs_train/chairs_2.0_train/x"), **srn_instance("chairs_test/y")},
    )
    assert PosedObjects(chairs).splits == ("train", "test")
    assert PosedObjects(chairs, "train").names == ["x"]
    assert len(PosedObjects(chairs / "chairs_test")) == 1
    both = write_folder(chairs, srn_instance("cars_train/z"))
    assert PosedObjects(both, "cars_train").names == ["z"]


def test_valid_paths_ends_with_val(tmp_path):
    uids = [f"u{number}" for number in range(200)]
    files = {**zero123_object("u0", 1), **zero123_object("u199", 1, seed=3)}
    files["valid_paths.json"] = json.dumps(uids).encode()
    path = write_folder(tmp_path / "views", files)
    assert PosedObjects(path, "val").names == ["u198", "u199"]
    objects = PosedObjects(path, "val")
    assert [item.name for item in objects] == ["u199"]
    assert objects.rejects[0].name == "views:u198"
    assert "no view" in objects.rejects[0].reason


def test_listed_objects_without_lists(tmp_path):
    path = write_folder(tmp_path / "views", zero123_object("u7"))
    objects = PosedObjects(path)
    assert (objects.splits, objects.names, objects.view_count(0)) == ((), ["u7"], 4)


def test_only_chosen_views_are_decoded(tmp_path):
    files = dict(SRN)
    files["train/a/rgb/000001.png"] = b"no picture"
    path = write_tar(tmp_path / "srn.tar", files)
    objects = PosedObjects(path, "train")
    assert objects.view_count(0) == 4
    some = objects.views(0, [3, 0])
    whole = PosedObjects(write_tar(tmp_path / "whole.tar", SRN), "train")[0]
    torch.testing.assert_close(some.images, whole.images[[3, 0]])
    torch.testing.assert_close(some.camera.camera_to_world, whole.camera.camera_to_world[[3, 0]])
    with pytest.raises(UserError, match=r"srn\.tar:train/a: "):
        objects[0]
    with pytest.raises(IndexError):
        objects.views(0, [4])


def test_reduced_pictures_are_area_averages(tmp_path):
    path = write_tar(tmp_path / "objects.tar", ZERO123)
    full, half = PosedObjects(path)[0], PosedObjects(path, resolution=SIDE // 2)[0]
    blocks = full.images.numpy().reshape(4, 3, 16, 2, 16, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(half.images.numpy(), blocks, atol=1e-6)
    matte = full.masks.numpy().reshape(4, 16, 2, 16, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(half.masks.numpy(), matte, atol=1e-6)
    torch.testing.assert_close(half.camera.intrinsics, full.camera.intrinsics)


def test_half_transparent_pixels_lie_over_white(tmp_path):
    from made_pictures import png

    files = dict(ZERO123)
    pixels = np.zeros((SIDE, SIDE, 4), dtype=np.uint8)
    pixels[4] = (100, 0, 0, 51)
    files["u1/000.png"] = png(pixels)
    item = PosedObjects(write_tar(tmp_path / "o.tar", files), "val").views(0, [0])
    expected = torch.tensor([0.2 * 100 / 255 + 0.8, 0.8, 0.8])
    torch.testing.assert_close(item.images[0, :, 4, 0], expected)
    assert item.masks[0, 4, 0] == pytest.approx(0.2)
    assert item.images[0, :, 5].min() == 1


def test_turntables_give_their_larger_pictures_when_asked(tmp_path):
    path = write_tar(tmp_path / "t.tar", TURNTABLE)
    large = PosedObjects(path, resolution=2 * SIDE)[0]
    expected = silhouette_of_box(large.camera, 2 * SIDE)
    assert ((large.images < 0.999).any(dim=1) != expected).sum() <= 2
    # An enlargement of the smaller picture would have grey steps.
    assert len(large.images.unique()) <= 4


def test_damaged_objects_are_left_out_and_listed(tmp_path):
    nan = " ".join(["nan"] * 16).encode()
    mirrored = " ".join(map(str, np.diag([1.0, 1, -1, 1]).ravel())).encode()
    damages = {
        "lost pose": ({"pose/000002.txt": None}, "4 pictures and 3 cameras"),
        "lost picture": ({"rgb/000002.png": None}, "3 pictures and 4 cameras"),
        "nan": ({"pose/000001.txt": nan}, "not finite"),
        "mirrored": ({"pose/000001.txt": mirrored}, "not a rotation"),
        "words": ({"pose/000001.txt": b"a b c"}, "cannot be read"),
        "few numbers": ({"pose/000001.txt": b"1 2 3"}, "cannot be read"),
        "intrinsics": ({"intrinsics.txt": None}, "intrinsics.txt is missing"),
        "focal": ({"intrinsics.txt": b"0 1 1 0.\n64 64"}, "not positive"),
        "sizes": ({"rgb/000001.png": picture(np.zeros((8, 8), bool))}, "differ in size"),
        "no picture": ({"rgb/000001.png": b"GIF89a?"}, "cut short|not a picture|damaged"),
    }
    files = srn_instance("train/good")
    for name, (changes, _) in damages.items():
        instance = srn_instance(f"train/{name}")
        for file, content in changes.items():
            if content is None:
                del instance[f"train/{name}/{file}"]
            else:
                instance[f"train/{name}/{file}"] = content
        files |= instance
    for write in (write_tar, write_folder):
        objects = PosedObjects(write(tmp_path / write.__name__, files))
        for _ in range(2):  # going through them again starts the list anew
            assert [item.name for item in objects] == ["good"]
            reasons = {r.name.split("/")[-1]: r.reason for r in objects.rejects}
            assert reasons.keys() == damages.keys()
        for name, (_, reason) in damages.items():
            with pytest.raises(UserError, match=reason):
                objects[objects.names.index(name)]
            assert reasons[name][-1] != "."


def test_what_is_no_set_of_objects_is_said(tmp_path):
    with pytest.raises(UserError, match=r"a\.tar: there is no such file"):
        PosedObjects(tmp_path / "a.tar")
    path = write_folder(tmp_path / "photos", {"a.png": b"", "b/c.png": b""})
    with pytest.raises(UserError, match=r"photos: holds no objects with cameras; looked for .*SRN"):
        PosedObjects(path)
    path = write_folder(tmp_path / "scenes", {"0000/meta.json": b'{"views": []}'})
    with pytest.raises(UserError, match="holds no objects"):
        PosedObjects(path)
    path = write_tar(tmp_path / "srn.tar", SRN)
    with pytest.raises(UserError, match="no split val; the splits there are: train, test"):
        PosedObjects(path, "val")
    path = write_folder(tmp_path / "views", {"valid_paths.json": b"[", "u/000.npy": b""})
    with pytest.raises(UserError, match=r"views: its lists cannot be read"):
        PosedObjects(path)


def test_pictures_must_be_square_to_be_resized(tmp_path):
    files = zero123_object("u", 1)
    files["u/000.png"] = picture(np.zeros((8, 12), bool))
    path = write_tar(tmp_path / "o.tar", files)
    assert PosedObjects(path)[0].images.shape == (1, 3, 8, 12)
    with pytest.raises(UserError, match="12x8; they must be square"):
        PosedObjects(path, resolution=4)[0]


def test_real_sets_look_at_their_objects(data_folder):
    """The bounding box of the pixels, as a check that the object is where the camera aims."""
    for name, split, radius in (
        ("cars-srn.tar", "test", (1.29, 1.31)),
        ("planes-srn.tar", "val", (1.29, 1.31)),
        ("objects-zero123.tar", "val", (1.49, 2.21)),
    ):
        objects = PosedObjects(data_folder / name, split, limit=3)
        for item in objects:
            _, _, distance = orbit_coordinates(item.camera.position)
            assert radius[0] < distance.min() <= distance.max() < radius[1]
            aim, _ = item.camera.project(torch.zeros(len(item.images), 1, 3))
            torch.testing.assert_close(aim, torch.full_like(aim, 0.5), atol=1e-4, rtol=0)
            for mask in item.masks:
                rows, columns = torch.nonzero(mask > 0.5, as_tuple=True)
                assert rows.min() < 64 < rows.max()
                assert columns.min() < 64 < columns.max()
        assert len(objects) == 3
        assert objects.rejects == []
    temple = PosedObjects(data_folder / "turntable.tar").names
    assert temple == ["buddha", "dino", "fox", "temple"]
