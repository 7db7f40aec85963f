from dataclasses import replace

import pytest
import torch

from unflat.errors import UserError
from unflat.evaluation.load import load_reconstructor
from unflat.fields.detail import DetailField, HiddenSheet
from unflat.fields.viewspace import ViewSpaceField
from unflat.geometry.camera import Camera
from unflat.geometry.trajectory import turn_about_pivot
from unflat.metrics import psnr
from unflat.rendering.render import RenderOptions, render
from unflat.scene import Scene, SceneHeader
from unflat.systems.vq3d.autoencoder import build
from unflat.systems.vq3d.complete import Walk, complete, complete_scene
from unflat.systems.vq3d.config import tiny
from unflat.systems.vq3d.generate import Sampling, field_of_codes, open_maker
from unflat.systems.vq3d.pipeline import USUAL_SHIFT

SIDE = 32


@pytest.fixture(scope="module")
def maker(tiny_prior):
    return open_maker(tiny_prior, sampling=Sampling(steps=4))


@pytest.fixture(scope="module")
def model():
    """Untrained, but its colors follow smooth pictures (the linear code)."""
    torch.manual_seed(0)
    model = build(replace(tiny(), encoder_width=32)).eval()
    coarse = torch.rand(64, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    model.start_from_patches(torch.nn.functional.interpolate(coarse, SIDE, mode="bilinear"))
    return model


@pytest.fixture(scope="module")
def field(model):
    """A near square (disparity 0.9, red) before a far wall (0.3, green): the tokens are noise."""
    with torch.no_grad():
        codes = torch.zeros(1, model.config.grid**2, 4, dtype=torch.long)
        base = field_of_codes(model, codes)
    assert isinstance(base, ViewSpaceField)
    photo = torch.tensor([0.1, 0.8, 0.1])[None, :, None, None].expand(1, 3, SIDE, SIDE).clone()
    disparity = torch.full((1, 1, SIDE, SIDE), 0.3)
    photo[:, :, 10:22, 10:22] = torch.tensor([0.9, 0.1, 0.1])[:, None, None]
    disparity[..., 10:22, 10:22] = 0.9
    frame = replace(base.frame, b=USUAL_SHIFT)
    spread = torch.full_like(disparity, 0.004)
    return DetailField(base.with_frame(frame), photo, disparity, spread)


class OneColor:
    """A prior that knows one thing: what is unknown has the codes of a picture of one color."""

    def __init__(self, model, color):
        picture = torch.tensor(color)[None, :, None, None].expand(1, 3, SIDE, SIDE)
        self.codes, self.asked = model.encode(picture).quantized.indices, []

    def sample(self, labels, generator, *, given, **_):
        self.asked.append(given.clone())
        assert labels.tolist() == [-1]
        return torch.where(given < 0, self.codes, given)


def look(field, scene_side=SIDE):
    scene = Scene(field, SceneHeader(system="vq3d", model="made"))
    options = RenderOptions(samples=64, near=0.7, far=20.0, spacing="disparity")
    return render(field, scene.camera, scene_side, scene_side, options).rgb


def completed(field, model, color):
    prior = OneColor(model, color)
    walk = Walk(angles_deg=(28.0, 38.0), directions=4)
    return complete(field, model, prior, torch.Generator(), walk=walk), prior


@pytest.fixture(scope="module")
def done(field, model):
    return completed(field, model, (0.0, 0.0, 0.9))


@pytest.fixture(scope="module")
def yellow(field, model):
    return completed(field, model, (0.9, 0.9, 0.0))[0].field


def test_only_tokens_with_unseen_pixels_are_drawn(done):
    found, prior = done
    assert found.views == len(prior.asked) >= 4
    unknown = [(given < 0).all(-1)[0] for given in prior.asked]
    assert all(((given < 0).all(-1) == (given < 0).any(-1)).all() for given in prior.asked)
    assert found.tokens == sum(int(tokens.sum()) for tokens in unknown)
    right = unknown[0].reshape(4, 4)  # the first camera stands to the right
    assert right.any()
    assert not right.all()
    columns = right.sum(0)
    assert columns[0] != columns[3]  # and sees more of what is beside one border


def test_the_photo_s_own_view_stays_as_it_was(done, field):
    assert psnr(look(done[0].field), look(field)).item() > 45


def test_what_was_drawn_lies_behind_and_beside_the_photo(done, yellow, field):
    hidden, around = done[0].field.hidden, done[0].field.around
    drawn = hidden.mask > 0.5
    assert drawn.any()
    assert (hidden.disparity < field.disparity)[drawn].all()
    assert drawn[..., 10:22, 10:22].float().mean() > 3 * drawn.float().mean() * 0.5
    reach = done[0].field.reach
    side = around.mask.shape[-1]
    places = (torch.arange(side) + 0.5) / side * 2 - 1
    beside = (places.abs() * reach)[None, :].expand(side, side) > 1
    assert around.mask[0, 0][beside].float().mean() > 0.1
    blue, other = (
        sheet.rgb[0][:, (sheet.mask[0, 0] > 0.5) & beside].mean(1)
        for sheet in (around, yellow.around)
    )
    assert blue[2] > other[2] + 0.1  # an untrained decoder only follows the color
    assert blue[0] < other[0] - 0.1


def test_views_from_aside_show_it(done, yellow, field):
    scene = Scene(field, SceneHeader(system="vq3d", model="made"))
    pose = turn_about_pivot(torch.tensor([0.4]), torch.zeros(1), scene.pivot_depth)
    camera = Camera(camera_to_world=pose, intrinsics=scene.camera.intrinsics)
    options = RenderOptions(samples=64, near=0.7, far=20.0, spacing="disparity")
    before, after, other = (
        render(f, camera, SIDE, SIDE, options).rgb for f in (field, done[0].field, yellow)
    )
    changed = (before - after).abs().amax(1)[0] > 0.1
    assert 0.05 < changed.float().mean() < 0.8
    assert after[0, 2][changed].mean() > other[0, 2][changed].mean() + 0.05
    assert after[0, 0][changed].mean() < other[0, 0][changed].mean() - 0.05
    after = Scene(done[0].field, scene.header).layered((64, 64)).view(camera)
    plain = scene.layered((64, 64)).view(camera)
    assert ((after - plain).abs().amax(0) > 0.1).float().mean() > 0.05


def test_a_completed_scene_is_saved_whole(done, tmp_path):
    scene = Scene(done[0].field, SceneHeader(system="vq3d", model="made"))
    again = Scene.load(scene.save(tmp_path / "s.safetensors")).field
    assert again.reach == done[0].field.reach
    torch.testing.assert_close(again.around.mask, done[0].field.around.mask)
    torch.testing.assert_close(again.around.rgb, done[0].field.around.rgb, atol=0.003, rtol=0)
    moved = again.with_frame(replace(again.frame, a=2.0))
    assert moved.around is not None
    assert moved.reach == again.reach


def test_a_sheet_beside_the_photo_is_seen_where_it_says(field):
    """At (1.5, 0) stands yellow at disparity 0.5: its ray ends there, the others do not."""
    rgb = torch.tensor([0.9, 0.9, 0.1])[None, :, None, None].expand(1, 3, 8, 8)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 3:5, 6:] = 1  # u from 1 to 2
    sheet = HiddenSheet(rgb, torch.full((1, 1, 8, 8), 0.5), mask)
    wide = field.with_sheets(None, sheet, 2.0)
    delta = torch.linspace(1, 0, 101)
    for u, v, exists in ((1.5, 0.1, True), (1.5, 0.8, False), (-1.5, 0.1, False), (2.5, 0, False)):
        q = torch.stack([torch.full_like(delta, u), torch.full_like(delta, v), delta], -1)[None]
        density, color = wide.at(q)
        plain, _ = field.at(q)
        if not exists:
            torch.testing.assert_close(density, plain)
            continue
        assert (density[0, delta > 0.501] == 0).all()
        ahead = color[0, delta > 0.501]  # a ray that ends there is not black
        torch.testing.assert_close(ahead, rgb[0, :, 0, 0].expand_as(ahead))
        inside = (delta < 0.499) & (delta > 0.465)
        assert (density[0, inside] > 100).all()
        torch.testing.assert_close(color[0, inside], rgb[0, :, 0, 0].expand(int(inside.sum()), 3))
        torch.testing.assert_close(density[0, delta < 0.45], plain[0, delta < 0.45])


def test_a_real_prior_completes_a_scene_and_the_same_seed_the_same_way(field, maker):
    scene = Scene(field, SceneHeader(system="vq3d", model="made"))
    walk = Walk(angles_deg=(25.0,), directions=2)
    first, made = complete_scene(scene, maker, seed=1, walk=walk)
    second, _ = complete_scene(scene, maker, seed=1, walk=walk)
    other, _ = complete_scene(scene, maker, seed=2, walk=walk)
    assert made.tokens > 0
    assert first.header.settings["completed"] == maker.name
    assert torch.equal(first.field.around.rgb, second.field.around.rgb)
    assert not torch.equal(first.field.around.rgb, other.field.around.rgb)
    assert scene.field.around is None
    with pytest.raises(UserError, match="--complete: needs what the photo shows"):
        complete_scene(Scene(field.base, scene.header), maker)


def test_the_reconstruction_task_knows_the_mode(tiny_model, tiny_prior, generator):
    system = load_reconstructor(tiny_model, samples=8, prior=str(tiny_prior))
    assert system.modes == ("tokens", "completed", "detail")
    picture = torch.rand(1, 3, 4, 4, generator=generator)
    picture = torch.nn.functional.interpolate(picture, SIDE, mode="bilinear")
    made = system.reconstruct(picture, picture, "completed")
    assert made.fields[0].frame == system.model.frame
    assert psnr(made.image, picture).item() > 25
    with pytest.raises(UserError, match=r"--complete .*: is for models of tokens; copy has none"):
        load_reconstructor("copy", prior=str(tiny_prior))
