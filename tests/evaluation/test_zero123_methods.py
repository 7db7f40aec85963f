"""Models of new views as the tasks ask them: poses, sizes and turns come out as they should."""

import math

import numpy as np
import torch

from box_object import FOV, box
from oracle_views import RADIUS, BoxViews
from unflat.evaluation.lift_baselines import PictureHull
from unflat.evaluation.lifter import Picture
from unflat.evaluation.zero123_lift import ModelLifter
from unflat.evaluation.zero123_views import ModelViews
from unflat.geometry import Camera, orbit_pose
from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.sampler import Sampler

ELEVATION, AZIMUTH = 0.3, 1.2
"""The picture is not taken from the front: what is made has to be turned to where it was."""


def turned() -> Camera:
    pose = orbit_pose(torch.tensor(ELEVATION), torch.tensor(AZIMUTH), torch.tensor(RADIUS))
    return Camera.from_fov(FOV, pose)


def test_views_are_those_of_the_cameras_at_the_pictures_size():
    truth = BoxViews(ELEVATION, side=32)
    method = ModelViews(truth, Sampler(steps=3, guidance_scale=1.0))
    image, mask = truth.shown()
    move = RelativePose.from_degrees(torch.tensor([0.0, 70.0, 200.0]), 40.0)
    cameras = move.cameras(turned())
    large = (
        torch.nn.functional.interpolate(v[None], size=(64, 64))[0] for v in (image, mask[None])
    )
    shown, matte = large
    made = method.make(shown, matte[0], turned(), cameras, 0)
    assert made.shape == (3, 3, 64, 64)
    small = torch.nn.functional.avg_pool2d(made, 2)
    expected = truth.truth(RelativePose.between(turned(), cameras)).image
    assert float((small - expected).abs().mean()) < 0.02
    assert method.describe()["steps"] == 3
    assert method.is_random


def test_a_lifted_object_stands_as_its_picture_was_taken():
    truth = BoxViews(ELEVATION, extents=(1.0, 0.4, 0.6), side=48)
    image, mask = truth.shown()
    camera = turned()
    picture = Picture(
        name="box",
        image=image,
        mask=mask,
        camera=camera,
        hull_masks=mask[None],
        hull_cameras=Camera(
            camera_to_world=camera.camera_to_world[None], intrinsics=camera.intrinsics[None]
        ),
    )
    found = ModelLifter(truth, method="fit", preset="fast").lift(picture, 0)
    # turned back by the azimuth, it is the box that the model knows
    angle = -AZIMUTH
    turn = np.array(
        [
            [math.cos(angle), 0, math.sin(angle)],
            [0, 1, 0],
            [-math.sin(angle), 0, math.cos(angle)],
        ]
    )
    extents = np.ptp(found.vertices @ turn.T, axis=0)
    np.testing.assert_allclose(extents, [1.0, 0.4, 0.6], atol=0.1)


def test_the_hull_of_one_mask_holds_the_object_and_more():
    truth = BoxViews(ELEVATION, extents=(0.6, 0.3, 0.4), side=64)
    image, mask = truth.shown()
    camera = truth.camera()
    picture = Picture(
        name="box",
        image=image,
        mask=mask,
        camera=camera,
        hull_masks=mask[None],
        hull_cameras=camera,
    )
    hull = PictureHull().lift(picture, 0)
    low, high = hull.vertices.min(0), hull.vertices.max(0)
    corners = box((0.6, 0.3, 0.4)).numpy()
    assert bool((corners.min(0) >= low - 0.05).all())
    assert bool((corners.max(0) <= high + 0.05).all())
    assert float(np.prod(high - low)) > 2 * 0.6 * 0.3 * 0.4
    # seen from where the picture was taken, it is the picture
    uv, _ = camera.project(torch.from_numpy(hull.vertices).float())
    pixel = (uv * 64).long().clamp(0, 63)
    near = torch.nn.functional.max_pool2d(mask[None], 3, stride=1, padding=1)[0]
    assert float((near[pixel[:, 1], pixel[:, 0]] > 0.1).float().mean()) > 0.99
