"""The small model: its volume turns as cameras do, it learns poses, and its file loads again."""

import math
from dataclasses import replace

import pytest
import torch

from box_object import FOV, box, cameras_around, views_of
from unflat.data import camera_keys
from unflat.geometry import Camera, orbit_pose
from unflat.geometry.pose import orbit_coordinates
from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.compact import PRESETS, CompactViews, Config, build, tiny
from unflat.systems.zero123.pipeline import load
from unflat.systems.zero123.recipe import Objective, ViewRecipe, dropped
from unflat.systems.zero123.showing import FromPictures
from unflat.systems.zero123.turned_volume import DISTANCE, FOCAL, HALF_DEPTH, places, turn
from unflat.training import save_model
from unflat.training.randomness import step_generator, with_position

SMALL = Config(side=16, widths=(32, 32), blocks=1, encoder=(16, 16), embedding=32, heads=2)


def pose(polar, azimuth, radius) -> RelativePose:
    values = (torch.tensor([v]) for v in (polar, azimuth, radius))
    return RelativePose(**dict(zip(("polar", "azimuth", "radius"), values, strict=True)))


def test_a_cell_of_the_new_view_is_looked_up_where_the_picture_shows_it():
    elevation = torch.tensor([0.3])
    move = pose(-0.4, 1.1, 0.1)
    reference = Camera.from_fov(FOV, orbit_pose(elevation[0], 0.0, DISTANCE))
    target = move.cameras(reference)
    depth, side = 8, 16
    found = places(move, elevation, depth, side)
    for cell in ((1, 3, 12), (6, 9, 2)):
        z, row, column = cell
        ahead = HALF_DEPTH * (2 * (z + 0.5) / depth - 1)
        far = DISTANCE + 0.1 + ahead
        uv = torch.tensor([(column + 0.5) / side - 0.5, (row + 0.5) / side - 0.5])
        point = torch.tensor([*(uv / FOCAL * far), far])
        world = target.rotation[0] @ point + target.position[0]
        seen, distance = reference.project(world[None])
        expected = [*(2 * seen[0] - 1), (distance[0] - DISTANCE) / HALF_DEPTH]
        torch.testing.assert_close(found[0][cell], torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_no_move_keeps_the_volume():
    volume = torch.rand(1, 3, 8, 8, 8)
    kept = turn(volume, pose(0.0, 0.0, 0.0), torch.tensor([0.7]))
    torch.testing.assert_close(kept, volume, atol=1e-4, rtol=1e-4)


def test_half_a_turn_of_a_level_camera_exchanges_front_and_back():
    volume = torch.zeros(1, 1, 8, 8, 8)
    volume[0, 0, :2, 3:5, 3:5] = 1  # near the first camera
    turned = turn(volume, pose(0.0, math.pi, 0.0), torch.tensor([0.0]))
    assert float(turned[0, 0, 6:].sum()) > 10 * float(turned[0, 0, :2].sum())


def test_dropping_has_the_published_shares():
    chance = (torch.arange(10_000) + 0.5) / 10_000
    embedding, picture = dropped(chance, 0.05)
    share = {
        "embedding only": float((embedding & ~picture).float().mean()),
        "both": float((embedding & picture).float().mean()),
        "picture only": float((~embedding & picture).float().mean()),
    }
    assert share == {key: pytest.approx(0.05, abs=1e-6) for key in share}


@pytest.mark.parametrize("concat", [True, False])
@pytest.mark.parametrize("tokens", ["none", "one", "all"])
def test_every_way_in_is_used_and_null_forgets_the_picture(concat, tokens):
    torch.manual_seed(0)
    config = replace(SMALL, concat=concat, tokens=tokens, volume=8 if tokens == "all" else 0)
    network = build(config)
    with torch.no_grad():
        for parameter in network.parameters():
            if not bool(parameter.any()):
                parameter.normal_(std=0.05)
    model = CompactViews(network)
    move = pose(0.1, 0.5, 0.0)
    noisy, timestep = torch.randn(1, 4, 16, 16), torch.tensor([500])
    said, nulls = [], []
    network.requires_grad_(False)
    for seed in range(2):
        draws = torch.Generator().manual_seed(seed)
        image = torch.rand(1, 3, 16, 16, generator=draws)
        reference = model.reference(image, torch.rand(1, 16, 16, generator=draws))
        condition = model.condition(reference, move)
        said.append(model.predict(noisy, timestep, condition))
        nulls.append(model.predict(noisy, timestep, model.null(condition)))
    is_told = concat or tokens != "none"
    assert (float((said[0] - said[1]).abs().max()) > 1e-4) is is_told
    if not config.volume:  # else the null is not told a guess, but the pose's own numbers stay
        torch.testing.assert_close(nulls[0], nulls[1])


def test_what_is_forgotten_is_what_null_tells():
    torch.manual_seed(0)
    model = CompactViews(build(SMALL))
    draws = torch.rand(2, 4, 16, 16)
    reference = model.reference(draws[:, :3], draws[:, 3], torch.tensor([0.2, 0.4]))
    move = RelativePose.from_degrees(torch.tensor([10.0, 20.0]), 0.0)
    all_of_it = torch.ones(2, dtype=torch.bool)
    forgotten = model.forget(reference, all_of_it, all_of_it, ~all_of_it)
    null, lost = model.null(model.condition(reference, move)), model.condition(forgotten, move)
    for name in ("context", "picture", "told", "guide"):
        torch.testing.assert_close(null.parts[name], lost.parts[name], atol=1e-5, rtol=1e-5)


def boxes(count, side=16):
    """Pictures of one box from all around, four in a row of the same."""
    cameras = cameras_around(4 * count, 1)
    rgba = torch.cat(
        [
            views_of(box((1.0, 0.4 + 0.1 * i, 0.6)), cameras[4 * i : 4 * i + 4], side)
            for i in range(count)
        ]
    )
    opacity = rgba[:, 3:]
    batch = {"image": opacity * rgba[:, :3] + 1 - opacity, "mask": opacity}
    return with_position(batch | camera_keys("", cameras), 0, 1)


@pytest.mark.slow
def test_it_learns_what_a_pose_shows():
    """Twenty seconds: told the true pose it is nearer to the truth than told another's."""
    torch.manual_seed(0)
    model = CompactViews(build(replace(SMALL, volume=8)))
    recipe = ViewRecipe(model, Objective(mirror=False, recolor=0.0), {})
    batch = boxes(4)
    optimizer = torch.optim.AdamW(recipe.parameter_groups(), lr=2e-3)
    losses = []
    for step in range(250):
        terms = recipe.step(batch, 0.0, step_generator(0, step))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        losses.append(float(terms["loss"].detach()))
    assert sum(losses[-20:]) < 0.25 * sum(losses[:20])
    camera = Camera(camera_to_world=batch["camera_to_world"], intrinsics=batch["intrinsics"])
    numbers = torch.arange(16)
    other = numbers - numbers % 4 + (numbers + 1) % 4
    with torch.no_grad():
        elevation, _, _ = orbit_coordinates(camera.position)
        reference = model.reference(batch["image"], batch["mask"][:, 0], elevation)
        off = {}
        for name, shift in (("true", 1), ("another", 2)):
            asked = numbers - numbers % 4 + (numbers + shift) % 4
            move = RelativePose.between(camera, camera[asked])
            noise = torch.randn(16, 4, 16, 16, generator=torch.Generator().manual_seed(0))
            said = model.predict(noise, torch.full((16,), 999), model.condition(reference, move))
            off[name] = float((model.decode(said).image - batch["image"][other]).square().mean())
    assert off["true"] < 0.5 * off["another"]


def test_a_batch_keeps_its_objects_together():
    recipe = ViewRecipe(CompactViews(build(SMALL)), Objective(), {})
    partners = recipe._partners(12, step_generator(0, 3))
    assert torch.equal(partners // 4, torch.arange(12) // 4)
    assert not bool((partners == torch.arange(12)).any())
    assert torch.equal(partners.sort().values, torch.arange(12))


def test_mirrored_objects_have_mirrored_cameras():
    showing = FromPictures(CompactViews(build(SMALL)), views=4, mirror=True, recolor=0.0)
    batch = boxes(5)
    image, opacity, camera = showing._changed(batch, step_generator(0, 2))
    flipped = [not torch.equal(image[i], batch["image"][i]) for i in range(0, 20, 4)]
    assert any(flipped)
    assert not all(flipped)
    for first, is_flipped in zip(range(0, 20, 4), flipped, strict=True):
        for view in range(first, first + 4):
            expected = batch["mask"][view, 0]
            expected = expected.flip(-1) if is_flipped else expected
            torch.testing.assert_close(opacity[view], expected)
            # a box is its own mirror image: its outline tells whether the camera is right
            seen = views_of(box((1.0, 0.4 + 0.1 * (first // 4), 0.6)), camera[view : view + 1], 16)
            torch.testing.assert_close(seen[0, 3], opacity[view], atol=1e-3, rtol=0)


def test_presets_have_their_sizes():
    counts = {
        name: sum(weight.numel() for weight in build(preset()).parameters())
        for name, preset in PRESETS.items()
    }
    assert 4.0e6 < counts["tiny"] < 4.2e6
    assert 30e6 < counts["small"] < 60e6
    assert Config.from_json(tiny().to_json()) == tiny()


def test_a_file_loads_again(tmp_path):
    torch.manual_seed(0)
    network = build(SMALL)
    path = tmp_path / "views.safetensors"
    header = {"system": "zero123", "config": SMALL.to_json(), "side": 16, "card": {"name": "mine"}}
    save_model(path, network.state_dict(), header, "float32")
    model = load(path)
    assert model.name == "mine"
    assert model.latent_shape == (4, 16, 16)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(model.network.state_dict()[name], value)


def test_a_volume_needs_all_tokens():
    with pytest.raises(ValueError, match="all"):
        replace(SMALL, tokens="one")
