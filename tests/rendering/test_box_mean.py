import pytest
import torch

from unflat.rendering.box_mean import box_mean


@pytest.mark.parametrize(
    ("height", "width", "radius"), [(7, 5, 1), (6, 9, 4), (4, 4, 0), (5, 3, 7)]
)
def test_every_pixel_is_the_mean_of_its_square(height, width, radius):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)
    found = box_mean(pictures, radius)
    for row in range(height):
        for column in range(width):
            rows = torch.arange(row - radius, row + radius + 1).clamp(0, height - 1)
            columns = torch.arange(column - radius, column + radius + 1).clamp(0, width - 1)
            mean = pictures[:, :, rows][..., columns].mean((2, 3))
            torch.testing.assert_close(found[:, :, row, column], mean, rtol=1e-12, atol=1e-12)


def test_running_sums_of_a_large_picture_keep_its_colors():
    picture = torch.rand(1, 1, 64, 3000, generator=torch.Generator().manual_seed(0))
    exact = box_mean(picture.double(), 20)
    torch.testing.assert_close(box_mean(picture, 20).double(), exact, rtol=0, atol=1e-5)
