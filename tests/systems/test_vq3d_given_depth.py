import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.optimize import lsq_linear

from unflat.data.depth_maps import DepthSource
from unflat.errors import UserError
from unflat.fields import DetailField
from unflat.report import Report
from unflat.scene import Scene
from unflat.systems.depth.source import depth_source
from unflat.systems.vq3d import detail_field, load
from unflat.systems.vq3d.given_depth import MOST_SHIFT, agreement, fitted_ends, given_surface
from unflat.systems.vq3d.pipeline import reconstruct_picture


@given(st.integers(0, 2**31), st.floats(-1.5, 1.5), st.floats(-1, 1), st.floats(0, 1))
def test_the_ends_are_those_of_an_independent_bounded_solver(seed, scale, shift, noise):
    generator = torch.Generator().manual_seed(seed)
    d = torch.rand(1, 1, 6, 6, generator=generator, dtype=torch.float64)
    t = scale * d + shift + noise * torch.randn(d.shape, generator=generator, dtype=torch.float64)
    found = fitted_ends(d, t)[0].numpy()
    basis = torch.stack([1 - d.flatten(), d.flatten()], 1).numpy()
    bounds = ([0.0, 1 - MOST_SHIFT], [MOST_SHIFT, 1.0])
    expected = lsq_linear(basis, t.flatten().numpy(), bounds, tol=1e-14).x
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_map_that_agrees_up_to_scale_and_shift_is_laid_on_the_tokens():
    tokens = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    tokens = tokens * 0.7 + torch.tensor([0.1, 0.2])[:, None, None, None]
    low, high = tokens.amin((1, 2, 3), True), tokens.amax((1, 2, 3), True)
    photo = torch.rand(2, 3, 16, 16)
    laid = given_surface((tokens - low) / (high - low), tokens, photo, 0.01)
    torch.testing.assert_close(laid.disparity, tokens)
    assert bool((laid.spread == 0.01).all())
    assert agreement(tokens[:1], tokens[:1] * 3) == pytest.approx(1)
    assert agreement(tokens[:1], -tokens[:1]) == pytest.approx(-1)


def test_tokens_that_contradict_neither_flatten_nor_turn_the_map():
    ramp = torch.linspace(0, 1, 16).expand(1, 1, 16, 16)
    assert fitted_ends(ramp, 1 - ramp)[0].tolist() == [MOST_SHIFT, 1 - MOST_SHIFT]
    assert fitted_ends(ramp, torch.full_like(ramp, 0.5))[0].tolist() == [0.25, 0.75]


def halves(side):
    """A photo and a map with one step in the middle: the right half is near."""
    photo = torch.full((1, 3, side, side), 0.2)
    photo[..., side // 2 :] = 0.8
    return photo, (photo[:, :1] > 0.5).float()


@pytest.mark.parametrize("rows", [40, 80, 120])
def test_a_step_stays_where_it_is_at_every_resolution(rows):
    photo, _ = halves(80)
    _, step = halves(rows)
    surface = given_surface(step, torch.rand(1, 1, 16, 16), photo, 0.004)
    assert surface.disparity.shape == surface.spread.shape == (1, 1, 80, 80)
    left, right = surface.disparity.split(40, dim=-1)
    assert float(left.std()) < 1e-6, "no values between two surfaces"
    assert float(right.std()) < 1e-6
    assert float(right.min() - left.max()) > 0.499


def test_a_coarse_map_follows_the_edges_of_the_photo():
    photo = torch.full((1, 3, 80, 80), 0.2)
    photo[..., 43:] = 0.8
    coarse = torch.zeros(1, 1, 16, 16)
    coarse[..., 8:] = 1  # enlarged as it is, the step would lie at 40
    surface = given_surface(coarse, coarse, photo, 0.004).disparity[0, 0]
    steps = (surface.diff(dim=1) > 0.5).nonzero()[:, 1]
    assert steps.tolist() == [42] * 80
    assert float(surface[:, :43].std()) < 1e-6


def test_ramps_at_silhouettes_become_steps_and_slopes_stay():
    side = 192
    photo, step = halves(side)
    ramp = step.clone()
    ramp[..., 95:98] = torch.tensor([0.25, 0.5, 0.75])
    floor = torch.linspace(0, 0.2, side)[:, None]
    mixed = 0.8 * ramp + floor
    surface = given_surface(mixed, mixed, photo, 0.004).disparity[0, 0]
    across = surface - floor
    assert not bool(((across > 0.15) & (across < 0.65)).any()), "nothing floats between the two"
    edges = (surface.diff(dim=1) > 0.3).nonzero()[:, 1]
    assert len(edges) == side
    assert 92 <= int(edges.min()) <= int(edges.max()) <= 96, "mixed pixels go with the near side"
    torch.testing.assert_close(surface[:, :90], mixed[0, 0, :, :90], atol=0.01, rtol=0)


@torch.no_grad()
def test_the_sheet_moves_where_the_map_says(tiny_model):
    model = load(tiny_model)
    photo, step = halves(48)
    image = torch.nn.functional.interpolate(photo, (32, 32), mode="area")
    encoded = model.encode(image)
    own = detail_field(model, encoded, image, photo)
    field = detail_field(model, encoded, image, photo, disparity=step)
    assert isinstance(field, DetailField)
    assert not torch.equal(field.disparity, own.disparity)
    near, far = field.disparity[..., 24:], field.disparity[..., :24]
    assert float(near.std()) == float(far.std()) == 0
    assert float(near.mean() - far.mean()) > 0.499
    assert all(torch.equal(*pair) for pair in zip(field.base.planes, own.base.planes, strict=True))
    # Density on a canonical ray begins at the sheet: nothing before it, all of it after.
    for u, sheet in ((-0.5, float(far[0, 0, 0, 0])), (0.5, float(near[0, 0, 0, 0]))):
        q = torch.tensor([[[u, 0.1, sheet + 0.05], [u, 0.1, sheet - 0.02]]])
        density, _ = field.at(q)
        assert density[0, 0] == 0
        assert density[0, 1] > 100


def test_a_scene_from_a_photo_and_its_map(tiny_model, tmp_path):
    picture = Image.linear_gradient("L").resize((96, 72)).convert("RGB")
    values = np.tile(np.linspace(5.0, 1.0, 96), (72, 1))
    np.save(tmp_path / "map.npy", values)
    source = depth_source(tmp_path / "map.npy", meaning="depth")
    report = Report("reconstruct")
    scene = reconstruct_picture(picture, model=tiny_model, depth=source, report=report)
    assert scene.header.settings["depth"] == "map.npy"
    assert len(str(scene.header.settings["depth_sha256"])) == 64
    assert -1 <= report.figures["depth_correlation"] <= 1
    assert [stage.name for stage in report.stages] == ["prepare", "depth", "scene"]
    assert isinstance(scene.field, DetailField)
    surface = scene.field.disparity[0, 0]
    assert surface.shape == (72, 72)
    assert bool((surface.diff(dim=1) >= 0).all()), "depth falls to the right: disparity rises"
    assert float(surface[0, -1] - surface[0, 0]) >= 0.5
    loaded = Scene.load(scene.save(tmp_path / "scene.safetensors"))
    error = (loaded.render().rgb[0] - scene.photo).square().mean()
    assert float(-10 * error.log10()) > 35, "the photo is still what the canonical camera sees"


def test_a_map_the_wrong_way_round_is_told(tiny_model):
    model, picture = load(tiny_model), Image.linear_gradient("L").convert("RGB")
    warned = []
    for sign in (1.0, -1.0):
        tokens = {}

        def own(prepared, sign=sign, tokens=tokens):
            from unflat.systems.vq3d import render_canonical, token_field

            with torch.no_grad():
                field = token_field(model, model.encode(prepared.model_image[None]))
                tokens["d"] = render_canonical(field, 32)[1]
            d = sign * tokens["d"]
            return (d - d.min()) / (d.max() - d.min())

        report = Report("reconstruct")
        reconstruct_picture(picture, model=model, depth=DepthSource("m", "", own), report=report)
        assert report.figures["depth_correlation"] == pytest.approx(sign, abs=0.01)
        warned.append([sentence for sentence, _ in report.warnings])
    assert warned[0] == []
    assert "say --depth-from depth" in warned[1][0]


def test_depth_and_tokens_exclude_each_other(tiny_model, tmp_path):
    source = DepthSource("m", "", lambda prepared: torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match="tokens alone do not have"):
        reconstruct_picture(
            Image.new("RGB", (80, 80)), model=tiny_model, depth=source, detail=False
        )
    np.save(tmp_path / "wide.npy", np.random.default_rng(0).random((20, 40)))
    with pytest.raises(UserError, match="must have the same aspect ratio"):
        reconstruct_picture(
            Image.new("RGB", (80, 80)),
            model=tiny_model,
            depth=depth_source(tmp_path / "wide.npy"),
        )
