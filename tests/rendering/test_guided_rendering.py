"""Fewer questions to the field, placed by a guide or by the field's box."""

import math

import pytest
import torch
from analytic_fields import HardSphere, ProjectiveSpheres, SoftSpheres

from unflat.fields import FieldOutput, VoxelField
from unflat.geometry import Camera, Frame, image_rays
from unflat.rendering import Guide, RenderOptions, even_edges, render, to_distance

OBJECT = {"near": 1.0, "far": 8.0, "spacing": "distance", "opaque_last": False}


class Counting:
    """A field that remembers where it was asked."""

    def __init__(self, field):
        self.field, self.points = field, []

    def __call__(self, points, directions=None):
        self.points.append(points.reshape(-1, 3))
        return self.field(points, directions)

    @property
    def count(self) -> int:
        return sum(len(points) for points in self.points)


class Block:
    """Constant density in a box, and a color that changes with the place."""

    def __init__(self, density=0.7):
        self.bounds = torch.tensor([[-1.0, -1.0, 3.0], [1.0, 1.0, 5.0]])
        self.density = density

    def __call__(self, points, directions=None):
        inside = ((points >= self.bounds[0]) & (points <= self.bounds[1])).all(-1)
        density = inside.to(points) * self.density
        return FieldOutput(density, 0.5 + 0.5 * torch.sin(3 * points))


def camera(fov=0.9, batch=1, dtype=torch.float32) -> Camera:
    return Camera.from_fov(fov, torch.eye(4, dtype=dtype).repeat(batch, 1, 1))


def decibels(one, two) -> float:
    return -10 * math.log10((one - two).square().mean().item())


# A guide


def test_a_guide_of_a_distance_expects_light_around_it():
    distance = torch.tensor([[[2.0, 4.0], [1.0, 30.0]]])
    guide = Guide.of_distance(distance, torch.full_like(distance, 0.3), 1.0, 8.0, cells=700)
    edges = to_distance(even_edges(700), 1.0, 8.0, "disparity")
    for row, column, low, high in ((0, 0, 1.7, 2.3), (0, 1, 3.7, 4.3), (1, 0, 1.0, 1.3)):
        there = guide.shares[0, row, column].nonzero().flatten()
        assert edges[there[0]].item() == pytest.approx(low, abs=0.02)
        assert edges[there[-1] + 1].item() == pytest.approx(high, abs=0.06)
        assert len(there) == there[-1] - there[0] + 1
    assert (guide.shares[0, 1, 1] == 0).all(), "beyond the far end nothing is expected"
    before = Guide.of_distance(torch.full_like(distance, 0.5), 0.3 * torch.ones(1, 2, 2), 1.0, 8.0)
    assert (before.shares == 0).all()
    thin = Guide.of_distance(distance, torch.zeros_like(distance), 1.0, 8.0, cells=16)
    assert thin.shares[0, 0, 0].sum() >= 1


@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 5), (2, 3), (1, 1)])
def test_pixels_look_up_the_nearest_one_of_a_guide(height, width):
    shares = torch.arange(12.0).reshape(1, 3, 4, 1)
    found = Guide(shares).at(torch.arange(height * width), height, width)
    for row in range(height):
        for column in range(width):
            expected = shares[
                0, math.floor((row + 0.5) * 3 / height), math.floor((column + 0.5) * 4 / width), 0
            ]
            assert found[0, row * width + column, 0] == expected


def test_pixels_expect_what_their_neighbors_expect():
    shares = torch.zeros(1, 5, 5, 2)
    shares[0, 2, 2, 0], shares[0, 2, 3, 1] = 3.0, 1.0
    wide = Guide(shares).widened().shares[0]
    assert (wide[1:4, 1:4, 0] == 3).all()
    assert (wide[1:4, 2:5, 1] == 1).all()
    assert wide.sum() == 9 * 3 + 9


@pytest.mark.parametrize("field", [SoftSpheres(), ProjectiveSpheres(Frame(a=1.2, b=0.1))])
def test_a_coarse_picture_guides_few_samples(field):
    """A sixteenth of 48 and 12 more, 15 a pixel, are nearer to the truth than 48 even ones."""
    options = {"near": 1.0, "far": 9.0, "least_light": 0.0}
    whole = render(field, camera(), 48, 48, RenderOptions(samples=400, **options)).rgb
    even = render(field, camera(), 48, 48, RenderOptions(samples=48, **options)).rgb
    guided = render(
        field, camera(), 48, 48, RenderOptions(samples=48, fine_samples=12, coarse=4, **options)
    ).rgb
    assert decibels(guided, whole) > 35
    assert decibels(guided, whole) > decibels(even, whole) + 6


def test_the_field_is_asked_as_often_as_stated():
    counting = Counting(SoftSpheres())
    options = RenderOptions(samples=20, fine_samples=7, coarse=4, least_light=0.0, block=100)
    render(counting, camera(), 10, 13, options)
    assert counting.count == 3 * 4 * 20 + 10 * 13 * 7


@pytest.mark.parametrize("chunk", [1, 7, 34])
def test_the_chunk_size_never_changes_a_guided_picture(chunk):
    options = {"samples": 16, "fine_samples": 6, "coarse": 2, "near": 1.0, "far": 9.0}
    whole = render(SoftSpheres(), camera(batch=2), 5, 7, RenderOptions(**options))
    parts = render(SoftSpheres(), camera(batch=2), 5, 7, RenderOptions(**options, chunk=chunk))
    assert whole.rgb.std() > 0.02
    for one, two in zip(whole, parts, strict=True):
        assert torch.equal(one, two)


def test_a_silhouette_keeps_both_surfaces():
    """In front of a wall, a ball: each pixel sees one of them, its neighborhood expects both."""
    ball, wall = HardSphere((0.0, 0.0, 3.0), 0.8, density=60.0), 6.0

    def field(points, directions=None):
        front = ball(points)
        behind = (points[..., 2] > wall).to(points) * 60.0
        color = torch.where(front.density[..., None] > 0, front.features, 0.2)
        return FieldOutput(front.density + behind, color)

    options = {"near": 1.0, "far": 8.0}
    whole = render(field, camera(), 64, 64, RenderOptions(samples=600, **options))
    guided = render(
        field, camera(), 64, 64, RenderOptions(samples=64, fine_samples=16, coarse=4, **options)
    )
    assert {True, False} == {*(whole.depth < 5).flatten().tolist()}
    wrong = (guided.depth - whole.depth).abs() > 0.5
    assert wrong.float().mean() < 0.015


@pytest.mark.parametrize("shape", [(32, 32), (8, 8)])
def test_a_known_distance_guides_samples(shape):
    """The distance of a sphere, written out; 10 samples instead of 400."""
    sphere = HardSphere((0.0, 0.0, 4.0), 1.2, density=200.0)
    rays = image_rays(camera(), *shape)
    along = rays.directions @ torch.tensor([0.0, 0.0, 4.0])
    inner = 1.2**2 - (16 - along.square())
    distance = torch.where(inner > 0, along - inner.clamp_min(0).sqrt(), 99.0)
    spread = torch.full_like(distance, 0.15)
    guide = Guide.of_distance(distance, spread, 1.0, 8.0, "distance")
    whole = render(sphere, camera(), 32, 32, RenderOptions(samples=400, **OBJECT))
    options = RenderOptions(fine_samples=10, **OBJECT)
    guided = render(sphere, camera(), 32, 32, options, guide)
    even = render(sphere, camera(), 32, 32, RenderOptions(samples=10, **OBJECT))
    deep = whole.opacity > 0.99
    error = (guided.depth - whole.depth)[deep].abs().mean()
    assert error < 0.07
    assert error < 0.3 * (even.depth - whole.depth)[deep].abs().mean()


def test_what_the_guide_did_not_expect_is_still_seen():
    sphere = HardSphere((0.0, 0.0, 4.0), 1.2, density=200.0)
    wrong = torch.full((1, 4, 4), 7.5)
    guide = Guide.of_distance(wrong, 0.1 * torch.ones_like(wrong), 1.0, 8.0, "distance")
    picture = render(sphere, camera(0.2), 8, 8, RenderOptions(fine_samples=24, **OBJECT), guide)
    assert (picture.opacity > 0.99).all()


# The field's box


@pytest.mark.parametrize("spacing", ["distance", "disparity"])
def test_one_sample_in_the_box_measures_a_slab_exactly(spacing):
    options = RenderOptions(
        samples=1, near=0.5, far=9.0, spacing=spacing, opaque_last=False, fit_box=True
    )
    block = Block()
    seen = camera(dtype=torch.float64)
    picture = render(block, seen, 15, 15, options)
    rays = image_rays(seen, 15, 15)
    expected = torch.zeros(15, 15, dtype=torch.float64)
    for row in range(15):
        for column in range(15):
            direction = rays.directions[0, row, column].tolist()
            low, high = 0.0, math.inf
            for axis in range(3):
                if direction[axis] == 0:
                    continue
                ends = sorted(side / direction[axis] for side in block.bounds[:, axis].tolist())
                low, high = max(low, ends[0]), min(high, ends[1])
            expected[row, column] = 1 - math.exp(-0.7 * max(0.0, high - low))
    torch.testing.assert_close(picture.opacity[0], expected, atol=1e-12, rtol=0)
    assert (expected == 0).any()
    assert (expected > 0.7).any()


@pytest.mark.parametrize("fine_samples", [0, 6])
def test_all_samples_lie_in_the_box(fine_samples):
    counting = Counting(Block())
    counting.bounds = counting.field.bounds
    options = RenderOptions(
        samples=9, fine_samples=fine_samples, near=0.5, far=9.0, opaque_last=False, fit_box=True
    )
    picture = render(counting, camera(), 16, 16, options)
    points = torch.cat(counting.points)
    assert ((points >= counting.bounds[0]) & (points <= counting.bounds[1])).all()
    rays = int((picture.opacity > 0).sum())
    assert 40 < rays < 256
    assert len(points) <= rays * (2 * 9 + fine_samples if fine_samples else 9)


def test_a_fitted_picture_is_nearer_to_the_truth():
    field = Block(2.0)
    options = {"near": 0.5, "far": 9.0, "opaque_last": False, "background": (0.1, 0.9, 0.3)}
    truth, even, fitted = (
        render(field, camera(), 16, 16, RenderOptions(samples=samples, fit_box=fit, **options)).rgb
        for samples, fit in ((2000, False), (16, False), (16, True))
    )
    assert decibels(fitted, truth) > decibels(even, truth) + 10


def test_rays_that_miss_show_the_background():
    options = RenderOptions(opaque_last=False, fit_box=True, background=(0.2, 0.4, 0.6))
    field = VoxelField(
        torch.ones(2, 2, 2, 2),
        torch.ones(2, 3, 2, 2, 2),
        torch.tensor([[-1.0, -1, -9], [1, 1, -7]]),
    )
    picture = render(field, camera(batch=2), 3, 4, options)
    assert torch.equal(
        picture.rgb, torch.tensor([0.2, 0.4, 0.6])[None, :, None, None].expand(2, 3, 3, 4)
    )
    assert (picture.opacity == 0).all()
    assert (picture.disparity == 0).all()


def test_the_chunk_size_never_changes_a_fitted_picture():
    options = {"near": 0.5, "far": 9.0, "opaque_last": False, "fit_box": True, "samples": 8}
    whole = render(Block(), camera(batch=2), 9, 9, RenderOptions(**options))
    for chunk in (1, 7, 50):
        parts = render(Block(), camera(batch=2), 9, 9, RenderOptions(**options, chunk=chunk))
        for one, two in zip(whole, parts, strict=True):
            assert torch.equal(one, two)


# What does not go together


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"fit_box": True}, "opaque_last must be False"),
        ({"coarse": 0}, "coarse is 0"),
        ({"coarse": 4}, "coarse is 4: fine_samples must say"),
        (
            {"coarse": 4, "fine_samples": 8, "fit_box": True, "opaque_last": False},
            "coarse is 4: fit_box must be False",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        RenderOptions(**wrong)


def test_a_guide_needs_samples_and_its_own_scenes():
    guide = Guide(torch.ones(1, 2, 2, 4))
    with pytest.raises(ValueError, match="a guide is given: fine_samples"):
        render(SoftSpheres(), camera(), 3, 3, RenderOptions(), guide)
    with pytest.raises(ValueError, match="a guide of 1 scenes for 2 cameras"):
        render(SoftSpheres(), camera(batch=2), 3, 3, RenderOptions(fine_samples=4), guide)


def test_a_field_without_a_box_cannot_be_fitted():
    with pytest.raises(ValueError, match="SoftSpheres has no bounds"):
        render(SoftSpheres(), camera(), 3, 3, RenderOptions(opaque_last=False, fit_box=True))
