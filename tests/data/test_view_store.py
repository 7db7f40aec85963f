import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from made_balls import write_carla, write_textured3d, write_transforms
from made_objects import srn_instance

from unflat.data import PosedBatches, open_views
from unflat.data.view_store import Slot, ViewStore, find_stored


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNFLAT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "views"


def rows(count, side=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 4, side, side)
    values = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return values[:, :3].contiguous(), values[:, 3].contiguous()


def fill(store, parts=(2, 3, 1), has_masks=True):
    images, masks = rows(sum(parts))
    start = 0
    for count in parts:
        here = slice(start, start + count)
        store.add(images[here], masks[here] if has_masks else None)
        start += count
    return images, masks


@pytest.mark.parametrize("has_masks", [True, False])
def test_what_is_mapped_equals_what_is_in_memory(cache, has_masks):
    tables = {"objects": torch.arange(6)}
    for in_memory in (0, 150, 10**6):
        slot = Slot(cache / f"set-{in_memory}", "as it was")
        with ViewStore(slot, 4, in_memory) as store:
            images, masks = fill(store, has_masks=has_masks)
            stored = store.finish({"names": ["a"]}, tables)
        assert (stored.folder is None) == (in_memory == 10**6)
        for found in filter(None, (stored, find_stored(slot))):
            assert found.images.equal(images)
            assert found.masks is None if not has_masks else found.masks.equal(masks)
            assert found.about == {"names": ["a"]}
            assert found.tables["objects"].equal(tables["objects"])
        assert (find_stored(slot) is None) == (in_memory == 10**6)
    assert not list(cache.glob("*.partial"))


def test_a_half_written_one_is_never_used(cache):
    slot = Slot(cache / "set", "as it was")
    with ViewStore(slot, 4, 0) as store:
        fill(store)
        assert len(list(cache.glob("*.partial"))) == 1
        assert find_stored(slot) is None
    assert not list(cache.iterdir())  # given up: nothing is left
    with ViewStore(slot, 4, 0) as store:
        fill(store)
        store.finish({}, {})
    assert find_stored(slot) is not None
    assert find_stored(slot._replace(made_of="as it is now")) is None
    for name in ("images.u8", "masks.u8", "views.json", "tables.safetensors"):
        copy = slot._replace(folder=cache / "copy")
        shutil.copytree(slot.folder, copy.folder)
        whole = (copy.folder / name).read_bytes()
        (copy.folder / name).write_bytes(whole[:-3])
        assert find_stored(copy) is None
        (copy.folder / name).unlink()
        assert find_stored(copy) is None
        shutil.rmtree(copy.folder)


def test_what_killed_runs_left_is_removed_after_a_day(cache):
    for name, age in (("new.partial", 3600), ("old.partial", 2 * 24 * 3600)):
        (cache / name).mkdir(parents=True)
        then = (cache / name).stat().st_mtime - age
        os.utime(cache / name, (then, then))
    with ViewStore(Slot(cache / "set", ""), 4, 0) as store:
        fill(store)
        store.finish({}, {})
    assert sorted(path.name for path in cache.iterdir()) == ["new.partial", "set"]


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_a_full_disk_leaves_the_pictures_in_memory_and_says_so(cache, monkeypatch, after):
    opened, written = Path.open, []

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, content):
            written.append(len(content))
            if len(written) > after:
                self.file.write(content[:7])  # a part gets there
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(content)

        def __getattr__(self, name):
            return getattr(self.file, name)

    def limited(path, mode="r", *args, **options):
        file = opened(path, mode, *args, **options)
        return Full(file) if mode == "wb" else file

    monkeypatch.setattr(Path, "open", limited)
    with ViewStore(Slot(cache / "set", ""), 4, 100) as store:
        images, masks = fill(store)
        stored = store.finish({}, {})
    assert stored.folder is None
    assert stored.images.equal(images)
    assert stored.masks.equal(masks)
    assert len(stored.notes) == 1
    assert "stay in memory" in stored.notes[0]
    assert "No space left" in stored.notes[0]
    assert not list(cache.iterdir())


def test_a_folder_that_cannot_be_made_is_no_reason_to_stop(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("UNFLAT_CACHE", str(tmp_path / "file"))
    write_transforms(tmp_path / "set")
    views = open_views(tmp_path / "set", 8, in_memory=0)
    assert (len(views), views.folder, len(views.notes)) == (3, None, 1)
    assert "UNFLAT_CACHE" in views.notes[0]


def make_srn(path):
    files = {**srn_instance("train/a", views=3), **srn_instance("train/b", views=2, seed=1)}
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path / "train/a/rgb/000001.png"


def make_carla(path):
    write_carla(path, count=3)
    return path / "carla_poses/000001_extrinsics.npy"


def make_p3d(path):
    write_textured3d(path)
    return path / "p3d/images/n01/1.png"


def make_transforms(path):
    write_transforms(path)
    return path / "images/1.png"


@pytest.mark.parametrize("make", [make_srn, make_carla, make_p3d, make_transforms])
def test_a_set_is_decoded_once_until_a_file_changes(tmp_path, cache, monkeypatch, make):
    changing = make(tmp_path / "set")
    plain = open_views(tmp_path / "set", 8)
    assert (plain.folder, cache.exists()) == (None, False)
    first = open_views(tmp_path / "set", 8, in_memory=0)
    again = open_views(tmp_path / "set", 8, in_memory=0)
    assert first.folder == again.folder == next(cache.iterdir())
    for views in (first, again):
        assert views.images.equal(plain.images)
        assert views.masks.equal(plain.masks)
        assert (views.names, views.objects.tolist()) == (plain.names, plain.objects.tolist())
        assert views.camera.kind == plain.camera.kind
        assert views.camera.camera_to_world.equal(plain.camera.camera_to_world)
        for key, value in PosedBatches(views, 2, mirror=True).batch(3).items():
            assert value.equal(PosedBatches(plain, 2, mirror=True).batch(3)[key])
    # Another resolution or limit has a place of its own.
    assert open_views(tmp_path / "set", 16, in_memory=0).folder != first.folder
    assert open_views(tmp_path / "set", 8, limit=1, in_memory=0).folder != first.folder
    header = json.loads((first.folder / "views.json").read_text())
    changing.write_bytes(b"broken")
    changed = open_views(tmp_path / "set", 8, in_memory=0)
    assert len(changed) < len(first)
    assert changed.folder == first.folder  # in place of the one that nobody can use
    assert json.loads((changed.folder / "views.json").read_text())["made_of"] != header["made_of"]
    assert len(changed.rejects) == 1
    assert [r.reason for r in open_views(tmp_path / "set", 8).rejects] == [
        r.reason for r in changed.rejects
    ]
    assert first.images.equal(plain.images)  # what is mapped stays, as for a training that runs


def test_two_processes_may_store_the_same(cache, monkeypatch):
    slot = Slot(cache / "set", "same")
    with ViewStore(slot, 4, 0) as slow, ViewStore(slot, 4, 0) as fast:
        images, _ = fill(slow)
        fill(fast)
        for store in (fast, slow):
            stored = store.finish({}, {})
            assert stored.folder == slot.folder
            assert stored.images.equal(images)
    assert [path.name for path in cache.iterdir()] == ["set"]
