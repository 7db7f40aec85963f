import numpy as np
import pytest
import torch

from seeded import FIXTURES, seeded
from unflat.nn.blur import gaussian_blur, start_blur


def test_a_point_becomes_a_normal_distribution():
    point = torch.zeros(1, 2, 41, 41, dtype=torch.float64)
    point[0, :, 20, 20] = 1
    soft = gaussian_blur(point, 2.5)
    torch.testing.assert_close(soft.sum((2, 3)), torch.ones(1, 2, dtype=torch.float64))
    offsets = torch.arange(41, dtype=torch.float64) - 20
    for axis in (2, 3):
        spread = (soft.sum(axis)[0, 0] * offsets.square()).sum().sqrt()
        assert abs(float(spread) - 2.5) < 0.05  # a little is cut off
    torch.testing.assert_close(soft[0, 0], soft[0, 0].T)


def test_flat_pictures_stay_and_small_blurs_do_nothing():
    flat = torch.full((2, 3, 8, 9), 0.7)
    torch.testing.assert_close(gaussian_blur(flat, 4.0), flat)
    noise = torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(0))
    assert gaussian_blur(noise, 0.05) is noise
    assert float(gaussian_blur(noise, 1.0).std()) < 0.6 * float(noise.std())


@pytest.mark.parametrize("iteration", [0, 6250, 12000])
def test_the_blur_of_the_start_is_the_published_one(iteration):
    """nerf-from-image (Apache-2.0, commit fddf72a): sigma from 10 to 0 over 12500 iterations."""
    with np.load(FIXTURES / "pose_augment.npz") as archive:
        stored = {name: torch.from_numpy(archive[name]) for name in archive.files}
    images = seeded("blur.image", (1, 3, 64, 64), std=0.3)
    soft = start_blur(images, 10 * (1 - iteration / 12500))[..., ::8, ::8]
    torch.testing.assert_close(soft, stored[f"blur_{iteration}"], atol=1e-6, rtol=0)
    if iteration == 0:
        soft = start_blur(images, 10.0, outside=1.0)[..., ::8, ::8]
        torch.testing.assert_close(soft, stored["blur_0_white"], atol=1e-5, rtol=0)


def test_the_blur_of_the_start_halves_at_sigma_and_ends():
    point = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    point[..., 20, 20] = 1
    row = start_blur(point, 4.0)[0, 0, 20]
    assert float(row[24] / row[20]) == pytest.approx(0.5)
    assert float(row[28] / row[20]) == pytest.approx(2**-4)
    assert row[33] == 0, "cut at three sigma"
    noise = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    assert start_blur(noise, 0.33) is noise
    white = torch.ones(1, 3, 16, 16)
    torch.testing.assert_close(start_blur(white, 3.0, outside=1.0), white)
