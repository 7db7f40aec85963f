import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unflat.geometry.box import intersect_box
from unflat.geometry.rays import Rays

BOUNDS = torch.tensor([[-1.0, -2.0, -3.0], [1.0, 2.0, 3.0]], dtype=torch.float64)


def slab_loop(origin: list[float], direction: list[float]) -> tuple[float, float, bool]:
    near, far = 0.0, math.inf
    for o, d, low, high in zip(origin, direction, *BOUNDS.tolist(), strict=True):
        if d == 0.0:
            if not low <= o <= high:
                return 0.0, 0.0, False
            continue
        a, b = sorted([(low - o) / d, (high - o) / d])
        near, far = max(near, a), min(far, b)
    return (near, far, True) if near <= far else (0.0, 0.0, False)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), zeros=st.sets(st.integers(0, 2), max_size=2))
def test_equals_a_plain_loop(seed: int, zeros: set[int]):
    generator = torch.Generator().manual_seed(seed)
    origins = 4.0 * torch.randn(40, 3, generator=generator, dtype=torch.float64)
    directions = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    for axis in zeros:
        directions[:, axis] = 0.0
    directions = torch.nn.functional.normalize(directions, dim=-1)
    hits = intersect_box(Rays(origins, directions), BOUNDS)
    rays = zip(origins.tolist(), directions.tolist(), strict=True)
    expected = torch.tensor([slab_loop(o, d) for o, d in rays], dtype=torch.float64)
    torch.testing.assert_close(torch.stack([part.double() for part in hits], dim=-1), expected)


def test_axis_parallel_rays_in_and_beside_the_slab_and_in_a_face():
    origins = torch.tensor(
        [[0.0, 0.0, -5.0], [1.5, 0.0, -5.0], [1.0, 0.0, -5.0], [0.0, 0.0, 0.0], [0.0, 0.0, 5.0]],
        dtype=torch.float64,
        requires_grad=True,
    )
    directions = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).repeat(5, 1)
    hits = intersect_box(Rays(origins, directions), BOUNDS)
    assert hits.hit.tolist() == [True, False, True, True, False]
    assert hits.near.tolist() == [2.0, 0.0, 2.0, 0.0, 0.0]
    assert hits.far.tolist() == [8.0, 0.0, 8.0, 3.0, 0.0]
    (hits.near.sum() + hits.far.sum()).backward()
    assert origins.grad is not None
    assert origins.grad.isfinite().all()
