"""Score Jacobian chaining is the published one: the authors' own arrays, value by value.

`tests/fixtures/zero123/sjc.npz`: one view of a 16^3 latent voxel field by the authors' code.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from unflat.geometry.camera import Camera
from unflat.geometry.pose import look_at
from unflat.geometry.rays import image_rays
from unflat.rendering.backends import use
from unflat.rendering.render import render_rays
from unflat.systems.zero123.lift.sjc import (
    depth_unevenness,
    emptiness,
    mesh_volume,
    near_view,
    nearby_camera,
    random_camera,
)
from unflat.systems.zero123.lift.voxels import LatentVoxels, march

FILE = Path(__file__).parents[1] / "fixtures" / "zero123" / "sjc.npz"
SIDE = 16


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    with np.load(FILE) as arrays:
        return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays}


@pytest.fixture
def voxels(published) -> LatentVoxels:
    return LatentVoxels(
        published["density"][0, 0], published["color"][0], float(published["d_scale"])
    )


def camera_at(published, pose: torch.Tensor) -> Camera:
    focal = float(published["K"][0, 0]) / SIDE
    return Camera(
        camera_to_world=pose[None].float(), intrinsics=torch.tensor([[focal, focal, 0.5, 0.5]])
    )


@pytest.fixture
def camera(published) -> Camera:
    from_opengl = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
    return camera_at(published, published["pose"] @ from_opengl)


@pytest.fixture
def near_camera(published) -> Camera:
    # their world is z up
    return camera_at(published, look_at(published["near_eye"], up=(0.0, 0.0, 1.0)))


def closely(found, expected, tolerance: float) -> None:
    """Nearer than a share of the largest value."""
    torch.testing.assert_close(
        found, expected.to(found), rtol=0, atol=tolerance * float(expected.abs().max())
    )


def test_a_view_is_the_authors(published, voxels, camera, near_camera):
    with torch.no_grad():
        seen = march(voxels, camera, SIDE, SIDE, published["white_latent"])
        near = march(voxels, near_camera, SIDE, SIDE, published["white_latent"])
    assert seen.weights.shape[-1] == int(published["n_samples"])
    for found, name in (
        (seen.latent, "latent"),
        (seen.distance[0], "depth"),
        (seen.opacity.flatten(), "weight_sum"),
        (near.latent, "near_latent"),
        (near.distance[0], "near_depth"),
    ):
        torch.testing.assert_close(found, published[name], rtol=0, atol=1e-4, msg=name)
    assert seen.opacity.max() > 0.9


def test_rays_are_the_authors(published, camera):
    directions = image_rays(camera, SIDE, SIDE).directions.reshape(-1, 3)
    torch.testing.assert_close(directions, published["ray_dir"], rtol=0, atol=1e-5)


def test_losses_and_their_gradients_are_the_authors(published, voxels, camera, near_camera):
    white = published["white_latent"]
    seen = march(voxels, camera, SIDE, SIDE, white)
    near = march(voxels, near_camera, SIDE, SIDE, white)
    terms = {
        "near": near_view(seen, near),
        "smooth": depth_unevenness(seen.distance),
        "emptiness": emptiness(seen.weights),
    }
    for name, term in terms.items():
        value = published[name if name == "emptiness" else f"{name}_loss"]
        assert float(term.detach()) == pytest.approx(float(value), abs=1e-5)
        gradient, colors = torch.autograd.grad(
            term, [voxels.density, voxels.features], retain_graph=True, allow_unused=True
        )
        closely(gradient, published[f"{name}_grad_density"][0, 0], 1e-4)
        if name == "near":
            expected = float(published["near_grad_color_norm"])
            assert float(colors.norm()) == pytest.approx(expected, rel=1e-4)


def test_the_score_pushes_voxels_as_the_authors_does(published, voxels, camera):
    """-(D - y) / sigma of a made-up prediction, through the march into the field."""
    seen = march(voxels, camera, SIDE, SIDE, published["white_latent"])
    y, sigma = seen.latent.detach(), published["score_sigma"]
    z = y + sigma * published["score_n"]
    score = -((z - sigma * published["score_e"]) - y) / sigma
    torch.testing.assert_close(
        score, published["score_e"] - published["score_n"], rtol=0, atol=1e-5
    )
    seen.latent.backward(score)
    assert voxels.density.grad is not None
    assert voxels.features.grad is not None
    closely(voxels.density.grad, published["score_grad_density"][0, 0], 1e-4)
    closely(voxels.features.grad.sum((1, 2, 3)), published["score_grad_color_sum"][0], 1e-4)
    norm = float(published["score_grad_color_norm"])
    assert float(voxels.features.grad.norm()) == pytest.approx(norm, rel=1e-4)


def test_the_mesh_is_drawn_where_the_authors_draw_it(published, voxels):
    volume, threshold = mesh_volume(voxels)
    closely(torch.from_numpy(volume), published["mesh_volume"], 1e-4)
    assert threshold == pytest.approx(float(published["mesh_threshold"]), rel=1e-4)


def test_the_march_is_the_quadrature_that_every_field_gets(published, voxels, camera):
    """The published samples are middles of intervals of one step, seen by the common renderer."""
    rays = image_rays(camera, SIDE, SIDE)
    enter = published["t_enter"].view(1, -1, 1)
    edges = enter + voxels.step * (torch.arange(52) - 0.5)
    with torch.no_grad(), use("reference"):
        light = render_rays(
            voxels,
            rays.origins.reshape(1, -1, 3),
            rays.directions.reshape(1, -1, 3),
            edges,
            opaque_last=False,
        )
        own = march(voxels, camera, SIDE, SIDE, published["white_latent"])
    # the first sample lies on the box's face, where rounding decides whether it is inside
    first = own.weights[..., 0].max()
    assert (light.opacity[0] - own.opacity.flatten()).abs().max() < 2 * first + 1e-4


def test_cameras_stand_where_they_may():
    generator = torch.Generator().manual_seed(0)
    like = Camera.from_fov(0.85, torch.eye(4)[None])
    cameras = [random_camera(like, (1.8, 2.2), generator) for _ in range(200)]
    places = torch.cat([camera.position for camera in cameras])
    radius = places.norm(dim=-1)
    assert radius.min() >= 1.8
    assert radius.max() <= 2.2
    assert radius.std() > 0.08
    assert (places[:, 1] / radius).min() > -0.5
    assert places[:, 1].min() < 0
    torch.testing.assert_close(
        torch.cat([camera.forward for camera in cameras]), -places / radius[:, None]
    )
    moved = nearby_camera(cameras[0], 0.05, generator)
    assert float((moved.position - cameras[0].position).norm()) == pytest.approx(0.05, rel=1e-4)
