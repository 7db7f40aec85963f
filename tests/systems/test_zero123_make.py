"""Making views: batches, references and orders change what they should and nothing else."""

import math

import pytest
import torch

from oracle_views import BoxViews
from unflat.geometry import Camera, orbit_pose
from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.compact import CompactViews, Config, build
from unflat.systems.zero123.elevation import estimate_elevation, weighed
from unflat.systems.zero123.make import (
    Known,
    clipped,
    make_consistent,
    make_views,
    no_move,
    opacity_of,
    reference_weights,
)
from unflat.systems.zero123.model import Views
from unflat.systems.zero123.order import Order, carry_out, set_agreement
from unflat.systems.zero123.prepare import Prepared
from unflat.systems.zero123.sampler import Sampler

STEPS = Sampler(steps=4, guidance_scale=2.0)
CONFIG = Config(side=16, widths=(16, 32), blocks=1, encoder=(16, 16), embedding=16, heads=2)


def small(**changed) -> CompactViews:
    """A network that was never trained but is not silent."""
    torch.manual_seed(0)
    from dataclasses import replace

    network = build(replace(CONFIG, **changed))
    with torch.no_grad():
        for parameter in network.parameters():
            if not bool(parameter.any()):
                parameter.normal_(std=0.05)
    return CompactViews(network.eval().requires_grad_(False))


def picture(seed=0, side=16):
    generator = torch.Generator().manual_seed(seed)
    opacity = torch.zeros(side, side)
    opacity[4:12, 5:13] = 1
    image = torch.rand(3, side, side, generator=generator) * opacity + 1 - opacity
    return image, opacity


def poses(*azimuths, elevation=0.0):
    return RelativePose.from_degrees(torch.tensor(azimuths), elevation)


def test_a_batch_of_poses_is_each_alone():
    model = small()
    image, opacity = picture()
    reference = model.reference(image[None], opacity[None])
    many = make_views(model, reference, poses(10.0, 80.0, 200.0), STEPS, batch=2)
    for place, azimuth in enumerate((10.0, 80.0, 200.0)):
        one = make_views(model, reference, poses(azimuth), STEPS, places=[place])
        torch.testing.assert_close(many.image[place : place + 1], one.image, atol=1e-4, rtol=0)
    assert float((many.image[0] - many.image[2]).abs().max()) > 1e-3  # the pose counts


def test_noise_of_its_own_depends_on_place_and_seed_alone():
    model = small()
    image, opacity = picture()
    reference = model.reference(image[None], opacity[None])
    settings = {"shared_noise": False}
    both = make_views(model, reference, poses(30.0, 30.0), STEPS, **settings)
    assert float((both.image[0] - both.image[1]).abs().max()) > 1e-3
    later = make_views(model, reference, poses(30.0), STEPS, places=[1], **settings)
    torch.testing.assert_close(later.image[0], both.image[1], atol=1e-4, rtol=0)
    other = make_views(model, reference, poses(30.0), STEPS, seed=1, **settings)
    assert float((other.image[0] - both.image[0]).abs().max()) > 1e-3


@pytest.mark.parametrize("copies", [1, 3])
def test_references_of_one_picture_are_one_reference(copies):
    model = small()
    image, opacity = picture()
    known = [Known(image=image, opacity=opacity, pose=no_move())] * copies
    height = torch.zeros(1)
    plain = make_views(
        model, model.reference(image[None], opacity[None], height), poses(40.0), STEPS
    )
    found = make_consistent(model, known, poses(40.0), STEPS, extend=False)
    torch.testing.assert_close(found.image, plain.image, atol=1e-4, rtol=0)


def test_views_before_are_told_to_views_after():
    model = small()
    image, opacity = picture()
    known = [Known(image=image, opacity=opacity, pose=no_move())]
    order: list[int] = []
    told = make_consistent(
        model, known, poses(90.0, 30.0), STEPS, finished=lambda places, _: order.extend(places)
    )
    alone = make_consistent(model, known, poses(90.0, 30.0), STEPS, extend=False)
    assert order == [1, 0]  # outwards from the picture
    torch.testing.assert_close(told.image[1], alone.image[1], atol=1e-4, rtol=0)
    assert float((told.image[0] - alone.image[0]).abs().max()) > 1e-3


def test_weights_of_references():
    angles = torch.deg2rad(torch.tensor([60.0, 30.0, 90.0, 140.0]))
    weights = reference_weights(angles, 1, 2, 8)
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights[0]) == pytest.approx(math.exp(-3 / 4), abs=1e-6)  # ViewFusion's
    assert float(weights[1]) > float(weights[2]) > 0
    assert float(weights[3]) == 0  # too far around
    assert reference_weights(angles[:1], 1, 5, 8).tolist() == [1]


def test_guidance_exaggerates_what_is_told():
    model = BoxViews()
    reference = model.reference(*(one[None] for one in model.shown()))
    views = make_views(model, reference, poses(50.0), Sampler(steps=3, guidance_scale=1.0))
    torch.testing.assert_close(views.image, clipped(model.truth(poses(50.0))).image)
    calls = model.calls
    make_views(model, reference, poses(50.0), Sampler(steps=3, guidance_scale=2.0))
    assert model.calls == calls + 3  # both halves in one call


@pytest.mark.parametrize("elevation_deg", [0.0, 50.0])
def test_elevation_is_found_where_views_are_true(elevation_deg):
    model = BoxViews(math.radians(elevation_deg), side=48)
    shown, tried = Prepared(*model.shown()), range(-10, 71, 10)
    found = estimate_elevation(model, shown, prior=False, candidates=tried)
    assert found.degrees == pytest.approx(elevation_deg, abs=8)
    assert found.scores[min(found.scores, key=lambda e: abs(e - elevation_deg))] > 0.95


def test_a_flat_score_says_that_nothing_is_known():
    flat = weighed(dict.fromkeys(range(-30, 81, 5), 0.8), prior=False)
    sharp = weighed({e: 0.9 if e == 20 else 0.5 for e in range(-30, 81, 5)}, prior=False)
    assert flat.confidence < 0.35 < 0.95 < sharp.confidence
    assert sharp.degrees == pytest.approx(20, abs=1)
    assert flat.spread_deg > 25 > 5 > sharp.spread_deg


def test_true_views_agree_and_one_that_lacks_a_part_does_not():
    model = BoxViews(0.3)
    image, opacity = model.shown()
    asked = poses(60.0, 120.0, 180.0, 240.0, 300.0)
    order = Order(
        pictures=[Known(image=image, opacity=opacity, pose=no_move())],
        poses=asked,
        samples=[0] * 5,
        height=0.3,
        sampler=STEPS,
    )
    true = set_agreement(model.truth(asked), order, range(5))
    image, opacity = model.truth(asked)
    assert opacity is not None
    lacking = opacity.clone()
    lacking[1, :16] = 0
    assert true > 0.95
    assert set_agreement(Views(image, lacking), order, range(5)) < true - 0.015


def test_the_best_of_several_sets_is_kept():
    model = small()
    image, opacity = picture()
    pictures = [Known(image=image, opacity=opacity, pose=no_move())]
    asked = poses(90.0, 180.0)
    sets = []
    for seed in range(3):
        single = Order(
            pictures=pictures, poses=asked, samples=[0, 0], height=None, sampler=STEPS, seed=seed
        )
        carry_out(model, single, [0, 1], lambda places, views: sets.append(views))
    order = Order(
        pictures=pictures, poses=asked, samples=[0, 0], height=None, sampler=STEPS, best_of=3
    )
    kept: list[Views] = []
    carry_out(model, order, [0, 1], lambda places, views: kept.append(views))
    assert len(kept) == 1
    assert set_agreement(kept[0], order, [0, 1]) >= set_agreement(sets[0], order, [0, 1])


def test_opacity_is_told_by_white_where_nobody_tells_it():
    image = torch.ones(1, 3, 4, 4)
    image[0, 1, 2, 2] = 0.5
    found = opacity_of(Views(image, None))
    assert found.sum() == 1
    assert found[0, 2, 2] == 1


def test_poses_lead_to_cameras_and_back():
    reference = Camera.from_fov(0.8, orbit_pose(torch.tensor(0.3), 0.5, 1.7))
    asked = RelativePose.from_degrees(
        torch.tensor([0.0, 100.0, -60.0]), torch.tensor([0.0, 40.0, -20.0]), 0.2
    )
    found = RelativePose.between(reference, asked.cameras(reference))
    torch.testing.assert_close(found.embedding(), asked.embedding(), atol=1e-5, rtol=1e-5)
    back = asked.then(asked.back())
    torch.testing.assert_close(back.embedding(), no_move().embedding().expand(3, 4))


def test_the_angle_between_views_is_that_of_their_cameras():
    height = 0.4
    reference = Camera.from_fov(0.8, orbit_pose(torch.tensor(height), 0.0, 1.7))
    asked = RelativePose.from_degrees(
        torch.tensor([10.0, 120.0, 180.0]), 15.0, input_elevation_deg=math.degrees(height)
    )
    ahead = asked.cameras(reference).forward
    angle = (ahead @ reference.forward).acos()
    torch.testing.assert_close(asked.angle(height), angle, atol=1e-3, rtol=1e-3)
