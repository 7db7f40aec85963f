"""GANs of objects: what each player learns from, what a run goes through, and that it learns."""

import dataclasses

import pytest
import torch

from unflat.data import PosedBatches, PosedViews
from unflat.geometry import Camera, orbit_pose
from unflat.rendering import Casting, backends
from unflat.systems.gan import eg3d, pigan, sdf_triplane, siren_sdf
from unflat.systems.gan.game import (
    Game,
    blurred,
    camera_angles,
    power_of_two,
    shown_made,
    shown_real,
    swapped,
)
from unflat.systems.gan.generator import Made
from unflat.systems.gan.planes import Planes
from unflat.systems.gan.recipe import GanRecipe

SIDE = 8
SMALL_PLANES = {
    "resolution": SIDE,
    "planes": Planes(latent_dim=8, style_dim=16, side=8, channels=4, base=64, widest=8, hidden=8),
    "rays": Casting(coarse=6, fine=4),
    "critic_width": 8,
    "critic_widest": 8,
}
CONFIGS = {
    "sdf_triplane": sdf_triplane.Config(
        **SMALL_PLANES, colors=4, alpha=0.05, surface_cells=3, r1_every=1
    ),
    "eg3d": eg3d.Config(**SMALL_PLANES, features=4, sharpening_width=8, half_side=0.55),
    "pigan": dataclasses.replace(
        pigan.tiny(), resolution=SIDE, growth=((0.0, 4), (0.5, SIDE)), width=8, depth=2
    ),
    "siren_sdf": siren_sdf.Config(resolution=SIDE, width=8, depth=2),
}
MODULES = {"sdf_triplane": sdf_triplane, "eg3d": eg3d, "pigan": pigan, "siren_sdf": siren_sdf}


@pytest.fixture(autouse=True)
def reference():
    """Pictures this small are not worth compiling for."""
    with backends.use("reference"):
        yield


def views(count: int = 8, objects: int = 2) -> PosedViews:
    """Colored squares on white, each object of one color, seen from around."""
    generator = torch.Generator().manual_seed(1)
    images = torch.full((count, 3, SIDE, SIDE), 255, dtype=torch.uint8)
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.uint8)
    number = torch.arange(count) % objects
    colors = torch.randint(0, 200, (objects, 3), generator=generator, dtype=torch.uint8)
    images[:, :, 2:6, 2:6] = colors[number][:, :, None, None]
    masks[:, 2:6, 2:6] = 255
    azimuth = torch.linspace(0, 6, count)
    pose = orbit_pose(torch.full((count,), 0.3), azimuth, torch.full((count,), 1.3))
    return PosedViews.of(
        images,
        name="squares",
        masks=masks,
        camera=Camera.from_fov(0.9, pose),
        objects=number,
        names=[f"object {k}" for k in range(objects)],
    )


def recipe_of(name: str, **start) -> GanRecipe:
    torch.manual_seed(0)
    parts = MODULES[name].build(CONFIGS[name])
    if start:
        parts = dataclasses.replace(parts, start=dataclasses.replace(parts.start, **start))
    return GanRecipe(name, CONFIGS[name], parts, objects=2)


def a_step(recipe: GanRecipe, progress: float, batch=None, seed: int = 3):
    batch = PosedBatches(views(), 4).batch(0) if batch is None else batch
    return recipe.step(batch, progress, torch.Generator().manual_seed(seed))


def has_gradient(module: torch.nn.Module) -> bool:
    found = [w.grad for w in module.parameters() if w.grad is not None]
    return any(bool(gradient.abs().max() > 0) for gradient in found)


@pytest.mark.parametrize("name", CONFIGS)
def test_each_player_learns_from_its_own_term_alone(name):
    for term, learns in (("fooling", "generator"), ("critic", "critic")):
        recipe = recipe_of(name)
        a_step(recipe, 0.9)[term].backward()
        generator, critic = recipe.parts.generator, recipe.parts.critic
        assert has_gradient(generator) == (learns == "generator")
        assert has_gradient(critic) == (learns == "critic")


@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_of_a_generator_is_used_in_its_picture(name):
    recipe = recipe_of(name)
    batch = PosedBatches(views(), 4).batch(0)
    generator = recipe.generator
    codes = generator.codes(torch.randn(4, generator.latent_dim), torch.randn(4, 25))
    camera = Camera(camera_to_world=batch["camera_to_world"], intrinsics=batch["intrinsics"])
    made = generator.picture(generator.form(codes), codes, camera, SIDE)
    weights = torch.linspace(-1, 1, made.image.numel()).reshape(made.image.shape)
    (made.image * weights).sum().backward()
    unused = [key for key, weight in generator.named_parameters() if weight.grad is None]
    assert unused == []


@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_has_one_learning_rate(name):
    recipe = recipe_of(name)
    grouped = [id(weight) for group in recipe.parameter_groups() for weight in group["params"]]
    assert sorted(grouped) == sorted(id(weight) for weight in recipe.networks.parameters())


def test_a_run_goes_through_its_parts():
    recipe = recipe_of("sdf_triplane", sphere=0.1, reconstruction=0.4, kept=0.5, lr=5.0)
    assert [recipe.lr_factor(p) for p in (0.0, 0.25, 0.5, 0.9)] == pytest.approx([5, 3, 1, 1])
    assert set(a_step(recipe, 0.05)) == {"loss", "sphere"}
    reconstructs = set(a_step(recipe, 0.3))
    assert {"color", "mask", "eikonal"} <= reconstructs
    assert "critic" not in reconstructs
    plays = set(a_step(recipe, 0.7))
    assert {"fooling", "critic", "color"} <= plays
    assert "latents" in dict(recipe.networks.named_children())


def test_known_pictures_weigh_in_the_game_what_they_are_said_to():
    one = recipe_of("sdf_triplane", kept=0.5, noise=0.0)
    three = recipe_of("sdf_triplane", kept=0.5, noise=0.0, kept_weight=3.0)
    for name in ("color", "mask"):
        light, heavy = (float(a_step(recipe, 0.9)[name].detach()) for recipe in (one, three))
        assert heavy == pytest.approx(3 * light, rel=1e-5)


def test_the_critics_word_grows_to_its_weight():
    assert [Game(ramp=0.2).fooling_at(p) for p in (0.0, 0.05, 0.2, 1.0)] == [0, 0.25, 1, 1]
    assert Game().fooling_at(0.0) == 1


def test_the_loss_is_the_sum_of_costs_and_not_of_figures():
    terms = a_step(recipe_of("sdf_triplane"), 0.9)
    figures = {"loss", "real", "fake"}
    total = sum(float(value.detach()) for name, value in terms.items() if name not in figures)
    assert float(terms["loss"].detach()) == pytest.approx(total, rel=1e-5)


def test_known_objects_are_reconstructed():
    recipe = recipe_of("sdf_triplane", sphere=0.0, reconstruction=1.0, noise=0.0)
    source = PosedBatches(views(), 8)
    optimizer = torch.optim.Adam(recipe.parameter_groups(), lr=1e-2)
    costs = []
    for step in range(24):
        terms = a_step(recipe, 0.5, source.batch(step), seed=step)
        terms["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        recipe.after_step(step)
        costs.append(float((terms["color"] + terms["mask"]).detach()))
    assert min(costs[-5:]) < 0.6 * costs[0]


def test_several_views_of_an_object_are_one_scene():
    recipe = recipe_of("sdf_triplane", sphere=0.0, reconstruction=1.0, noise=0.0, views=2)
    alone = recipe_of("sdf_triplane", sphere=0.0, reconstruction=1.0, noise=0.0)
    batch = PosedBatches(views(), 4, together=2).batch(0)
    assert batch["object"].unflatten(0, (-1, 2)).diff(dim=1).abs().max() == 0
    together, apart = a_step(recipe, 0.5, batch), a_step(alone, 0.5, batch)
    torch.testing.assert_close(together["color"], apart["color"])
    torch.testing.assert_close(together["mask"], apart["mask"])


def test_made_up_objects_are_seen_as_often_as_known_ones(monkeypatch):
    recipe, objects = recipe_of("sdf_triplane", kept=0.5, views=2), []
    form = recipe.generator.form
    monkeypatch.setattr(recipe.generator, "form", lambda c: objects.append(len(c)) or form(c))
    a_step(recipe, 0.9, PosedBatches(views(), 4, together=2).batch(0))
    assert objects == [2, 1]  # of four pictures, and of the two that are reconstructed
    objects.clear()
    few = dataclasses.replace(recipe.start, kept=0.1)
    monkeypatch.setattr(recipe, "start", few)
    a_step(recipe, 0.9, PosedBatches(views(), 4, together=2).batch(0))
    assert objects == [2, 1]  # one at least, and whole


def test_density_stays_what_it_can_be():
    recipe = recipe_of("sdf_triplane")
    density = recipe.parts.generator.body.density
    with torch.no_grad():
        density.alpha.fill_(-1.0)
        density.beta.fill_(1e-9)
    figures = recipe.after_step(0)
    assert figures == {"alpha": pytest.approx(1e-3), "beta": pytest.approx(1e-3)}


def test_the_average_of_styles_follows_the_steps():
    recipe = recipe_of("eg3d")
    mapping = recipe.parts.generator.mapping
    a_step(recipe, 0.9)
    assert mapping.average.abs().max() == 0
    recipe.after_step(0)
    assert mapping.average.abs().max() > 0
    assert mapping.seen.abs().max() == 0


def test_pictures_grow_and_their_critic_with_them():
    game = Game(growth=((0.0, 16), (0.5, 32)), fade=0.1)
    assert game.side_at(0.0, 32) == (16, 1.0)
    assert game.side_at(0.49, 32) == (16, 1.0)
    assert game.side_at(0.5, 32) == (32, 0.0)
    side, fade = game.side_at(0.55, 32)
    assert (side, fade) == (32, pytest.approx(0.5))
    assert game.side_at(0.9, 32) == (32, 1.0)
    assert Game().side_at(0.3, 64) == (64, 1.0)


def test_swaps_come_down_from_all_to_what_is_said():
    game = Game(swap=0.5, swap_share=0.1)
    assert [game.swap_probability(p) for p in (0.0, 0.05, 0.1, 0.9)] == pytest.approx(
        [1, 0.75, 0.5, 0.5]
    )
    label = torch.arange(6.0).reshape(3, 2)
    draws = torch.tensor([0.2, 0.6, 0.4])
    got = swapped(label, 0.5, draws)
    assert torch.equal(got, torch.stack([label[2], label[1], label[1]]))
    assert torch.equal(swapped(label, 0.0, draws), label)


def test_the_blur_goes_away():
    game = Game(blur=10.0, blur_share=0.2)
    assert game.blur_sigma(0.0, 128) == pytest.approx(10)
    assert game.blur_sigma(0.1, 64) == pytest.approx(2.5)
    assert game.blur_sigma(0.2, 128) == 0


def test_soft_pictures_keep_what_is_around_them():
    white, nothing = torch.ones(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)
    shown = torch.cat([white, nothing], dim=1)
    torch.testing.assert_close(blurred(shown, "rgba", 2.0, 1.0), shown)
    gray = torch.zeros(1, 6, 8, 8)
    torch.testing.assert_close(blurred(gray, "dual", 2.0, 0.5), gray)
    assert blurred(white, "rgb", 2.0, 0.0).min() < 0.5, "black beyond the border"


def test_what_a_critic_sees():
    image = torch.rand(2, 3, 8, 8)
    raw = torch.nn.functional.avg_pool2d(image, 2)
    mask = torch.rand(2, 1, 8, 8)
    made = Made(image, raw, mask, torch.zeros(2, 4, 4))
    assert torch.equal(shown_made(made, "rgb"), 2 * image - 1)
    assert torch.equal(shown_real(image, mask, "rgba", 8)[:, 3:], mask)
    assert torch.equal(shown_made(made, "rgba")[:, 3:], mask)
    dual = shown_real(image, None, "dual", 4)
    assert dual.shape == (2, 6, 8, 8)
    # what is enlarged of made pictures keeps the small one's mean, as that of real ones does
    for shown in (dual, shown_made(made, "dual")):
        torch.testing.assert_close(
            shown[:, 3:].mean((2, 3)), shown[:, :3].mean((2, 3)), atol=0.05, rtol=0
        )
    with pytest.raises(ValueError, match="masks"):
        shown_real(image, None, "rgba", 8)


def test_angles_are_those_of_the_orbit():
    elevation, azimuth = torch.tensor([0.3, -0.2]), torch.tensor([1.0, -2.5])
    pose = orbit_pose(elevation, azimuth, torch.tensor([1.3, 2.0]))
    got = camera_angles(Camera.from_fov(0.9, pose))
    torch.testing.assert_close(got, torch.stack([elevation, azimuth], 1), atol=1e-5, rtol=1e-5)


def test_sides_of_critics():
    assert [side for side in range(1, 130) if power_of_two(side)] == [8, 16, 32, 64, 128]


def test_a_sheet_has_a_column_for_each_picture():
    recipe = recipe_of("sdf_triplane", reconstruction=0.5)
    sheet = recipe.sample(PosedBatches(views(), 4).batch(0))
    assert sheet.shape == (3, 5 * SIDE, 4 * SIDE)
    assert 0 <= sheet.min() <= sheet.max() <= 1
