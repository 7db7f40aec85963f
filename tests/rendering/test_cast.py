"""Pictures to learn from, against closed forms and against final pictures."""

import math

import pytest
import torch

from unflat.fields import FeatureDecoder, FieldOutput, TriplaneField, VoxelField
from unflat.geometry import Camera, orbit_pose
from unflat.rendering import Casting, RenderOptions, cast, render

BOX = torch.tensor([[-0.5] * 3, [0.5] * 3])


def around(count: int, radius: float = 1.5) -> Camera:
    azimuth = torch.linspace(0, 5, count)
    pose = orbit_pose(torch.full((count,), 0.3), azimuth, torch.full((count,), radius))
    return Camera.from_fov(0.9, pose)


def plain(density: float) -> VoxelField:
    return VoxelField(torch.full((1, 2, 2, 2), density), torch.full((1, 3, 2, 2, 2), 0.25), BOX)


def bumpy(batch: int, generator: torch.Generator) -> TriplaneField:
    torch.manual_seed(0)
    planes = torch.nn.Parameter(2 * torch.randn(batch, 3, 4, 4, 4, generator=generator))
    return TriplaneField(planes, FeatureDecoder(4, 8), BOX)


def test_a_box_of_fog_in_closed_form():
    front = Camera.from_fov(0.02, orbit_pose(*torch.tensor([[0.0], [0.0], [2.0]])))
    seen = cast(plain(1.7), front, 2, Casting(coarse=8))
    opacity = 1 - math.exp(-1.7)
    torch.testing.assert_close(seen.opacity, torch.full((1, 1, 2, 2), opacity), rtol=1e-3, atol=0)
    color = torch.full((1, 3, 2, 2), 0.25 * opacity)
    torch.testing.assert_close(seen.features, color, rtol=1e-3, atol=0)
    # Light ends where exp(-1.7 t) does: the mean of t over [0, 1], begun 1.5 away from the camera.
    inside = 1 / 1.7 - math.exp(-1.7) / opacity
    fine = cast(plain(1.7), front, 2, Casting(coarse=64))
    assert (fine.distance / fine.opacity).mean().item() == pytest.approx(1.5 + inside, abs=1e-3)
    assert fine.depth.mean().item() == pytest.approx(1.5 + inside, abs=1e-3)


def test_nothing_is_seen_beside_the_box():
    away = Camera.from_fov(0.5, orbit_pose(*torch.tensor([[0.0], [0.0], [-2.0]])))
    seen = cast(plain(50.0), away, 4, Casting(coarse=4, fine=4))
    assert seen.opacity.abs().max() == 0
    assert seen.depth.isinf().all()


@pytest.mark.parametrize("keep", ["fine", "both"])
def test_many_samples_are_the_final_picture(keep, generator):
    field, camera = bumpy(3, generator), around(3)
    seen = cast(field, camera, 8, Casting(coarse=96, fine=96, keep=keep))
    options = RenderOptions(
        samples=768, near=0.1, far=4.0, spacing="distance", opaque_last=False, least_light=0.0
    )
    final = render(field, camera, 8, 8, options)
    torch.testing.assert_close(seen.features, final.features, rtol=0, atol=4e-3)
    torch.testing.assert_close(seen.opacity[:, 0], final.opacity, rtol=0, atol=4e-3)


def test_views_of_one_scene_are_those_of_copies_of_it(generator):
    field, camera = bumpy(2, generator), around(6)
    jitter = torch.rand(6, 16, generator=generator)
    views = Camera(
        camera_to_world=camera.camera_to_world.unflatten(0, (2, 3)),
        intrinsics=camera.intrinsics.unflatten(0, (2, 3)),
    )
    how = Casting(coarse=6, fine=5)
    together = cast(field, views, 4, how, jitter=jitter)
    copies = TriplaneField(field.planes.detach().repeat_interleave(3, 0), field.decoder, BOX)
    apart = cast(copies, camera, 4, how, jitter=jitter)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_first_pass_only_tells_where_to_look(generator):
    field, camera = bumpy(2, generator), around(2)
    how = Casting(coarse=12, fine=10)
    cast(field, camera, 4, how).features.sum().backward()
    slope = field.planes.grad
    assert slope is not None
    assert slope.abs().max() > 0
    shape = cast(field, camera, 4, how)
    assert shape.features.shape == (2, 3, 4, 4)


def test_jitter_moves_samples_without_bias(generator):
    field, camera = bumpy(1, generator), around(1)
    many = [
        cast(field, camera, 4, Casting(coarse=6), jitter=torch.rand(1, 16, generator=generator))
        for _ in range(64)
    ]
    still = cast(field, camera, 4, Casting(coarse=6)).opacity
    mean = torch.stack([one.opacity for one in many]).mean(0)
    spread = torch.stack([one.opacity for one in many]).std(0)
    assert spread.max() > 1e-3
    torch.testing.assert_close(mean, still, rtol=0, atol=0.05)


class Ball:
    """Dense inside a radius of 0.3, soft at its skin, far from the faces of its box."""

    bounds = BOX.double()

    def __call__(self, points, directions=None):
        density = 30 * torch.sigmoid((0.3 - points.norm(dim=-1)) / 0.03)
        return FieldOutput(density, torch.sigmoid(4 * points))


@pytest.mark.parametrize("how", [Casting(coarse=300), Casting(coarse=60, fine=200)])
def test_a_cameras_slope_is_that_of_the_picture(how):
    """Though where rays are cut has none: central differences move the cuts as well."""
    pose = around(1).camera_to_world.double()
    intrinsics = around(1).intrinsics.double()
    shade = torch.rand(1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def value(shift):
        moved = pose.clone()
        moved[:, :3, 3] = moved[:, :3, 3] + shift
        camera = Camera(camera_to_world=moved, intrinsics=intrinsics)
        return (cast(Ball(), camera, 8, how).features * shade).sum()

    shift = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(shift), shift)
    steps = 1e-3 * torch.eye(3, dtype=torch.float64)
    measured = torch.stack([(value(step) - value(-step)) / 2e-3 for step in steps])
    assert measured.abs().min() > 0.1
    torch.testing.assert_close(slope, measured, rtol=2e-2, atol=2e-2)


def test_what_cannot_be_is_refused(generator):
    with pytest.raises(ValueError, match="together"):
        Casting(near=1.0)
    with pytest.raises(ValueError, match="too few"):
        Casting(fine=1)

    class Boundless:
        def __call__(self, points, directions=None):
            raise AssertionError

    with pytest.raises(ValueError, match="bounds"):
        cast(Boundless(), around(1), 4, Casting())
