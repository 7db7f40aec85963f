import gzip
import multiprocessing
import pickle
import shutil
import tarfile

import numpy as np
import pytest
from made_pictures import add_member, picture_of, png

from unflat.data.shard import Shard, ShardSource, split_name
from unflat.errors import UserError


def test_reads_members_by_ending(scenes_tar):
    shard = Shard(scenes_tar)
    assert len(shard) == 7
    assert shard.rejects == []
    for index in (6, 0, 3):  # any order
        members = shard.read(index)
        assert set(members) == {"png", "disparity.png", "cls"}
        assert members["png"] == png(picture_of(index))
        assert members["cls"] == str(index % 3).encode()


def test_equals_what_tarfile_reads(scenes_tar):
    shard = Shard(scenes_tar)
    with tarfile.open(scenes_tar) as archive:
        for member in archive.getmembers():
            key, ending = split_name(member.name)
            content = archive.extractfile(member).read()
            index = [entry.key for entry in shard.entries].index(key)
            assert shard.read(index)[ending] == content


def test_class_numbers_become_names_of_the_neighbouring_list(scenes_tar, photos_tar, tmp_path):
    source = ShardSource(scenes_tar)
    assert [source.read(i).class_name for i in range(3)] == ["car", "tree", "boat"]
    assert source.read(0).disparity is not None
    photos = ShardSource(photos_tar)
    assert [photos.read(i).class_name for i in range(2)] == ["car", "cat"]
    assert photos.read(0).disparity is None
    alone = tmp_path / "scenes-train.tar"
    shutil.copy(scenes_tar, alone)
    assert ShardSource(alone).read(2).class_name == "2"


def test_prefix_is_the_kind_of_set(scenes_tar, photos_tar):
    assert ShardSource(scenes_tar).prefix == "scene"
    assert ShardSource(photos_tar).prefix == "photo"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0001.webp", ("0001", "webp")),
        ("./a/0001.disparity.PNG", ("a/0001", "disparity.png")),
        ("a.b/c.cls", ("a.b/c", "cls")),
        ("bare", ("bare", "")),
    ],
)
def test_split_name(name, expected):
    assert split_name(name) == expected


def read_in_child(shard, index, queue):
    queue.put(shard.read(index))


def test_forked_workers_read_the_right_bytes(scenes_tar):
    shard = Shard(scenes_tar)
    shard.read(0)
    context = multiprocessing.get_context("fork")
    queues = [context.SimpleQueue() for _ in range(3)]
    workers = [
        context.Process(target=read_in_child, args=(shard, index, queue))
        for index, queue in enumerate(queues)
    ]
    for worker in workers:
        worker.start()
    results = [queue.get() for queue in queues]
    for worker in workers:
        worker.join()
    assert results == [shard.read(index) for index in range(3)]
    assert pickle.loads(pickle.dumps(shard)).read(1) == shard.read(1)


def test_cut_inside_a_member_keeps_the_samples_before(scenes_tar, tmp_path):
    whole = Shard(scenes_tar)
    offset, size = whole.entries[4].members["png"]
    path = tmp_path / "cut.tar"
    path.write_bytes(scenes_tar.read_bytes()[: offset + size // 2])
    shard = Shard(path)
    assert [entry.key for entry in shard.entries] == ["000000", "000001", "000002", "000003"]
    assert [(r.name, r.reason) for r in shard.rejects] == [
        ("cut.tar:000004", "the archive is cut short or damaged here")
    ]
    assert shard.read(3) == whole.read(3)


def test_cut_between_members_drops_the_sample_that_may_lack_some(scenes_tar, tmp_path):
    whole = Shard(scenes_tar)
    offset, _ = whole.entries[4].members["disparity.png"]
    path = tmp_path / "cut.tar"
    path.write_bytes(scenes_tar.read_bytes()[: offset - 512])  # before the header
    shard = Shard(path)
    assert len(shard) == 4
    assert len(shard.rejects) == 1


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"not a tar at all" * 100, b"\0" * 10240])
def test_not_a_tar_is_one_sentence(tmp_path, content):
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.tar: .*\.$"):
        Shard(path)


def test_altered_tars_give_samples_or_one_sentence(scenes_tar, tmp_path):
    whole = np.frombuffer(scenes_tar.read_bytes(), np.uint8)
    generator = np.random.default_rng(0)
    path = tmp_path / "a.tar"
    starts = [offset - 512 for e in Shard(scenes_tar).entries for offset, _ in e.members.values()]
    lost = 0
    for _ in range(60):
        altered = whole.copy()
        header = starts[int(generator.integers(len(starts)))]
        altered[header + generator.integers(0, 512, 4)] = generator.integers(0, 256, 4)
        path.write_bytes(altered.tobytes())
        try:
            shard = Shard(path)
        except UserError:
            lost += 1
            continue
        for index in range(len(shard)):
            shard.read(index)
        lost += len(shard) < 7
        assert len(shard) == 7 or shard.rejects
    assert lost > 10


def test_a_shard_that_vanishes_is_one_sentence(scenes_tar, tmp_path):
    path = tmp_path / "a.tar"
    shutil.copy(scenes_tar, path)
    shard = Shard(path)
    path.unlink()
    with pytest.raises(UserError, match=r"^a\.tar:000002: cannot be read \(No such file"):
        shard.read(2)


def test_compressed_tar_says_so(scenes_tar, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(gzip.compress(scenes_tar.read_bytes()))
    with pytest.raises(UserError, match="must be whole and uncompressed"):
        Shard(path)
    with pytest.raises(UserError, match="there is no such file"):
        Shard(tmp_path / "b.tar")


def test_samples_without_picture_are_listed(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        add_member(archive, "1.png", png(picture_of(1)))
        add_member(archive, "2.cls", b"cat")
    source = ShardSource(path)
    assert len(source) == 1
    assert source.read(0).class_name is None
    assert [(r.name, r.reason) for r in source.rejects] == [("a.tar:2", "holds no picture")]


def test_broken_class_list_is_one_sentence(scenes_tar, tmp_path):
    path = tmp_path / "scenes-train.tar"
    shutil.copy(scenes_tar, path)
    path.with_name("scenes-train-ranges.json").write_text("{")
    with pytest.raises(UserError, match="holds no list of class names"):
        ShardSource(path)
