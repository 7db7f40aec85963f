"""View-space fields marched by the fused CPU backend, beside the plain torch reference."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("numba", reason="the fused CPU backend needs the [fast] extra")

from torch import nn

from unflat.errors import UserError
from unflat.fields import (
    CanonicalField,
    ViewSpaceDecoder,
    ViewSpaceField,
    ViewSpacePlanes,
    pack_field,
    unpack_field,
)
from unflat.geometry import Camera, Frame
from unflat.hub.registry import find
from unflat.rendering import RenderOptions, backends, render
from unflat.rendering.backends import Marched, Marching, Rays
from unflat.systems.vq3d import load, render_canonical, token_field
from unflat.systems.vq3d.config import tiny
from unflat.systems.vq3d.recipe import Vq3dRecipe

pytestmark = pytest.mark.usefixtures("no_backend_named")

ASSUMED = Frame()
TRUE = Frame(focal_true=1.9, a=1.3, b=-0.05)


def field(
    channels=32, batch=1, surface=True, frame=TRUE, dtype=torch.float32, thick=0.0
) -> ViewSpaceField:
    """Random planes of learned numbers, with a surface that is no pure noise."""
    generator = torch.Generator().manual_seed(channels + batch)

    def plane(wide, height, width):
        return 0.5 * torch.randn(batch, wide, height, width, generator=generator)

    uv = plane(5 + channels, 24, 20)
    uv[:, 3] *= 0.2
    planes = uv, plane(channels, 16, 12), plane(channels, 16, 10)
    decoder = ViewSpaceDecoder(channels, surface)
    with torch.no_grad():
        for part in decoder.parameters():
            part.copy_(0.25 * torch.randn(part.shape, generator=generator))
        decoder.mlp[3].bias[0] += thick
    learned = (part.to(dtype).requires_grad_() for part in planes)
    return ViewSpaceField(ViewSpacePlanes(*learned), decoder.to(dtype), frame)


def lines(batch=1, count=37, n=21, dtype=torch.float32) -> Rays:
    """Rays from around the origin, most of them through the scene, some beside or behind it."""
    generator = torch.Generator().manual_seed(3)
    origins = 0.15 * torch.randn(batch, count, 3, generator=generator)
    aims = 0.5 * torch.randn(batch, count, 3, generator=generator) + torch.tensor([0, 0, 1.0])
    steps = torch.rand(batch, count, n + 1, generator=generator).cumsum(-1)
    edges = 1 / (1.6 - 1.55 * steps / steps[..., -1:])
    made = origins, nn.functional.normalize(aims, dim=-1), edges
    return Rays(*(part.to(dtype) for part in made))


def straight(batch=1, count=37, n=21, dtype=torch.float32) -> Rays:
    """Canonical rays in view space, with lengths of their own."""
    generator = torch.Generator().manual_seed(4)
    uv = 2.4 * torch.rand(batch, count, 2, generator=generator) - 1.2
    origins = torch.cat([uv, torch.ones(batch, count, 1)], dim=-1)
    directions = torch.tensor([0.0, 0.0, -1.0]).expand_as(origins)
    edges = torch.linspace(0, 1, n + 1).expand(batch, count, -1)
    lengths = edges.diff(dim=-1) * (1 + uv.square().sum(-1, keepdim=True)).sqrt()
    return Rays(*(part.to(dtype) for part in (origins, directions, edges, lengths)))


def marched(scene, rays: Rays, backend: str, how: Marching | None = None) -> Marched:
    with backends.use(backend):
        return backends.pick(scene, rays).march(scene, rays, how or Marching())


def with_gradients(scene, base: ViewSpaceField, rays: Rays, backend: str, how: Marching):
    """What comes back, and gradients of a random reading of it."""
    result = marched(scene, rays, backend, how)
    generator = torch.Generator().manual_seed(0)
    asked = [torch.randn(part.shape, generator=generator).to(part) for part in result]
    learned = [*base.planes, *base.decoder.parameters()]
    return result, torch.autograd.grad(list(result), learned, asked, allow_unused=True)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


CASES = [(32, 2, True, False), (16, 1, False, False), (12, 3, True, True), (32, 1, False, True)]


@pytest.mark.parametrize(("channels", "batch", "surface", "canonical"), CASES)
@pytest.mark.parametrize("opaque_last", [True, False])
def test_pictures_and_gradients_are_those_of_float64(
    channels, batch, surface, canonical, opaque_last
):
    how = Marching(opaque_last=opaque_last)
    seen = {}
    for backend, dtype in (("fused", torch.float32), ("reference", torch.float64)):
        base = field(channels, batch, surface, dtype=dtype)
        scene = CanonicalField(base) if canonical else base
        rays = (straight if canonical else lines)(batch, dtype=dtype)
        seen[backend] = with_gradients(scene, base, rays, backend, how)
    assert seen["reference"][0].weights.std() > 0.03
    for fused, exact in zip(seen["fused"][0], seen["reference"][0], strict=True):
        torch.testing.assert_close(fused.double(), exact, atol=5e-5, rtol=0)
    for fused, exact in zip(seen["fused"][1], seen["reference"][1], strict=True):
        assert (fused is None) == (exact is None)
        assert fused is None or relative(fused, exact) < 1e-4


def test_rays_that_end_early_leave_nothing_in_gradients():
    """Thick matter: vectors of rays thin out, and what stands in for those that ended is silent."""
    seen = {}
    for backend, dtype in (("fused", torch.float32), ("reference", torch.float64)):
        base = field(thick=3.0, dtype=dtype)
        rays = straight(count=150, n=40, dtype=dtype)
        seen[backend] = with_gradients(CanonicalField(base), base, rays, backend, Marching())
    early = (seen["fused"][0].weights[..., -1] == 0).float().mean()
    assert 0.2 < early < 1
    for fused, exact in zip(seen["fused"][1], seen["reference"][1], strict=True):
        assert relative(fused, exact) < 2e-5


def test_only_what_learns_gets_gradients():
    base = field()
    base.decoder.requires_grad_(False)
    marched(base, lines(), "fused").features.sum().backward()
    assert all(part.grad is None for part in base.decoder.parameters())
    assert base.uv.grad.abs().sum() > 0
    fixed = field()
    planes = ViewSpacePlanes(*(plane.detach() for plane in fixed.planes))
    marched(ViewSpaceField(planes, fixed.decoder, TRUE), lines(), "fused").features.sum().backward()
    assert fixed.uv.grad is None
    assert fixed.decoder.modulate.weight.grad.abs().sum() > 0


def test_a_point_has_color_as_it_is_in_view_space_and_clamped_in_the_world():
    """The brightest base color leaves [0, 1]; `at` says so, the field does not."""
    base = field(batch=1)
    with torch.no_grad():
        base.uv[:, :3] += 2
    inside = marched(CanonicalField(base), straight(), "fused").features
    outside = marched(base, lines(), "fused").features
    assert inside.max() > 1.5
    assert outside.max() <= 1 + 1e-5


# Pictures


def camera(batch: int) -> Camera:
    pose = torch.eye(4).repeat(batch, 1, 1)
    pose[:, 0, 3] = 0.2
    return Camera.from_fov(TRUE.fov_true, pose)


OPTIONS = RenderOptions(samples=24, near=0.6, far=14.0, least_light=0.0)


@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        replace(OPTIONS, samples=9, fine_samples=14),
        replace(OPTIONS, opaque_last=False, background=(1.0, 0.5, 0.0), chunk=37),
        replace(OPTIONS, least_light=1e-3),
    ],
)
@pytest.mark.parametrize("frame", [TRUE, ASSUMED])
def test_render_makes_the_same_pictures(options, frame):
    scene = field(batch=2, frame=frame)
    pictures = {}
    for backend in ("reference", "fused"):
        with backends.use(backend):
            pictures[backend] = render(scene, camera(2), 9, 13, options)
    tolerance = 1e-4 if options.least_light == 0 else 2 * options.least_light
    assert pictures["reference"].rgb.std() > 0.1
    for fused, reference in zip(pictures["fused"], pictures["reference"], strict=True):
        torch.testing.assert_close(fused, reference, atol=tolerance, rtol=tolerance)


def test_the_chunk_size_never_changes_the_picture():
    scene = field(batch=2)
    with backends.use("fused"):
        whole, *others = (
            render(scene, camera(2), 9, 13, replace(OPTIONS, chunk=chunk))
            for chunk in (16384, 2, 17)
        )
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(whole, other, strict=True))


def test_the_bundled_model_makes_the_same_pictures():
    """Real planes, as they come and as a Scene file keeps them."""
    model = load(find("vq3d-small", offline=True))
    generator = torch.Generator().manual_seed(0)
    soft = torch.rand(2, 3, 5, 5, generator=generator)
    with torch.no_grad():
        encoded = model.encode(nn.functional.interpolate(soft, (64, 64), mode="bilinear"))
    scene = token_field(model, encoded)
    with torch.no_grad():
        scenes = scene, unpack_field(*pack_field(scene))
    for one in scenes:
        seen = {}
        for backend in ("reference", "fused"):
            with backends.use(backend):
                picture = render(one, camera(2), 24, 24, OPTIONS)
                seen[backend] = *picture, *render_canonical(one, 64, 32)
        for fused, reference in zip(seen["fused"], seen["reference"], strict=True):
            torch.testing.assert_close(fused, reference, atol=2e-4, rtol=2e-4)


def test_a_training_step_is_the_same():
    """Canonical rays on shared lookups, or marched: the same terms and gradients."""
    seen = {}
    for backend in ("reference", "auto"):
        torch.manual_seed(0)
        recipe = Vq3dRecipe(tiny())
        generator = torch.Generator().manual_seed(1)
        batch = {
            "image": torch.rand(3, 3, 32, 32, generator=generator),
            "disparity": torch.rand(3, 1, 32, 32, generator=generator),
            "has_disparity": torch.tensor([True, False, True]),
            "seed": torch.arange(3),
        }
        with backends.use(backend):
            terms = recipe.step(batch, 0.5, torch.Generator().manual_seed(2))
        terms["loss"].backward()
        gradients = [part.grad for part in recipe.networks.parameters() if part.grad is not None]
        seen[backend] = terms, torch.cat([part.flatten() for part in gradients])
    for name, term in seen["reference"][0].items():
        torch.testing.assert_close(seen["auto"][0][name], term, atol=1e-5, rtol=1e-4)
    assert relative(seen["auto"][1], seen["reference"][1]) < 1e-4


# Choice


def test_other_decoders_precisions_and_moving_cameras_are_left_to_the_reference():
    class Other(ViewSpaceField):
        pass

    class OtherDecoder(ViewSpaceDecoder):
        pass

    base, rays = field(), lines()
    moving = rays._replace(origins=rays.origins.clone().requires_grad_())
    exact = ViewSpaceField(base.planes, field(dtype=torch.float64).decoder, TRUE)
    for refused, along, why in (
        (Other(base.planes, base.decoder, TRUE), rays, "Other"),
        (CanonicalField(Other(base.planes, base.decoder, TRUE)), rays, "Other"),
        (ViewSpaceField(base.planes, OtherDecoder(32), TRUE), rays, "OtherDecoder"),
        (exact, rays, "float64"),
        (base, moving, "cameras get no gradients"),
    ):
        assert backends.pick(refused, along).name == "reference"
        with backends.use("fused"), pytest.raises(UserError, match=why):
            backends.pick(refused, along)
    assert backends.pick(base, rays).name == "cpu"
    with torch.no_grad():
        assert backends.pick(base, moving).name == "cpu"
