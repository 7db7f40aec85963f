"""Pose figures: 1 for the truth, one half for one picture for all, known counts by hand."""

import math

import pytest
import torch

from box_object import box, cameras_around, views_of, write_objects
from unflat.data import PosedObjects
from unflat.evaluation import evaluate_views
from unflat.evaluation.result import Item
from unflat.evaluation.view_baselines import Copy, MeanImage
from unflat.evaluation.view_following import (
    AZIMUTHS,
    azimuth_from,
    by_azimuth,
    intervals,
    pose_following,
)
from unflat.geometry import Camera, look_at
from unflat.metrics import FeatureSample, kid

SIDE = 32


def on_white(rgba):
    return rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]


def true_views(count=9, seed=0, extents=(1.0, 0.6, 0.3)):
    return on_white(views_of(box(extents), cameras_around(count, seed), SIDE))


def bars(*widths):
    """Dark bars of known widths, eight pixels high, on white."""
    images = torch.ones(len(widths), 3, 8, 16)
    for image, width in zip(images, widths, strict=True):
        image[:, :, :width] = 0.2
    return images


def test_the_truth_is_first_among_all_poses():
    true = true_views()
    found = pose_following(true, true)
    assert found == {"outline": [1.0] * 9, "color": [1.0] * 9}


def test_one_picture_for_all_poses_is_chance():
    """Each pair is won once and lost once, whatever the picture is."""
    true = true_views()
    for made in (
        true[:1],
        torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)),
    ):
        for shares in pose_following(made.expand(9, -1, -1, -1), true).values():
            assert sum(shares) / 9 == pytest.approx(0.5)


def test_poses_that_are_turned_round_are_worse_than_chance():
    true = true_views()
    found = pose_following(true.roll(1, dims=0), true)
    # each is the best for its neighbor, so its own pose has lost at least once
    assert max(found["outline"]) <= 7 / 8
    assert max(found["color"]) <= 7 / 8


def test_shares_counted_by_hand():
    true = bars(2, 4, 8)
    # IoU of 3 with 2, 4, 8: 0.667, 0.75, 0.375; of 8: 0.25, 0.5, 1; of 2: 1, 0.5, 0.25
    found = pose_following(bars(3, 8, 2), true)
    assert found["outline"] == [0.5, 0.5, 0.0]
    # errors over the union have the same order here: 1 - IoU times one constant
    assert found["color"] == [0.5, 0.5, 0.0]


def test_equal_outlines_are_ties_and_colors_tell_them():
    true = bars(4, 4)
    true[1, 0, :, :4] = 0.7
    found = pose_following(true, true)
    assert found["outline"] == [0.5, 0.5]
    assert found["color"] == [1.0, 1.0]


def test_nothing_made_is_a_tie_and_one_view_has_no_pair():
    true = true_views(4)
    assert pose_following(torch.ones_like(true), true)["outline"] == [0.5] * 4
    assert pose_following(true[:1], true[:1]) == {"outline": [], "color": []}


def test_azimuths_are_those_of_the_cameras_and_sort_targets():
    def at(degrees, height=0.3):
        turn = math.radians(degrees)
        return [1.7 * math.sin(turn), height, 1.7 * math.cos(turn)]

    degrees = [200.0, 245.0, 20.0, 110.0, 330.0, 201.0]
    poses = look_at(torch.tensor([at(d, 0.1 * n) for n, d in enumerate(degrees)]))
    camera = Camera.from_fov(0.8, poses)
    azimuths = azimuth_from(camera[0], camera[1:])
    torch.testing.assert_close(azimuths, torch.tensor([45.0, 180, 90, 130, 1]), atol=1e-3, rtol=0)
    turned = torch.tensor([44.0, 180.0, 89.0, 130.0, 1.0])
    found = by_azimuth({"outline": [0.1, 0.2, 0.3, 0.4, 0.5]}, turned)
    assert [found[f"pose_outline_{upper}"] for upper in AZIMUTHS] == [
        [0.1, 0.5], [0.3], [0.4], [0.2],
    ]  # fmt: skip
    assert found["pose_outline"] == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_intervals_hold_the_mean_and_shrink_with_objects():
    generator = torch.Generator().manual_seed(0)

    def items(count):
        values = torch.rand(count, 1, generator=generator).expand(-1, 10).tolist()
        return [Item(name=str(n), figures={"m": {"pose_outline": v}}) for n, v in enumerate(values)]

    few, many = intervals(items(10), "m", 0), intervals(items(160), "m", 0)
    # uniform numbers: a standard error of 0.2887 / sqrt(n), two ends at 1.96 of them
    assert many["pose_outline_error"] == pytest.approx(1.96 * 0.2887 / math.sqrt(160), rel=0.2)
    assert few["pose_outline_error"] > 2.5 * many["pose_outline_error"]
    assert many["pose_outline_low"] < 0.5 < many["pose_outline_high"]
    assert intervals(items(1), "m", 0) == {}


class Knows:
    """The true views of every object, or those of the next pose."""

    is_random = False

    def __init__(self, objects, shift=0):
        self.objects, self.shift, self.name = list(objects), shift, f"knows {shift}"

    def describe(self):
        return {}

    def make(self, image, mask, reference, cameras, seed):
        item = next(
            i for i in self.objects if torch.equal(i.camera[0].position, reference.position)
        )
        return item.images[1:].roll(self.shift, dims=0)


class Colors:
    """Mean colors as features."""

    name, dim, sha256, has_probabilities = "colors", 3, "none", False

    def describe(self):
        return {"what": "mean color"}

    def __call__(self, images):
        return images.mean(dim=(2, 3))


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    return write_objects(tmp_path_factory.mktemp("follow") / "objects", views=9, val=3, side=SIDE)


def test_the_evaluation_reports_pose_agreement_and_sets(objects):
    truth = PosedObjects(objects, "val")
    found = evaluate_views(Knows(truth), objects, features=Colors())
    best, copy = found.figures["knows 0"], found.figures["copy"]
    assert best["pose_outline"] == best["pose_color"] == 1.0
    assert best["pose_outline_low"] == best["pose_outline_high"] == 1.0
    assert best["hull_agreement"] == pytest.approx(
        found.protocol["hull_agreement_of_true_views"], abs=1e-9
    )
    assert best["hull_agreement"] > 0.97
    assert best["outline_iou"] == pytest.approx(
        found.protocol["outline_iou_of_true_views"], abs=1e-9
    )
    assert copy["pose_outline"] == pytest.approx(0.5)
    assert copy["pose_color"] == pytest.approx(0.5)
    assert copy["hull_agreement"] < 0.9
    assert sum(found.protocol["pose_targets_by_azimuth"].values()) == found.protocol["targets"]
    # kid of a set with itself, unbiased, is below that of one picture for all
    assert best["kid-colors"] < copy["kid-colors"]
    sample = FeatureSample(100, 0)
    for item in truth:
        sample.add(Colors()((item.images[1:] * 255).round() / 255))
    assert best["kid-colors"] == pytest.approx(kid(sample.features, sample.features).mean, abs=1e-7)
    text = "\n".join(found.lines())
    assert "Pose following by outlines" in text
    assert "kid-colors" in text
    assert "135 to 180 deg" in text
    wrong = evaluate_views(Knows(truth, 1), objects).figures["knows 1"]
    assert wrong["pose_outline"] < 0.7
    assert wrong["hull_agreement"] < 0.9


def test_the_mean_image_is_that_of_the_training_split(objects):
    train = PosedObjects(objects, "train")
    expected = torch.cat([item.images for item in train]).mean(dim=0)
    item = PosedObjects(objects, "val")[0]
    method = MeanImage(train)
    made = method.make(item.images[0], item.masks[0], item.camera[0], item.camera[1:], 0)
    torch.testing.assert_close(made, expected.expand(8, -1, -1, -1))
    assert method.describe()["pictures"] == 27
    assert evaluate_views("mean-image", objects).figures["mean-image"]["psnr"] > 5


def test_copies_follow_poses_near_the_input_alone(objects):
    """A copied view fits where the asked pose is near the copied one, and so loses elsewhere."""
    poses = torch.stack([cameras_around(1, 0).camera_to_world[0]] * 2)
    camera = Camera(camera_to_world=poses, intrinsics=cameras_around(2, 0).intrinsics)
    near = true_views(9)
    near[0] = true_views(1)[0]
    made = Copy().make(near[0], near[0, 0], camera[0], cameras_around(9, 0), 0)
    found = pose_following(made, near)["outline"]
    assert found[0] == 1.0
    assert sum(found[1:]) / 8 < 0.5
