from dataclasses import replace

import pytest
import torch
from box_object import box, cameras_around, views_of

from unflat.evaluation.estimators import ModelDepth
from unflat.evaluation.lift_baselines import Relief
from unflat.evaluation.lifter import Lifter, Picture
from unflat.evaluation.view_maker import ViewMaker
from unflat.evaluation.vq3d import Vq3dReconstructor
from unflat.evaluation.vq3d_views import CutField, Vq3dViews
from unflat.fields.field import FieldOutput
from unflat.metrics import psnr, watertightness
from unflat.systems.vq3d.autoencoder import build
from unflat.systems.vq3d.config import tiny

SIDE = 32


class Everywhere(torch.nn.Module):
    """Matter without end."""

    def forward(self, points, directions=None):
        return FieldOutput(torch.ones(points.shape[:-1]), torch.full_like(points, 0.5))

    def warp(self, points):
        return points


@pytest.fixture(scope="module")
def views():
    """An untrained model whose colors already follow the picture."""
    torch.manual_seed(0)
    model = build(replace(tiny(), encoder_width=32))
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(64, 3, 5, 5, generator=generator)
    model.start_from_patches(torch.nn.functional.interpolate(coarse, 32, mode="bilinear"))
    return Vq3dViews(Vq3dReconstructor(model, "untrained", samples=24))


@pytest.fixture(scope="module")
def seen():
    cameras = cameras_around(2, 4)
    rgba = views_of(box((0.9, 0.9, 0.9)), cameras, SIDE)[0]
    return rgba[:3] * rgba[3:] + 1 - rgba[3:], rgba[3], cameras


def test_matter_is_cut_by_mask_ball_and_thickness():
    mask = torch.zeros(10, 10)
    mask[4:6, 2:5] = 1
    surface = torch.full((10, 10), 2.0)
    surface[5, 4] = 1.5
    field = CutField(Everywhere(), mask, surface, torch.tensor([1.0, 1.0, 0.5, 0.5]), 2.0)

    def there(column, row, depth):
        across = torch.tensor([(column + 0.5) / 10 - 0.5, (row + 0.5) / 10 - 0.5, 1.0]) * depth
        return field(across.reshape(1, 1, 3)).density.item() == 1

    assert there(3, 4, 1.9)
    assert there(3, 4, 2.05)
    assert not there(3, 4, 2.15)  # behind the surface
    assert not there(3, 4, 1.0)  # outside the ball about the unit box
    assert not there(4, 5, 1.65)  # behind a nearer surface
    assert there(4, 5, 1.55)
    for column, row in ((1, 4), (5, 4), (3, 3), (3, 6)):
        assert not there(column, row, 1.9)
    assert not there(3, 4, -1.9)
    assert not there(14, 4, 1.9)


def test_the_picture_s_own_camera_sees_the_object_on_white(views, seen):
    image, mask, cameras = seen
    assert isinstance(views, ViewMaker)
    made = views.make(image, mask, cameras[0], cameras, 0)
    assert made.shape == (2, 3, SIDE, SIDE)
    assert (made[0][:, mask == 0] > 0.999).all()
    inside = (mask > 0.99)[None, None].float()
    # an untrained model is fog, of which the cut leaves a part: more than white, less than a copy
    white = psnr(torch.ones_like(image)[None], image[None], inside).item()
    own, other = (psnr(made[i : i + 1], image[None], inside).item() for i in range(2))
    assert own > white + 2
    assert own > other
    assert "cut" in views.describe()


def test_a_picture_without_a_mask_stays_whole(views):
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(1, 3, 5, 5, generator=generator)
    picture = torch.nn.functional.interpolate(coarse, SIDE, mode="bilinear")[0] * 0.6
    cameras = cameras_around(1, 4)
    made = views.make(picture, torch.ones(SIDE, SIDE), cameras[0], cameras, 0)
    assert psnr(made, picture[None]).item() > 20
    assert (made.amin(dim=1) < 0.9).all()


def test_a_model_s_relief_is_a_lifter(views, seen):
    image, mask, cameras = seen
    lifter = Relief(ModelDepth(views.reconstructor), name="untrained")
    assert isinstance(lifter, Lifter)
    picture = Picture(
        name="box",
        image=image,
        mask=mask,
        camera=cameras[0],
        hull_masks=mask[None],
        hull_cameras=cameras[:1],
    )
    made = lifter.lift(picture, 0)
    assert watertightness(made).is_closed
    assert abs(made.vertices).max() < 1.2
