import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from unflat.cli.main import main
from unflat.data import PosedObjects
from unflat.errors import UserError
from unflat.evaluation import (
    Inversion,
    Inverter,
    evaluate_inversion,
    inversion_baselines,
    inversion_figures,
)
from unflat.evaluation.inversion_baselines import MeanPose, References, Retrieval
from unflat.evaluation.inversion_inputs import choose_views
from unflat.geometry import Camera, camera_object_to_z_up, orbit_pose, rotation_about
from unflat.metrics import MAX_PSNR

SIDE, VIEWS, FOCAL = 16, 5, 20.0
FLAT = ("copy", "mean-color")
STOPPED = SimpleNamespace(perf_counter=lambda: 0.0)  # seconds differ from run to run


def write_instance(folder: Path, seed: int, views: int = VIEWS) -> None:
    """Rectangles of noise on white, seen by cameras all around."""
    numbers = np.random.default_rng(seed)
    (folder / "rgb").mkdir(parents=True)
    (folder / "pose").mkdir()
    (folder / "intrinsics.txt").write_text(f"{FOCAL} 8. 8. 0.\n0. 0. 0.\n1.\n{SIDE} {SIDE}\n")
    for view in range(views):
        pixels = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
        top, left = numbers.integers(1, 5, 2)
        pixels[top : top + 9, left : left + 8] = numbers.integers(0, 250, (9, 8, 3))
        Image.fromarray(pixels).save(folder / "rgb" / f"{view:06d}.png")
        elevation, azimuth = numbers.uniform(-0.2, 1.0), numbers.uniform(-math.pi, math.pi)
        camera = Camera.from_fov(1.0, orbit_pose(elevation, azimuth, 1.3).double())
        matrix = camera_object_to_z_up(camera).camera_to_world
        text = " ".join(f"{value:.9f}" for value in matrix.flatten().tolist())
        (folder / "pose" / f"{view:06d}.txt").write_text(text)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four objects to learn from, three to be measured, and two that both splits hold."""
    root = tmp_path_factory.mktemp("things")
    for number in range(4):
        write_instance(root / "train" / f"a{number}", seed=number)
    for number in range(3):
        write_instance(root / "test" / f"b{number}", seed=100 + number)
    for number in range(2):
        write_instance(root / "val" / f"c{number}", seed=number)
    return root


class Found:
    """The true pictures under the nearest true camera, and a camera that was made wrong."""

    def __init__(self, item, camera):
        self.item, self.camera = item, camera

    def render(self, camera, height, width):
        from unflat.metrics import rotation_error

        true = self.item.camera.rotation
        views = [int(rotation_error(true, one.expand_as(true)).argmin()) for one in camera.rotation]
        return self.item.images[views], self.item.masks[views]


class Oracle:
    """Knows the set, finds every input in it, and moves its camera as it is told to."""

    name, has_pose, has_focal = "oracle", True, True

    def __init__(self, data, split="test", move=lambda camera, generator, items: camera):
        self.items, self.move = list(PosedObjects(data, split)), move

    def describe(self):
        return {"what": "the truth"}

    def invert(self, image, mask, seed):
        for item in self.items:
            for view in range(len(item.images)):
                if torch.equal(item.images[view], image):
                    assert torch.equal(item.masks[view], mask)
                    generator = torch.Generator().manual_seed(seed)
                    return Found(item, self.move(item.camera[view], generator, self.items))
        raise AssertionError("not a picture of the set")


def turned(axis, degrees, on_the_left=True):
    turn = torch.eye(4)
    turn[:3, :3] = rotation_about(torch.tensor(axis), math.radians(degrees))

    def move(camera, generator, items):
        pose = camera.camera_to_world
        return replace(camera, camera_to_world=turn @ pose if on_the_left else pose @ turn)

    return move


def test_the_truth_reaches_the_best_figures(data):
    oracle = Oracle(data)
    assert isinstance(oracle, Inverter)
    found = evaluate_inversion(oracle, data, views_per_object=2, novel="all")
    figures = found.figures["oracle"]
    assert list(found.figures) == ["oracle", *FLAT, "mean-pose", "retrieval"]
    for key in ("rotation_error", "rotation_median", "position_error", "focal_error"):
        assert figures[key] == 0
    for key in ("within_15", "within_30", "front_iou", "front_ssim", "novel_ssim"):
        assert figures[key] == pytest.approx(1)
    for key in ("front_psnr", "novel_psnr"):
        assert figures[key] == pytest.approx(MAX_PSNR)
    assert figures["novel_ssim_uniform"] == pytest.approx(1)
    for other in list(found.figures)[1:]:
        assert found.figures[other]["novel_psnr"] < 20
    assert (found.protocol["objects"], found.protocol["inputs"]) == (3, 6)
    assert found.protocol["other_views"] == 6 * (VIEWS - 1)
    assert [len(item.figures["oracle"]["novel_psnr"]) for item in found.items] == [4] * 6


@pytest.mark.parametrize("on_the_left", [True, False])
def test_a_camera_turned_by_20_degrees_shows_20(data, on_the_left):
    oracle = Oracle(data, move=turned([0.6, 0.0, 0.8], 20.0, on_the_left))
    figures = evaluate_inversion(oracle, data, views_per_object=1).figures["oracle"]
    assert figures["rotation_error"] == pytest.approx(20, abs=1e-3)
    assert figures["rotation_median"] == pytest.approx(20, abs=1e-3)
    assert (figures["within_15"], figures["within_30"]) == (0, 1)
    assert (figures["position_error"] > 0.1) is on_the_left


def test_symmetric_objects_are_forgiven_only_if_asked(data):
    oracle = Oracle(data, move=turned([0.0, 1.0, 0.0], 180.0))
    plain = evaluate_inversion(oracle, data, views_per_object=1)
    assert plain.figures["oracle"]["rotation_error"] == pytest.approx(180, abs=1e-2)
    assert plain.protocol["object_symmetry"] == "none assumed"
    asked = evaluate_inversion(oracle, data, symmetry=2, views_per_object=1)
    assert asked.figures["oracle"]["rotation_error"] == pytest.approx(0, abs=1e-2)
    assert asked.protocol["object_symmetry"] == "order 2 about up"


def test_cameras_of_other_objects_are_as_good_as_chance(data):
    def move(camera, generator, items):
        item = items[int(torch.randint(len(items), (), generator=generator))]
        return item.camera[int(torch.randint(VIEWS, (), generator=generator))]

    oracle = Oracle(data, move=move)
    figures = evaluate_inversion(oracle, data, views_per_object=VIEWS).figures["oracle"]
    rotations = torch.cat([item.camera.rotation for item in oracle.items]).double().numpy()
    traces = np.einsum("aij,bij->ab", rotations, rotations)
    chance = np.degrees(np.arccos(((traces - 1) / 2).clip(-1, 1))).mean()
    assert figures["rotation_error"] == pytest.approx(chance, rel=0.25)
    assert figures["front_psnr"] < 0.5 * MAX_PSNR  # some draws are right
    assert figures["novel_psnr"] == pytest.approx(MAX_PSNR)


def test_focal_lengths_are_compared_where_they_are_estimated(data):
    def move(camera, generator, items):
        return replace(camera, intrinsics=camera.intrinsics * torch.tensor([1.1, 1.1, 1.0, 1.0]))

    oracle = Oracle(data, move=move)
    figures = evaluate_inversion(oracle, data, views_per_object=1).figures["oracle"]
    assert figures["focal_error"] == pytest.approx(math.log(1.1), abs=1e-5)
    oracle.has_focal = False
    assert (
        "focal_error" not in evaluate_inversion(oracle, data, views_per_object=1).figures["oracle"]
    )


def test_a_camera_that_is_not_found_is_a_miss(data):
    def move(camera, generator, items):
        return camera if camera.position[0] > 0 else None

    oracle = Oracle(data, move=move)
    found = evaluate_inversion(oracle, data, views_per_object=VIEWS)
    positions = torch.cat([item.camera.position for item in oracle.items])
    share = (positions[:, 0] > 0).float().mean().item()
    assert 0 < share < 1
    figures = found.figures["oracle"]
    assert figures["within_15"] == figures["within_30"] == pytest.approx(share)
    assert figures["cameras_found"] == round(share * 3 * VIEWS)
    assert figures["rotation_error"] == 0
    lost = [item for item in found.items if "rotation_error" not in item.figures["oracle"]]
    assert lost
    assert all("front_psnr" not in item.figures["oracle"] for item in lost)
    assert all(item.figures["oracle"]["novel_psnr"] == [MAX_PSNR] for item in lost)


def test_what_the_training_set_holds_is_retrieved(data):
    """Objects of split val are copies of two training objects."""
    figures = evaluate_inversion("retrieval", data, split="val", novel="all").figures["retrieval"]
    assert figures["rotation_error"] == 0
    assert figures["front_psnr"] == figures["novel_psnr"] == pytest.approx(MAX_PSNR)
    assert figures["front_iou"] == 1
    assert figures["within_15"] == 1


def test_flat_baselines_are_what_they_say(data):
    found = evaluate_inversion("copy", data, views_per_object=VIEWS)
    images = {item.name: item.images.double().numpy() for item in PosedObjects(data, "test")}
    values = {"copy": [], "mean-color": []}
    for number, item in enumerate(found.items):
        name, view = item.name.split("/")
        choice = choose_views(VIEWS, VIEWS, "one", 0, number // VIEWS)
        (other,) = choice.others[int(view)]
        made = images[name][int(view)]
        mean = np.broadcast_to(made.mean(axis=(1, 2), keepdims=True), made.shape)
        for key, picture in (("copy", made), ("mean-color", mean)):
            error = np.mean((picture - images[name][other]) ** 2)
            values[key].append(-10 * math.log10(error))
    for key, expected in values.items():
        assert found.figures[key]["novel_psnr"] == pytest.approx(np.mean(expected), abs=1e-3)
        assert not {"rotation_error", "within_15", "front_psnr"} & found.figures[key].keys()


def test_the_mean_is_of_all_training_views(data):
    references = References(PosedObjects(data, "train"))
    train = [item.images for item in PosedObjects(data, "train")]
    found = MeanPose(references).invert(train[0][0], None, 0)
    assert isinstance(found, Inversion)
    image, mask = found.render(references.camera[:2], SIDE, SIDE)
    torch.testing.assert_close(image[1], torch.cat(train).mean(dim=0))
    assert mask is None
    rotation = references.camera.rotation.double()
    distances = (rotation[:, None] - rotation[None]).square().sum(dim=(2, 3)).mean(dim=1)
    expected = references.camera.camera_to_world[int(distances.argmin())]
    assert found.camera is not None
    torch.testing.assert_close(found.camera.camera_to_world, expected)


def test_many_references_are_drawn_object_by_object(data, monkeypatch):
    monkeypatch.setattr(inversion_baselines, "MOST_REFERENCES", 2 * VIEWS + 1)
    objects = PosedObjects(data, "train")
    drawn = {tuple(References(objects, seed).places[:, 0].unique().tolist()) for seed in range(8)}
    assert {len(one) for one in drawn} == {2}
    assert len(drawn) > 1
    references = References(objects, 0)
    item = objects[int(references.places[0, 0])]
    found = Retrieval(references).invert(item.images[1], item.masks[1], 0)
    image, _ = found.render(item.camera, SIDE, SIDE)
    torch.testing.assert_close(image, item.images)


def test_equal_seeds_give_equal_reports(data, monkeypatch):
    monkeypatch.setattr(inversion_figures, "time", STOPPED)
    first, again, other = (
        json.dumps(
            evaluate_inversion("retrieval", data, seed=seed, views_per_object=2).json(per_item=True)
        )
        for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_views_are_drawn_for_each_object_alone():
    choice = choose_views(9, 4, "one", 0, 7)
    assert len(set(choice.inputs)) == 4
    assert all(len(others) == 1 for others in choice.others)
    assert all(
        view not in others for view, others in zip(choice.inputs, choice.others, strict=True)
    )
    assert choice == choose_views(9, 4, "one", 0, 7)
    assert any(choice != choose_views(9, 4, "one", 0, index) for index in range(3))
    everything = choose_views(5, 9, "all", 1, 0)
    assert everything.inputs == [0, 1, 2, 3, 4]
    assert everything.others[2] == [0, 1, 3, 4]
    assert choose_views(1, 4, "all", 0, 0).others == [[]]


def test_sheets_show_input_answer_other_view_and_truth(data):
    found = evaluate_inversion(Oracle(data), data, views_per_object=2)
    assert found.sheet is not None
    assert len(found.ranked()) == len(found.items) == 6
    sheet = found.sheet(5)
    assert sheet.shape == (3, SIDE, 4 * SIDE)
    first, answer, novel, truth = sheet.split(SIDE, dim=2)
    torch.testing.assert_close(first, answer)
    torch.testing.assert_close(novel, truth)
    assert (first - truth).abs().mean() > 0.05
    name, view = found.items[5].name.split("/")
    expected = next(item for item in PosedObjects(data, "test") if item.name == name)
    torch.testing.assert_close(first, expected.images[int(view)])


def test_items_hold_numbers_only(data):
    for item in evaluate_inversion(Oracle(data), data, views_per_object=1).items:
        for figures in item.figures.values():
            for value in figures.values():
                assert all(
                    type(one) is float for one in (value if type(value) is list else [value])
                )


def test_damaged_objects_and_single_views(data, tmp_path):
    for split in ("train", "test"):
        for folder in (data / split).iterdir():
            (tmp_path / split).mkdir(exist_ok=True)
            (tmp_path / split / folder.name).symlink_to(folder)
    write_instance(tmp_path / "test" / "alone", seed=7, views=1)
    write_instance(tmp_path / "test" / "nan", seed=8)
    (tmp_path / "test" / "nan" / "pose" / "000000.txt").write_text(" ".join(["nan"] * 16))
    found = evaluate_inversion("retrieval", tmp_path, views_per_object=VIEWS)
    assert [(r.name.split("/")[-1], r.reason) for r in found.rejected] == [
        ("nan", "a camera holds numbers that are not finite")
    ]
    assert any("1 objects have one view" in warning for warning in found.warnings)
    (item,) = (item for item in found.items if item.name.startswith("alone"))
    assert "front_psnr" in item.figures["retrieval"]
    assert not any(key.startswith("novel") for key in item.figures["retrieval"])
    assert found.protocol["objects"] == 4


def test_what_cannot_be_measured_is_said(data, tmp_path):
    with pytest.raises(UserError, match="no split valid; the splits there are: train, val, test"):
        evaluate_inversion("copy", data, split="valid")
    with pytest.raises(UserError, match="--model nerf: is not known; choose from copy, mean-color"):
        evaluate_inversion("nerf", data)
    with pytest.raises(UserError, match="--model retrieval: needs a split train beside what is"):
        evaluate_inversion("retrieval", data, split="train")
    found = evaluate_inversion("copy", data, split="all", views_per_object=1)
    assert list(found.figures) == list(FLAT)
    assert "retrieval are left out" in found.warnings[0]
    write_instance(tmp_path / "test" / "x", seed=1)
    (tmp_path / "test" / "x" / "intrinsics.txt").unlink()
    with pytest.raises(UserError, match=r"no object could be measured; intrinsics.txt is missing"):
        evaluate_inversion("copy", tmp_path)


def test_pictures_of_a_broken_model_are_refused(data):
    class Broken(Oracle):
        def invert(self, image, mask, seed):
            found = super().invert(image, mask, seed)
            images, masks = self.spoil(found.item.images), self.spoil(found.item.masks)
            found.item = replace(found.item, images=images, masks=masks)
            return found

    broken = Broken(data)
    broken.spoil = lambda images: images * math.nan
    with pytest.raises(UserError, match=r"oracle: its picture of b0/\d holds numbers that are not"):
        evaluate_inversion(broken, data)
    broken.spoil = lambda images: images[..., :-1]
    with pytest.raises(
        ValueError, match=r"oracle: image is \(1, 3, 16, 15\), expected \(1, 3, 16,"
    ):
        evaluate_inversion(broken, data)


def test_the_verb_writes_report_and_page(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(inversion_figures, "time", STOPPED)
    words = ["evaluate", "inversion", "--data", str(data), "--limit", "1"]
    files = []
    for name in ("a", "b"):
        files += [tmp_path / f"{name}.json", tmp_path / f"{name}.html"]
        assert main([*words, "--report", str(files[-2]), "--html", str(files[-1])]) == 0
    assert files[0].read_bytes() == files[2].read_bytes()
    assert json.loads(files[0].read_text())["figures"]["retrieval"]["cameras_found"] == 4
    assert files[1].read_text().count("<img") >= 3
    shown = capsys.readouterr().out
    assert "within 30 deg" in shown
    assert "not comparable" in shown
    assert main([*words[:3], str(data), str(data)]) == 2
