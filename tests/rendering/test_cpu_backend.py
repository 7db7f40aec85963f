"""The fused CPU march beside the plain torch reference, and its parts beside closed forms."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("numba", reason="the fused CPU backend needs the [fast] extra")

from torch import nn

from unflat.errors import UserError
from unflat.fields import FeatureDecoder, FieldOutput, TriplaneField, VoxelField
from unflat.geometry import Camera
from unflat.rendering import OccupancyGrid, RenderOptions, backends, render, render_rays
from unflat.rendering.backends import Marching, Rays
from unflat.rendering.backends.cpu import dense, functions, simd
from unflat.rendering.backends.cpu.simd import LANES, compiled, load, store

pytestmark = pytest.mark.usefixtures("no_backend_named")

BOX = torch.tensor([[-1.0, -1.2, -0.8], [1.0, 0.9, 1.1]])


# Vectors and functions


@compiled
def _apply(x, exponentials, sigmoids, softpluses, slopes):
    for i in range(0, x.size, LANES):
        value = load(x, i)
        store(exponentials, i, functions.exponential(value))
        store(sigmoids, i, functions.sigmoid(value))
        soft = functions.softplus(value)
        store(softpluses, i, soft)
        store(slopes, i, functions.slope_of_softplus(soft))


def test_elementary_functions_are_exact_to_float32():
    x = np.linspace(-87, 87, 64 * 1024, dtype=np.float32)
    exponentials, sigmoids, softpluses, slopes = (np.zeros_like(x) for _ in range(4))
    _apply(x, exponentials, sigmoids, softpluses, slopes)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(exponentials, np.exp(exact), rtol=3e-7)
    np.testing.assert_allclose(sigmoids, 1 / (1 + np.exp(-exact)), rtol=4e-7)
    np.testing.assert_allclose(softpluses, np.logaddexp(0, exact), rtol=3e-7, atol=3e-7)
    np.testing.assert_allclose(slopes, 1 / (1 + np.exp(-exact)), atol=4e-7)


def test_an_exponential_of_nothing_is_one_and_extremes_stay_finite():
    x = np.array([0.0, -0.0, 1e4, -1e4, np.inf, -np.inf] * LANES, np.float32)
    made = [np.zeros_like(x) for _ in range(4)]
    _apply(x, *made)
    assert (made[0][:2] == 1).all()
    assert all(np.isfinite(values).all() for values in made[:2])
    assert made[0][3] < 2e-38
    assert made[1][2] == 1


@compiled
def _turn(source, target):
    simd.transpose(source, 0, LANES, target, 0, LANES)


def test_a_square_of_lanes_is_turned():
    source = np.arange(LANES * LANES, dtype=np.float32)
    target = np.zeros_like(source)
    _turn(source, target)
    assert (target.reshape(LANES, LANES) == source.reshape(LANES, LANES).T).all()


# Layers


@compiled
def _layer(weight, bias, x, y, out, into, count):
    dense.layer(weight, bias, x, y, out, into, count)


@compiled
def _products(sums, rows, x, y, out, into, count):
    dense.add_products(sums, x, y, out, into, count)
    dense.add_rows(rows, y, out, count)


@pytest.mark.parametrize(("out", "into"), [(4, 1), (12, 7), (64, 32)])
def test_a_layer_is_a_matrix_product(out, into):
    rng = np.random.default_rng(0)
    weight, bias, x = (
        rng.standard_normal(shape, np.float32) for shape in ((out, into), out, (into, dense.STRIDE))
    )
    y = np.zeros((out, dense.STRIDE), np.float32)
    _layer(weight.ravel(), bias, x.ravel(), y.reshape(-1), out, into, dense.STRIDE)
    np.testing.assert_allclose(y, weight @ x + bias[:, None], atol=1e-5)


def test_gradients_of_a_layer_add_up_over_samples():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, dense.STRIDE), np.float32)
    y = rng.standard_normal((12, dense.STRIDE), np.float32)
    count = 3 * LANES
    sums, rows = np.ones((12, 8, LANES), np.float32), np.zeros((12, LANES), np.float32)
    _products(sums.reshape(-1), rows.reshape(-1), x.ravel(), y.ravel(), 12, 8, count)
    expected = y[:, :count].astype(np.float64) @ x[:, :count].T
    np.testing.assert_allclose(sums.sum(-1) - LANES, expected, atol=2e-5)
    np.testing.assert_allclose(rows.sum(-1), y[:, :count].sum(-1), atol=2e-5)


# Fields


def field(
    channels=32, hidden=64, out=3, box=True, batch=1, dtype=torch.float32, sides=(20, 17)
) -> TriplaneField:
    generator = torch.Generator().manual_seed(channels + hidden + out)
    texels = 0.7 * torch.randn(batch, 3, channels, *sides, generator=generator)
    decoder = FeatureDecoder(channels, hidden, out)
    for part in decoder.parameters():
        with torch.no_grad():
            part.copy_(0.3 * torch.randn(part.shape, generator=generator))
    return TriplaneField(nn.Parameter(texels.to(dtype)), decoder, BOX if box else None)


def rays(batch=1, count=37, n=21, seed=1) -> list[torch.Tensor]:
    """Origins, directions and uneven edges, some of no length; some rays miss the box."""
    generator = torch.Generator().manual_seed(seed)
    origins = 0.4 * torch.randn(batch, count, 3, generator=generator) + torch.tensor([0, 0, -2.5])
    aims = 0.25 * torch.randn(batch, count, 3, generator=generator) + torch.tensor([0, 0, 1.0])
    steps = torch.rand(batch, count, n, generator=generator)
    steps[..., 3] = 0
    edges = torch.cat([torch.full((batch, count, 1), 0.5), 0.5 + 0.4 * steps.cumsum(-1)], dim=-1)
    return [origins, nn.functional.normalize(aims, dim=-1), edges]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


CASES = [(32, 64, 3, True, 1), (16, 64, 32, False, 3), (10, 30, 1, True, 2), (48, 17, 3, False, 1)]


@pytest.mark.parametrize(("channels", "hidden", "out", "box", "batch"), CASES)
@pytest.mark.parametrize("opaque_last", [True, False])
def test_pictures_and_gradients_are_the_references(channels, hidden, out, box, batch, opaque_last):
    scene = field(channels, hidden, out, box, batch)
    origins, directions, edges = rays(batch)
    learned = [origins.requires_grad_(), directions.requires_grad_(), *scene.parameters()]
    generator = torch.Generator().manual_seed(0)
    asked = [
        torch.randn(batch, 37, out, generator=generator),
        torch.randn(batch, 37, 21, generator=generator),
    ]
    seen = {}
    for backend in ("reference", "fused"):
        with backends.use(backend):
            result = render_rays(scene, origins, directions, edges, opaque_last)
        outputs = [result.features, result.weights]
        seen[backend] = outputs, torch.autograd.grad(outputs, learned, asked)
    for fused, reference in zip(seen["fused"][0], seen["reference"][0], strict=True):
        torch.testing.assert_close(fused, reference, atol=5e-6, rtol=0)
    for fused, reference in zip(seen["fused"][1], seen["reference"][1], strict=True):
        assert relative(fused, reference) < 1e-5


def test_gradients_are_those_of_float64():
    scene, exact = field(), field().double()
    lines = rays()
    with backends.use("fused"):
        made = render_rays(scene, *lines)
    expected = render_rays(exact, *(part.double() for part in lines))
    for result in (made, expected):
        loss = result.features.square().sum() + (result.weights * result.middles).sin().sum()
        loss.backward()
    for part, other in zip(scene.parameters(), exact.parameters(), strict=True):
        assert relative(part.grad, other.grad) < 2e-5


def test_only_what_learns_gets_gradients():
    scene = field()
    scene.decoder.requires_grad_(False)
    origins, directions, edges = rays()
    origins.requires_grad_()
    with backends.use("fused"):
        render_rays(scene, origins, directions, edges).features.sum().backward()
    assert scene.planes.grad.abs().sum() > 0
    assert origins.grad.abs().sum() > 0
    assert all(part.grad is None for part in scene.decoder.parameters())


@pytest.mark.parametrize(("channels", "batch"), [(3, 1), (20, 2)])
def test_voxels_are_marched_alike(channels, batch):
    generator = torch.Generator().manual_seed(0)
    density = 3 * torch.randn(batch, 5, 7, 6, generator=generator)
    scene = VoxelField(
        nn.Parameter(density),
        nn.Parameter(torch.rand(batch, channels, 5, 7, 6, generator=generator)),
        BOX,
    )
    origins, directions, edges = rays(batch)
    learned = [origins.requires_grad_(), directions.requires_grad_(), *scene.parameters()]
    seen = {}
    for backend in ("reference", "fused"):
        with backends.use(backend):
            out = render_rays(scene, origins, directions, edges, opaque_last=False)
        loss = out.features.square().sum() + (out.weights * out.middles).sin().sum()
        gradients = torch.autograd.grad(loss, learned)
        seen[backend] = out.features.detach(), out.weights.detach(), *gradients
    assert seen["reference"][2].abs().sum() > 0
    for fused, reference in zip(seen["fused"], seen["reference"], strict=True):
        assert relative(fused, reference) < 2e-5


def test_lengths_can_be_given_and_get_gradients():
    scene, lines = field(), rays()
    for lengths in (0.3 * torch.rand(1, 37, 21), torch.zeros(1, 37, 21)):
        made = {}
        for backend in ("reference", "fused"):
            lengths = lengths.detach().requires_grad_()
            with backends.use(backend):
                bundle = Rays(*lines, lengths)
                marched = backends.pick(scene, bundle).march(
                    scene, bundle, Marching(opaque_last=False)
                )
            (marched.features.sum() + marched.weights.sin().sum()).backward()
            made[backend] = marched.features, marched.weights, lengths.grad
        for fused, reference in zip(made["fused"], made["reference"], strict=True):
            torch.testing.assert_close(fused, reference, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("opaque_last", [True, False])
@pytest.mark.parametrize(("scenes", "empty_outside"), [(1, True), (2, False)])
def test_a_grid_says_what_is_asked(opaque_last, scenes, empty_outside):
    scene = field(batch=2, box=empty_outside)
    origins, directions, edges = rays(batch=2, n=50)
    learned = [origins.requires_grad_(), directions.requires_grad_(), *scene.parameters()]
    cells = torch.rand(scenes, 5, 6, 7, generator=torch.Generator().manual_seed(0)) < 0.4
    grid = OccupancyGrid(cells=cells.to(torch.uint8), bounds=BOX, empty_outside=empty_outside)
    seen = {}
    for backend in ("reference", "fused"):
        with backends.use(backend):
            out = render_rays(scene, origins, directions, edges, opaque_last, grid)
        loss = out.features.square().sum() + (out.weights * out.middles).sin().sum()
        gradients = torch.autograd.grad(loss, learned)
        seen[backend] = out.features.detach(), out.weights.detach(), *gradients
    for fused, reference in zip(seen["fused"], seen["reference"], strict=True):
        assert relative(fused, reference) < 5e-5


def test_a_full_grid_changes_nothing():
    scene, lines = field(), rays(n=50)
    full = OccupancyGrid(cells=torch.ones(1, 4, 4, 4, dtype=torch.uint8), bounds=BOX)
    with backends.use("fused"):
        without, skipping = render_rays(scene, *lines), render_rays(scene, *lines, occupancy=full)
    torch.testing.assert_close(skipping.features, without.features, atol=1e-6, rtol=0)


def test_threads_do_not_change_the_picture_and_hardly_gradients():
    lines = rays(count=600)
    before = torch.get_num_threads()
    results = {}
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            scene = field()
            with backends.use("fused"):
                result = render_rays(scene, *lines)
            result.features.sum().backward()
        finally:
            torch.set_num_threads(before)
        results[threads] = result.features, *(part.grad for part in scene.parameters())
    for threads in (2, 3):
        assert torch.equal(results[threads][0], results[1][0])
        for some, one in zip(results[threads][1:], results[1][1:], strict=True):
            assert relative(some, one) < 1e-5


def test_scenes_of_a_batch_are_themselves():
    scene, lines = field(batch=3), rays(batch=3)
    with backends.use("fused"):
        together = render_rays(scene, *lines).features
        for index in range(3):
            alone = TriplaneField(scene.planes[index : index + 1].detach(), scene.decoder, BOX)
            one = [part[index : index + 1] for part in lines]
            assert torch.equal(render_rays(alone, *one).features[0], together[index])


def test_half_precision_planes_cost_little():
    exact, half = field(), field(dtype=torch.bfloat16)
    lines = rays(count=200)
    with backends.use("fused"):
        picture = render_rays(exact, *lines).features
        rounded = render_rays(half, *lines)
    rounded.features.sum().backward()
    assert half.planes.grad.dtype == torch.bfloat16
    error = (rounded.features - picture).square().mean()
    assert -10 * error.log10() > 45
    # The rounding is that of the planes alone.
    same = TriplaneField(half.planes.detach().float(), half.decoder, BOX)
    for backend, scene in (("fused", same), ("reference", same), ("reference", half)):
        with backends.use(backend):
            other = render_rays(scene, *lines).features
        torch.testing.assert_close(other, rounded.features, atol=5e-6, rtol=0)


@pytest.mark.parametrize("shape", [(), (5,), (3, 111)])
def test_fields_can_be_asked_at_points(shape):
    scene = field(batch=2)
    points = 1.5 * torch.randn(2, *shape, 3, generator=torch.Generator().manual_seed(0))
    with backends.use("fused"):
        found = backends.ask(scene, points)
    for part, expected in zip(found, scene(points), strict=True):
        assert part.shape == expected.shape
        torch.testing.assert_close(part, expected, atol=5e-6, rtol=5e-6)
    assert not found.density.requires_grad


# Pictures


def cameras(kind: str) -> Camera:
    pose = torch.eye(4).repeat(2, 1, 1)
    pose[:, 2, 3] = torch.tensor([-2.5, -2.8])
    if kind == "perspective":
        return Camera.from_fov(0.9, pose)
    intrinsics = torch.tensor([[0.4, 0.4, 0.5, 0.5]]).repeat(2, 1)
    return Camera(camera_to_world=pose, intrinsics=intrinsics, kind="orthographic")


@pytest.mark.parametrize("kind", ["perspective", "orthographic"])
@pytest.mark.parametrize(
    "options",
    [
        RenderOptions(samples=21, near=1.0, far=5.0, least_light=0.0),
        RenderOptions(samples=9, fine_samples=14, near=1.0, far=5.0, spacing="distance"),
        RenderOptions(
            samples=24, near=1.0, far=5.0, opaque_last=False, background=(1.0, 0.5, 0.0), chunk=37
        ),
        RenderOptions(samples=24, coarse=3, fine_samples=9, near=1.0, far=5.0),
    ],
)
def test_render_makes_the_same_pictures(kind, options):
    scene = field(batch=2, box=kind == "perspective")
    pictures = {}
    for backend in ("reference", "fused"):
        with backends.use(backend):
            pictures[backend] = render(scene, cameras(kind), 9, 13, options)
    tolerance = 2e-5 if options.least_light == 0 else 2 * options.least_light
    for fused, reference in zip(pictures["fused"], pictures["reference"], strict=True):
        torch.testing.assert_close(fused, reference, atol=tolerance, rtol=tolerance)


def test_rays_that_fit_a_box_show_the_same():
    scene, pictures = field(batch=2), {}
    options = RenderOptions(samples=16, near=1.0, far=5.0, opaque_last=False, fit_box=True)
    for backend in ("reference", "fused"):
        with backends.use(backend):
            pictures[backend] = render(scene, cameras("perspective"), 9, 13, options).features
    torch.testing.assert_close(pictures["fused"], pictures["reference"], atol=2e-3, rtol=0)


def test_the_chunk_size_never_changes_the_picture():
    scene = field(batch=2)
    with backends.use("fused"):
        whole, *others = (
            render(scene, cameras("perspective"), 9, 13, RenderOptions(samples=12, chunk=chunk))
            for chunk in (16384, 2, 17, 100)
        )
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(whole, other, strict=True))


def test_rays_end_where_their_light_does():
    scene = field()
    with torch.no_grad():
        scene.decoder.out.bias[0] = 12.0  # thick matter everywhere in the box
    options = RenderOptions(samples=64, near=0.5, far=5.0, least_light=0.01)
    with backends.use("fused"):
        early = render(scene, cameras("perspective")[:1], 16, 16, options)
        patient = replace(options, least_light=0.0)
        late = render(scene, cameras("perspective")[:1], 16, 16, patient)
    assert (early.features - late.features).abs().max() <= 0.01
    assert early.opacity.min() < late.opacity.min()


# Choice


def test_other_fields_and_precisions_are_left_to_the_reference():
    class Other(TriplaneField):
        pass

    class OtherDecoder(FeatureDecoder):
        pass

    lines = rays()
    bundle = Rays(*lines)
    scene = field()
    assert backends.pick(scene, bundle).name == "cpu"
    exact = Rays(*(part.double() for part in lines))
    moving = Rays(*lines[:2], lines[2].clone().requires_grad_())
    for refused, along, why in (
        (Other(scene.planes, scene.decoder), bundle, "Other"),
        (TriplaneField(scene.planes, OtherDecoder(32)), bundle, "OtherDecoder"),
        (lambda points, directions=None: FieldOutput(points[..., 0], points), bundle, "function"),
        (field().double(), bundle, "float64"),
        (scene, exact, "float32"),
        (scene, moving, "edges"),
    ):
        assert backends.pick(refused, along).name == "reference"
        with backends.use("fused"), pytest.raises(UserError, match=why):
            backends.pick(refused, along)
    with backends.use("reference"):
        assert backends.pick(scene, bundle).name == "reference"


def test_the_environment_names_a_backend(monkeypatch):
    monkeypatch.setenv("UNFLAT_BACKEND", "reference")
    assert backends.current() == "reference"
    with backends.use("fused"):
        assert backends.current() == "fused"
    monkeypatch.setenv("UNFLAT_BACKEND", "quick")
    with pytest.raises(UserError, match=r"'quick', which is no backend; make it auto"):
        backends.current()


def test_second_derivatives_are_refused():
    scene, lines = field(), rays()
    with backends.use("fused"):
        features = render_rays(scene, *lines).features
    with pytest.raises(NotImplementedError, match="create_graph=True"):
        torch.autograd.grad(features.sum(), scene.planes, create_graph=True)


def test_a_fork_marches_too():
    scene, lines = field(), rays(count=600)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with backends.use("fused"):
            expected = render_rays(scene, *lines).features.detach()
            child = os.fork()
            if child == 0:
                torch.set_num_threads(2)
                same = torch.equal(render_rays(scene, *lines).features, expected)
                os._exit(0 if same else 1)
    finally:
        torch.set_num_threads(before)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
