import json
import math

import pytest
import torch
from oracles import Oracle

from unflat.data.posed import PosedScenes
from unflat.errors import UserError
from unflat.evaluation import DepthEstimator, depth_figures, evaluate_depth
from unflat.evaluation.estimators import FloorDepth, ModelDepth
from unflat.geometry.camera import Camera

SIDE = 32


class Known:
    """Tells the true disparity, changed by a function of it."""

    def __init__(self, name, scenes, change):
        self.name, self.change = name, change
        self.maps = {scene.name: scene.inverse_depth[0] for scene in scenes}

    def describe(self):
        return {}

    def disparity(self, pictures, names):
        return torch.stack([self.change(self.maps[name]) for name in names])


@pytest.fixture(scope="module")
def scenes(scenes_folder):
    return list(PosedScenes(scenes_folder, SIDE))


def blurred(disparity):
    return torch.nn.functional.avg_pool2d(disparity[None, None], 5, 1, 2)[0, 0]


@pytest.fixture(scope="module")
def evaluation(scenes, scenes_folder):
    methods = [
        Known("right", scenes, lambda d: 3 * d + 0.7),
        Known("blurred", scenes, blurred),
        Known("wrong", scenes, lambda d: d.flip(0, 1)),
    ]
    return evaluate_depth(methods, [scenes_folder], resolution=SIDE)


def test_the_truth_up_to_scale_and_shift_is_perfect(evaluation):
    right = evaluation.figures["right"]
    assert right["disparity_correlation"] == pytest.approx(1, abs=1e-5)
    for name in ("aligned_rms", "aligned_mae", "side", "absolute_relative_error"):
        assert right[name] == pytest.approx(0, abs=1e-4)
    assert right["ordinal_accuracy"] == 1
    assert right["delta_accuracy"] == 1
    assert right["normals_mad_deg"] < 0.2
    assert right["non_flatness"] == pytest.approx(right["true_non_flatness"], rel=1e-3)


def test_worse_maps_have_worse_figures(evaluation):
    right, worse, wrong = (evaluation.figures[name] for name in ("right", "blurred", "wrong"))
    for name in ("disparity_correlation", "ordinal_accuracy", "delta_accuracy"):
        assert right[name] > worse[name] > wrong[name]
    for name in ("aligned_rms", "aligned_mae", "side", "standardized_depth_error"):
        assert right[name] < worse[name] < wrong[name]
    assert evaluation.ranked() != []
    assert evaluation.rank[0] == "right"


def test_the_mean_map_leaves_the_scene_itself_out(evaluation, scenes):
    maps = torch.stack([scene.inverse_depth[0] for scene in scenes]).double()
    for index, item in enumerate(evaluation.items):
        others = (maps.sum(0) - maps[index]) / (len(maps) - 1)
        expected = depth_figures(
            others.float(), scenes[index].inverse_depth[0], scenes[index].camera[:1]
        )
        found = item.figures["mean map"]["disparity_correlation"]
        assert found == pytest.approx(expected["disparity_correlation"], abs=1e-5)


def test_a_tilted_plane_is_told_from_a_steeper_one():
    """Planes z = 2 + s x have known normals: (s, 0, -1) up to length."""
    side, focal = 24, 1.0
    x = ((torch.arange(side) + 0.5) / side - 0.5).double() / focal

    def plane(slope):  # z = 2 + slope X with X = x z, so 1 / z = (1 - slope x) / 2
        return ((1 - slope * x) / 2).expand(side, side)

    camera = Camera(
        camera_to_world=torch.eye(4)[None], intrinsics=torch.tensor([[focal, focal, 0.5, 0.5]])
    )
    figures = depth_figures(plane(0.8), plane(0.8), camera)
    assert figures["normals_mad_deg"] == pytest.approx(0, abs=1e-3)
    # an affine map of disparity turns one tilted plane into any other: alignment undoes it
    figures = depth_figures(plane(0.2), plane(0.8), camera)
    assert figures["normals_mad_deg"] == pytest.approx(0, abs=1e-3)
    # but a wall has no slope to scale, and stays one: the angle is that of the slope
    figures = depth_figures(torch.ones(side, side) * 0.5, plane(0.8), camera)
    assert figures["normals_mad_deg"] == pytest.approx(math.degrees(math.atan(0.8)), abs=0.01)
    assert figures["disparity_correlation"] == 0


def test_a_models_canonical_view_serves_as_its_depth(scenes, scenes_folder):
    model = ModelDepth(Oracle(list(PosedScenes(scenes_folder)), resolution=SIDE))
    assert isinstance(model, DepthEstimator)
    assert model.name == "oracle tokens"
    figures = evaluate_depth([model], [scenes_folder], resolution=SIDE).figures
    assert figures["oracle tokens"]["disparity_correlation"] == pytest.approx(1, abs=1e-5)
    assert set(figures) == {"oracle tokens", "floor", "mean map"}


def test_two_runs_give_the_same_report_and_only_the_seed_moves_the_pairs(scenes_folder):
    runs = [
        evaluate_depth([FloorDepth()], [scenes_folder], resolution=SIDE, seed=s) for s in (5, 5, 6)
    ]
    reports = [json.dumps(run.json(per_item=True)) for run in runs]
    assert reports[0] == reports[1]
    first, _, other = (run.figures["floor"] for run in runs)
    assert first["ordinal_accuracy"] != other["ordinal_accuracy"]
    assert first["aligned_rms"] == other["aligned_rms"]


def test_bad_data_is_a_persons_mistake(scenes_folder, tmp_path):
    with pytest.raises(UserError, match="at most 48"):
        evaluate_depth([FloorDepth()], [scenes_folder], resolution=64)
    with pytest.raises(UserError, match="no posed scene"):
        evaluate_depth([FloorDepth()], [tmp_path])
