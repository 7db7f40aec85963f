"""Pictures with known cameras: what is asked of points, of windows and of codes is true of them."""

from dataclasses import replace

import pytest
import torch

from unflat.geometry import Camera, orbit_pose
from unflat.geometry.rays import image_rays, pixel_grid
from unflat.rendering import Casting, backends
from unflat.systems.gan import sdf_triplane
from unflat.systems.gan.generator import Generator
from unflat.systems.gan.planes import Planes
from unflat.systems.inversion.encoder import tiny
from unflat.systems.inversion.framing import Framing
from unflat.systems.inversion.known import PREFIX, Known, known_pictures, off_ray, picture_cost
from unflat.systems.inversion.recipe import CameraBatches, EncoderRecipe
from unflat.training.randomness import step_generator

SIDE, RADIUS, VIEWS = 16, 0.3, 2
MIDDLE = torch.tensor([0.1, 0.05, -0.08])


@pytest.fixture(autouse=True)
def reference():
    """Pictures this small are not worth compiling for."""
    with backends.use("reference"):
        yield


def cameras(count: int) -> Camera:
    azimuth = torch.linspace(0, 5, count)
    pose = orbit_pose(torch.full((count,), 0.4), azimuth, torch.full((count,), 1.3))
    return Camera.from_fov(0.9, pose)


def ball(camera: Camera, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which pixels show a red ball beside the origin, and the picture of it on white."""
    rays = image_rays(camera, side, side)
    way = MIDDLE - rays.origins
    along = (way * rays.directions).sum(-1)
    is_there = (way.square().sum(-1) - along.square() < RADIUS**2).float()[:, None]
    red = torch.tensor([0.8, 0.2, 0.2])[:, None, None]
    return red * is_there + (1 - is_there), is_there


def batch_of(count: int, side: int = 4 * SIDE) -> dict[str, torch.Tensor]:
    camera = cameras(count)
    image, mask = ball(camera, side)
    found = {"image": image, "mask": mask, "intrinsics": camera.intrinsics}
    found["camera_to_world"] = camera.camera_to_world
    return {f"{PREFIX}{name}": value for name, value in found.items()}


def generator_of() -> Generator:
    torch.manual_seed(0)
    planes = Planes(latent_dim=8, style_dim=64, side=8, channels=4, base=64, widest=8, hidden=8)
    config = sdf_triplane.Config(planes=planes, rays=Casting(coarse=8))
    return sdf_triplane.build(config).generator.eval().requires_grad_(False)


@pytest.mark.parametrize("kind", ["perspective", "orthographic"])
def test_points_on_their_rays_are_not_off_and_others_by_as_much_as_they_were_moved(kind):
    camera = replace(cameras(3), kind=kind)
    depth = torch.rand(3, SIDE * SIDE, generator=step_generator(0, 0)) + 0.5
    uv = pixel_grid(SIDE, SIDE).flatten(0, 1).expand(3, -1, -1)
    points = camera.unproject(uv, depth).mT.unflatten(2, (SIDE, SIDE))
    torch.testing.assert_close(
        off_ray(camera, points), torch.zeros(3, 1, SIDE, SIDE), atol=2e-6, rtol=0
    )
    directions = image_rays(camera, SIDE, SIDE).directions.permute(0, 3, 1, 2)
    aside = torch.linalg.cross(
        directions, torch.tensor([0.0, 1.0, 0.0])[None, :, None, None], dim=1
    )
    moved = points + 0.07 * aside / aside.norm(dim=1, keepdim=True) + 0.4 * directions
    torch.testing.assert_close(off_ray(camera, moved), torch.full((3, 1, SIDE, SIDE), 0.07))


def test_windows_keep_their_cameras_right():
    draws = torch.Generator().manual_seed(1)
    places, colors = torch.randn(8, 3, generator=draws), torch.rand(8, 4, generator=draws)
    framing = Framing(scale=0.3, shift=0.15)
    known = known_pictures(batch_of(8), framing, SIDE, VIEWS, 1.0, places, colors)
    _, expected = ball(known.camera, 8 * SIDE)
    expected = torch.nn.functional.avg_pool2d(expected, 8)
    assert (known.opacity - expected).abs().mean() < 0.01
    shares = known.opacity.mean((1, 2, 3))
    assert float(shares.max() / shares.min()) > 1.3  # windows differ in size
    colors_seen = (known.image * (known.opacity > 0.99)).amax((2, 3))
    own, other = colors_seen[::2], colors_seen[1::2]  # of one object, changed alike
    assert (own - other).abs().max() < 0.03 < 0.1 < (own[0] - own[1]).abs().max()


def test_codes_are_asked_to_look_right_from_their_own_and_the_next_view():
    generator = generator_of()
    camera = cameras(4)
    latents = torch.randn(2, 8, generator=step_generator(0, 3))
    w = generator.codes(latents)[:, 0].repeat_interleave(VIEWS, 0)
    codes = w[:, None].expand(-1, generator.body.codes, -1)
    with torch.no_grad():
        made = generator.picture(
            generator.form(codes), codes, camera, SIDE, casting=Casting(coarse=16)
        )
    known = Known(made.image, made.opacity, camera)
    right = picture_cost(generator, w, known, VIEWS)
    wrong = w.roll(VIEWS, 0).requires_grad_()
    cost = picture_cost(generator, wrong, known, VIEWS)
    assert float(right) < 0.1 * float(cost.detach())
    (gradient,) = torch.autograd.grad(cost, wrong)
    assert (gradient.abs().sum(1) > 0).all()


def test_an_encoder_learns_rays_and_outlines_of_known_pictures():
    source = CameraBatches(cameras(6), 8)
    recipe = EncoderRecipe(tiny(), generator_of(), SIDE)
    optimizer = torch.optim.AdamW(recipe.parameter_groups(), lr=3e-3)
    known, history = batch_of(8), []
    for step in range(50):
        terms = recipe.step(source.batch(step) | known, 0.0, step_generator(0, step))
        terms["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        history.append({name: float(value.detach()) for name, value in terms.items()})
    assert history[-1]["off_ray"] < 0.65 * history[0]["off_ray"]
    assert history[-1]["outline"] < 0.5 * history[0]["outline"]
    sheet = recipe.sample(source.batch(0) | known)
    assert sheet.shape == (3, 8 * SIDE, 8 * SIDE)
