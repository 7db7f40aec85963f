import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unflat.errors import UserError
from unflat.metrics import density_coverage, neighborhoods, precision_recall


def features(count, dim=3, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def slow(real, fake, k_pair, k_ball):
    """Precision, recall, density, coverage by loops over pictures."""
    real, fake = real.double().numpy(), fake.double().numpy()

    def reach(rows, k):
        return [sorted(math.dist(x, y) for y in np.delete(rows, i, 0))[k - 1]
                for i, x in enumerate(rows)]  # fmt: skip

    radius, fake_radius, ball = reach(real, k_pair), reach(fake, k_pair), reach(real, k_ball)
    precision = np.mean(
        [any(math.dist(y, x) <= r for x, r in zip(real, radius, strict=True)) for y in fake]
    )
    recall = np.mean(
        [any(math.dist(x, y) <= r for y, r in zip(fake, fake_radius, strict=True)) for x in real]
    )
    hits = [[math.dist(x, y) < r for y in fake] for x, r in zip(real, ball, strict=True)]
    density = np.sum(hits) / (k_ball * len(fake))
    return precision, recall, density, np.mean([any(row) for row in hits])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(7, 25), st.integers(7, 25), st.integers(0, 50), st.floats(0, 2))
def test_equal_to_loops(n, m, seed, offset):
    real, fake = features(n, seed=seed), features(m, seed=seed + 1000) + offset
    ours = (*precision_recall(real, fake, 3), *density_coverage(real, fake, 5))
    assert ours == pytest.approx(slow(real, fake, 3, 5))


def test_blocks_change_nothing(monkeypatch):
    real, fake = features(50), features(40, seed=1) + 0.5
    whole = precision_recall(real, fake), density_coverage(real, fake)
    assert 0 < whole[0].precision < 1
    monkeypatch.setattr(neighborhoods, "_BLOCK", 7)
    assert (precision_recall(real, fake), density_coverage(real, fake)) == whole


def test_on_a_line():
    real = torch.tensor([[0.0], [1.0], [3.0], [7.0]])  # nearest neighbors: 1, 1, 2, 4 away
    fake = torch.tensor([[2.0], [-1.0], [12.0], [12.5]])
    result = precision_recall(real, fake, 1)
    assert result.precision == 0.5  # 2 and -1 lie in balls, -1 on the very edge of one
    assert result.recall == 0.75  # all but 7, which no ball reaches
    result = density_coverage(real, fake, 1)
    assert result.density == 0.25  # 2 lies in the ball of 3; edges do not count here
    assert result.coverage == 0.25


def test_what_they_tell_apart():
    real = features(1000, dim=4)
    fresh = features(1000, dim=4, seed=1)
    few = features(1000, dim=4, seed=2) * 0.3  # safe pictures: near the middle
    noisy = fresh + 1.5 * features(1000, dim=4, seed=3)
    same, narrow, wide = (precision_recall(real, fake) for fake in (fresh, few, noisy))
    assert narrow.precision > same.precision > wide.precision + 0.1
    assert narrow.recall < same.recall - 0.3
    same, narrow, wide = (density_coverage(real, fake) for fake in (fresh, few, noisy))
    assert same.density == pytest.approx(1, abs=0.05)
    assert same.coverage == pytest.approx(1 - 2**-5, abs=0.02)
    assert wide.density < 0.8
    assert narrow.coverage < 0.6


def test_they_refuse():
    with pytest.raises(UserError, match=r"neighborhoods of 3: 3 real and 9 generated; .* least 4"):
        precision_recall(features(3), features(9))
    with pytest.raises(UserError, match="9 real and 3 generated"):
        precision_recall(features(9), features(3))
    with pytest.raises(UserError, match="5 real and 9 generated"):
        density_coverage(features(5), features(9))
    assert density_coverage(features(9), features(1)).density >= 0
    with pytest.raises(ValueError, match="generated set hold NaN or infinity in picture 0"):
        density_coverage(features(9), features(9) / 0)
    with pytest.raises(ValueError, match="2 numbers a picture, not 3"):
        precision_recall(features(9), features(9, dim=2))
    with pytest.raises(ValueError, match="k is 0"):
        precision_recall(features(9), features(9), 0)
