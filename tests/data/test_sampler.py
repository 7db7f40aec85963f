import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unflat.data.dataset import PictureDataset
from unflat.data.sampler import BatchSource, share_out

EXAMPLES = settings(max_examples=20, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def scenes(scenes_tar):
    return PictureDataset(scenes_tar, 8)


@pytest.fixture(scope="module")
def photos(photos_tar):
    return PictureDataset(photos_tar, 8)


@pytest.fixture(scope="module")
def wide(scenes_tar):
    return PictureDataset(scenes_tar, 8, margin=4)


def equal(first, second):
    return set(first) == set(second) and all(torch.equal(first[k], second[k]) for k in first)


@EXAMPLES
@given(
    step=st.integers(0, 10_000),
    world=st.sampled_from([1, 2, 3, 4]),
    mixture=st.sampled_from([(8, 4), (12, 0), (7, 5), (1, 11)]),
    jitter=st.sampled_from([0.0, 0.2]),
)
def test_ranks_together_see_what_one_process_sees(scenes, photos, step, world, mixture, jitter):
    options = {"per_batch": mixture, "seed": 3, "jitter": jitter}
    whole = BatchSource([scenes, photos], **options).batch(step)
    parts = [
        BatchSource([scenes, photos], rank=rank, world_size=world, **options).batch(step)
        for rank in range(world)
    ]
    joined = {key: torch.cat([part[key] for part in parts]) for key in whole}
    assert equal(joined, whole)
    if all(count % world == 0 for count in mixture):
        assert len({int(part["has_disparity"].sum()) for part in parts}) == 1


@EXAMPLES
@given(start=st.integers(0, 200), seed=st.integers(0, 5))
def test_resuming_goes_on_where_it_stopped(scenes, photos, start, seed):
    def fresh():
        return BatchSource([scenes, photos], per_batch=[3, 2], seed=seed, jitter=0.1)

    uninterrupted = fresh()
    for step in range(max(0, start - 3), start):
        uninterrupted.batch(step)
    assert equal(uninterrupted.batch(start), fresh().batch(start))


@EXAMPLES
@given(count=st.integers(1, 9), seed=st.integers(0, 5))
def test_every_epoch_holds_every_picture_once(scenes, photos, count, seed):
    source = BatchSource([scenes, photos], per_batch=[count, 1], seed=seed)
    size = len(scenes)
    seen = np.concatenate([source.indices(step, 0) for step in range(size * 3)])
    epochs = seen[: size * 3].reshape(3, size)
    for epoch in epochs:
        assert sorted(epoch) == list(range(size))
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_seeds_and_steps_differ(scenes):
    first = BatchSource(scenes, batch_size=4, seed=0)
    other = BatchSource(scenes, batch_size=4, seed=1)
    assert not equal(first.batch(0), other.batch(0))
    assert not equal(first.batch(0), first.batch(1))


def test_mixture_is_exact_and_labels_are_joint(scenes, photos):
    source = BatchSource([scenes, photos], per_batch=[3, 2])
    assert source.classes == ["boat", "cat", "photo/car", "scene/car", "tree"]
    for step in range(10):
        batch = source.batch(step)
        assert int(batch["has_disparity"].sum()) == 3
        photo_labels = set(batch["label"][~batch["has_disparity"]].tolist())
        assert photo_labels <= {1, 2}
        assert batch["disparity"][~batch["has_disparity"]].abs().max() == 0


def test_flip_mirrors_picture_and_disparity_alike(scenes):
    plain = BatchSource(scenes, batch_size=7, flip=False)
    flipped = BatchSource(scenes, batch_size=7, flip=True)
    mirrored = 0
    for step in range(4):
        before, after = plain.batch(step), flipped.batch(step)
        for index in range(7):
            same = torch.equal(before["image"][index], after["image"][index])
            turn = (lambda x: x) if same else (lambda x: x.flip(-1))
            mirrored += not same
            assert torch.equal(turn(before["image"][index]), after["image"][index])
            assert torch.equal(turn(before["disparity"][index]), after["disparity"][index])
    assert 5 < mirrored < 23  # of 28


def test_windows_are_cut_alike_and_stretched(wide):
    source = BatchSource(wide, batch_size=7, flip=False)
    places = set()
    for step in range(3):
        batch = source.batch(step)
        images, maps = wide.pixels(source.indices(step, 0))
        for index in range(7):
            found = [
                (top, left)
                for top in range(5)
                for left in range(5)
                if torch.equal(
                    batch["image"][index],
                    torch.from_numpy(
                        images[index, :, top : top + 8, left : left + 8].astype(np.float32) / 255
                    ),
                )
            ]
            assert len(found) == 1
            top, left = found[0]
            places.add(found[0])
            window = maps[index, top : top + 8, left : left + 8].astype(float)
            expected = (window - window.min()) / (window.max() - window.min())
            np.testing.assert_allclose(batch["disparity"][index, 0], expected, atol=0.51 / 255)
    assert len(places) > 8
    center = wide.batch([0])["image"]
    np.testing.assert_allclose(center[0] * 255, wide.pixels([0])[0][0, :, 2:10, 2:10], atol=1e-4)


def test_jitter_changes_colors_only(scenes):
    plain = BatchSource(scenes, batch_size=7).batch(2)
    jittered = BatchSource(scenes, batch_size=7, jitter=0.2).batch(2)
    assert torch.equal(plain["disparity"], jittered["disparity"])
    difference = (plain["image"] - jittered["image"]).abs()
    assert 0.005 < difference.mean() < 0.2
    assert jittered["image"].min() >= 0
    assert jittered["image"].max() <= 1


@EXAMPLES
@given(weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=6), total=st.integers(1, 64))
def test_shares_add_up_and_are_near(weights, total):
    shares = share_out(weights, total)
    assert sum(shares) == total
    exact = np.array(weights) * total / sum(weights)
    assert np.abs(np.array(shares) - exact).max() < 1


def test_weights_become_counts(scenes, photos):
    assert BatchSource([scenes, photos], weights=[2.0, 1.0], batch_size=12).per_batch == [8, 4]
    assert BatchSource([scenes, photos], batch_size=12).per_batch == [7, 5]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"per_batch": [1]},
        {"per_batch": [0, 0]},
        {"per_batch": [4, 1], "world_size": 2},
        {"per_batch": [4, 4], "batch_size": 9},
        {"batch_size": 4, "rank": 1},
        {"batch_size": 4, "weights": [0.0, 0.0]},
    ],
)
def test_wrong_use_raises_valueerror(scenes, photos, options):
    with pytest.raises(ValueError, match=r"batch|weights"):
        BatchSource([scenes, photos], **options)
