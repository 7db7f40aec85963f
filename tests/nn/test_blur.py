import torch

from unflat.nn.blur import gaussian_blur


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
