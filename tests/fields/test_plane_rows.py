"""Lookups by rows of texels give what grid_sample gives, and are taken only where they may be."""

import pytest
import torch
from torch.nn import functional

from unflat.fields.planes import by_texel, sample_plane, sample_triplane


def _plane(batch=2, channels=5, height=7, width=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, height, width, generator=generator)


def _places(batch=2, *points):
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.rand(batch, *points, 2, generator=generator) - 1.5


@pytest.mark.parametrize("shape", [(2, 5, 7, 4), (1, 3, 1, 6), (3, 1, 4, 1), (1, 37, 16, 16)])
def test_rows_equal_grid_sample(shape):
    plane = _plane(*shape)
    assert plane.shape == shape
    places = _places(shape[0], 11, 3)
    # Corners, texel centres and edges are where rounding could fall on the wrong side.
    places[0, 0] = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    rows = sample_plane(plane.contiguous(memory_format=torch.channels_last), places)
    reference = functional.grid_sample(
        plane, places, mode="bilinear", padding_mode="border", align_corners=False
    ).permute(0, 2, 3, 1)
    torch.testing.assert_close(rows, reference, atol=1e-6, rtol=1e-5)


def test_rows_are_what_by_texel_arranges():
    plane = by_texel(_plane())
    found = sample_plane(plane, _places(2, 9))
    assert found.is_contiguous()  # grid_sample's answer is not: its channels lie apart
    assert not sample_plane(_plane(), _places(2, 9)).is_contiguous()


def test_gradients_reach_planes_and_coordinates():
    plane = _plane().requires_grad_()
    assert by_texel(plane) is plane
    sample_plane(plane, _places(2, 9)).sum().backward()
    assert plane.grad is not None
    places = _places(2, 9).requires_grad_()
    sample_plane(by_texel(_plane()), places).sum().backward()
    assert places.grad is not None
    assert places.grad.abs().max() > 0


def test_a_point_that_is_no_number_spoils_only_itself():
    places = _places(2, 9)
    places[1, 4, 0] = torch.nan
    found = sample_plane(by_texel(_plane()), places)
    assert found[1, 4].isnan().all()
    assert found.isnan().any(-1).sum() == 1


def test_triplanes_by_texel():
    planes = _plane(6).unflatten(0, (2, 3))
    points = torch.rand(2, 8, 3, generator=torch.Generator().manual_seed(2)) * 2 - 1
    arranged = by_texel(planes.flatten(0, 1)).unflatten(0, (2, 3))
    torch.testing.assert_close(
        sample_triplane(arranged, points), sample_triplane(planes, points), atol=1e-6, rtol=1e-5
    )
