import numpy as np
import pytest
import torch

from unflat.systems.vq3d import surface
from unflat.systems.vq3d.refiner import Refined
from unflat.systems.vq3d.surface import hidden_sheet, refine_surface

SIDE = 48


def gray(side: int = SIDE) -> torch.Tensor:
    return torch.full((1, 3, side, side), 0.5)


def edge(side: int = SIDE) -> torch.Tensor:
    """A photo with one color edge down its middle."""
    photo = torch.full((1, 3, side, side), 0.2)
    photo[..., side // 2 :] = torch.tensor([0.9, 0.7, 0.3])[:, None, None]
    return photo


def step(side: int = SIDE, near: float = 0.8, far: float = 0.2) -> torch.Tensor:
    disparity = torch.full((1, 1, side, side), near)
    disparity[..., side // 2 :] = far
    return disparity


def noise(side: int = SIDE, size: float = 0.02) -> torch.Tensor:
    return size * torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(0))


def sure(disparity: torch.Tensor, spread: float = 0.03) -> Refined:
    scale = torch.full_like(disparity, spread)
    return Refined(disparity, scale, 0.5 * scale)


def dense_solution(data, trust, across, down) -> np.ndarray:
    """The minimum of trust (x - data)^2 + across (dx)^2 + down (dy)^2, edge by edge."""
    height, width = data.shape
    matrix = np.diag(trust.ravel())
    number = np.arange(height * width).reshape(height, width)
    ties = [(number[:, :-1], number[:, 1:], across), (number[:-1], number[1:], down)]
    for first, second, weights in ties:
        for i, j, weight in zip(first.ravel(), second.ravel(), weights.ravel(), strict=True):
            matrix[i, i] += weight
            matrix[j, j] += weight
            matrix[i, j] -= weight
            matrix[j, i] -= weight
    return np.linalg.solve(matrix, (trust * data).ravel()).reshape(height, width)


def test_conjugate_gradients_solve_the_system():
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> torch.Tensor:
        return torch.rand(2, 1, *shape, generator=generator, dtype=torch.float64)

    data, trust = some(6, 5), 0.1 + some(6, 5)
    across, down = 10 * some(6, 4), 10 * some(5, 5)
    found = surface._solve(data, trust, across, down, torch.zeros_like(data), steps=80)
    for picture in range(2):
        parts = [part[picture, 0].numpy() for part in (data, trust, across, down)]
        np.testing.assert_allclose(found[picture, 0].numpy(), dense_solution(*parts), atol=1e-9)
    assert float((found - data).abs().max()) > 0.05


@pytest.mark.parametrize("photo", [gray(), edge(), torch.rand(1, 3, SIDE, SIDE)])
def test_a_constant_stays_itself(photo):
    refined = refine_surface(sure(torch.full((1, 1, 16, 16), 0.4)), photo)
    torch.testing.assert_close(
        refined.disparity, torch.full((1, 1, SIDE, SIDE), 0.4), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(refined.spread, torch.full((1, 1, SIDE, SIDE), 0.03))
    torch.testing.assert_close(refined.softness, torch.full((1, 1, SIDE, SIDE), 0.015))


def test_noise_on_a_plain_photo_shrinks():
    level = 0.5 + noise()
    refined = refine_surface(sure(level), gray())
    assert float(refined.disparity.std()) < 0.5 * float(level.std())
    assert float(refined.disparity.mean()) == pytest.approx(0.5, abs=0.01)


def test_the_surer_the_less_it_moves():
    level = 0.5 + noise()
    moves = [
        float((refine_surface(sure(level, spread), gray()).disparity - level).abs().mean())
        for spread in (0.01, 0.03, 0.2)
    ]
    assert moves == sorted(moves)
    assert moves[0] < 0.8 * moves[2]


def test_a_step_at_a_color_edge_survives_and_its_noise_does_not():
    refined = refine_surface(sure(step() + noise(size=0.01)), edge())
    left = refined.disparity[..., : SIDE // 2 - 2]
    right = refined.disparity[..., SIDE // 2 + 2 :]
    torch.testing.assert_close(left, torch.full_like(left, 0.8), rtol=0, atol=0.02)
    torch.testing.assert_close(right, torch.full_like(right, 0.2), rtol=0, atol=0.02)
    assert float(left.std()) < 0.005


def test_a_slanted_floor_stays_slanted():
    floor = torch.linspace(0.9, 0.1, SIDE)[:, None].expand(1, 1, SIDE, SIDE).contiguous()
    refined = refine_surface(sure(floor), gray())
    inner = slice(4, -4)
    torch.testing.assert_close(
        refined.disparity[..., inner, :], floor[..., inner, :], rtol=0, atol=0.03
    )


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos are three times larger than the resolution at which surfaces are smoothed."""
    monkeypatch.setattr(surface, "WORKING_SIDE", 32)


@pytest.mark.usefixtures("coarse")
def test_no_pixel_lies_between_two_surfaces():
    refined = refine_surface(sure(step(32)), edge(96))
    assert refined.disparity.shape == (1, 1, 96, 96)
    between = (refined.disparity > 0.2 + surface.JUMP) & (refined.disparity < 0.8 - surface.JUMP)
    assert not bool(between.any())
    assert bool((refined.disparity[..., :46] > 0.75).all())
    assert bool((refined.disparity[..., 50:] < 0.25).all())


@pytest.mark.usefixtures("coarse")
def test_the_step_follows_the_photos_edge_inside_a_coarse_pixel():
    """The photo's edge is a pixel left of the coarse one: color decides whose pixel it is."""
    photo = edge(96)
    photo[..., 47] = photo[..., 48]
    guide = torch.nn.functional.interpolate(photo, (32, 32), mode="area")
    carried = surface.carry_to_photo(sure(step(32)), guide, photo)
    assert bool((carried.disparity[..., :46] > 0.75).all())
    assert bool((carried.disparity[..., 47:] < 0.25).all())


@pytest.mark.usefixtures("coarse")
def test_pictures_of_a_batch_are_refined_alone():
    photos = torch.cat([edge(64), gray(64)])
    both = refine_surface(sure(torch.cat([step(32), 0.5 + noise(32)])), photos)
    alone = refine_surface(sure(0.5 + noise(32)), gray(64))
    torch.testing.assert_close(both.disparity[1:], alone.disparity, rtol=0, atol=1e-5)


@pytest.mark.parametrize("radius", [1, 3, 6])
def test_the_highest_of_a_square_is_found_by_looking_at_all_of_it(radius):
    values = torch.randn(2, 1, 9, 7, generator=torch.Generator().manual_seed(0))
    found = surface._highest(values, radius)
    for row in range(9):
        for column in range(7):
            rows = slice(max(0, row - radius), row + radius + 1)
            columns = slice(max(0, column - radius), column + radius + 1)
            highest = values[:, :, rows, columns].amax((2, 3))
            assert torch.equal(found[:, :, row, column], highest)


def test_a_weighted_median_is_what_half_of_the_votes_reach():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2, 9, 3, 4, generator=generator)
    votes = torch.rand(2, 9, 3, 4, generator=generator)
    votes = votes / votes.sum(1, keepdim=True)
    found = surface._weighted_median(values, votes)
    for b, row, column in np.ndindex(2, 3, 4):
        order = values[b, :, row, column].argsort()
        reached = votes[b, order, row, column].cumsum(0)
        place = next(k for k in range(9) if reached[k] >= 0.5 - 1e-6)
        assert found[b, 0, row, column] == values[b, order[place], row, column]


def test_a_ramp_is_given_to_its_two_sides_and_a_floor_is_not():
    side = 192
    ramp = step(side)
    ramp[..., side // 2 - 1 : side // 2 + 1] = torch.tensor([0.6, 0.4])
    snapped = surface.snap(ramp)
    assert set(snapped.unique().tolist()) == {ramp.max().item(), ramp.min().item()}
    floor = torch.linspace(0.9, 0.1, side)[:, None].expand(1, 1, side, side).contiguous()
    assert torch.equal(surface.snap(floor), floor)


def test_behind_a_step_stands_what_is_beside_it():
    photo, disparity = edge(96), step(96)
    sheet = hidden_sheet(disparity, photo)
    reach = round(surface.REACH * 96)
    mask = sheet.mask[0, 0, reach + 2 : -reach - 2] > 0.5  # near the border nothing is known
    assert bool(mask[:, 48 - reach // 2 : 47].all()), "the near side of the step"
    assert not bool(mask[:, : 48 - reach - 2].any())
    assert not bool(mask[:, 48:].any()), "nothing is hidden behind the far side"
    seen = slice(48 - reach // 2, 47)
    far = torch.full_like(sheet.disparity[0, 0, :, seen], 0.2)
    torch.testing.assert_close(sheet.disparity[0, 0, :, seen], far, rtol=0, atol=0.02)
    color = sheet.rgb[0, :, :, seen]
    torch.testing.assert_close(color, photo[0, :, :, -1:].expand_as(color), rtol=0, atol=0.05)


def test_behind_a_smooth_surface_is_nothing():
    floor = torch.linspace(0.9, 0.1, 96)[:, None].expand(1, 1, 96, 96).contiguous()
    assert not bool(hidden_sheet(0.3 * floor, edge(96)).mask.any())
    assert not bool(hidden_sheet(torch.full_like(floor, 0.4), edge(96)).mask.any())
