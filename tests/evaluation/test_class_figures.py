import io
import json
import tarfile

import pytest
import torch
from PIL import Image

from unflat.errors import UserError
from unflat.evaluation.class_figures import ClassTeller, class_figures
from unflat.evaluation.generation import evaluate_generation
from unflat.evaluation.generator import FlatPictures
from unflat.evaluation.load import real_and_inputs
from unflat.evaluation.picture_stream import PictureStream

SIDE = 16
COLORS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


class Means:
    """Features that can be computed by hand: the mean color."""

    name, sha256, dim, has_probabilities = "means", "0" * 64, 3, False

    def describe(self):
        return {"name": self.name, "sha256": self.sha256}

    def __call__(self, images):
        return images.mean(dim=(2, 3)) * 4


def write_pictures(path, classes, count, generator):
    """Pictures of one noisy color each, with its name as class."""
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            name = classes[number % len(classes)]
            noise = torch.randint(-25, 26, (3,), generator=generator)
            color = (torch.tensor(COLORS[name]) + noise).clamp(0, 255).to(torch.uint8)
            file = io.BytesIO()
            Image.new("RGB", (SIDE, SIDE), tuple(color.tolist())).save(file, "PNG")
            for ending, content in (("cls", name.encode()), ("png", file.getvalue())):
                info = tarfile.TarInfo(f"{number:06d}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colors")
    generator = torch.Generator().manual_seed(0)
    return (
        write_pictures(folder / "photos-train.tar", list(COLORS), 60, generator),
        write_pictures(folder / "photos-val.tar", list(COLORS), 48, generator),
    )


@pytest.fixture(scope="module")
def teller(tars):
    return ClassTeller(Means(), PictureStream([tars[0]], SIDE), list(COLORS))


def vectors_of(*names):
    return torch.tensor([[value / 255 * 4 for value in COLORS[name]] for name in names])


def test_accuracy_is_the_share_of_known_labels_that_are_told(teller):
    seen = vectors_of("red", "red", "blue", "green")
    assert teller.accuracy(seen, ["red", "red", "blue", "green"]) == 1
    assert teller.accuracy(seen, ["red", "green", "blue", "red"]) == 0.5
    assert teller.accuracy(seen, ["red", "blue", None, None]) == 0.5
    assert teller.accuracy(seen, [None] * 4) is None


def test_figures_bear_the_networks_name(teller):
    labels = ["red", "red", "red", None]
    seen = vectors_of("red", "blue", "red", "green")
    figures = class_figures("means", seen, labels, teller)
    assert figures["class_accuracy-means"] == pytest.approx(2 / 3)
    distance = (seen[0] - seen[1]).norm().item()
    assert figures["within_class_distance-means"] == pytest.approx(2 / 3 * distance, rel=1e-5)
    assert class_figures("means", seen[:1], [None]) == {}
    assert list(class_figures("means", seen, labels)) == ["within_class_distance-means"]


def test_a_run_tells_the_accuracy_of_scenes_beside_that_of_real_pictures(tars, teller):
    real, inputs = real_and_inputs([tars[1]], [], SIDE)
    assert real.classes == sorted(COLORS)
    found = evaluate_generation(FlatPictures(inputs), real, Means(), teller=teller)
    assert found.figures["flat"]["class_accuracy-means"] == 1
    both = found.figures["real, one half against the other"]
    assert both["class_accuracy-means"] == 1
    own = found.figures["flat"]["within_class_distance-means"]
    assert own == pytest.approx(both["within_class_distance-means"], rel=0.5)
    assert found.protocol["real"]["classes"] == {"blue": 8, "green": 8, "red": 8}
    assert found.protocol["classifier"]["pictures"] == 60
    assert {item.facts["class"] for item in found.items} == set(COLORS)
    assert any("class accuracy" in line for line in found.lines())
    json.dumps(found.json(True))


def test_scenes_of_the_wrong_class_are_found_out(tars, teller):
    class Mislabelled(FlatPictures):
        """Every picture under the name of the next class."""

        def generate(self, indices, angles_deg, side):
            views = super().generate(indices, angles_deg, side)
            names = [*COLORS, "red"]
            labels = [names[names.index(label) + 1] for label in views.labels]
            return type(views)(**{**vars(views), "labels": labels})

    real, inputs = real_and_inputs([tars[1]], [], SIDE)
    found = evaluate_generation(Mislabelled(inputs), real, Means(), teller=teller)
    assert found.figures["flat"]["class_accuracy-means"] == 0


def test_only_some_classes(tars):
    real, inputs = real_and_inputs([tars[1]], [], SIDE, classes=["red", "blue"])
    assert len(real) + len(inputs) == 32
    assert {real.label(i) for i in range(len(real))} == {"red", "blue"}


def test_one_class_is_too_few_to_tell(tars):
    with pytest.raises(UserError, match="shows red of the classes; a classifier needs"):
        ClassTeller(Means(), PictureStream([tars[0]], SIDE), ["red"])
