"""What every field promises, asked of each kind that the room has."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from unflat.fields import (
    Bounded,
    ComposedField,
    FeatureDecoder,
    Field,
    Placed,
    TriplaneField,
    ViewSpaceDecoder,
    ViewSpaceField,
    ViewSpacePlanes,
    VoxelField,
    Warped,
    similarity,
)
from unflat.fields.distance import LaplaceDensity
from unflat.fields.siren import DistanceSirenField, SirenField
from unflat.geometry import Camera, Frame
from unflat.nn.siren import FilmSiren
from unflat.rendering import RenderOptions, render

BATCH = 2
BOX = torch.tensor([[-1.0, -1.0, 2.0], [1.0, 1.0, 5.0]])


def voxels() -> VoxelField:
    return VoxelField(torch.rand(BATCH, 4, 3, 5), torch.rand(BATCH, 3, 4, 3, 5), BOX)


def boxed_triplane() -> TriplaneField:
    return TriplaneField(torch.randn(BATCH, 3, 4, 5, 6), FeatureDecoder(4, 8), BOX)


def contracted_triplane() -> TriplaneField:
    return TriplaneField(torch.randn(BATCH, 3, 4, 5, 6), FeatureDecoder(4, 8))


def composed() -> ComposedField:
    return ComposedField([Placed(voxels()), Placed(boxed_triplane(), similarity(0.5))])


def view_space() -> ViewSpaceField:
    planes = ViewSpacePlanes(
        0.5 * torch.randn(BATCH, 9, 6, 6),
        torch.randn(BATCH, 4, 5, 6),
        torch.randn(BATCH, 4, 5, 6),
    )
    return ViewSpaceField(planes, ViewSpaceDecoder(4), Frame(a=1.2, b=0.05))


def siren() -> SirenField:
    return SirenField(FilmSiren(8, 2), 0.1 * torch.randn(BATCH, 3, 2, 8), BOX)


def distance_siren() -> DistanceSirenField:
    film = 0.1 * torch.randn(BATCH, 3, 2, 8)
    return DistanceSirenField(FilmSiren(8, 2), film, LaplaceDensity(), BOX)


KINDS = [voxels, boxed_triplane, contracted_triplane, composed, view_space, siren, distance_siren]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def make(request) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        torch.manual_seed(0)
        return request.param()

    return made


def some_points(*shape: int) -> torch.Tensor:
    """Inside the box and around it, in front of the canonical camera and behind."""
    generator = torch.Generator().manual_seed(1)
    share = torch.rand(BATCH, *shape, 3, generator=generator)
    return (share - 0.5) * torch.tensor([4.0, 4.0, 8.0]) + torch.tensor([0.0, 0.0, 3.0])


def test_it_is_a_field(make):
    assert isinstance(make(), Field)


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4)])
def test_any_shape_of_points_gives_the_same_answers(make, shape):
    field = make()
    points = some_points(*shape)
    directions = torch.nn.functional.normalize(points, dim=-1)
    out = field(points, directions)
    assert out.density.shape == (BATCH, *shape)
    assert out.features.shape == (BATCH, *shape, 3)
    flat = field(points.reshape(BATCH, -1, 3), directions.reshape(BATCH, -1, 3))
    torch.testing.assert_close(out.density.flatten(1), flat.density, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.features.flatten(1, -2), flat.features, atol=1e-5, rtol=1e-5)


def test_density_is_never_negative_and_colors_stay_in_range(make):
    out = make()(some_points(500))
    assert out.density.min() >= 0
    assert out.density.max() > 0
    assert out.features.min() >= 0
    assert out.features.max() <= 1
    assert out.features.std() > 0.01


def test_scenes_of_a_batch_do_not_meet(make):
    field = make()
    points = some_points(40)
    before = field(points)
    points[1] += 0.3
    after = field(points)
    assert torch.equal(before.density[0], after.density[0])
    assert torch.equal(before.features[0], after.features[0])
    assert not torch.equal(before.density[1], after.density[1])


def test_the_same_seed_makes_the_same_field(make):
    points = some_points(40)
    one, two = make()(points), make()(points)
    assert torch.equal(one.density, two.density)
    assert torch.equal(one.features, two.features)


def test_a_box_that_is_promised_is_kept(make):
    field = make()
    if not isinstance(field, Bounded):
        pytest.skip("this field has no box")
    points = some_points(500)
    outside = ((points < field.bounds[0]) | (points > field.bounds[1])).any(-1)
    assert outside.any()
    assert (field(points).density[outside] == 0).all()


def test_a_warp_keeps_shapes_and_is_declared_only_where_it_is(make):
    field = make()
    assert isinstance(field, Warped) == isinstance(field, ViewSpaceField)
    if isinstance(field, Warped):
        points = some_points(3, 4)
        assert field.warp(points).shape == points.shape


def test_double_precision_gives_the_same_answers(make):
    points = some_points(60)
    single = make()(points)
    double = make().double()(points.double())
    assert double.density.dtype == torch.float64
    torch.testing.assert_close(double.density.float(), single.density, atol=2e-4, rtol=2e-3)
    torch.testing.assert_close(double.features.float(), single.features, atol=1e-4, rtol=1e-3)


def test_gradients_reach_the_weights_and_are_finite_everywhere(make):
    field = make()
    learned = {
        name: value.clone().requires_grad_()
        for name, value in (*field.named_parameters(), *field.named_buffers())
        if "bounds" not in name and "placement" not in name
    }
    points = some_points(200)
    points[0, 0] = 0.0  # the camera's own place, the origin of every box
    out = torch.func.functional_call(field, learned, (points,))
    grads = torch.autograd.grad(out.density.sum() + out.features.sum(), list(learned.values()))
    for name, grad in zip(learned, grads, strict=True):
        assert grad.isfinite().all(), name
        assert grad.abs().max() > 0, name


def test_it_can_be_rendered(make):
    camera = Camera.from_fov(0.9, torch.eye(4).repeat(BATCH, 1, 1))
    picture = render(make(), camera, 8, 8, RenderOptions(samples=16, near=1.0, far=9.0))
    assert picture.rgb.isfinite().all()
    assert picture.rgb.std() > 0.005
    # Rays end early when at most 1e-3 of their light is left.
    torch.testing.assert_close(picture.opacity, torch.ones(BATCH, 8, 8), atol=1e-3, rtol=0)
