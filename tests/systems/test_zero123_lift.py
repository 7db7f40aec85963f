"""Lifting with a model that knows the truth gives the truth back, by every method."""

import dataclasses

import numpy as np
import pytest
import torch
from made_view_oracle import (
    ViewOracle,
    true_camera,
    true_color,
    true_distance,
    true_field,
    volume_iou,
)

from unflat.errors import UserError
from unflat.export.isosurface import mesh_report
from unflat.geometry.hull import cell_centers
from unflat.geometry.relative_pose import RelativePose
from unflat.object_scene import ObjectScene
from unflat.systems.zero123.lift import lift, view_plan
from unflat.systems.zero123.lift import lift as lift_function
from unflat.systems.zero123.lift.bake import shots_of_latents
from unflat.systems.zero123.lift.cameras import input_camera
from unflat.systems.zero123.lift.carving import carved
from unflat.systems.zero123.lift.fit import FitConfig, fit
from unflat.systems.zero123.lift.guidance import ScoreGuidance
from unflat.systems.zero123.lift.lift import joined
from unflat.systems.zero123.lift.sds import SdsConfig, distil, start_of
from unflat.systems.zero123.lift.shots import Shots, batch_of, believed, masks_of_white
from unflat.systems.zero123.lift.sjc import SjcConfig, chain
from unflat.systems.zero123.lift.smoothing import smoothed
from unflat.systems.zero123.lift.solid import Solid, seen_by, signed_distances, unevenness
from unflat.systems.zero123.lift.surface import best_level, finish
from unflat.systems.zero123.model import ViewModel

SIDE = 32
QUICK = FitConfig(steps=50, rays=768, resolution=32, shape_rate=0.2)


@pytest.fixture(scope="module")
def oracle() -> ViewOracle:
    model = ViewOracle(SIDE)
    assert isinstance(model, ViewModel)
    return model


@pytest.fixture(scope="module")
def picture(oracle) -> Shots:
    image, opacity = oracle.shot(batch_of(oracle.camera))
    assert opacity is not None
    cameras = batch_of(oracle.camera)
    return Shots(image=image, opacity=opacity, cameras=cameras, weight=torch.ones(1))


@pytest.fixture(scope="module")
def shots(oracle, picture) -> Shots:
    poses = view_plan(14, 0.35)
    return joined(picture, oracle.make_views(poses, 0), poses.cameras(oracle.camera))


def finished(solid: Solid, judges: Shots):
    return finish(solid, best_level(solid, judges)).solid.field(0.3 * solid.cell)


def test_a_fit_to_true_views_is_the_object(shots):
    solid = fit(shots, QUICK, seed=0).solid
    field = finished(solid, shots)
    assert volume_iou(field) > 0.8
    # the ball is greener and bluer than the slab's other end
    ends = field(torch.tensor([[[0.2, 0.1, 0.24], [-0.35, -0.1, 0.2]]])).features[0]
    assert ends[0, 0] > ends[1, 0] + 0.2
    assert ends[0, 1] > ends[1, 1] + 0.05


def test_one_wrong_view_is_ignored(shots):
    """A view of something else is believed less than a tenth, and the object stays what it is."""
    image, opacity = shots.image.clone(), shots.opacity.clone()
    image[4], opacity[4] = image[4].flip(1).roll(6, 1), opacity[4].flip(0).roll(6, 0)
    lied = believed(dataclasses.replace(shots, image=image, opacity=opacity), 4.0)
    assert lied.weight[4] < 0.1
    assert torch.cat([lied.weight[:4], lied.weight[5:]]).min() > 0.8
    assert volume_iou(carved(lied, 32).field(0.01)) > 0.7
    blind = dataclasses.replace(lied, weight=torch.ones_like(lied.weight))
    fitted = fit(lied, QUICK, seed=0)
    assert fitted.weight[4] < 0.1
    assert fitted.residual[4] > 2 * fitted.residual.median()
    assert volume_iou(finished(fitted.solid, lied)) > 0.8
    assert volume_iou(carved(blind, 32).field(0.01)) <= volume_iou(carved(lied, 32).field(0.01))


def test_colors_that_a_view_has_alone_become_its_offset(shots):
    image = shots.image.clone()
    image[3] = (image[3] - 0.08 * shots.opacity[3]).clamp(0, 1)
    darker = dataclasses.replace(shots, image=image)
    offset = fit(darker, QUICK, seed=0).offset
    assert offset[0].abs().max() == 0
    others = torch.cat([offset[1:3], offset[4:]]).mean()
    assert offset[3].mean() < others - 0.03


def distilled(oracle: ViewOracle, steps: int) -> float:
    """IoU of what distillation finds; of what it begins with, at 0 steps."""
    image, opacity = oracle.shot(batch_of(oracle.camera))
    assert opacity is not None
    picture = Shots(
        image=image, opacity=opacity, cameras=batch_of(oracle.camera), weight=torch.ones(1)
    )
    config = SdsConfig(steps=steps, resolution=28, elevation_deg=(-30.0, 60.0), shape_rate=0.1)
    solid = start_of(picture, 28)
    if steps:
        solid = distil(oracle, picture, config, seed=0, solid=solid)
    return volume_iou(finished(solid, picture))


def test_distillation_moves_towards_what_the_model_believes():
    oracle = ViewOracle(20)
    assert distilled(oracle, 50) > max(0.5, distilled(oracle, 0) + 0.15)


@pytest.mark.slow
def test_distillation_finds_the_object():
    assert distilled(ViewOracle(24), 220) > 0.8


def test_a_polished_fit_stays_what_it_was(oracle, shots):
    solid = carved(shots, 32)
    before = volume_iou(solid.field(0.01))
    polished = distil(oracle, shots, SdsConfig.polish(15), seed=0, solid=solid)
    assert volume_iou(finished(polished, shots)) > before - 0.05


def chained(steps: int) -> float:
    """IoU of what score chaining finds."""
    side = 20
    oracle = ViewOracle(side)
    image, opacity = oracle.shot(batch_of(oracle.camera))
    assert opacity is not None
    picture = Shots(
        image=image, opacity=opacity, cameras=batch_of(oracle.camera), weight=torch.ones(1)
    )
    config = dataclasses.replace(SjcConfig.fast(), steps=steps, resolution=20, half_box=0.6)
    voxels = chain(oracle, image[0], opacity[0], oracle.camera, config, seed=0)
    white = oracle.encode(torch.ones(1, 3, side, side), torch.zeros(1, side, side))[0]
    around = view_plan(24, 0.35).cameras(oracle.camera)
    judges = shots_of_latents(oracle, voxels, around, white, picture)
    return volume_iou(finished(fit(judges, FitConfig.of_renderings()).solid, judges))


def test_score_chaining_moves_towards_what_the_model_believes():
    assert chained(60) > 0.4


@pytest.mark.slow
def test_score_chaining_finds_the_object():
    assert chained(220) > 0.8


def test_lifting_gives_a_scene_a_mesh_and_figures(tmp_path, monkeypatch):
    oracle = ViewOracle(24)
    image, opacity = oracle.shot(batch_of(oracle.camera))
    monkeypatch.setattr(FitConfig, "fast", classmethod(lambda cls: QUICK))
    told: list[tuple[str, int, int]] = []
    lifted = lift_function(
        oracle,
        image[0],
        opacity[0],
        method="fit",
        preset="fast",
        elevation=0.35,
        seed=0,
        make_views=oracle.make_views,
        camera=oracle.camera,
        progress=lambda stage, done, total: told.append((stage, done, total)),
    )
    assert told[0] == ("views", 0, 16)
    assert told[-1] == ("fit", QUICK.steps, QUICK.steps)
    assert lifted.figures["picture_iou"] > 0.7
    assert lifted.figures["agreement_mean"] > 0.95
    assert len(lifted.frames) >= 2
    assert lifted.frames[0].shape == (3, 24, 24)
    assert len(lifted.shots.weight) == 17
    report = mesh_report(lifted.mesh)
    assert report.watertight
    assert report.parts == 1
    assert lifted.mesh.world == "object"
    size = np.ptp(lifted.mesh.vertices, axis=0)
    assert size == pytest.approx([0.82, 0.57, 0.49], abs=0.08)
    again = ObjectScene.load(lifted.scene.save(tmp_path / "scene.safetensors"))
    assert volume_iou(again.field) > 0.75
    torch.testing.assert_close(
        again.render(size=(24, 24)).rgb, lifted.scene.render(size=(24, 24)).rgb, atol=0.02, rtol=0
    )
    assert again.header.system == "zero123"
    assert again.header.fov_deg == pytest.approx(49.13, abs=0.01)


def test_a_guidance_scale_reaches_score_chaining(monkeypatch):
    """Said out loud it is the published 100; else it is what the preset is in balance with."""
    oracle = ViewOracle(12)
    image, opacity = oracle.shot(batch_of(oracle.camera))
    asked: list[float] = []

    def ask(*_, **__):
        raise UserError("enough")

    def remember(self, model, reference, config):
        asked.append(config.guidance_scale)
        self.loss = ask

    monkeypatch.setattr(ScoreGuidance, "__init__", remember)
    for scale in (100.0, None):
        with pytest.raises(UserError, match="enough"):
            lift_function(
                oracle,
                image[0],
                opacity[0],
                method="sjc",
                preset="fast",
                elevation=0.35,
                seed=0,
                guidance_scale=scale,
            )
    assert asked == [100.0, SjcConfig.fast().guidance.guidance_scale]


def rough_of(solid: Solid) -> float:
    return float(unevenness(solid.distances().detach(), solid.cell)[1])


def test_smoothing_makes_noise_even_and_keeps_the_object(picture):
    bounds = torch.tensor([[-0.6] * 3, [0.6] * 3])
    points = cell_centers(bounds, (32,) * 3)
    generator = torch.Generator().manual_seed(0)
    distances = true_distance(points)
    noisy = distances + 0.7 * 1.2 / 32 * torch.randn(distances.shape, generator=generator)
    colors = true_color(points).movedim(-1, 0)
    dotted = (colors + 0.2 * torch.randn(colors.shape, generator=generator)).clamp(0, 1)
    before = Solid(noisy, dotted, bounds)
    after = smoothed(before, picture, agreement=0.95)
    little = smoothed(before, picture, agreement=1.0)  # true views: what is rough may be true
    assert rough_of(little) > 2 * rough_of(after)
    assert rough_of(after) < 0.3 * rough_of(before)
    assert volume_iou(after.field(0.01)) > max(0.85, volume_iou(before.field(0.01)))
    back = (distances.abs() < 0.03) & (points[..., 2] < -0.1)
    error = [(s.colors() - colors)[:, back].abs().mean() for s in (before, after)]
    assert error[1] < 0.4 * error[0]
    front = (distances.abs() < 0.02) & (points[..., 2] > 0.2)  # the picture shows it
    kept = (after.colors() - before.colors())[:, front].abs().mean()
    assert kept < 0.6 * (after.colors() - before.colors())[:, back].abs().mean()


def test_the_same_seed_gives_the_same_solid(shots):
    config = dataclasses.replace(QUICK, steps=5)
    first, second = (fit(shots, config, seed=3).solid.distances() for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, fit(shots, config, seed=4).solid.distances())


def test_silhouettes_without_a_common_object_are_explained(shots):
    opacity = torch.zeros_like(shots.opacity)
    opacity[0, :4, :4] = 1
    opacity[1:, -4:, -4:] = 1
    with pytest.raises(UserError, match="no solid in common; try another seed"):
        carved(dataclasses.replace(shots, opacity=opacity), 24)


def test_an_empty_picture_is_explained(oracle):
    with pytest.raises(UserError, match=r"matte is empty.*transparent background"):
        lift_function(
            oracle,
            torch.ones(3, SIDE, SIDE),
            torch.zeros(SIDE, SIDE),
            method="sds",
            preset="fast",
            elevation=0.0,
            seed=0,
        )


def test_an_empty_surface_is_explained(picture):
    solid = start_of(picture, 16)
    with pytest.raises(UserError, match=r"no surface.*try another --seed, --method fit"):
        finish(solid, -5.0)


def test_crumbs_go_and_the_rest_stays():
    bounds = torch.tensor([[-0.6] * 3, [0.6] * 3])
    points = cell_centers(bounds, (32,) * 3)
    crumb = (points - torch.tensor([-0.45, 0.45, -0.4])).norm(dim=-1) - 0.06
    solid = Solid(torch.minimum(true_distance(points), crumb), torch.rand(3, 32, 32, 32), bounds)
    done = finish(solid, 0.0)
    assert done.dropped == 1
    assert float(done.solid.distances().detach()[crumb < 0].min()) > 0
    assert volume_iou(done.solid.field(0.01)) > 0.97


def test_distances_are_found_again_from_what_has_the_same_surface():
    bounds = torch.tensor([[-0.6] * 3, [0.6] * 3])
    points = cell_centers(bounds, (32,) * 3)
    cell = 1.2 / 32
    ball = points.norm(dim=-1) - 0.31
    found = signed_distances(torch.tanh(-8 * ball), 0.0, cell)
    near = ball.abs() < 3 * cell
    assert (found - ball)[near].abs().max() < 0.6 * cell
    assert (found - ball)[ball.abs() < 0.7 * cell].abs().max() < 0.12 * cell
    assert ((found < 0) == (ball < 0)).all()


def test_a_ball_is_even_and_noise_is_not():
    bounds = torch.tensor([[-0.6] * 3, [0.6] * 3])
    ball = cell_centers(bounds, (24,) * 3).norm(dim=-1) - 0.3
    cell = 1.2 / 24
    eikonal, rough = unevenness(ball, cell)
    noisy = unevenness(ball + cell * torch.randn(ball.shape), cell)
    assert eikonal < 0.02
    assert rough < 0.1
    assert noisy[0] > 5 * eikonal
    assert noisy[1] > 5 * rough


def test_the_level_of_the_silhouettes_is_found(shots):
    truth = true_field(32)
    cell = 1.2 / 32
    thin = Solid(truth.distances[0] + 0.8 * cell, truth.features[0], truth.bounds)
    assert best_level(thin, shots) == pytest.approx(0.8 * cell, abs=0.4 * cell)


def test_mattes_are_read_off_the_white():
    image = torch.ones(1, 3, 12, 12)
    image[0, :, 2:9, 3:10] = torch.tensor([0.8, 0.2, 0.1])[:, None, None]
    image[0, :, 4:6, 5:7] = 1.0  # a white patch is of the object
    matte = masks_of_white(image)
    expected = torch.zeros(12, 12)
    expected[2:9, 3:10] = 1
    assert torch.equal(matte[0], expected)


def test_the_usual_camera_is_farther_from_what_looks_small():
    small, large = torch.zeros(64, 64), torch.zeros(64, 64)
    small[24:40, 24:40], large[8:56, 8:56] = 1, 1
    near, far = (input_camera(mask, 0.3).position.norm() for mask in (large, small))
    assert 1.5 <= near < far <= 2.2
    camera = input_camera(small, 0.3)
    torch.testing.assert_close(camera.position[1] / far, torch.tensor(0.3).sin())


def test_views_are_planned_all_around_and_as_far_away():
    plan = view_plan(16, 0.35)
    cameras = plan.cameras(true_camera())
    torch.testing.assert_close(cameras.position.norm(dim=-1), torch.full((16,), 1.9))
    height = (cameras.position[:, 1] / 1.9).sort().values
    assert height[0] < -0.4
    assert height[-1] > 0.85
    assert height.diff().max() < 0.2
    back = RelativePose.between(true_camera(), cameras)
    torch.testing.assert_close(back.polar, plan.polar, atol=1e-4, rtol=0)
    assert plan.azimuth.sort().values.diff().max() < 2 * torch.pi / 16 + 1e-3
    assert lift is lift_function


def test_the_fused_march_shows_a_solid_as_the_reference_does(shots):
    from unflat.rendering.backends import use

    field = true_field(24)
    with use("reference"):
        slow = seen_by(field, shots.cameras[:2], 16)
    fast = seen_by(field, shots.cameras[:2], 16)
    for one, other in zip(slow, fast, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
