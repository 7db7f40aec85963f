import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_solids import FOCAL, RADIUS, Balls, cameras, posed_views

from unflat.data import ProceduralObjects
from unflat.data.posed_views import PosedViews
from unflat.errors import UserError
from unflat.evaluation import FlatCard, ObjectMaker, TrueObjects, TurningCard
from unflat.evaluation.object_maker import Turned, one_view, turned_about_up
from unflat.evaluation.view_maker import as_batch
from unflat.geometry import Camera, orbit_coordinates, orbit_pose, pixel_grid

SIDE = 32
LENS = torch.tensor([FOCAL, FOCAL, 0.5, 0.5])


@pytest.fixture(scope="module")
def train():
    return posed_views(Balls(4), 6, SIDE, spread=False)


def orbit(*azimuths_deg, elevation=0.0):
    azimuth = torch.deg2rad(torch.tensor(azimuths_deg))
    poses = orbit_pose(elevation, azimuth, RADIUS)
    return Camera(camera_to_world=poses[None], intrinsics=LENS.expand(1, len(azimuths_deg), 4))


def world_points(views, camera):
    """Where the pixels with a finite depth are."""
    side = views.depth.shape[-1]
    uv = pixel_grid(side, side).reshape(1, -1, 2).expand(camera.batch_shape[1], -1, -1)
    points = camera[0].unproject(uv, views.depth[0].flatten(1))
    return points[views.depth[0].flatten(1).isfinite()]


def test_all_are_makers(train):
    for maker in (FlatCard(train), TurningCard(train), TrueObjects(Balls(2))):
        assert isinstance(maker, ObjectMaker)
        made = maker.make(
            [0, 1],
            camera=Camera(
                camera_to_world=orbit(0, 30, 60).camera_to_world.expand(2, -1, -1, -1),
                intrinsics=LENS.expand(2, 3, 4),
            ),
            side=16,
        )
        assert made.images.shape == (2, 3, 3, 16, 16)
        assert made.opacity.shape == made.depth.shape == (2, 3, 16, 16)
        assert 0 <= made.images.min() <= made.images.max() <= 1
        assert made.surface_depth.isfinite().equal(made.solid & made.depth.isfinite())


def test_a_card_shows_its_picture_to_the_front_camera(train):
    """Two rays a pixel each way, bilinear: 1/8, 3/4, 1/8 of three neighbors along either axis."""
    card = FlatCard(train)
    made = card.make([2], orbit(0.0), SIDE)
    picture = card.images[2].float() / 255
    kernel = torch.tensor([0.125, 0.75, 0.125])
    kernel = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
    expected = torch.nn.functional.conv2d(picture[None], kernel, padding=1, groups=3)[0]
    inner = (slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(made.images[0, 0][inner], expected[inner], atol=1e-4, rtol=0)
    behind = card.make([2], orbit(180.0), SIDE)
    torch.testing.assert_close(behind.images, made.images.flip(-1), atol=1e-4, rtol=0)


def test_of_each_object_the_frontal_picture_is_on_the_card(train):
    card = FlatCard(train)
    azimuths = orbit_coordinates(train.camera.position)[1].abs()
    for number in range(4):
        own = torch.nonzero(train.objects == number).flatten()
        chosen = [int(i) for i in own if train.images[i].equal(card.images[number])]
        assert azimuths[chosen[0]] < azimuths[own].median()


def test_a_card_lies_in_its_plane_and_is_thin_from_the_side(train):
    camera = orbit(20.0, 75.0, 200.0, elevation=0.4)
    made = FlatCard(train).make([1], camera, SIDE)
    points = world_points(made, camera)
    assert len(points) > 100
    assert points[:, 2].abs().max() < 1e-5
    sides = replace(orbit(0.0, 60.0, 90.0), kind="orthographic")
    width = FlatCard(train).make([1], sides, SIDE).opacity[0].sum((1, 2))
    assert width[1] / width[0] == pytest.approx(math.cos(math.radians(60)), abs=0.01)
    assert width[2] == 0


def test_a_turning_card_is_the_same_picture_at_the_distance_of_the_origin(train):
    camera = orbit(0.0, 40.0, 170.0, elevation=0.3)
    card = TurningCard(train, seed=3)
    made = card.make([5], camera, SIDE)
    torch.testing.assert_close(made.images[0, 0], card.images[5].float() / 255)
    assert made.images[0].eq(made.images[0, :1]).all()
    depth = made.depth[0][made.depth[0].isfinite()]
    torch.testing.assert_close(depth, torch.full_like(depth, RADIUS))
    order = {tuple(one.flatten().tolist()) for one in card.images}
    assert order == {tuple(one.flatten().tolist()) for one in train.images}
    assert not card.images.equal(train.images)


def test_pictures_without_masks_are_whole_cards(train):
    bare = PosedViews.of(train.images, name="bare", camera=train.camera, objects=train.objects)
    assert TurningCard(bare).make([0], orbit(0.0), SIDE).opacity.eq(1).all()


def test_cards_need_cameras(train):
    with pytest.raises(UserError, match=r"^bare: has no cameras; "):
        FlatCard(PosedViews.of(train.images, name="bare"))


@given(st.floats(-400.0, 400.0))
def test_turning_about_up_adds_to_the_azimuth_and_nothing_else(degrees):
    camera = cameras(5)
    turned = turned_about_up(camera, degrees)
    before, after = orbit_coordinates(camera.position), orbit_coordinates(turned.position)
    torch.testing.assert_close(after[0], before[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(after[2], before[2], atol=1e-5, rtol=0)
    off = after[1] - before[1] - math.radians(degrees)
    torch.testing.assert_close(torch.cos(off), torch.ones(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.forward, -turned.position / RADIUS, atol=1e-5, rtol=0)


def test_a_turned_maker_turns_its_objects():
    """An object turned by 90 degrees shows to a camera at 90 what it showed to one at 0."""
    maker = TrueObjects(Balls(1))
    turned = Turned(maker, 90.0)
    front, side = maker.make([0], orbit(0.0), SIDE), turned.make([0], orbit(90.0), SIDE)
    torch.testing.assert_close(side.images, front.images, atol=2e-2, rtol=0)
    assert (turned.make([0], orbit(0.0), SIDE).images - front.images).abs().mean() > 0.01
    assert turned.count == 1
    assert turned.describe()["turned_deg"] == 90.0


def test_one_view_of_each():
    camera = one_view(cameras(3))
    assert camera.batch_shape == (3, 1)
    torch.testing.assert_close(camera[:, 0].camera_to_world, cameras(3).camera_to_world)


def test_made_up_objects_of_a_data_set_are_true_objects():
    objects = ProceduralObjects(count=2)
    camera = as_batch(objects.cameras(1, 2))
    made = TrueObjects(objects).make([1], camera, 16)
    seen = objects.view(1, camera[0], 16)
    assert made.images[0].equal(seen.rgb)
    assert made.opacity[0].equal(seen.mask)
    assert made.depth[0].equal(seen.depth)
