import numpy as np
import pytest
import torch
from made_pictures import disparity_of, picture_of, png
from PIL import Image

from unflat.data.dataset import NO_LABEL, PictureDataset
from unflat.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Two classes, one unclassed picture, disparities of both kinds, and what cannot be used."""
    root = tmp_path / "photos"
    for name in ("cat", "dog", ".hidden"):
        (root / name).mkdir(parents=True)
    (root / "cat/a.png").write_bytes(png(picture_of(1)))
    (root / "cat/a.disparity.png").write_bytes(png(disparity_of(1)))
    (root / "dog/b.png").write_bytes(png(picture_of(2)))
    np.savez(root / "dog/b.npz", depth=1.0 + np.random.default_rng(0).random((32, 32)))
    (root / "c.png").write_bytes(png(picture_of(3)))
    (root / ".hidden/d.png").write_bytes(png(picture_of(4)))
    (root / "notes.txt").write_text("not a picture")
    return root


def add_bad(root):
    """One of each kind; returns file name -> a part of its reason."""
    (root / "zero.png").touch()
    (root / "cut.png").write_bytes(png(picture_of(5))[:700])
    (root / "text.jpg").write_text("hello")
    (root / "phone.heic").write_bytes(b"x")
    (root / "aspect.png").write_bytes(png(picture_of(6)))
    (root / "aspect.disparity.png").write_bytes(png(disparity_of(6)[:, :8]))
    (root / "flat.png").write_bytes(png(picture_of(7)))
    (root / "flat.disparity.png").write_bytes(png(np.full((8, 8), 7, np.uint8)))
    return {
        "zero.png": "the file is empty",
        "cut.png": "cut short or damaged",
        "text.jpg": "not a picture",
        "phone.heic": "convert it to PNG or JPEG",
        "aspect.png": "same aspect ratio",
        "flat.png": "the same everywhere",
    }


def test_folder_with_classes_and_disparity(folder):
    dataset = PictureDataset(folder, 32)
    assert dataset.classes == ["cat", "dog"]
    assert dataset.counts == {
        "pictures": 3, "disparity": 2, "rejected": 0, "enlarged": 0, "class cat": 1, "class dog": 1,
    }  # fmt: skip
    batch = dataset.batch(range(3))
    names = [name.rsplit("/")[-1] for name in dataset.names]
    order = [names.index(name) for name in ("a.png", "b.png", "c.png")]
    assert batch["label"][order].tolist() == [0, 1, NO_LABEL]
    assert batch["has_disparity"][order].tolist() == [True, True, False]
    expected = torch.from_numpy(picture_of(1).transpose(2, 0, 1) / np.float32(255))
    torch.testing.assert_close(batch["image"][order[0]], expected)
    assert batch["disparity"][order[2]].abs().max() == 0


def test_batch_has_the_agreed_keys_shapes_and_ranges(scenes_tar):
    batch = PictureDataset(scenes_tar, 16).batch([0, 3])
    assert {k: (tuple(v.shape), v.dtype) for k, v in batch.items()} == {
        "image": ((2, 3, 16, 16), torch.float32),
        "disparity": ((2, 1, 16, 16), torch.float32),
        "has_disparity": ((2,), torch.bool),
        "label": ((2,), torch.int64),
    }
    assert batch["disparity"].amin(dim=(1, 2, 3)).tolist() == [0.0, 0.0]
    assert batch["disparity"].amax(dim=(1, 2, 3)).tolist() == [1.0, 1.0]
    expected = picture_of(3).reshape(16, 2, 16, 2, 3).mean(axis=(1, 3)).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(batch["image"][1], expected, atol=0.51 / 255)
    np.testing.assert_allclose(batch["disparity"][1, 0], disparity_of(3) / 255, atol=1e-6)


def test_picture_and_disparity_are_cut_alike(tmp_path):
    # A wide picture whose brightness is its disparity: after cropping they still agree.
    values = np.random.default_rng(0).integers(0, 256, (24, 40), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(png(np.repeat(values[..., None], 3, axis=2)))
    (tmp_path / "a.disparity.png").write_bytes(png(values))
    batch = PictureDataset(tmp_path, 12).batch([0])
    grey, disparity = batch["image"][0, 0], batch["disparity"][0, 0]
    grey = (grey - grey.min()) / (grey.max() - grey.min())
    torch.testing.assert_close(grey, disparity, atol=0.01, rtol=0)


def test_bad_pictures_are_counted_with_reasons(folder):
    expected = add_bad(folder)
    dataset = PictureDataset(folder, 32)
    assert dataset.counts["pictures"] == 3
    assert dataset.counts["rejected"] == len(expected)
    found = {reject.name.rsplit("/")[-1]: reject.reason for reject in dataset.rejects}
    assert set(found) == set(expected)
    for name, part in expected.items():
        assert part in found[name]
        assert str(folder) not in found[name]


def test_odd_pictures_are_used(tmp_path):
    Image.new("L", (40, 30), 9).save(tmp_path / "grey.png")
    Image.new("CMYK", (40, 30)).save(tmp_path / "cmyk.jpg")
    Image.fromarray(np.full((30, 40), 65535, np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGBA", (40, 30), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (8, 6)).save(tmp_path / "small.png")
    dataset = PictureDataset(tmp_path, 16)
    assert dataset.counts["pictures"] == 5
    assert dataset.counts["enlarged"] == 1
    means = dict(zip(dataset.names, dataset.batch(range(5))["image"].mean((1, 2, 3)), strict=True))
    assert means[str(tmp_path / "clear.png")] == 1  # over white
    assert means[str(tmp_path / "deep.png")] == 1


def test_labels_get_prefixes_only_where_names_collide(scenes_tar, photos_tar):
    dataset = PictureDataset([scenes_tar, photos_tar], 8)
    assert dataset.classes == ["boat", "cat", "photo/car", "scene/car", "tree"]
    assert dataset.counts["class photo/car"] == 3
    assert dataset.counts["class scene/car"] == 3
    assert PictureDataset(photos_tar, 8).classes == ["car", "cat"]


def test_class_filter(scenes_tar, photos_tar):
    both = [scenes_tar, photos_tar]
    assert PictureDataset(both, 8, classes=["car"]).counts["pictures"] == 6
    one = PictureDataset(both, 8, classes=["photo/car", "tree"])
    assert one.classes == ["car", "tree"]
    assert one.counts["pictures"] == 5
    with pytest.raises(UserError, match="--classes zebra: no picture"):
        PictureDataset(both, 8, classes=["zebra"])
    with pytest.raises(
        UserError, match="--classes zebra: no picture has this class; found photo/car"
    ):
        PictureDataset(both, 8, classes=["car", "zebra"])


def test_class_folder_with_one_picture(tmp_path):
    (tmp_path / "only").mkdir()
    (tmp_path / "only/a.png").write_bytes(png(picture_of(0)))
    assert PictureDataset(tmp_path, 8).classes == ["only"]


def test_empty_and_missing_and_wrong_paths(tmp_path):
    with pytest.raises(UserError, match="holds no picture unflat can read"):
        PictureDataset(tmp_path, 8)
    with pytest.raises(UserError, match="there is no such file or folder"):
        PictureDataset(tmp_path / "nowhere", 8)
    with pytest.raises(UserError, match="names no data set"):
        PictureDataset([], 8)
    (tmp_path / "a.png").touch()
    with pytest.raises(UserError, match=r"none of its 1 pictures can be used .*the file is empty"):
        PictureDataset(tmp_path, 8)
    with pytest.raises(UserError, match="not a data set"):
        PictureDataset(tmp_path / "a.png", 8)


def test_without_cache_gives_the_same(folder, scenes_tar):
    add_bad(folder)
    for path in (folder, scenes_tar):
        kept, fresh = PictureDataset(path, 16), PictureDataset(path, 16, cache=False)
        assert fresh.images is None
        assert fresh.counts == kept.counts
        for key, value in kept.batch([2, 0]).items():
            torch.testing.assert_close(fresh.batch([2, 0])[key], value)
