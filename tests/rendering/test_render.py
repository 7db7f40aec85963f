import math

import numpy as np
import pytest
import torch
from analytic_fields import HardSphere, SoftSpheres
from hypothesis import given, settings
from hypothesis import strategies as st

from unflat.fields import FeatureDecoder, FieldOutput, TriplaneField, VoxelField
from unflat.geometry import Camera, depth_per_distance, image_rays, rigid, rotation_from_vector
from unflat.rendering import RenderOptions, backends, render, render_rays

CENTER = torch.tensor([0.3, -0.2, 4.0])


def camera(fov=0.9, batch=1, dtype=torch.float32) -> Camera:
    return Camera.from_fov(fov, torch.eye(4, dtype=dtype).repeat(batch, 1, 1))


def orthographic(per_unit=0.25) -> Camera:
    """A camera that sees 1 / per_unit world units across."""
    return Camera(
        camera_to_world=torch.eye(4)[None],
        intrinsics=torch.tensor([[per_unit, per_unit, 0.5, 0.5]]),
        kind="orthographic",
    )


def empty(points, directions=None) -> FieldOutput:
    return FieldOutput(points.new_zeros(points.shape[:-1]), torch.ones_like(points))


# A sphere


@pytest.mark.parametrize("spacing", ["distance", "disparity"])
def test_a_sphere_has_the_silhouette_and_depth_of_a_sphere(spacing):
    sphere = HardSphere(CENTER.tolist())
    options = RenderOptions(samples=200, near=2.0, far=6.0, spacing=spacing, opaque_last=False)
    picture = render(sphere, camera(), 31, 31, options)
    rays = image_rays(camera(), 31, 31)
    along = (rays.directions[0] @ CENTER).double()
    miss = (CENTER.double().square().sum() - along.square()).sqrt()  # distance of ray and centre
    hit, clear = miss < 0.97, miss > 1.03
    assert hit.sum() > 50
    assert clear.sum() > 50
    assert (picture.opacity[0][clear] == 0).all()
    assert (picture.opacity[0][hit] > 0.99).all()
    forward = depth_per_distance(camera(), rays)[0]
    depth = (along - (1 - miss.square()).clamp_min(0).sqrt()) * forward
    # Light ends in the middle of the first interval inside: at most one interval off.
    longest = 4 / 200 if spacing == "distance" else 36 * (1 / 2 - 1 / 6) / 200
    error = (picture.depth[0] - depth)[hit].abs().max()
    assert error < longest
    color = picture.rgb[0].permute(1, 2, 0)
    torch.testing.assert_close(
        color[hit], sphere.color.expand(len(color[hit]), 3), atol=0.01, rtol=0
    )
    assert (color[clear] == 0).all()


def test_an_orthographic_sphere_is_a_disc_of_its_own_radius():
    sphere = HardSphere(CENTER.tolist())
    options = RenderOptions(samples=400, near=0.5, far=8.0, spacing="distance", opaque_last=False)
    picture = render(sphere, orthographic(), 32, 32, options)
    rays = image_rays(orthographic(), 32, 32)
    off = (rays.origins[0, ..., :2] - CENTER[:2]).norm(dim=-1)
    hit, clear = off < 0.95, off > 1.05
    # 8 pixels per world unit: the disc has 64 pi = 201 pixels.
    assert abs(int((picture.opacity[0] > 0.5).sum()) - 64 * math.pi) < 8
    assert (picture.opacity[0][hit] > 0.99).all()
    assert (picture.opacity[0][clear] == 0).all()
    depth = CENTER[2] - (1 - off.square()).clamp_min(0).sqrt()
    assert (picture.depth[0] - depth)[hit].abs().max() < 7.5 / 400
    # The picture's left upper corner is seen from x = y = -2 + half a pixel.
    assert rays.origins[0, 0, 0].tolist() == pytest.approx([-1.9375, -1.9375, 0])


def test_moving_away_does_not_shrink_an_orthographic_picture():
    options = RenderOptions(samples=64, near=1.0, far=9.0, spacing="distance", opaque_last=False)
    back = torch.eye(4)[None].clone()
    back[0, 2, 3] = -1.0
    behind = Camera(camera_to_world=back, intrinsics=orthographic().intrinsics, kind="orthographic")
    one = render(SoftSpheres(), orthographic(), 9, 9, options)
    two = render(
        SoftSpheres(),
        behind,
        9,
        9,
        RenderOptions(samples=64, near=2.0, far=10.0, spacing="distance", opaque_last=False),
    )
    assert one.opacity.max() > 0.8
    torch.testing.assert_close(one.rgb, two.rgb, atol=1e-5, rtol=0)


# References


def slow_picture(
    field, seen: Camera, height, width, options: RenderOptions
) -> dict[str, np.ndarray]:
    """One ray and one interval after the other."""
    pose = seen.camera_to_world[0].double().numpy()
    fx, fy, cx, cy = seen.intrinsics[0].double().tolist()
    out = {name: np.zeros((height, width)) for name in ("opacity", "disparity", "variance")}
    out["rgb"] = np.zeros((3, height, width))
    for row in range(height):
        for column in range(width):
            x = ((column + 0.5) / width - cx) / fx
            y = ((row + 0.5) / height - cy) / fy
            slant = math.sqrt(x * x + y * y + 1)
            direction = pose[:3, :3] @ np.array([x, y, 1]) / slant
            light, ends, color = 1.0, [], np.zeros(3)
            for i in range(options.samples):
                start, stop = (
                    1 / ((1 - s) / options.near + s / options.far)
                    if options.spacing == "disparity"
                    else options.near + (options.far - options.near) * s
                    for s in (i / options.samples, (i + 1) / options.samples)
                )
                middle = (start + stop) / 2
                point = torch.from_numpy(pose[:3, 3] + middle * direction)
                answer = field(point[None, None])
                alpha = 1 - math.exp(-answer.density.item() * (stop - start))
                if options.opaque_last and i == options.samples - 1:
                    alpha = 1.0
                share = light * alpha
                color += share * answer.features[0, 0].numpy()
                ends.append((share, slant / middle))  # depth = distance / slant
                light *= 1 - alpha
            mean = sum(share * at for share, at in ends)
            if isinstance(options.background, tuple):
                color += light * np.array(options.background)
            out["rgb"][:, row, column] = color
            out["opacity"][row, column] = 1 - light
            out["disparity"][row, column] = mean
            out["variance"][row, column] = sum(share * (at - mean) ** 2 for share, at in ends)
    return out


@pytest.mark.parametrize(
    "options",
    [
        RenderOptions(samples=11, near=1.0, far=7.0, least_light=0.0),
        RenderOptions(samples=8, near=1.5, far=6.0, spacing="distance", least_light=0.0),
        RenderOptions(
            samples=9,
            near=1.0,
            far=7.0,
            opaque_last=False,
            background=(0.2, 0.9, 0.4),
            least_light=0.0,
            block=4,
        ),
    ],
)
def test_pictures_equal_a_slow_loop_over_rays(options):
    pose = rigid(
        rotation_from_vector(torch.tensor([0.1, -0.2, 0.05], dtype=torch.float64)),
        torch.tensor([0.2, -0.1, 0.3], dtype=torch.float64),
    )
    seen = Camera.from_fov(1.0, pose[None], aspect=5 / 4)
    picture = render(SoftSpheres(), seen, 4, 5, options)
    slow = slow_picture(SoftSpheres(), seen, 4, 5, options)
    np.testing.assert_allclose(picture.rgb[0].numpy(), slow["rgb"], atol=1e-12)
    np.testing.assert_allclose(picture.opacity[0].numpy(), slow["opacity"], atol=1e-12)
    np.testing.assert_allclose(picture.disparity[0].numpy(), slow["disparity"], atol=1e-12)
    np.testing.assert_allclose(
        picture.termination_variance[0].numpy(), slow["variance"], atol=1e-12
    )
    expected = 1 / np.maximum(slow["disparity"], 1 / options.far)
    np.testing.assert_allclose(picture.depth[0].numpy(), expected, atol=1e-12)
    assert picture.rgb.std() > 0.05


def test_finer_intervals_converge():
    """The middle rule is of second order: four times the samples, a sixteenth of the error."""
    pictures = {
        n: render(
            SoftSpheres(),
            camera(dtype=torch.float64),
            7,
            7,
            RenderOptions(samples=n, near=1.0, far=9.0, opaque_last=False, least_light=0.0),
        ).rgb
        for n in (32, 128, 2048)
    }
    coarse = (pictures[32] - pictures[2048]).abs().max()
    fine = (pictures[128] - pictures[2048]).abs().max()
    assert coarse > 1e-4
    assert fine < coarse / 10


@given(st.integers(0, 1000))
@settings(max_examples=15)
def test_moving_field_and_camera_together_changes_nothing(seed):
    generator = torch.Generator().manual_seed(seed)
    rotation = rotation_from_vector(torch.randn(3, generator=generator, dtype=torch.float64))
    translation = 3 * torch.randn(3, generator=generator, dtype=torch.float64)
    moved_camera = Camera.from_fov(0.9, rigid(rotation, translation)[None])
    options = RenderOptions(samples=24, near=1.0, far=8.0)
    still = render(SoftSpheres(), camera(dtype=torch.float64), 5, 5, options)
    moved = render(SoftSpheres(rotation, translation), moved_camera, 5, 5, options)
    for one, two in zip(still, moved, strict=True):
        torch.testing.assert_close(one, two, atol=1e-9, rtol=1e-9)


# Chunks, blocks and spent light


def voxels() -> VoxelField:
    generator = torch.Generator().manual_seed(0)
    density = 2 * torch.rand(2, 6, 6, 6, generator=generator)
    color = torch.rand(2, 3, 6, 6, 6, generator=generator)
    return VoxelField(density, color, torch.tensor([[-2.0, -2, 1], [2, 2, 6]]))


def triplane() -> TriplaneField:
    torch.manual_seed(0)
    return TriplaneField(torch.randn(2, 3, 8, 16, 16), FeatureDecoder(8, hidden=64))


def in_chunks(field, chunk: int, fine_samples: int = 0):
    options = RenderOptions(
        samples=20,
        fine_samples=fine_samples,
        near=1.0,
        far=9.0,
        chunk=chunk,
        opaque_last=False,
        background=(0.1, 0.2, 0.3),
    )
    return render(field, camera(batch=2), 5, 7, options)


@pytest.mark.parametrize("make", [SoftSpheres, voxels])
@pytest.mark.parametrize("fine_samples", [0, 7])
def test_the_chunk_size_never_changes_the_result(make, fine_samples):
    field = make()
    whole = in_chunks(field, 10**9, fine_samples)
    assert whole.rgb.std() > 0.02
    for chunk in (1, 7, 18, 34, 69):  # 35 rays in each of two scenes
        for name, one, two in zip(
            whole._fields, whole, in_chunks(field, chunk, fine_samples), strict=True
        ):
            assert torch.equal(one, two), f"{name} at {chunk} rays at once"


def test_the_chunk_size_only_rounds_the_matrix_products_of_a_network():
    field = triplane()
    whole = in_chunks(field, 10**9)
    assert whole.rgb.std() > 0.02
    for chunk in (2, 34):
        for one, two in zip(whole, in_chunks(field, chunk), strict=True):
            torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("opaque_last", [False, True])
def test_blocks_only_round(opaque_last):
    pictures = [
        render(
            SoftSpheres(),
            camera(),
            9,
            9,
            RenderOptions(
                samples=20,
                near=1.0,
                far=9.0,
                block=block,
                least_light=0.0,
                opaque_last=opaque_last,
            ),
        )
        for block in (1, 3, 8, 20, 1000)
    ]
    for picture in pictures[1:]:
        for one, two in zip(pictures[0], picture, strict=True):
            torch.testing.assert_close(one, two, atol=2e-6, rtol=1e-5)


def test_rays_end_early_within_the_promise():
    asked = []

    def counting(points, directions=None):
        asked.append(points[..., 0].numel())
        return HardSphere((0.0, 0.0, 3.0), 1.0, density=8.0)(points)

    def picture(least_light):
        asked.clear()
        options = RenderOptions(
            samples=64, near=1.0, far=9.0, block=4, opaque_last=False, least_light=least_light
        )
        return render(counting, camera(0.5), 16, 16, options), sum(asked)

    whole, all_points = picture(0.0)
    short, some_points = picture(0.01)
    assert all_points == 16 * 16 * 64
    assert some_points < 0.8 * all_points
    apart = (short.rgb - whole.rgb).abs().max().item()
    assert 0 < apart <= 0.01


def test_a_ray_ends_by_itself_whatever_the_other_scenes_do():
    options = RenderOptions(
        samples=20, near=1.0, far=9.0, opaque_last=False, least_light=0.3, block=2
    )
    both = voxels()
    both.density[1] *= 0.2
    with backends.use("reference"):
        together = render(both, camera(batch=2), 5, 7, options)
        for scene in (0, 1):
            one = VoxelField(
                both.density[scene : scene + 1], both.features[scene : scene + 1], both.bounds
            )
            alone = render(one, camera(), 5, 7, options)
            assert alone.opacity.max() > 0.2
            assert torch.equal(alone.rgb[0], together.rgb[scene])


def test_render_is_render_rays_over_all_pixels():
    options = RenderOptions(samples=16, near=1.0, far=8.0, spacing="distance", least_light=0.0)
    picture = render(SoftSpheres(), camera(), 5, 6, options)
    rays = image_rays(camera(), 5, 6)
    edges = torch.linspace(1, 8, 17).expand(1, 5, 6, 17)
    direct = render_rays(SoftSpheres(), rays.origins, rays.directions, edges)
    torch.testing.assert_close(picture.rgb, direct.features.permute(0, 3, 1, 2))
    torch.testing.assert_close(picture.opacity, direct.opacity)
    middles = 0.5 * (edges[..., 1:] + edges[..., :-1])
    torch.testing.assert_close(direct.middles, middles)


# Second pass


def test_fine_samples_find_thin_matter_better_than_as_many_even_ones():
    shell = HardSphere((0.0, 0.0, 5.0), 1.5, density=30.0)
    truth = render(shell, camera(0.4), 9, 9, RenderOptions(samples=1500, near=1.0, far=20.0))
    even = render(shell, camera(0.4), 9, 9, RenderOptions(samples=48, near=1.0, far=20.0))
    fine = render(
        shell, camera(0.4), 9, 9, RenderOptions(samples=24, fine_samples=24, near=1.0, far=20.0)
    )
    hit = truth.depth < 6
    assert hit.sum() > 20
    error_even = (even.depth - truth.depth)[hit].abs().mean()
    error_fine = (fine.depth - truth.depth)[hit].abs().mean()
    assert error_fine < 0.5 * error_even


@pytest.mark.parametrize("fine_samples", [1, 6])
def test_as_many_fine_intervals_as_asked_for(fine_samples):
    asked = []

    def counting(points, directions=None):
        asked.append(points.shape[-2])
        return SoftSpheres()(points)

    options = RenderOptions(samples=8, fine_samples=fine_samples, block=1000, least_light=0.0)
    render(counting, camera(), 2, 2, options)
    assert asked == [8, 8 + fine_samples]


# Edges of the world


def test_an_empty_world_shows_the_background_at_the_far_end():
    options = RenderOptions(samples=8, far=9.0, opaque_last=False, background=(0.2, 0.4, 0.6))
    picture = render(empty, camera(), 3, 4, options)
    assert torch.equal(
        picture.rgb, torch.tensor([0.2, 0.4, 0.6])[None, :, None, None].expand(1, 3, 3, 4)
    )
    for nothing in (picture.opacity, picture.disparity, picture.termination_variance):
        assert (nothing == 0).all()
    torch.testing.assert_close(picture.depth, torch.full((1, 3, 4), 9.0))


def test_an_opaque_last_interval_takes_what_is_left():
    options = RenderOptions(samples=8, near=1.0, far=9.0, background=(0.2, 0.4, 0.6))
    picture = render(empty, camera(), 3, 4, options)
    assert (picture.rgb == 1).all(), "the field's own colour at the far end"
    assert (picture.opacity == 1).all()
    # the middle of the last interval, between 1 / (1/8 + 7/8/9) and 9, as a depth
    distance = 0.5 * (9 + 1 / (1 / 8 + 7 / 72))
    forward = depth_per_distance(camera(), image_rays(camera(), 3, 4))
    torch.testing.assert_close(picture.depth, distance * forward)


def test_features_may_have_any_number_of_channels_but_only_three_are_a_color():
    def five(points, directions=None):
        return FieldOutput(torch.ones_like(points[..., 0]), points.new_ones(*points.shape[:-1], 5))

    picture = render(five, camera(batch=2), 3, 4, RenderOptions(samples=4))
    assert picture.features.shape == (2, 5, 3, 4)
    with pytest.raises(ValueError, match="5 channels, not a colour"):
        _ = picture.rgb


def test_fields_get_unit_directions_of_travel():
    def looks(points, directions=None):
        assert directions is not None
        torch.testing.assert_close(directions.norm(dim=-1), torch.ones(directions.shape[:-1]))
        return FieldOutput(torch.full_like(points[..., 0], 1e5), directions)

    picture = render(looks, camera(), 3, 4, RenderOptions(samples=2))
    expected = image_rays(camera(), 3, 4).directions.permute(0, 3, 1, 2)
    torch.testing.assert_close(picture.features, expected)


def test_gradients_of_a_ray():
    """Of the colour by density, colour and place of a field with two parameters."""
    origins = torch.zeros(1, 1, 3, dtype=torch.float64)
    directions = torch.tensor([[[0.0, 0.6, 0.8]]], dtype=torch.float64)
    edges = torch.linspace(1, 4, 7, dtype=torch.float64)[None, None]

    def color(height, place):
        def field(points, directions=None):
            density = height * torch.exp(-(points - place).square().sum(-1))
            return FieldOutput(density, torch.sin(points * place))

        return render_rays(field, origins, directions, edges, opaque_last=False).features

    place = torch.tensor([0.1, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    height = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(color, (height, place))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"near": 0.0}, "0 < near < far"),
        ({"near": 3.0, "far": 3.0}, "0 < near < far"),
        ({"samples": 0}, "samples is 0"),
        ({"fine_samples": -1}, "fine_samples is -1"),
        ({"chunk": 0}, "chunk is 0"),
        ({"block": 0}, "block is 0"),
        ({"least_light": 1.0}, "least_light is 1.0"),
    ],
)
def test_options_without_sense_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        RenderOptions(**wrong)


def test_cameras_and_backgrounds_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="must be one axis"):
        render(empty, Camera.from_fov(1.0), 2, 2, RenderOptions())
    options = RenderOptions(opaque_last=False, background=(1.0,))
    with pytest.raises(ValueError, match="background has 1 channels, the field 3"):
        render(empty, camera(), 2, 2, options)
