import math

import numpy as np
import pytest
import torch

from unflat.metrics import MAX_PSNR, psnr, ssim, ssim_uniform
from unflat.metrics import image as image_metrics


def pictures(seed=0, batch=3, height=20, width=17):
    generator = torch.Generator().manual_seed(seed)
    reference = torch.rand(batch, 3, height, width, generator=generator)
    noise = torch.randn(reference.shape, generator=generator)
    strength = torch.tensor([0.02, 0.1, 0.4])[:batch, None, None, None]
    return (reference + strength * noise).clamp(0, 1), reference


@pytest.mark.parametrize("error", [0.5, 0.1, 0.001])
def test_psnr_of_a_constant_error(error):
    reference = torch.full((2, 3, 4, 5), 0.25)
    expected = -20 * math.log10(error)
    for sign in (1, -1) if error < 0.2 else (1,):
        values = psnr(reference + sign * error, reference)  # float32 of 0.251 is 1e-5 dB off
        torch.testing.assert_close(values, torch.full((2,), expected), rtol=0, atol=1e-3)


def test_psnr_is_of_each_picture_and_its_mean_is_not_the_psnr_of_the_mean():
    image, reference = pictures()
    values = psnr(image, reference)
    for value, a, b in zip(values, image.numpy(), reference.numpy(), strict=True):
        slow = 10 * math.log10(1 / np.mean((a.astype(float) - b.astype(float)) ** 2))
        assert value.item() == pytest.approx(slow, abs=1e-4)
    joint = psnr(image.reshape(1, 9, 20, 17), reference.reshape(1, 9, 20, 17))
    assert values.mean() > joint + 1


def test_psnr_clamps_the_picture_and_stays_finite():
    reference = torch.ones(1, 3, 4, 4)
    assert psnr(reference + 5, reference).item() == pytest.approx(MAX_PSNR)
    assert psnr(reference, reference).item() == pytest.approx(MAX_PSNR)


def test_ssim_is_scikit_images():
    from skimage.metrics import structural_similarity

    image, reference = pictures()
    ours = ssim(image, reference)
    for value, a, b in zip(ours, image.double(), reference.double(), strict=True):
        _, full = structural_similarity(
            a.numpy(),
            b.numpy(),
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            full=True,
        )
        assert value.item() == pytest.approx(full[:, 5:-5, 5:-5].mean(), abs=1e-6)


def test_ssim_orders_noise_and_is_one_for_equals():
    image, reference = pictures()
    values = ssim(image, reference)
    assert values[0] > values[1] > values[2]
    torch.testing.assert_close(ssim(reference, reference), torch.ones(3))
    torch.testing.assert_close(ssim(image, reference), ssim(reference, image))


def test_ssim_refuses_pictures_below_its_window():
    with pytest.raises(ValueError, match="at least 11"):
        ssim(torch.zeros(1, 3, 10, 30), torch.zeros(1, 3, 10, 30))


def test_masked_psnr_is_of_what_the_mask_keeps():
    image, reference = pictures()
    mask = torch.rand(3, 1, 20, 17, generator=torch.Generator().manual_seed(1)) > 0.6
    values = psnr(image, reference, mask)
    for value, a, b, m in zip(values, image.numpy(), reference.numpy(), mask.numpy(), strict=True):
        slow = 10 * math.log10(1 / np.mean((a[:, m[0]].astype(float) - b[:, m[0]]) ** 2))
        assert value.item() == pytest.approx(slow, abs=1e-4)
    torch.testing.assert_close(psnr(image, reference, mask.float()), values)
    torch.testing.assert_close(
        psnr(image, reference, torch.ones(3, 1, 20, 17)), psnr(image, reference)
    )
    changed = torch.where(mask, image, 1 - image)  # what is masked out does not matter
    torch.testing.assert_close(psnr(changed, reference, mask), values)


def test_a_matte_weighs():
    reference = torch.zeros(1, 3, 1, 2)
    image = torch.tensor([0.1, 0.3]).expand(1, 3, 1, 2)
    matte = torch.tensor([1.0, 0.25]).reshape(1, 1, 1, 2)
    expected = -10 * math.log10((0.01 + 0.25 * 0.09) / 1.25)
    assert psnr(image, reference, matte).item() == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        psnr(image, reference, 2 * matte)


def test_psnr_of_nothing_is_not_a_number():
    image, reference = pictures()
    mask = torch.ones(3, 1, 20, 17, dtype=torch.bool)
    mask[1] = False
    assert psnr(image, reference, mask).isnan().tolist() == [False, True, False]


def test_pictures_that_are_not_finite_are_named():
    image, reference = pictures(height=12, width=12)
    broken = image.clone()
    broken[1, 0, 2, 3] = math.nan
    broken[2, 1, 0, 0] = math.inf
    for metric in (psnr, ssim, ssim_uniform):
        with pytest.raises(ValueError, match=r"the image holds NaN or infinity in picture 1, 2$"):
            metric(broken, reference)
        with pytest.raises(
            ValueError, match=r"the reference holds NaN or infinity in picture 1, 2$"
        ):
            metric(reference, broken)


def test_pictures_of_other_sizes_are_refused():
    # behind the types, which only tests check
    with pytest.raises(
        ValueError, match=r"image has shape \(2, 3, 8, 8\), its reference \(3, 8, 8\)"
    ):
        image_metrics._check_pair(torch.zeros(2, 3, 8, 8), torch.zeros(3, 8, 8))


@pytest.mark.parametrize("size", [(20, 17), (7, 30)])
def test_uniform_ssim_is_scikit_images_default(size):
    from skimage.metrics import structural_similarity

    image, reference = pictures(height=size[0], width=size[1])
    ours = ssim_uniform(image, reference)
    for value, a, b in zip(ours, image.double(), reference.double(), strict=True):
        slow = structural_similarity(a.numpy(), b.numpy(), channel_axis=0, data_range=1.0)
        assert value.item() == pytest.approx(slow, abs=1e-6)
    torch.testing.assert_close(ssim_uniform(reference + 0, reference), torch.ones(3))


def test_uniform_ssim_refuses_pictures_below_its_window():
    with pytest.raises(ValueError, match="at least 7"):
        ssim_uniform(torch.zeros(1, 3, 6, 30), torch.zeros(1, 3, 6, 30))
