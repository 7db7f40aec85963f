import json
import math

import pytest
import torch

from box_object import FACES, box, cameras_around, views_of, write_objects
from unflat.cli.main import main
from unflat.data import PosedObjects
from unflat.errors import UserError
from unflat.evaluation.novel_views import evaluate_views
from unflat.evaluation.view_baselines import Copy, MeanColor, warp_object
from unflat.evaluation.view_maker import turned_deg
from unflat.evaluation.view_protocols import PROTOCOLS
from unflat.geometry import Camera, rigid, rotation_about
from unflat.metrics import psnr
from unflat.rendering import rasterize

SIDE = 48


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    return write_objects(tmp_path_factory.mktemp("views") / "objects")


def turned(cameras, degrees):
    """Cameras carried about the up axis."""
    turn = rotation_about(torch.tensor([0.0, 1.0, 0.0]), torch.tensor(math.radians(degrees)))
    motion = rigid(turn, torch.zeros(3))
    return Camera(camera_to_world=motion @ cameras.camera_to_world, intrinsics=cameras.intrinsics)


class Oracle:
    """Knows the boxes; `turn` in degrees mistakes every camera."""

    name = "oracle"

    def __init__(self, turn=0.0, noise=0.0, bad=None):
        self.turn, self.noise, self.bad, self.is_random = turn, noise, bad, noise > 0
        self.seeds, self.calls = [], 0

    def describe(self):
        return {"turn": self.turn}

    def make(self, image, mask, reference, cameras, seed):
        number = min(
            range(2),
            key=lambda n: (view(n, reference)[0] - image).abs().sum().item(),
        )
        self.seeds.append(seed)
        self.calls += 1
        pictures = view(number, turned(cameras, self.turn), cameras.batch_shape[0])
        if self.noise:
            generator = torch.Generator().manual_seed(seed)
            strength = self.noise * (1 + self.calls % 4)
            pictures = pictures + strength * torch.randn(pictures.shape, generator=generator)
        if self.bad is not None:
            pictures[0, 0, 0, 0] = self.bad
        return pictures.clamp(0, 1) if self.bad is None else pictures


def view(number, cameras, count=1):
    """What the files hold of a box, 8 bit rounding included."""
    if count == 1 and cameras.camera_to_world.ndim == 2:
        cameras = Camera(
            camera_to_world=cameras.camera_to_world[None], intrinsics=cameras.intrinsics[None]
        )
    vertices = box((1.0, 0.5 + 0.1 * number, 0.7 - 0.1 * number))
    rgba = (views_of(vertices, cameras, SIDE) * 255).round() / 255
    return rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]


def test_who_knows_the_truth_is_perfect(objects):
    found = evaluate_views(Oracle(), objects)
    figures = found.figures["oracle"]
    assert figures["psnr"] > 60
    assert figures["psnr_masked"] > 60
    for name in ("ssim", "ssim_masked", "ssim_uniform", "ssim_uniform_masked"):
        assert figures[name] == pytest.approx(1, abs=1e-4)
    assert figures["outline_iou"] > 0.98
    assert "best_psnr" not in figures
    assert list(found.figures) == [
        "oracle",
        "copy",
        "mean-color",
        "depth-warp",
        "mean-image",
        "retrieval",
    ]
    assert found.protocol["objects"] == 2
    assert found.protocol["targets"] == 8
    for name in ("copy", "mean-color", "depth-warp", "mean-image", "retrieval"):
        assert found.figures[name]["psnr_masked"] < 25
        assert found.figures[name]["outline_iou"] < 0.9


def test_turned_cameras_cost(objects):
    values = [
        evaluate_views(Oracle(turn), objects, limit=1).figures["oracle"]["psnr_masked"]
        for turn in (2.0, 20.0)
    ]
    assert 40 > values[0] > values[1] + 5


def test_the_background_flatters_the_whole_frame(objects):
    figures = evaluate_views("copy", objects).figures
    assert next(iter(figures)) == "copy"
    assert figures["copy"]["psnr"] > figures["copy"]["psnr_masked"] + 3


def test_seeds_are_averaged_and_the_best_stands_apart(objects):
    oracle = Oracle(noise=0.05)
    found = evaluate_views(oracle, objects, seed=3)
    figures = found.figures["oracle"]
    assert len(set(oracle.seeds)) == 8  # two objects, four seeds
    assert len(found.items[0].figures["oracle"]["psnr"]) == 16
    assert figures["best_psnr_masked"] > figures["psnr_masked"] + 3
    assert len(found.items[0].figures["oracle"]["best_psnr"]) == 4
    assert "oracle" not in found.protocol["deterministic"]
    assert "copy" in found.protocol["deterministic"]


def test_angles_sort_the_targets(objects):
    found = evaluate_views("copy", objects)
    counts = found.protocol["targets_by_angle"]
    assert sum(counts.values()) == 8
    for item in found.items:
        values = item.figures["copy"]
        assert [len(values[f"psnr_{a}"]) for a in (30, 90, 180)] == [
            sum(low < angle <= high for angle in item.facts["angles_deg"])
            for low, high in ((-1, 30), (30, 90), (90, 180))
        ]


def test_angle_between_cameras():
    one = cameras_around(1, 0)
    for degrees in (0.0, 37.0, 180.0):
        flat = turned(one, 0.0)
        level = Camera(camera_to_world=torch.eye(4)[None], intrinsics=flat.intrinsics)
        other = turned(level, degrees)
        assert turned_deg(level[0], other).item() == pytest.approx(degrees, abs=1e-3)


def test_distances_are_measured_over_frame_and_object(objects):
    def distance(images, references):
        return (images - references).abs().flatten(1).mean(1)

    found = evaluate_views("copy", objects, distances={"mean-absolute": distance})
    figures = found.figures["copy"]
    assert figures["mean-absolute_masked"] > 1.2 * figures["mean-absolute"] > 0
    assert "mean-absolute" in "\n".join(found.lines())


def test_the_input_warped_by_its_true_depth_is_near():
    cameras = cameras_around(1, 5)
    close = turned(cameras, 12.0)
    vertices = box((1.0, 0.6, 0.7))
    rgba, true = views_of(vertices, cameras, 96)[0], views_of(vertices, close, 96)[0]
    over = [p[:3] * p[3:] + 1 - p[3:] for p in (rgba, true)]
    depth = 1 / rasterize(vertices, FACES, cameras, 96, 96).inverse_depth[0].clamp_min(0.1)
    made = warp_object(over[0], rgba[3], depth, cameras[0], close)
    copied = psnr(over[0][None], over[1][None]).item()
    assert psnr(made, over[1][None]).item() > copied + 4
    back = warp_object(over[0], rgba[3], depth, cameras[0], cameras)
    assert psnr(back, over[0][None]).item() > 25


def test_a_picture_without_a_mask_stays_whole():
    cameras = cameras_around(1, 5)
    picture = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0)) * 0.5
    mask = torch.ones(24, 24)
    made = warp_object(picture, mask, torch.full((24, 24), 1.8), cameras[0], turned(cameras, 25.0))
    assert (made < 0.6).all()  # no white anywhere


def test_mean_color_takes_the_white_out(objects):
    item = PosedObjects(objects, "val")[0]
    made = MeanColor().make(item.images[0], item.masks[0], item.camera[0], item.camera[1:], 0)
    inside = item.masks[0] > 0.99
    expected = item.images[0][:, inside].mean(dim=1)
    torch.testing.assert_close(made[0][:, inside].mean(dim=1), expected, rtol=0.05, atol=0.02)
    assert (made[0][:, item.masks[0] == 0] == 1).all()


def test_retrieval_finds_an_object_that_is_there(tmp_path):
    folder = write_objects(tmp_path / "objects", train=2, val=1, views=4)
    (folder / "val.txt").write_text("t1\n")  # held out from itself it would be cheating
    (folder / "train.txt").write_text("t0\nt1\n")
    found = evaluate_views("retrieval", folder, split="val")
    assert found.figures["retrieval"]["psnr"] == pytest.approx(100)


def test_equal_seeds_give_equal_reports(objects):
    one, two = (
        json.dumps(evaluate_views(Oracle(noise=0.1), objects, seed=1, limit=1).json(True))
        for _ in range(2)
    )
    assert one == two
    other = evaluate_views(Oracle(noise=0.1), objects, seed=2, limit=1).json(True)
    assert json.dumps(other["figures"]) != json.dumps(json.loads(one)["figures"])


def test_sheets_show_truth_over_what_was_made(objects):
    found = evaluate_views(Oracle(), objects)
    sheet = found.sheet(1)
    assert sheet.shape == (3, 3 * SIDE, 4 * SIDE)
    torch.testing.assert_close(
        sheet[:, :SIDE, SIDE:], sheet[:, SIDE : 2 * SIDE, SIDE:], rtol=0, atol=0.01
    )
    assert (sheet[:, :SIDE, :SIDE] < 0.9).any()


def test_protocols_fix_views_and_size(objects, tmp_path):
    with pytest.raises(UserError, match=r"v0.* has 5 views and protocol gso needs 16; choose"):
        evaluate_views("copy", objects, protocol="gso")
    with pytest.raises(UserError, match=r"--protocol best: is not known; choose from unflat-vie"):
        evaluate_views("copy", objects, protocol="best")
    many = write_objects(tmp_path / "many", train=0, val=1, views=19, side=32)
    found = evaluate_views("copy", many, split="val", protocol="rtmv", resolution=32)
    assert found.protocol["targets"] == 16
    assert PROTOCOLS["rtmv"].resolution == 256
    warnings = " ".join(found.warnings)
    assert "not reproduced whole" in warnings
    assert "--resolution 32 departs" in warnings
    assert "takes 20 objects; here are 1" in warnings
    assert "retrieval are left out" in warnings
    assert PROTOCOLS["gso"].views == 16


def test_bad_input_is_told(objects, tmp_path):
    with pytest.raises(UserError, match=r"oracle: its picture of v0 holds numbers.*use another"):
        evaluate_views(Oracle(bad=math.nan), objects)
    with pytest.raises(UserError, match=r"--model zero: is not known; choose from copy"):
        evaluate_views("zero", objects)
    with pytest.raises(UserError, match=r"no split test; the splits there are: train, val"):
        evaluate_views("copy", objects, split="test")
    with pytest.raises(UserError, match=r"retrieval: needs a split train"):
        evaluate_views("retrieval", objects, split="all")
    broken = write_objects(tmp_path / "broken", train=1, val=2, views=3)
    (broken / "v1" / "001.png").write_bytes(b"no picture")
    found = evaluate_views("copy", broken)
    assert found.protocol["objects"] == 1
    assert [reject.name for reject in found.rejected] == ["broken:v1"]

    class Wrong(Copy):
        def make(self, image, mask, reference, cameras, seed):
            return image[None]

    with pytest.raises(ValueError, match=r"made \(1, 3, 48, 48\), expected \(4, 3, 48, 48\)"):
        evaluate_views(Wrong(), objects)


def test_the_verb_writes_report_and_page(objects, tmp_path, capsys):
    words = ["evaluate", "views", "--data", str(objects), "--model", "depth-warp", "--limit", "1"]
    files = []
    for name in ("a", "b"):
        files += [tmp_path / f"{name}.json", tmp_path / f"{name}.html"]
        assert main([*words, "--report", str(files[-2]), "--html", str(files[-1])]) == 0
    assert files[0].read_bytes() == files[2].read_bytes()
    figures = json.loads(files[0].read_text())["figures"]
    assert next(iter(figures)) == "depth-warp"
    assert "perceptual-unflat_masked" in figures["copy"]
    assert files[1].read_text().count("<img") >= 1
    shown = capsys.readouterr().out
    assert "outline IoU" in shown
    assert "not comparable" in shown
    assert main([*words, "--protocol", "gso"]) == 2
    assert "needs 16; choose another --protocol" in capsys.readouterr().err
