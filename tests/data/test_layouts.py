"""ImageNet's and CompCars' own layouts, in small folders that follow them."""

import numpy as np
import pytest
from made_pictures import disparity_of, picture_of, png
from PIL import Image
from scipy.io import savemat

from unflat.cli.main import main
from unflat.data import CompCarsSource, FolderSource, PictureDataset, open_source
from unflat.data.check import check
from unflat.data.pictures import square_around
from unflat.errors import UserError

TENCH, BIRD, MACHINE, UNKNOWN = "n01440764", "n02012849", "n03126707", "n99999999"
KAGGLE = (
    f"{TENCH} tench, Tinca tinca\n{BIRD} crane\n{MACHINE} crane\nn01443537 goldfish, Carassius\n"
)


def imagenet(root, numbers=(TENCH, BIRD, MACHINE, UNKNOWN)):
    """ILSVRC/Data/CLS-LOC/train with a JPEG of each class; returns the folder train."""
    train = root / "ILSVRC/Data/CLS-LOC/train"
    for place, number in enumerate(numbers):
        (train / number).mkdir(parents=True)
        picture = Image.fromarray(picture_of(place))
        picture = picture.convert("CMYK") if place == 1 else picture  # ImageNet has some
        picture.save(train / number / f"{number}_{place}.JPEG", "JPEG")
    return train


def classes_of(path):
    return PictureDataset(path, 16).classes


def test_imagenets_numbers_become_words(tmp_path):
    train = imagenet(tmp_path)
    assert classes_of(train) == sorted([TENCH, BIRD, MACHINE, UNKNOWN])
    (tmp_path / "LOC_synset_mapping.txt").write_text(KAGGLE)
    expected = [f"crane {BIRD}", f"crane {MACHINE}", UNKNOWN, "tench"]
    assert classes_of(train) == expected
    tabbed = KAGGLE.replace(" ", "\t", 1).replace("tench", "fish of some kind")
    (train / "words.txt").write_text(tabbed)
    assert "fish of some kind" in classes_of(train), "a list in the folder comes first"
    chosen = PictureDataset(train, 16, classes=["fish of some kind"])
    assert chosen.counts["pictures"] == 1


def test_a_word_that_one_class_has_stays_alone(tmp_path):
    train = imagenet(tmp_path, (TENCH, BIRD))
    (train.parent / "LOC_synset_mapping.txt").write_text(KAGGLE)
    assert classes_of(train) == ["crane", "tench"]


def test_a_list_that_cannot_be_read_is_told_and_others_never_looked_for(tmp_path):
    train = imagenet(tmp_path, (TENCH,))
    (train / "words.txt").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(UserError, match="the list of class names cannot be read; mend it, or"):
        FolderSource(train)
    (train / TENCH).rename(train / "fish")
    assert classes_of(train) == ["fish"]


@pytest.mark.parametrize(
    ("box", "size", "expected"),
    [
        ((10, 20, 50, 40), (100, 80), (10, 10, 50, 50)),  # a wide box: above and below it too
        ((60, 70, 100, 80), (100, 80), (60, 40, 100, 80)),  # moved in at the bottom
        ((0, 0, 30, 10), (100, 80), (0, 0, 30, 30)),  # and at the top
        ((5, 20, 95, 60), (100, 80), (10, 0, 90, 80)),  # longer than the shorter side
        ((40, 0, 50, 80), (100, 80), (5, 0, 85, 80)),  # a tall one
        ((90, 10, 130, 30), (100, 80), (60, 0, 100, 40)),  # reaching out of the picture
    ],
)
def test_the_square_around_a_box_lies_in_the_picture(box, size, expected):
    found = square_around(box, *size)
    assert found == expected
    assert found[2] - found[0] == found[3] - found[1]


def label(box, viewpoint=4):
    return f"{viewpoint}\n1\n{' '.join(map(str, box))}\n"


@pytest.fixture
def compcars(tmp_path):
    """Makes 1 and 2; a bright car of 20 x 10 at (30, 40) in dark pictures of 80 x 60."""
    root = tmp_path / "CompCars"
    values = np.full((60, 80, 3), 20, np.uint8)
    values[40:50, 30:50] = 240
    for place in ("1/7/2013/a", "1/8/2014/b", "2/9/2014/c", "2/9/2014/lost", "2/9/2014/empty"):
        file = root / f"data/image/{place}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(file, quality=95)
        text = root / f"data/label/{place}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(label((31, 41, 50, 50)))  # counted from 1, the last included
    (root / "data/label/2/9/2014/lost.txt").unlink()
    (root / "data/label/2/9/2014/empty.txt").write_text("-1\n0\n")
    return root


def named(root, where):
    makes = np.array(["Audi", "BMW"], dtype=object)
    models = np.array([""] * 9, dtype=object)
    models[6], models[8] = "Audi A1", "BMW X5"
    (root / where).mkdir(parents=True)
    savemat(root / where / "make_model_name.mat", {"make_names": makes, "model_names": models})


def test_cars_are_cut_to_their_boxes(compcars):
    dataset = PictureDataset(compcars, 20)
    assert dataset.classes == ["1", "2"]
    assert dataset.counts["pictures"] == 3
    image = dataset.batch([0])["image"][0, 0]
    rows = image.mean(dim=1)
    # 20 x 20 around the box of 20 x 10: five rows of ground, ten of car, five of ground.
    assert rows[:4].max() < 0.3
    assert rows[6:14].min() > 0.7
    assert rows[16:].max() < 0.3
    reasons = sorted(reject.reason for reject in dataset.rejects)
    assert "holds no box in its third line" in reasons[0]
    assert "there is no such label" in reasons[1]


@pytest.mark.parametrize("where", ["misc", "data/misc"])
def test_makes_and_models_are_called_by_name(compcars, where):
    named(compcars, where)
    assert classes_of(compcars / "data") == ["Audi", "BMW"]
    source = CompCarsSource(compcars, by="model")
    assert [source.read(i).class_name for i in range(3)] == ["Audi/Audi A1", "Audi/8", "BMW/BMW X5"]
    next(compcars.rglob("*.mat")).write_bytes(b"no list")
    with pytest.raises(UserError, match="list of makes and models cannot be read"):
        CompCarsSource(compcars)


def test_a_disparity_is_cut_with_its_car(compcars):
    values = np.zeros((30, 40), np.uint8)  # half the picture's resolution
    values[20:25, 15:25] = 200  # the car is near
    file = compcars / "data/image/1/7/2013/a.disparity.png"
    file.write_bytes(png(values))
    dataset = PictureDataset(compcars, 10)
    assert dataset.has_disparity.tolist() == [True, False, False]
    batch = dataset.batch([0])
    rows = batch["disparity"][0, 0].mean(dim=1)
    # Rows 17.5 to 27.5 of the map, rounded to 18: the car begins in the third.
    assert rows.tolist() == [0, 0, 1, 1, 1, 1, 1, 0, 0, 0]


def test_data_depth_writes_beside_the_cars(compcars, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    maps = tmp_path / "maps"
    for file in compcars.rglob("*.jpg"):
        place = maps / file.relative_to(compcars).with_suffix(".png")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png(np.resize(disparity_of(1), (60, 80))))
    arguments = ["--maps", str(maps), "--depth-from", "disparity", "--quiet"]
    assert main(["data", "depth", str(compcars), *arguments]) == 0
    assert PictureDataset(compcars, 16).counts["disparity"] == 3


def test_large_cars_are_decoded_smaller_without_losing_the_box(tmp_path):
    values = np.zeros((1200, 1600, 3), np.uint8)
    values[200:400, 1000:1200, 0] = 255
    for kind, ending in (("image", "jpg"), ("label", "txt")):
        (tmp_path / kind / "1/1/2000").mkdir(parents=True)
        if kind == "image":
            Image.fromarray(values).save(tmp_path / f"image/1/1/2000/a.{ending}", quality=95)
    (tmp_path / "label/1/1/2000/a.txt").write_text(label((1001, 201, 1200, 400)))
    image = PictureDataset(tmp_path, 32).batch([0])["image"][0]
    assert image[0].mean() > 0.97
    (tmp_path / "label/1/1/2000/a.txt").write_text(label((1701, 201, 1800, 400)))
    with pytest.raises(UserError, match="its box lies outside its 1600x1200 pixels"):
        PictureDataset(tmp_path, 32)


def test_other_folders_are_what_they_were(tmp_path, compcars):
    assert isinstance(open_source(compcars), CompCarsSource)
    (tmp_path / "set/image").mkdir(parents=True)
    (tmp_path / "set/label").mkdir()
    (tmp_path / "set/image/a.png").write_bytes(png(picture_of(0)))
    source = open_source(tmp_path / "set")
    assert isinstance(source, FolderSource)
    assert source.read(0).class_name == "image"
    with pytest.raises(UserError, match="has no folders image and label"):
        CompCarsSource(tmp_path / "set/image")
    assert check([compcars]).class_counts == {"1": 2, "2": 1}
