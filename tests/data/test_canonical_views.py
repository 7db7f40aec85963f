import json

import numpy as np
import pytest
import torch

from unflat.data import PosedScenes, open_picture, write_procedural
from unflat.data.canonical_views import CanonicalViews, holds_scenes, open_pictures
from unflat.data.shard import ShardSource
from unflat.errors import UserError
from unflat.evaluation.picture_stream import PictureStream, class_names, match_class


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_procedural(tmp_path_factory.mktemp("made") / "set", 4, 32, views=4, val_count=3)


def test_view_0_of_every_scene_with_class_and_depth(made):
    scenes = PosedScenes(made.val, 16)
    views = CanonicalViews(made.val)
    assert len(views) == len(scenes) == 3
    sample = views.read(1)
    assert sample.class_name == scenes[1].class_name
    picture = open_picture(sample.image)
    assert picture.size == (32, 32)
    stored = PosedScenes(made.val)[1].images[0]
    pixels = torch.from_numpy(np.array(picture))
    torch.testing.assert_close(pixels.permute(2, 0, 1) / 255, stored)
    torch.testing.assert_close(views.inverse_depth(1, 16), scenes[1].inverse_depth[0])


def test_a_stream_takes_scenes_and_pictures_alike(made):
    assert holds_scenes(made.val)
    assert not holds_scenes(made.train)
    assert isinstance(open_pictures(made.train), ShardSource)
    stream = PictureStream([made.train, made.val], 16)
    assert len(stream) == 7
    assert stream.inverse_depth(0) is None
    assert stream.inverse_depth(5).shape == (16, 16)
    pairs = stream.class_pairs()
    names = class_names(pairs)
    assert {name.rpartition("/")[2] for name in names} == {pair[1] for pair in pairs}
    chosen = stream.of_classes([match_class(pairs[5], names)])
    assert [chosen.label(i) for i in range(len(chosen))] == [match_class(pairs[5], names)] * len(
        chosen
    )
    assert 1 <= len(chosen) < 7
    with pytest.raises(UserError, match="has no picture of the classes zebra; its own are"):
        stream.of_classes(["zebra"])


def test_full_names_go_before_plain_ones():
    assert match_class(("scene", "car"), ["car", "scene/car"]) == "scene/car"
    assert match_class(("photo", "car"), ["car", "scene/car"]) == "car"
    assert match_class(("photo", "car"), ["scene/car"]) is None
    assert match_class(None, ["car"]) is None


def test_a_scene_without_its_files_is_a_persons_mistake(tmp_path):
    folder = tmp_path / "set" / "0000"
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"cls": "car", "views": []}))
    views = CanonicalViews(tmp_path / "set")
    with pytest.raises(UserError, match=r"set:0000: has no picture of view 0"):
        views.read(0)
    with pytest.raises(UserError, match=r"invdepth_0\.png: there is no such file"):
        views.inverse_depth(0, 8)
    (folder / "meta.json").write_text("{}")
    with pytest.raises(UserError, match=r"set:0000: its meta\.json cannot be read"):
        views.read(0)
