"""Windows, cameras and palettes: what is found again must be what was put in."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unflat.geometry import Camera, orbit_pose
from unflat.geometry.pnp import PnpConfig
from unflat.geometry.rays import image_rays
from unflat.metrics import rotation_error
from unflat.systems.inversion.compare import look
from unflat.systems.inversion.encoder import ObjectGuess
from unflat.systems.inversion.framing import FILL, Window, cut, window_of
from unflat.systems.inversion.palette import fit_palette
from unflat.systems.inversion.pose import PoseSearch, find_poses, judge, search_of

SIZE = torch.tensor([0.4, 0.25, 0.3])  # half axes of an ellipsoid


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 11), st.integers(1, 11))
@settings(deadline=None, max_examples=40)
def test_the_window_holds_the_object_and_some_room(
    top: int, left: int, height: int, width: int
) -> None:
    opacity = torch.zeros(1, 32, 32)
    opacity[:, top : top + height, left : left + width] = 1
    opacity[:, 31, 31] = 0.4  # too faint to count
    corner, side = window_of(opacity)
    longer = max(height, width) / 32
    assert float(side) == pytest.approx(longer / FILL)
    middle = corner[0] + 0.5 * side
    expected = torch.tensor([left + width / 2, top + height / 2]) / 32
    torch.testing.assert_close(middle, expected)


def test_where_nothing_is_the_window_is_the_picture() -> None:
    corner, side = window_of(torch.zeros(2, 8, 8))
    torch.testing.assert_close(corner, torch.zeros(2, 2))
    torch.testing.assert_close(side, torch.ones(2))


def test_what_is_cut_out_is_the_mean_of_what_it_covers(generator: torch.Generator) -> None:
    image = torch.rand(1, 2, 32, 32, generator=generator)
    window = Window(torch.tensor([[0.25, 0.5]]), torch.tensor([0.5]))
    expected = torch.nn.functional.avg_pool2d(image[:, :, 16:32, 8:24], 2)
    torch.testing.assert_close(cut(image, window, 8), expected)
    beyond = Window(torch.tensor([[-0.5, 0.0]]), torch.tensor([0.5]))
    torch.testing.assert_close(
        cut(image, beyond, 4, outside=0.75)[..., :3], torch.full((1, 2, 4, 3), 0.75)
    )


def test_an_object_is_seen_on_the_background_whatever_was_beside_it(
    generator: torch.Generator,
) -> None:
    opacity = torch.zeros(1, 16, 16)
    opacity[:, 4:12, 4:12] = 1
    own = torch.full((1, 3, 16, 16), 0.25)
    noise = torch.rand(1, 3, 16, 16, generator=generator)
    seen = look(torch.where(opacity[:, None] > 0, own, noise), opacity, 10)
    inside = seen.opacity.expand_as(seen.image)
    torch.testing.assert_close(seen.image, 0.25 * inside + (1 - inside))
    assert 0.5 < float(seen.opacity.mean()) < 0.75


def ellipsoid(camera: Camera, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of its surface and whether a pixel shows any, by the closed form."""
    rays = image_rays(camera, side, side)
    origin, direction = rays.origins / SIZE, rays.directions / SIZE
    a, b = (direction * direction).sum(-1), (origin * direction).sum(-1)
    c = (origin * origin).sum(-1) - 1
    inside = b * b - a * c
    distance = (-b - inside.clamp(min=0).sqrt()) / a
    points = rays.origins + distance[..., None] * rays.directions
    return points.movedim(-1, 1), (inside > 0).float()


def some_cameras() -> Camera:
    pose = orbit_pose(torch.tensor([0.3, 0.6]), torch.tensor([0.5, -2.0]), torch.tensor([1.3, 1.5]))
    return Camera.from_fov(0.8, pose)


def test_a_true_map_in_a_window_gives_the_camera_of_the_picture() -> None:
    camera = some_cameras()
    _, whole = ellipsoid(camera, 96)
    window = window_of(whole)
    assert float(window.side.max()) < 0.95
    points, there = ellipsoid(window.camera(camera), 24)
    sure = torch.zeros_like(there[:, None])
    wrong = torch.zeros_like(there, dtype=torch.bool)
    wrong[:, ::2] = True  # half of the map is nonsense, and the encoder says so
    points = torch.where(wrong[:, None], 0.3 * torch.ones_like(points), points)
    guess = ObjectGuess(points, there[:, None], torch.zeros(2, 4), sure - 4 + 4.0 * wrong[:, None])
    found = find_poses(guess, window, search_of(camera))
    for estimate, truth in zip(found, camera.rotation, strict=True):
        best, flipped = estimate.hypotheses[0].camera, estimate.hypotheses[-1].camera
        assert best.intrinsics[0] == pytest.approx(float(camera.intrinsics[0, 0]))
        error = rotation_error(best.rotation[None].float(), truth[None])
        assert float(error) < 0.1
        half = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
        error = rotation_error(flipped.rotation[None].float(), (half @ truth)[None])
        assert float(error) < 0.1


def test_focal_lengths_that_differ_are_looked_for() -> None:
    assert not search_of(some_cameras()).pnp.is_focal_free
    focals = torch.tensor([0.9, 1.3, 2.0])
    pose = orbit_pose(0.3, torch.tensor([0.0, 1.0, 2.0]), 1.5)
    camera = Camera(
        camera_to_world=pose,
        intrinsics=torch.stack([focals, focals, *[torch.full((3,), 0.5)] * 2], dim=1),
    )
    pnp = search_of(camera, keep=2).pnp
    assert pnp.is_focal_free
    assert pnp.keep == 2
    assert pnp.focal_prior is not None  # for what follows
    assert pnp.focal_prior.deviation == pytest.approx(float(focals.log().std(correction=0)))
    assert pnp.focal_prior.mean == pytest.approx(float(focals.log().mean()), abs=1e-6)


def test_the_hypothesis_of_least_cost_is_taken() -> None:
    camera = some_cameras()
    points, there = ellipsoid(camera, 16)
    guess = ObjectGuess(points, there[:, None], torch.zeros(2, 4), None)
    there[1, :] = 0
    search = PoseSearch(
        pnp=PnpConfig(focals=(float(camera.intrinsics[0, 0]),), is_focal_free=False)
    )
    whole = Window(torch.zeros(2, 2), torch.ones(2))
    found = find_poses(guess._replace(opacity=there[:, None]), whole, search)
    assert found[1].problem is not None  # of this picture nothing is known
    asked: list[Camera] = []

    def cost(cameras: Camera) -> torch.Tensor:
        asked.append(cameras)
        count = cameras.batch_shape[1]
        return torch.arange(count, 0.0, -1.0).expand(2, -1)  # the last is the best

    judged = judge(found, camera[1], cost)
    assert judged.chosen == [len(found[0].hypotheses) - 1, -1]
    assert judged.cost[1] == []
    torch.testing.assert_close(judged.camera.camera_to_world[1], camera.camera_to_world[1])
    last = found[0].hypotheses[-1].camera.camera_to_world.float()
    torch.testing.assert_close(judged.camera.camera_to_world[0], last)
    assert asked[0].batch_shape == (2, len(found[0].hypotheses))
    none = judge([found[1]], camera[0], cost)
    assert none.chosen == [-1]


def test_the_palette_of_a_render_is_found_again(generator: torch.Generator) -> None:
    shares = torch.rand(2, 4, 12, 12, generator=generator).softmax(1)
    opacity = torch.rand(2, 1, 12, 12, generator=generator)
    palette = torch.rand(2, 4, 3, generator=generator)
    image = torch.einsum("bkhw,bkc->bchw", shares * opacity, palette) + (1 - opacity)
    near = torch.full_like(palette, 0.5)
    found = fit_palette(shares * opacity, image, torch.ones_like(opacity), near, hold=1e-9)
    torch.testing.assert_close(found, palette, atol=2e-3, rtol=0)
    held = fit_palette(shares * opacity, image, torch.ones_like(opacity), near, hold=1e6)
    torch.testing.assert_close(held, near, atol=1e-3, rtol=0)


def test_a_choice_that_is_nowhere_keeps_its_color(generator: torch.Generator) -> None:
    shares = torch.rand(1, 3, 8, 8, generator=generator).softmax(1)
    shares[:, 2] = 0
    near = torch.tensor([[[0.2, 0.4, 0.6], [0.1, 0.1, 0.1], [0.7, 0.3, 0.5]]])
    target = torch.rand(1, 3, 8, 8, generator=generator)
    found = fit_palette(shares, target, torch.ones(1, 1, 8, 8), near)
    torch.testing.assert_close(found[:, 2], near[:, 2])
    assert not torch.allclose(found[:, :2], near[:, :2], atol=0.05)
    assert math.isfinite(float(found.sum()))
