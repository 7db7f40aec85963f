import math

import pytest
import torch
from torch.nn import functional

from unflat.data.augment import blur, cut_windows, recolor, stretch, turn_hue


def pictures(side: int = 16) -> torch.Tensor:
    return torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_a_whole_window_is_the_picture_and_mirrors():
    images = pictures()
    draws = torch.tensor([[1.0, 0.3, 0.9, 0.8], [1.0, 0.1, 0.2, 0.2], [1.0, 0.5, 0.5, 0.9]])
    cut = cut_windows(images, draws, 0.5, 16)
    torch.testing.assert_close(cut[0], images[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(cut[1], images[1].flip(-1), rtol=0, atol=1e-5)


def test_a_window_is_the_part_that_its_draws_say():
    """Half the side, pushed into the lower right corner, at its own resolution."""
    images = pictures()
    cut = cut_windows(images, torch.tensor([[0.0, 1.0, 1.0, 0.9]] * 3), 0.5, 8)
    torch.testing.assert_close(cut, images[..., 8:, 8:], rtol=0, atol=1e-5)


def test_colors_in_the_middle_of_their_draws_stay():
    torch.testing.assert_close(recolor(pictures(), torch.full((3, 3), 0.5), 0.4), pictures())
    torch.testing.assert_close(
        turn_hue(pictures(), torch.full((3,), 0.5), 0.3), pictures(), rtol=0, atol=1e-6
    )


def test_no_saturation_leaves_gray():
    gray = recolor(pictures(), torch.tensor([[0.5, 0.5, 0.0]] * 3), 1.0)
    torch.testing.assert_close(gray, gray.mean(1, keepdim=True).expand_as(gray))


def test_a_third_of_the_circle_exchanges_the_channels():
    image = 0.2 + 0.5 * pictures()
    draws = torch.ones(3)
    turned = turn_hue(image, draws, 1 / 3)
    torch.testing.assert_close(turned, image[:, [2, 0, 1]], rtol=0, atol=1e-5)
    gray = torch.full((1, 3, 4, 4), 0.3)
    torch.testing.assert_close(turn_hue(gray, torch.tensor([0.9]), 0.5), gray)


def test_stretched_maps_reach_both_ends_and_flat_ones_none():
    maps = torch.stack([0.2 + 0.3 * pictures()[0, :1], torch.full((1, 16, 16), 0.7)])
    out = stretch(maps)
    assert float(out[0].min()) == 0
    assert float(out[0].max()) == pytest.approx(1, abs=1e-6)
    assert not out[1].any()
    flat = maps[0] - maps[0].min()
    torch.testing.assert_close(out[0], flat / flat.max())


def test_blur_is_the_binomial_of_its_share():
    point = torch.zeros(3, 3, 9, 9)
    point[..., 4, 4] = 1
    out = blur(point, torch.tensor([0.9, 0.4, 0.1]), 0.6)
    assert torch.equal(out[0], point[0])
    kernel = torch.tensor([1.0, 2, 1]) / 4
    torch.testing.assert_close(out[1, 0, 3:6, 3:6], torch.outer(kernel, kernel))
    twice = functional.conv1d(kernel[None, None], kernel[None, None], padding=2)[0, 0]
    torch.testing.assert_close(out[2, 0, 2:7, 2:7], torch.outer(twice, twice))
    assert math.isclose(float(out[2].sum()), 3, rel_tol=1e-5)
