"""Tri-planes of signed distances in the fused CPU march, beside float64, and their palettes."""

import copy
import math

import pytest
import torch

pytest.importorskip("numba", reason="the fused CPU backend needs the [fast] extra")

from torch import Tensor, nn

from unflat.errors import UserError
from unflat.fields import DistanceDecoder, DistanceTriplaneField, LaplaceDensity, PaletteField
from unflat.fields.distance import LEAST
from unflat.geometry import Camera, orbit_pose
from unflat.rendering import (
    Casting,
    OccupancyGrid,
    RenderOptions,
    backends,
    cast,
    render,
    render_rays,
)
from unflat.rendering.backends import Rays

pytestmark = pytest.mark.usefixtures("no_backend_named")

BOX = torch.tensor([[-1.0, -1.2, -0.8], [1.0, 0.9, 1.1]])


def field(
    channels=16, hidden=32, colors=10, batch=1, sides=(13, 11), alpha=0.3, beta=0.2, **rest
) -> DistanceTriplaneField:
    """Random; half of its box is inside."""
    generator = torch.Generator().manual_seed(channels + hidden + colors)
    planes = torch.randn(batch, 3, channels, *sides, generator=generator)
    decoder = DistanceDecoder(channels, hidden, colors)
    made = DistanceTriplaneField(
        nn.Parameter(planes), decoder, LaplaceDensity(alpha, beta), BOX, **rest
    )
    share = torch.rand(batch, 1000, 3, generator=generator)
    with torch.no_grad():
        for part in decoder.parameters():
            part.copy_(torch.randn(part.shape, generator=generator))
        decoder.out.bias[0] -= made.distance(BOX[0] + share * (BOX[1] - BOX[0])).median()
    return made


def rays(batch=1, count=37, n=21) -> tuple[Tensor, Tensor, Tensor]:
    """Origins, directions and uneven edges, some of no length; some rays miss the box."""
    generator = torch.Generator().manual_seed(1)
    origins = 0.4 * torch.randn(batch, count, 3, generator=generator) + torch.tensor([0, 0, -2.5])
    aims = 0.25 * torch.randn(batch, count, 3, generator=generator) + torch.tensor([0, 0, 1.0])
    steps = torch.rand(batch, count, n, generator=generator)
    steps[..., 3] = 0
    edges = torch.cat([torch.full((batch, count, 1), 0.5), 0.5 + 8 / n * steps.cumsum(-1)], dim=-1)
    return origins, nn.functional.normalize(aims, dim=-1), edges


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def exact(part):
    return copy.deepcopy(part).double()


def both_ways(scene, lines, opaque_last=False, grid=None) -> list[tuple[Tensor, Tensor]]:
    """Pictures, weights and every gradient: fused in float32, the reference in float64."""
    origins, directions, edges = lines
    results = []
    for backend, change in (("fused", copy.deepcopy), ("reference", exact)):
        made = change(scene)
        start, ways = (change(part).requires_grad_() for part in (origins, directions))
        with backends.use(backend):
            out = render_rays(made, start, ways, change(edges), opaque_last, grid)
        loss = out.features.square().sum() + (out.weights * out.middles).sin().sum()
        gradients = torch.autograd.grad(loss, [start, ways, *made.parameters()])
        results.append([out.features.detach(), out.weights.detach(), *gradients])
    return list(zip(*results, strict=True))


def agree(pairs) -> None:
    (features, exact_features), (weights, exact_weights), *gradients = pairs
    assert exact_weights.std() > 0.02
    torch.testing.assert_close(features.double(), exact_features, atol=5e-6, rtol=0)
    torch.testing.assert_close(weights.double(), exact_weights, atol=5e-6, rtol=0)
    for found, wanted in gradients:
        assert relative(found, wanted) < 2e-5


CASES = {
    "as trained": {},
    "wide, 32 colors": {"channels": 32, "hidden": 64, "colors": 32, "batch": 3},
    "one color, odd sizes": {"channels": 10, "hidden": 30, "colors": 1, "batch": 2, "beta": 0.6},
    "aligned corners": {"channels": 48, "hidden": 17, "colors": 3, "sides": (9, 9)}
    | {"align_corners": True},
    "one of everything": {"channels": 1, "hidden": 1, "colors": 1, "sides": (1, 2)},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("opaque_last", [True, False])
def test_pictures_and_gradients_are_those_of_float64(case, opaque_last):
    scene = field(**CASES[case])
    agree(both_ways(scene, rays(len(scene.planes)), opaque_last))


@pytest.mark.parametrize("opaque_last", [True, False])
@pytest.mark.parametrize(("scenes", "empty_outside"), [(1, True), (2, False)])
def test_a_grid_says_what_is_asked(opaque_last, scenes, empty_outside):
    scene, lines = field(batch=2), rays(batch=2, n=50)
    cells = torch.rand(scenes, 5, 6, 7, generator=torch.Generator().manual_seed(0)) < 0.4
    grid = OccupancyGrid(cells=cells.to(torch.uint8), bounds=BOX, empty_outside=empty_outside)
    pairs = both_ways(scene, lines, opaque_last, grid)
    without = both_ways(scene, lines, opaque_last)
    assert (pairs[1][1] - without[1][1]).abs().max() > 0.01
    agree(pairs)


@pytest.mark.parametrize("least", ["alpha", "beta"])
def test_numbers_below_the_least_are_held_there_and_learn_nothing(least):
    below, held = field(**{least: -0.5}), field(**{least: LEAST})
    made = []
    for scene in (below, held):
        with backends.use("fused"):
            out = render_rays(scene, *rays())
        (out.features.square().sum() + out.weights.sin().sum()).backward()
        made.append((out.features, scene.planes.grad))
    assert made[0][0].std() > 0.01
    for found, wanted in zip(*made, strict=True):
        torch.testing.assert_close(found, wanted)
    assert getattr(below.density, least).grad == 0
    assert getattr(held.density, least).grad != 0
    other = "beta" if least == "alpha" else "alpha"
    assert getattr(below.density, other).grad != 0


@pytest.mark.parametrize("distance", [-0.3, -0.02, 0.0, 0.15])
def test_a_box_of_one_distance_dims_light_as_laplace_has_it(distance):
    alpha, beta, way = 0.7, 0.2, 1.5
    scene = field(alpha=alpha, beta=beta, colors=2)
    with torch.no_grad():
        scene.decoder.out.weight.zero_()
        scene.decoder.out.bias.copy_(torch.tensor([distance, 0.0, math.log(3)]))
    line = torch.tensor([[[0.0, 0.0, 1.0]]])
    edges = torch.linspace(0, way, 31)[None, None] - 0.6
    with backends.use("fused"):
        out = render_rays(scene, torch.zeros(1, 1, 3), line, edges, opaque_last=False)
    out.opacity.sum().backward()
    tail = 0.5 * math.exp(-abs(distance) / beta)
    density = (tail if distance > 0 else 1 - tail) / alpha
    through = math.exp(-density * way)
    assert out.opacity.item() == pytest.approx(1 - through, abs=1e-6)
    assert out.features.flatten().tolist() == pytest.approx(
        [0.25 * (1 - through), 0.75 * (1 - through)], abs=1e-6
    )
    slope = through * way  # of opacity by density
    assert scene.density.alpha.grad.item() == pytest.approx(-slope * density / alpha, rel=1e-5)
    by_beta = tail * distance / (alpha * beta**2)
    assert scene.density.beta.grad.item() == pytest.approx(slope * by_beta, rel=1e-5, abs=1e-7)
    by_distance = -tail / (alpha * beta) if distance else 0.0  # as PyTorch has |d| at 0
    assert scene.decoder.out.bias.grad[0].item() == pytest.approx(slope * by_distance, rel=1e-5)


def test_extreme_distances_and_logits_stay_finite():
    scene, lines = field(), rays()
    with torch.no_grad():
        scene.decoder.out.weight.mul_(1e4)
    results = both_ways(scene, lines)
    for found, _ in results:
        assert found.isfinite().all()
    features, weights = results[0][0], results[1][0]
    torch.testing.assert_close(features.sum(-1), weights.sum(-1), atol=1e-5, rtol=0)


def test_only_what_learns_gets_gradients():
    scene = field()
    scene.decoder.requires_grad_(False)
    scene.density.alpha.requires_grad_(False)
    with backends.use("fused"):
        render_rays(scene, *rays()).features.sum().backward()
    assert scene.planes.grad.abs().sum() > 0
    assert scene.density.beta.grad != 0
    assert scene.density.alpha.grad is None
    assert all(part.grad is None for part in scene.decoder.parameters())


def test_scenes_of_a_batch_are_themselves():
    scene, lines = field(batch=3), rays(batch=3)
    with backends.use("fused"):
        together = render_rays(scene, *lines).features
        for index in range(3):
            one = slice(index, index + 1)
            planes = scene.planes[one].detach()
            alone = DistanceTriplaneField(planes, scene.decoder, scene.density, BOX)
            features = render_rays(alone, *(part[one] for part in lines)).features
            assert torch.equal(features[0], together[index])


def test_half_precision_planes_are_rounded_planes():
    scene, lines = field(), rays()
    half = copy.deepcopy(scene)
    half.planes = nn.Parameter(scene.planes.detach().bfloat16())
    scene.planes = nn.Parameter(half.planes.detach().float())
    with backends.use("fused"):
        found, wanted = render_rays(half, *lines).features, render_rays(scene, *lines).features
    torch.testing.assert_close(found, wanted, atol=5e-6, rtol=0)
    for made in (found, wanted):
        made.square().sum().backward()
    assert half.planes.grad.dtype == torch.bfloat16
    assert relative(half.planes.grad, scene.planes.grad) < 5e-3


@pytest.mark.parametrize("shape", [(5,), (3, 111)])
@pytest.mark.parametrize("colored", [False, True])
def test_fields_can_be_asked_at_points(shape, colored):
    scene = field(batch=2, sides=(9, 9), align_corners=True)
    generator = torch.Generator().manual_seed(0)
    if colored:
        scene = PaletteField(scene, torch.rand(2, 10, 3, generator=generator))
    points = 1.2 * torch.randn(2, *shape, 3, generator=generator)
    with backends.use("fused"):
        found = backends.ask(scene, points)
    expected = scene(points)
    assert (expected.density == 0).any()
    assert expected.density.max() > 0.1
    for part, wanted in zip(found, expected, strict=True):
        assert part.shape == wanted.shape
        torch.testing.assert_close(part, wanted, atol=5e-6, rtol=5e-6)
    assert not found.density.requires_grad


# Colors


def colored(batch=2, **rest) -> PaletteField:
    palette = torch.rand(batch, 10, 3, generator=torch.Generator().manual_seed(7))
    return PaletteField(field(batch=batch, **rest), palette)


def test_a_palette_is_mixed_after_the_march_and_learns():
    lines, made = rays(batch=2), {}
    for backend in ("fused", "reference"):
        scene = colored()
        scene.palette.requires_grad_()
        learned = [scene.palette, *scene.parameters()]
        with backends.use(backend):
            assert backends.pick(scene, Rays(*lines)).name == (
                "cpu" if backend == "fused" else "reference"
            )
            out = render_rays(scene, *lines, opaque_last=False)
        gradients = torch.autograd.grad(out.features.square().sum(), learned)
        made[backend] = out.features.detach(), out.weights.detach(), *gradients
    assert made["fused"][0].shape[-1] == 3
    for found, wanted in zip(made["fused"], made["reference"], strict=True):
        assert wanted.norm() > 0
        assert relative(found, wanted) < 2e-5


def test_pictures_of_a_palette_are_the_references():
    scene, pictures = colored(beta=0.02), {}
    pose = torch.eye(4).repeat(2, 1, 1)
    pose[:, 2, 3] = torch.tensor([-2.5, -2.8])
    for backend in ("reference", "fused"):
        with backends.use(backend):
            options = RenderOptions(
                samples=24,
                fine_samples=8,
                near=1.0,
                far=5.0,
                spacing="distance",
                opaque_last=False,
                background=(1.0, 1.0, 1.0),
                fit_box=True,
                occupancy=OccupancyGrid.of(scene, batch=2, resolution=12),
            )
            pictures[backend] = render(scene, Camera.from_fov(0.9, pose), 9, 13, options)
    assert pictures["reference"].rgb.std() > 0.1
    for found, wanted in zip(pictures["fused"], pictures["reference"], strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-3, rtol=2e-3)


# Choice


def test_what_is_not_known_is_left_to_the_reference():
    class OtherDecoder(DistanceDecoder):
        pass

    class OtherDensity(LaplaceDensity):
        pass

    along = Rays(*rays())
    scenes = [field() for _ in range(4)]
    scenes[0].decoder = OtherDecoder(16)
    scenes[1].density = OtherDensity()
    scenes[2].decoder.double()
    scenes[3].align_corners = True
    reasons = "OtherDecoder", "OtherDensity", "decoder is torch.float64", "no corners to align"
    for scene, why in zip(scenes, reasons, strict=True):
        for made in (scene, PaletteField(scene, torch.rand(1, 10, 3))):
            assert backends.pick(made, along).name == "reference"
            with backends.use("fused"), pytest.raises(UserError, match=why):
                backends.pick(made, along)


def test_second_derivatives_are_refused():
    scene = field()
    with backends.use("fused"):
        features = render_rays(scene, *rays()).features
    with pytest.raises(NotImplementedError, match="create_graph=True"):
        torch.autograd.grad(features.sum(), scene.planes, create_graph=True)


@pytest.mark.parametrize("keep", ["fine", "both"])
def test_pictures_of_cameras_that_are_fitted(keep):
    """The kernels take them, and give the camera and the planes the reference's gradients."""
    object_, how = field(), Casting(coarse=9, fine=8, keep=keep)
    pose = orbit_pose(*torch.tensor([[0.3, 0.1], [0.5, 2.0], [3.0, 3.2]]))
    found: list[list[Tensor]] = []
    for backend in ("reference", "fused"):
        shift = torch.zeros(2, 3, requires_grad=True)
        moved = torch.cat([pose[:, :3, :3], pose[:, :3, 3:] + shift[..., None]], dim=2)
        camera = Camera.from_fov(0.9, torch.cat([moved, pose[:, 3:]], dim=1))
        views = Camera(
            camera_to_world=camera.camera_to_world[None], intrinsics=camera.intrinsics[None]
        )
        with backends.use(backend):
            seen = cast(object_, views, 6, how)
            loss = seen.features.square().sum() + seen.distance.sum()
            slopes = torch.autograd.grad(loss, [shift, object_.planes])
            found.append([seen.features.detach(), *slopes])
    for plain, fused in zip(*found, strict=True):
        assert relative(fused, plain) < 1e-4
