import math

import numpy as np
import pytest
import torch

from unflat.metrics import MAX_PSNR, psnr, ssim


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
