"""nerf-from-image's pictures of samples at the beginnings of cells, and its terms of training.

A ray's first sample lies on a face of the box there, and rounding decides whether it is inside.
So the published code agrees with itself in ``stable`` pixels only, and these agree with ours but
for some in which both of its roundings fell alike; where the field is empty at the face, all do.
"""

import pytest
from made_nerf_from_image import NAMES, Made, camera_of, close, last, made
from torch import Tensor

from seeded import seeded
from unflat.geometry import Camera
from unflat.geometry.rays import image_rays
from unflat.losses import eikonal, indecision, moved_points, occupancy_variation, path_lengths
from unflat.systems.gan.published.left_ends import ray_ends, render_as_published

CASES = pytest.mark.parametrize("case", NAMES)


def is_empty_at_the_face(case: Made, camera: Camera, side: int) -> Tensor:
    rays = image_rays(camera, side, side)
    near, far = ray_ends(rays, case.generator.body.bounds)
    density = case.form.field(rays.at((near + 1e-3 * (far - near))[..., None])).density[..., 0]
    return density < 1e-2


@CASES
def test_views_from_the_beginnings_of_cells(case: str) -> None:
    expected, config, _, _, form = made(case)
    camera, stable = camera_of(expected, 32), expected["stable"]
    views = render_as_published(
        form.field, camera, 32, 32, samples="beginning", normals=case in ("srn", "cub")
    )
    image = last(2 * views.image(form.palette, config.data.background) - 1)
    sure = stable & is_empty_at_the_face(made(case), camera, 32)
    close(image[sure], expected["image"][sure], 3e-4)
    close(views.opacity[sure], expected["mask"][sure], 3e-4)
    error = (image - expected["image"]).abs().amax(-1)[stable]
    assert (error < 1e-3).float().mean() > 0.95
    wrong = (views.opacity - expected["mask"]).abs()[stable]
    assert (wrong < 1e-3).float().mean() > 0.95
    assert (expected["mask"][stable] > 0.1).float().mean() > 0.3
    assert (expected["mask"][sure] > 0.1).sum() > 30
    if views.normals is not None:
        white = config.data.background == 1  # their normals lie on white as well
        normals = views.normals + (1 - views.opacity)[:, None] * white
        close(last(normals)[sure], expected["normals"][sure], 1e-3)


@pytest.mark.parametrize("case", ["p3d", "srn"])
def test_views_of_a_crop(case: str) -> None:
    expected, config, _, _, form = made(case)
    camera = camera_of(expected, 16, expected["bbox"])
    views = render_as_published(form.field, camera, 16, 16, samples="beginning")
    image = last(2 * views.image(form.palette, config.data.background) - 1)
    sure = is_empty_at_the_face(made(case), camera, 16)
    close(image[sure], expected["image_bbox"][sure], 3e-4)
    close(views.opacity[sure], expected["mask_bbox"][sure], 3e-4)
    error = (image - expected["image_bbox"]).abs().amax(-1)
    assert (error < 2e-2).float().mean() > 0.97


@CASES
def test_terms_of_training(case: str) -> None:
    expected, config, generator, _, form = made(case)
    half = config.data.half_side
    points = seeded("input.reg_points", (2, 512, 3), std=half / 3**0.5).requires_grad_()
    distance = form.field.distance(points)
    close(eikonal(distance, points).mean(1), expected["loss_sdf_eikonal_loss"], 1e-5)
    wanted = points.norm(dim=-1) - 1
    close((distance - wanted).square().mean(1), expected["loss_sdf_distance_loss"], 1e-5)
    noise = seeded("input.reg_jitter", (2, 1, 512, 3))[:, 0]
    moved = form.field.distance(moved_points(points, generator.body.bounds, noise))
    density = generator.body.density
    assert density is not None
    variation = occupancy_variation(density, distance, moved).mean(1)
    close(variation, expected["loss_total_variation_loss"], 1e-5)
    close(indecision(density, distance).mean(1), expected["loss_entropy_loss"], 1e-5)


def test_path_lengths() -> None:
    expected, _, generator, codes, _ = made("p3d")
    codes = codes.clone().requires_grad_()
    noise = seeded("input.plane_noise", (2, 3, 32, 256, 256))
    lengths = path_lengths(
        codes,
        generator.body.planes(codes),
        noise,
        2 * generator.body.palette(codes[:, -1]) - 1,  # theirs are in [-1, 1]
        seeded("input.palette_noise", (2, 10, 3)),
    )
    close(lengths, expected["loss_path_length"], 1e-3)
