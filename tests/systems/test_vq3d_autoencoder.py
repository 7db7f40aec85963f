import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from unflat.fields.viewspace import ViewSpacePlanes, ray_limits
from unflat.geometry import Camera, Rays, image_rays
from unflat.geometry.rays import depth_per_distance
from unflat.rendering import RenderOptions, render, render_rays
from unflat.systems.vq3d import Autoencoder, build, render_canonical
from unflat.systems.vq3d.autoencoder import ViewSpaceHead
from unflat.systems.vq3d.config import tiny

KINDS = {
    "viewspace-fsq": {},
    "viewspace-vq": {"quantizer": "vq", "codes": 32, "code_dim": 8, "codes_per_token": 2},
    "viewspace-none": {"quantizer": "none"},
    "viewspace-plain": {"linear_skip": False, "surface": False, "refiner_width": 0},
    "triplane-fsq": {"field": "triplane", "refiner_width": 0},
    "triplane-vq": {"field": "triplane", "quantizer": "vq", "codes": 32, "linear_skip": False},
}


def made(**changes) -> Autoencoder:
    torch.manual_seed(0)
    return build(dataclasses.replace(tiny(), **changes)).eval()


def pictures(count: int, side: int = 32, seed: int = 0) -> torch.Tensor:
    """Smooth shades with sharp squares in them, as photographs have."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    images = functional.interpolate(coarse, size=side, mode="bilinear", align_corners=True)
    for image in images:
        top, left = torch.randint(side // 2, (2,), generator=generator).tolist()
        image[:, top : top + side // 3, left : left + side // 3] = torch.rand(
            3, 1, 1, generator=generator
        )
    return images


def psnr(image: torch.Tensor, target: torch.Tensor) -> float:
    return float(-10 * (image - target).square().mean().log10())


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_become_tokens_and_planes(kind):
    model = made(**KINDS[kind])
    torch.manual_seed(1)  # what follows does not hang on how many weights were drawn
    config = model.config
    with torch.no_grad():
        encoded = model.encode(pictures(2))
        planes = model.decode(encoded.quantized.tokens)
    codes = len(model.codebook_sizes)
    assert encoded.quantized.indices.shape == (2, 16, codes)
    assert encoded.quantized.indices.dtype == torch.int64
    assert encoded.features.shape == (2, 16, config.encoder_width)
    if config.field == "triplane":
        assert planes.shape == (2, 3, 16, 32, 32)
    else:
        assert [tuple(plane.shape) for plane in planes] == [
            (2, 5 + 16, 32, 32),
            (2, 16, 8, 16),
            (2, 16, 8, 16),
        ]
    for size, column in zip(
        model.codebook_sizes, encoded.quantized.indices.unbind(-1), strict=True
    ):
        assert int(column.min()) >= 0
        assert int(column.max()) < size
    rgb, disparity, variance = render_canonical(model.field(planes), 32, samples=8)
    assert rgb.shape == (2, 3, 32, 32)
    assert disparity.shape == variance.shape == (2, 1, 32, 32)
    assert bool(((disparity >= 0) & (disparity <= 1) & (variance >= 0)).all())


@pytest.mark.parametrize("kind", ["viewspace-fsq", "viewspace-vq", "triplane-vq"])
@torch.no_grad()
def test_integers_alone_give_the_same_planes(kind):
    model = made(**KINDS[kind])
    torch.manual_seed(1)  # what follows does not hang on how many weights were drawn
    quantized = model.encode(pictures(2)).quantized
    assert model.quantizer is not None
    again = model.quantizer.decode(quantized.indices)
    torch.testing.assert_close(again, quantized.tokens, rtol=0, atol=1e-6)
    first, second = model.decode(quantized.tokens), model.decode(again)
    if not isinstance(first, ViewSpacePlanes):
        first, second = [first], [second]
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    other_tokens = model.quantizer.decode((quantized.indices + 1) % model.codebook_sizes[0])
    assert not torch.allclose(model.quantizer.decode(quantized.indices), other_tokens)


@torch.no_grad()
def test_each_picture_of_a_batch_is_encoded_by_itself():
    model, images = made(), pictures(3)
    together = model.encode(images).quantized.indices
    assert torch.equal(model.encode(images[1:2]).quantized.indices, together[1:2])


@torch.no_grad()
def test_rounding_zero_passes_what_is_only_bounded():
    model, images = made(), pictures(2)
    free, rounded = (model.encode(images, rounding).quantized for rounding in (0.0, 1.0))
    assert torch.equal(free.indices, rounded.indices)
    difference = (free.tokens - rounded.tokens).abs()
    cell = 1 / torch.tensor([level for code in model.config.levels for level in code])
    assert bool((difference <= cell + 1e-6).all())  # half a cell of width 2 / levels
    assert difference.max() > 0.01


def linear_code(patches: np.ndarray, levels: list[int]) -> float:
    """PSNR of a linear code, by the covariance and the normal equations; all in float64."""
    mean = patches.mean(axis=0)
    values, vectors = np.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    order = np.argsort(values)[::-1][: len(levels)]
    code = (patches - mean) @ vectors[:, order] / np.sqrt(values[order]) * 0.5
    cells = np.array(levels)
    rounded = (2 * np.minimum(np.floor((np.tanh(code) + 1) / 2 * cells), cells - 1) + 1) / cells - 1
    spread = np.arctanh(np.clip(rounded, -0.995, 0.995))
    design = np.concatenate([spread, np.ones((len(spread), 1))], axis=1)
    back = np.linalg.solve(design.T @ design, design.T @ patches)
    return float(-10 * np.log10(np.mean((design @ back - patches) ** 2)))


def patches_of(images: torch.Tensor, patch: int) -> np.ndarray:
    """Row by row: colour, then row, then column inside the patch."""
    parts = images.unfold(2, patch, patch).unfold(3, patch, patch)  # b 3 rows columns p p
    return parts.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * patch * patch).double().numpy()


def test_the_linear_start_is_principal_components_and_least_squares():
    model, images = made(), pictures(48)
    reported = model.start_from_patches(images)
    levels = [level for code in model.config.levels for level in code]
    patches = patches_of(images, 8)
    assert reported == pytest.approx(linear_code(patches, levels), abs=0.05)
    mean_patch = float(-10 * np.log10(np.mean((patches - patches.mean(axis=0)) ** 2)))
    assert reported > mean_patch + 6
    equal = [8, 5, 5, 5] * 4  # as many bits, spread evenly (specs: calibration)
    assert reported > linear_code(patches, equal) + 0.5


@torch.no_grad()
def test_the_linear_path_gives_the_psnr_that_is_returned():
    model, images = made(), pictures(48)
    reported = model.start_from_patches(images)
    assert model.skip_in is not None
    assert model.skip_out is not None
    assert model.quantizer is not None
    patches = functional.pixel_unshuffle(images - 0.5, 8).flatten(2).mT
    tokens = model.quantizer(model.skip_in(patches)).tokens.clamp(-0.995, 0.995)
    assert psnr(model.skip_out(tokens.atanh()), patches) == pytest.approx(reported, abs=0.01)


@torch.no_grad()
def test_an_untrained_model_already_shows_its_linear_code():
    model, images = made(), pictures(48)
    reported = model.start_from_patches(images)
    field = model.field(model.decode(model.encode(images).quantized.tokens))
    rgb, _, _ = render_canonical(field, 32, samples=16)
    assert psnr(rgb, images) == pytest.approx(reported, abs=1.0)
    assert psnr(rgb.flip(-1), images) < reported - 3


def test_a_start_needs_the_linear_path():
    with pytest.raises(ValueError, match="no linear_skip to start"):
        made(linear_skip=False).start_from_patches(pictures(4))


def lively(kind: str) -> Autoencoder:
    """A model whose fields differ from place to place."""
    model = made(**KINDS[kind])
    torch.manual_seed(1)  # what follows does not hang on how many weights were drawn
    if kind.startswith("triplane"):
        torch.nn.init.normal_(model.head.get_submodule("to_planes").weight, std=0.05)
        torch.nn.init.normal_(model.field_decoder.mlp[-1].weight, std=0.6)
    else:
        torch.nn.init.normal_(model.head.get_submodule("to_uv").weight, std=0.03)
        torch.nn.init.normal_(model.field_decoder.mlp[-1].weight, std=0.1)
    return model.double()


def canonical_camera(model: Autoencoder) -> Camera:
    half = model.frame.focal_assumed / 2
    return Camera(
        camera_to_world=torch.eye(4, dtype=torch.float64).expand(2, 4, 4),
        intrinsics=torch.tensor([half, half, 0.5, 0.5], dtype=torch.float64).expand(2, 4),
    )


@pytest.mark.parametrize("kind", ["viewspace-fsq", "triplane-fsq"])
@torch.no_grad()
def test_the_product_grid_marches_the_rays_of_the_canonical_camera(kind):
    """Same edges in depth; the middles of intervals differ (in disparity here, in distance there).

    Midpoint rules: four times the intervals leave a sixteenth of the difference where the field is
    smooth. View-space fields are not, at the borders of texels and where one clamps every sample's
    colour: there some 70 dB is what is left, whatever the first weights are.
    """
    model = lively(kind)
    field = model.field(model.decode(model.encode(pictures(2).double()).quantized.tokens))
    frame, camera = model.frame, canonical_camera(model)
    rays = image_rays(camera, 10, 10)
    slant = 1 / depth_per_distance(camera, Rays(*(part.flatten(1, 2) for part in rays)))
    differences = []
    for samples in (32, 128):
        s = torch.linspace(1, 0, samples + 1, dtype=torch.float64)
        edges = slant[..., None] / (frame.d_far + (frame.d_near - frame.d_far) * s)
        out = render_rays(field, *(part.flatten(1, 2) for part in rays), edges)
        rgb, disparity, _ = render_canonical(field, 10, samples)
        general = out.features.mT.unflatten(2, (10, 10))
        differences.append(psnr(general, rgb.clamp(0, 1)))
    assert rgb.std() > 0.02
    assert disparity.max() < 0.999
    if kind == "triplane-fsq":
        assert differences[1] > differences[0] + 4
    assert differences[1] > 66
    assert psnr(general.flip(-1), rgb) < 35


@torch.no_grad()
def test_the_general_renderer_shows_the_canonical_picture():
    """Its rays begin before the nearest depth and end behind the farthest, as for any camera."""
    model = lively("viewspace-fsq")
    field = model.field(model.decode(model.encode(pictures(2).double()).quantized.tokens))
    frame = model.frame
    near, far = ray_limits(frame)
    options = RenderOptions(samples=192, near=near, far=far, least_light=0.0)
    general = render(field, canonical_camera(model), 16, 16, options)
    rgb, disparity, _ = render_canonical(field, 16, 128)
    nearness = frame.d_far + (frame.d_near - frame.d_far) * disparity[:, 0]
    assert disparity.std() > 0.02
    assert psnr(general.rgb, rgb.clamp(0, 1)) > 54
    assert psnr(general.rgb.flip(-1), rgb.clamp(0, 1)) < 20
    assert float((general.disparity - nearness).abs().mean()) < 0.03  # light left at the far end
    assert float((general.disparity.flip(-1) - nearness).abs().mean()) > 0.08


@torch.no_grad()
def test_the_frame_is_what_the_config_says():
    frame = made(fov_deg=90.0, d_near=2.0, d_far=0.5).frame
    assert frame.focal_assumed == pytest.approx(1.0)
    assert frame.is_identity
    assert (frame.d_near, frame.d_far) == (2.0, 0.5)
    assert math.degrees(made().frame.fov_assumed) == pytest.approx(50.0)


def test_planes_of_another_kind_of_model_are_refused():
    with torch.no_grad():
        planes = made(**KINDS["triplane-fsq"]).decode(torch.zeros(1, 16, 13))
    with pytest.raises((AssertionError, TypeError)):
        made().field(planes)


@pytest.mark.parametrize(("texels", "painted"), [(32, True), (32, False), (64, True)])
def test_the_picture_plane_is_shuffled_pixels_then_smoothed(texels, painted):
    config = dataclasses.replace(tiny(), plane_resolution=texels, refiner_width=0)
    torch.manual_seed(0)
    head = ViewSpaceHead(config).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # the start is all but zero
    tokens = torch.randn(2, 16, 64, dtype=torch.float64, requires_grad=True)
    base = torch.rand(2, 3, 32, 32, dtype=torch.float64, requires_grad=True) if painted else None
    learned = [tokens, *head.parameters(), *([] if base is None else [base])]
    uv = head(tokens, base).uv

    numbers = head.to_uv(tokens).mT.unflatten(2, (4, 4))
    plain = functional.pixel_shuffle(numbers, texels // 4)
    color = torch.full_like(plain[:, :3], 0.5) if base is None else base
    color = color.repeat_interleave(texels // color.shape[-1], 2)
    color = color.repeat_interleave(texels // color.shape[-1], 3)
    plain = torch.cat([plain[:, :3] + color, plain[:, 3:]], dim=1)
    plain = plain + head.smooth(plain)

    torch.testing.assert_close(uv, plain, rtol=1e-12, atol=1e-12)
    assert uv.is_contiguous(memory_format=torch.channels_last)
    pull = torch.randn_like(plain)
    pulled = (torch.autograd.grad(out, learned, pull, allow_unused=True) for out in (uv, plain))
    for one, other in zip(*pulled, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
