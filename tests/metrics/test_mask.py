import math

import numpy as np
import pytest
import torch

from unflat.metrics import mask_iou


def test_two_squares_that_overlap_by_a_quarter():
    first, second = torch.zeros(1, 12, 12), torch.zeros(1, 12, 12)
    first[:, 2:6, 2:6] = 1.0
    second[:, 4:8, 4:8] = 1.0
    assert mask_iou(first, second).item() == pytest.approx(4 / 28)
    assert mask_iou(first, first).item() == 1


def test_mattes_against_loops(generator):
    predicted, true = torch.rand(2, 3, 7, 5, generator=generator)
    for threshold in (0.2, 0.5, 0.9):
        values = mask_iou(predicted, true, threshold)
        for value, a, b in zip(values, predicted.numpy(), true.numpy(), strict=True):
            both = either = 0
            for x, y in np.nditer([a, b]):
                both += x > threshold and y > threshold
                either += x > threshold or y > threshold
            assert value.item() == pytest.approx(both / either)


def test_empty_masks():
    empty, full = torch.zeros(1, 4, 4), torch.ones(1, 4, 4)
    half = torch.full((1, 4, 4), 0.5)
    assert mask_iou(empty, empty).item() == 1
    assert mask_iou(half, empty).item() == 1  # the threshold itself is outside
    assert mask_iou(empty, full).item() == 0
    assert mask_iou(full, empty).item() == 0


def test_nan_is_refused():
    with pytest.raises(ValueError, match=r"predicted \(1, 2, 2\): holds NaN"):
        mask_iou(torch.full((1, 2, 2), math.nan), torch.zeros(1, 2, 2))
