from collections import Counter

import pytest
import torch

from unflat.errors import UserError
from unflat.evaluation.generator import FlatPictures, Generator, Pictures
from unflat.evaluation.load import is_prior, load_sampler, real_and_inputs
from unflat.evaluation.picture_stream import PictureStream
from unflat.evaluation.vq3d_prior import labels_like
from unflat.metrics import psnr
from unflat.systems.vq3d.generate import Sampling

ANGLES = (0.0, 15.0)


@pytest.fixture(scope="module")
def generators(tiny_prior, photos_tar):
    real, inputs = real_and_inputs([photos_tar], [], 32, classes=["photo/fruit", "car"])
    return load_sampler(
        tiny_prior, real, inputs, count=5, sampling=Sampling(steps=4), samples=8, seed=3
    )


def test_the_scenes_stand_beside_their_ceiling_and_cards_of_the_same_tokens(generators):
    assert [generator.name for generator in generators] == [
        generators[0].maker.name,
        "stage 1 tokens",
        f"{generators[0].name} as cards",
        "2D prior",
        "flat",
    ]
    for generator in generators:
        assert isinstance(generator, Generator)
        assert generator.describe()
    for cards in generators[2:4]:
        assert isinstance(cards.pictures, Pictures)
        assert isinstance(cards, FlatPictures)
        assert cards.count == generators[0].count == 5


def test_a_scene_depends_on_its_number_alone(generators):
    together = generators[0].generate([0, 1, 2], ANGLES, 16)
    alone = generators[0].generate([2], ANGLES, 16)
    assert together.images.shape == (3, 2, 3, 16, 16)
    torch.testing.assert_close(alone.images[0], together.images[2])
    assert alone.labels == ["photo/fruit"]  # the only class of the data that the prior knows
    assert (together.images[0] - together.images[1]).abs().max() > 0.02
    assert (together.images[:, 0] - together.images[:, 1]).abs().max() > 0.001


def test_the_prior_without_classes_is_flat_and_has_none(generators):
    cards = generators[3].generate([0, 1], ANGLES, 32)
    assert cards.labels == [None, None]
    picture = generators[3].pictures.batch([1])[2]
    assert picture.shape == (1, 3, 32, 32)
    straight = generators[3].pictures
    again = straight.batch([0, 1])[2]
    torch.testing.assert_close(again[1], picture[0])


def test_classes_have_the_proportions_of_the_real_pictures(photos_tar):
    real = PictureStream([photos_tar], 32).named(["cat", "fruit"])
    assert Counter(labels_like(real, 10)) == {"cat": 6, "fruit": 4}
    assert labels_like(real, 7, seed=1) != labels_like(real, 7, seed=2)
    with pytest.raises(UserError, match="tells no classes that the prior knows"):
        labels_like(real.named(["zebra"]), 3)


def test_what_is_a_prior(tiny_prior, tiny_model):
    assert is_prior(tiny_prior)
    assert not is_prior(tiny_model)
    assert not is_prior("flat")


def test_cards_of_the_scenes_are_their_fronts(generators):
    scenes = generators[0].generate([1, 3], ANGLES, 32)
    cards = generators[2].generate([1, 3], ANGLES, 32)
    assert cards.labels == scenes.labels
    assert psnr(cards.images[:, 0], scenes.images[:, 0]).min() > 20  # 64 intervals there, 8 here
    assert psnr(cards.images[:, 1], scenes.images[:, 1]).min() < 20
