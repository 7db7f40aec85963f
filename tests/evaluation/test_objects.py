import json
import math

import pytest
import torch
from made_solids import Balls, cameras, posed_views

from made_figure import Figure
from unflat.data.posed_views import PosedViews
from unflat.errors import UserError
from unflat.evaluation import ObjectViews, TrueObjects, evaluate_objects
from unflat.evaluation.object_family import (
    STEP_DEG,
    TrueFamily,
    chance_within,
    fit_offset,
    wrapped,
)
from unflat.evaluation.object_maker import Turned, turned_about_up
from unflat.evaluation.object_pairs import pair_figures
from unflat.evaluation.view_maker import as_batch
from unflat.geometry import Camera

SIDE, OBJECTS = 24, 6


class Means:
    """Features that can be computed by hand: mean color, and contrast of each channel."""

    name, sha256, dim, has_probabilities = "means", "0" * 64, 6, False

    def describe(self):
        return {"name": self.name, "sha256": self.sha256}

    def __call__(self, images):
        flat = images.flatten(2)
        return torch.cat([flat.mean(2), flat.std(2)], dim=1) * 4


class Astray(TrueObjects):
    """True objects, each turned by an angle of its own."""

    def make(self, numbers, camera, side):
        parts = []
        for place, number in enumerate(numbers):
            angle = 360 * torch.rand(1, generator=torch.Generator().manual_seed(number)).item()
            parts.append(
                super().make([number], turned_about_up(camera[place : place + 1], angle), side)
            )
        return ObjectViews(
            images=torch.cat([part.images for part in parts]),
            opacity=torch.cat([part.opacity for part in parts]),
            depth=torch.cat([part.depth for part in parts]),
        )


class Nothing(TrueObjects):
    """Every second object is empty; the others have a field."""

    def make(self, numbers, camera, side):
        made = super().make(numbers, camera, side)
        there = torch.tensor([number % 2 == 1 for number in numbers])[:, None, None, None]
        return ObjectViews(
            images=made.images.where(there[..., None], 1.0),
            opacity=made.opacity * there,
            depth=made.depth.where(there, torch.inf),
        )

    def field(self, number):
        return Figure() if number % 2 else None


@pytest.fixture(scope="module")
def sets():
    held = posed_views(Balls(3, seed=1), 16, SIDE, name="held")
    train = posed_views(Balls(12, seed=2), 6, SIDE, name="train", spread=False)
    return held, train


@pytest.fixture(scope="module")
def truth():
    return TrueObjects(Balls(4, seed=3))


def evaluated(maker, sets, truth=None, **options):
    return evaluate_objects(maker, *sets, Means(), truth=truth, objects=OBJECTS, **options)


@pytest.fixture(scope="module")
def evaluation(sets, truth):
    """Other instances of the very objects that are the truth."""
    return evaluated(TrueObjects(Balls(4, seed=3), "real"), sets, truth)


def test_true_objects_reach_the_ceiling(evaluation):
    real = evaluation.figures["real"]
    assert real["silhouette_iou"] == 1
    assert real["azimuth_median"] == 0
    assert real["azimuth_within_15"] == real["azimuth_within_30"] == 1
    assert real["depth_agreement_15"] == real["depth_agreement_45"] == 1
    assert real["reprojection_error_15"] < 0.02  # pixels of two colors
    assert real["empty"] == 0
    assert real["kid-means"] < 3 * real["kid-means_error"] + 0.05


def test_true_objects_are_held_against_the_others_alone(evaluation):
    true = evaluation.figures["true objects"]
    assert 0.7 < true["silhouette_iou"] < 0.98
    assert true["azimuth_within_15"] == 1


def test_cards_are_told_from_objects(evaluation):
    real = evaluation.figures["real"]
    turning, flat = evaluation.figures["turning-card"], evaluation.figures["flat-card"]
    assert turning["depth_agreement_45"] < 0.7 < real["depth_agreement_45"]
    assert turning["reprojection_validity_45"] < 0.5 < real["reprojection_validity_45"]
    assert "reprojection_error_45" not in turning  # void
    assert flat["depth_agreement_15"] > 0.9  # a card that stands still passes, so:
    assert flat["silhouette_iou"] < 0.6 < true_iou(evaluation)
    assert turning["azimuth_within_30"] < 0.5


def true_iou(evaluation):
    return evaluation.figures["true objects"]["silhouette_iou"]


def test_pictures_of_the_wrong_sides_are_at_chance(sets, truth):
    maker = Astray(Balls(48, seed=3), "astray")
    figures = evaluate_objects(maker, *sets, Means(), truth=truth, objects=48).figures[maker.name]
    for degrees in (15.0, 30.0):
        chance = chance_within(degrees)
        error = math.sqrt(chance * (1 - chance) / 48)  # two pictures of an object are as one
        assert abs(figures[f"azimuth_within_{degrees:g}"] - chance) < 3 * error
    assert 60 < figures["azimuth_median"] < 120
    assert figures["depth_agreement_45"] == 1  # they are objects all the same


def test_one_turn_for_all_can_be_fitted_and_is_stated(sets, truth):
    maker = Turned(TrueObjects(Balls(4, seed=3), "turned"), 40.0)
    plain = evaluated(maker, sets, truth).figures["turned"]
    fitted = evaluated(maker, sets, truth, fit_azimuth=True).figures["turned"]
    assert plain["azimuth_median"] == 40
    assert plain["azimuth_within_15"] == 0
    assert "azimuth_fitted" not in plain
    assert fitted["azimuth_fitted"] == -40
    assert fitted["azimuth_median"] == 0
    assert fitted["silhouette_iou"] > 0.99 > plain["silhouette_iou"] + 0.1
    assert fitted["kid-means"] == plain["kid-means"]


def test_reference_rows(sets):
    """Held-out pictures among the training ones: the nearest are these themselves."""
    held, train = sets
    both = PosedViews.of(
        torch.cat([train.images, held.images]),
        name="both",
        masks=torch.cat([train.masks, held.masks]),
        camera=joined(train.camera, held.camera),
        objects=torch.cat([train.objects, len(train.names) + held.objects]),
    )
    found = evaluated(TrueObjects(Balls(4)), (held, both))
    nearest = found.figures["nearest training pictures"]
    assert nearest["frechet-means48-debug"] == pytest.approx(0, abs=1e-4)
    mean, known = found.figures["mean training picture"], found.figures["training pictures"]
    vectors = Means()(held.images / 255).double()
    middle = (both.images.double().mean(0) / 255 * 255).round() / 255
    own = Means()(middle[None].float()).double()[0]
    covariance = torch.cov(vectors.T)
    expected = (vectors.mean(0) - own).square().sum() + covariance.trace()
    assert mean["frechet-means48-debug"] == pytest.approx(expected.item(), rel=1e-4)
    assert nearest["kid-means"] < known["kid-means"] < mean["kid-means"]
    assert "silhouette_iou" not in found.figures["true objects"]
    assert "no true objects" in " ".join(found.warnings)
    assert "only 3 held-out objects: " in " ".join(found.warnings)


def joined(*every):
    return Camera(
        camera_to_world=torch.cat([one.camera_to_world for one in every]),
        intrinsics=torch.cat([one.intrinsics for one in every]),
    )


def test_empty_objects_are_misses_and_are_said(sets, truth):
    found = evaluated(Nothing(Balls(OBJECTS, seed=3), "nothing"), sets, truth)
    figures = found.figures["nothing"]
    assert figures["empty"] == 0.5
    assert figures["azimuth_within_30"] == 0.5
    assert figures["silhouette_iou"] == pytest.approx(
        sum(item.figures["nothing"]["silhouette_iou"] for item in found.items[1::2]) / 6
    )
    assert figures["depth_agreement_15"] == 1  # of those that are there
    assert figures["watertight"] == 1
    assert figures["gradient_median"] == pytest.approx(1, abs=1e-3)
    assert any("50.0% of its views are empty" in warning for warning in found.warnings)
    json.dumps(found.json(per_item=True), allow_nan=False)


def test_items_sheet_and_protocol(evaluation, sets):
    assert len(evaluation.items) == 4
    assert evaluation.ranked() == [0, 1, 2, 3]
    sheet = evaluation.sheet(2)
    assert sheet.shape == (3, 3 * SIDE, 8 * SIDE)
    torch.testing.assert_close(sheet[:, :SIDE], sheet[:, 2 * SIDE :])  # its own likeness
    assert sheet[:, SIDE : 2 * SIDE].max() == 1
    protocol = evaluation.protocol
    assert protocol["held_out"] == {"pictures": 48, "objects": 3, "rejected": 0}
    assert "by chance within 15: 8.3%" in protocol["azimuth"]
    assert protocol["made"]["real"]["rendered"] == 48
    lines = evaluation.lines()
    assert lines[0] == "Distance to the held-out pictures"
    assert [line for line in lines if line.startswith("real ")]


def test_progress_reaches_its_end_and_two_runs_agree(sets, truth):
    told = []
    runs = [
        evaluated(
            TrueObjects(Balls(2), "a"),
            sets,
            truth,
            fit_azimuth=True,
            count=20,
            progress=lambda done, total: told.append((done, total)),
        )
        for _ in range(2)
    ]
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told[: len(told) // 2]] == sorted({done for done, _ in told})
    assert json.dumps(runs[0].json(True)) == json.dumps(runs[1].json(True))


def test_a_persons_mistakes(sets):
    held, train = sets
    bare = PosedViews.of(train.images, name="bare")
    with pytest.raises(UserError, match=r"^bare: has no cameras; "):
        evaluated(TrueObjects(Balls(1)), (held, bare))
    few = PosedViews.of(held.images[:3], name="few", camera=held.camera[:3])
    with pytest.raises(UserError, match=r"^few: has only 3 pictures; give at least 4\.$"):
        evaluated(TrueObjects(Balls(1)), (few, train))
    small = posed_views(Balls(1), 6, 16)
    with pytest.raises(ValueError, match="24 and training ones of 16"):
        evaluated(TrueObjects(Balls(1)), (held, small))


def test_what_is_hidden_one_way_contradicts_the_other_way():
    """A wall that the third camera sees farther away: figures are of both directions."""
    wall = torch.full((1, 3, SIDE, SIDE), 1.0)
    wall[:, 2] = 1.25
    views = ObjectViews(
        images=torch.full((1, 3, 3, SIDE, SIDE), 0.5), opacity=torch.ones_like(wall), depth=wall
    )
    one = cameras(1)
    same = joined(one, one, one)
    figures = pair_figures(views, as_batch(same))
    assert figures["depth_agreement_15"].item() == 1
    assert figures["depth_agreement_45"].item() == 0
    assert figures["depth_compared_45"].item() == 0.5  # hidden one way, all seen the other way
    assert figures["reprojection_error_15"].item() == 0
    assert figures["reprojection_error_45"].isnan().item()


def test_a_family_tells_which_and_where(truth):
    family = TrueFamily(truth, cameras(8), SIDE)
    assert family.pose_places == [0, 4]
    made = truth.make([2], as_batch(cameras(8)), SIDE)
    assert family.likeness(made.solid[0]) == (1.0, 2)
    assert family.likeness(made.solid[0], but=2).number != 2
    for angle in (0.0, 70.0, -120.0):
        camera = as_batch(turned_about_up(cameras(8), angle))
        seen = truth.make([1], camera, SIDE).some([0, 4])
        assert family.azimuths(seen).tolist() == [angle, angle]


@pytest.mark.parametrize("degrees", [15.0, 30.0, 10.0, 180.0])
def test_chance_is_that_of_the_grid(degrees):
    grid = wrapped(torch.arange(0.0, 360.0, STEP_DEG)).abs()
    assert chance_within(degrees) == pytest.approx((grid < degrees).float().mean().item())


def test_the_offset_is_fitted_around_the_circle():
    assert fit_offset(torch.tensor([170.0, -180.0, -170.0, 170.0, 20.0])) == 170
    assert fit_offset(torch.tensor([30.0, math.nan, 30.0])) == 30
