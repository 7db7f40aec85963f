"""What the encoder learns from: targets are true, and it learns them."""

import pytest
import torch

from unflat.geometry import Camera, orbit_pose
from unflat.geometry.rays import image_rays
from unflat.rendering import Casting, backends
from unflat.systems.gan import sdf_triplane
from unflat.systems.gan.generator import Generator, Made
from unflat.systems.gan.planes import Planes
from unflat.systems.inversion.encoder import tiny
from unflat.systems.inversion.recipe import (
    CameraBatches,
    EncoderRecipe,
    Framing,
    Objective,
    seen_points,
)
from unflat.training.randomness import step_generator, with_position

SIDE = 16
RADIUS = 0.35
STILL = Framing(around_deg=0.0, turn_deg=0.0, scale=0.0, shift=0.0, color=0.0, hue=0.0)


@pytest.fixture(autouse=True)
def reference():
    """Pictures this small are not worth compiling for."""
    with backends.use("reference"):
        yield


def cameras(count: int = 6) -> Camera:
    azimuth = torch.linspace(0, 5, count)
    pose = orbit_pose(torch.full((count,), 0.4), azimuth, torch.full((count,), 1.3))
    return Camera.from_fov(0.9, pose)


def balls(monkeypatch: pytest.MonkeyPatch) -> Generator:
    """Makes balls, each half of them of one of two colors that its code tells."""
    torch.manual_seed(0)
    planes = Planes(latent_dim=8, style_dim=64, side=8, channels=4, base=64, widest=8, hidden=8)
    config = sdf_triplane.Config(planes=planes, rays=Casting(coarse=4))
    generator = sdf_triplane.build(config).generator

    def picture(form, codes, camera: Camera, side: int, casting=None) -> Made:
        views = camera.batch_shape[1]
        camera = Camera(
            camera_to_world=camera.camera_to_world.flatten(0, 1),
            intrinsics=camera.intrinsics.flatten(0, 1),
        )
        rays = image_rays(camera, side, side)
        origins, directions = rays.origins.flatten(1, 2), rays.directions.flatten(1, 2)
        middle = -(origins * directions).sum(-1)
        inside = RADIUS**2 - (origins + middle[..., None] * directions).square().sum(-1)
        distance = middle - inside.clamp(min=0).sqrt()
        points = origins + distance[..., None] * directions
        depth = torch.where(inside > 0, camera.to_camera(points)[..., 2], torch.inf)
        opacity = (inside > 0).float()[:, None, :].unflatten(2, (side, side))
        tint = codes[:, 0, :3].repeat_interleave(views, 0).sigmoid()[:, None] * (
            0.5 + 0.5 * points[..., :1].sign()
        )
        image = tint.mT.unflatten(2, (side, side)) * opacity + (1 - opacity)
        return Made(image, image, opacity, depth.unflatten(1, (side, side)))

    monkeypatch.setattr(generator, "picture", picture)
    return generator


def test_each_pixel_is_told_the_point_that_it_shows(monkeypatch):
    recipe = EncoderRecipe(tiny(), balls(monkeypatch), SIDE)
    shown = recipe.show(CameraBatches(cameras(), 8).batch(0), step_generator(0, 1))
    assert torch.equal(shown.w[0], shown.w[3])
    assert not torch.equal(shown.w[3], shown.w[4])
    is_ball = shown.opacity[:, 0] == 1
    radii = shown.points.norm(dim=1)
    assert 0.1 < is_ball.float().mean() < 0.6
    torch.testing.assert_close(radii[is_ball], torch.full_like(radii[is_ball], RADIUS))
    assert radii[~is_ball].abs().max() == 0
    assert shown.image.amin() >= 0
    behind = shown.image.movedim(1, -1)[~is_ball]
    assert torch.equal(behind, torch.ones_like(behind))  # colors change, what is behind does not


def test_points_come_back_from_where_they_are_seen():
    camera = cameras(3)
    depth = torch.rand(3, 5, 7, generator=step_generator(0, 0)) + 0.5
    depth[:, 2, 3] = torch.inf
    points = seen_points(camera, depth)
    assert points[:, :, 2, 3].abs().max() == 0
    uv, back = camera.project(points.flatten(2).mT)
    finite = depth.flatten(1).isfinite()
    torch.testing.assert_close(back[finite], depth.flatten(1)[finite])
    expected = (torch.arange(7) + 0.5) / 7
    torch.testing.assert_close(uv[0, :7, 0], expected)


def test_framing_moves_the_object_and_keeps_the_truth(monkeypatch):
    generator = balls(monkeypatch)
    batch = CameraBatches(cameras(), 8).batch(0)
    still = EncoderRecipe(tiny(), generator, SIDE, objective=Objective(framing=STILL)).show(
        batch, step_generator(0, 1)
    )
    recipe = EncoderRecipe(
        tiny(), generator, SIDE, objective=Objective(framing=Framing(shift=0.3, scale=0.4))
    )
    moved = recipe.show(batch, step_generator(0, 1))
    torch.testing.assert_close(still.w, moved.w)
    assert (still.opacity != moved.opacity).float().mean() > 0.05


def test_cameras_are_those_of_the_step_however_many_processes_there_are():
    camera = cameras()
    whole = CameraBatches(camera, 4, seed=3).batch(7)
    halves = [CameraBatches(camera, 4, seed=3, rank=k, world_size=2).batch(7) for k in (0, 1)]
    for name, value in whole.items():
        torch.testing.assert_close(torch.cat([half[name] for half in halves]), value)
    assert not torch.equal(
        whole["camera_to_world"], CameraBatches(camera, 4, seed=3).batch(8)["camera_to_world"]
    )
    with pytest.raises(ValueError, match="can not be shared"):
        CameraBatches(camera, 3, world_size=2)


def test_a_half_of_a_batch_shows_what_the_whole_one_does(monkeypatch):
    recipe = EncoderRecipe(tiny(), balls(monkeypatch), SIDE)
    batch = CameraBatches(cameras(), 8).batch(0)
    whole = recipe.show(batch, step_generator(0, 1))
    half = with_position({name: value[4:] for name, value in batch.items()}, 1, 2)
    shown = recipe.show(half, step_generator(0, 1))
    torch.testing.assert_close(shown.image, whole.image[4:])
    torch.testing.assert_close(shown.w, whole.w[4:])
    with pytest.raises(ValueError, match="6 pictures are not 4 of each object"):
        recipe.show({name: value[2:] for name, value in batch.items()}, step_generator(0, 1))


def test_it_learns_where_what_and_which(monkeypatch):
    recipe = EncoderRecipe(tiny(), balls(monkeypatch), SIDE)
    source = CameraBatches(cameras(), 16)
    optimizer = torch.optim.AdamW(recipe.parameter_groups(), lr=3e-3)
    history = []
    for step in range(120):
        terms = recipe.step(source.batch(step), 0.0, step_generator(0, step))
        terms["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        history.append({name: float(value.detach()) for name, value in terms.items()})
    assert all(weight.grad is None for weight in recipe.generator.parameters())
    last = history[-10:]
    assert sum(one["iou"] for one in last) / 10 > 0.8
    assert sum(one["off"] for one in last) / 10 < 0.5 * history[0]["off"]


def test_a_sheet_shows_truth_and_guess(monkeypatch):
    recipe = EncoderRecipe(tiny(), balls(monkeypatch), SIDE)
    sheet = recipe.sample(CameraBatches(cameras(), 4).batch(0))
    assert sheet.shape == (3, 5 * SIDE, 4 * SIDE)
    red = sheet[0, SIDE : 2 * SIDE, :SIDE]  # x of the true map
    assert red.max() > 0.6
