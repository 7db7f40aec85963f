import math

import pytest
import torch

from unflat.geometry.camera import Camera
from unflat.geometry.pose import orbit_coordinates, orbit_pose
from unflat.geometry.pose_prior import (
    DatasetPrior,
    DiscPrior,
    Gaussian,
    OrbitPrior,
    PivotPrior,
    SpherePrior,
    TruncatedGaussian,
    Uniform,
    UniformSine,
    disc_poses,
)

COUNT = 40_000
# Five standard errors of a mean over COUNT draws, in standard deviations of one draw.
FIVE_SIGMA = 5.0 / math.sqrt(COUNT)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def truncated_moments(mean: float, std: float, low: float, high: float) -> tuple[float, float]:
    """Mean and standard deviation by the trapezoid rule over the density."""
    x = torch.linspace(low, high, 20_001, dtype=torch.float64)
    density = torch.exp(-0.5 * ((x - mean) / std) ** 2)
    total = torch.trapezoid(density, x)
    first = torch.trapezoid(density * x, x) / total
    second = torch.trapezoid(density * (x - first) ** 2, x) / total
    return float(first), math.sqrt(float(second))


CASES = {
    "uniform": (Uniform(low=-1.0, high=3.0), 1.0, 4.0 / math.sqrt(12.0), -1.0, 3.0),
    "gaussian": (Gaussian(mean=0.3, std=0.2), 0.3, 0.2, -math.inf, math.inf),
    "truncated": (
        TruncatedGaussian(mean=0.1, std=0.2, low=-0.1, high=0.6),
        *truncated_moments(0.1, 0.2, -0.1, 0.6),
        -0.1,
        0.6,
    ),
    "truncated tail": (
        TruncatedGaussian(mean=0.0, std=1.0, low=2.0, high=3.0),
        *truncated_moments(0.0, 1.0, 2.0, 3.0),
        2.0,
        3.0,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_moments_and_bounds(name: str):
    distribution, mean, std, low, high = CASES[name]
    draws = distribution.sample(COUNT, seeded()).double()
    assert float(draws.mean()) == pytest.approx(mean, abs=FIVE_SIGMA * std)
    assert float(draws.std()) == pytest.approx(std, rel=0.02)
    assert float(draws.min()) >= low - 1e-6
    assert float(draws.max()) <= high + 1e-6


def test_truncation_does_not_pile_up_at_the_bounds():
    draws = TruncatedGaussian(std=0.2, low=-0.2, high=0.2).sample(COUNT, seeded())
    edge = (draws.abs() > 0.199).float().mean()
    # Density at the bound is 0.242 / 0.683 per standard deviation: 0.36 % in both last 0.001.
    assert 0.002 < float(edge) < 0.006


def test_sphere_is_covered_evenly():
    poses = SpherePrior(radius=2.0).sample(COUNT, seeded())
    outward = poses[:, :3, 3].double() / 2.0
    torch.testing.assert_close(outward.norm(dim=-1), torch.ones(COUNT).double(), atol=1e-5, rtol=0)
    assert outward.mean(dim=0).abs().max() < FIVE_SIGMA / math.sqrt(3.0) * 1.2
    covariance = outward.mT @ outward / COUNT
    torch.testing.assert_close(covariance, torch.eye(3).double() / 3.0, atol=0.01, rtol=0.0)
    torch.testing.assert_close(poses[:, :3, 2].double(), -outward, atol=1e-5, rtol=0.0)


def test_a_band_of_the_sphere_keeps_its_bounds():
    low, high = math.radians(-10.0), math.radians(70.0)
    elevation, azimuth, _ = orbit_coordinates(
        SpherePrior(low=low, high=high).sample(COUNT, seeded())[:, :3, 3]
    )
    assert low - 1e-5 <= float(elevation.min()) < low + 0.01
    assert high - 0.01 < float(elevation.max()) <= high + 1e-5
    middle = 0.5 * (math.sin(low) + math.sin(high))
    assert float(torch.sin(elevation).mean()) == pytest.approx(middle, abs=0.01)
    assert float(azimuth.mean()) == pytest.approx(0.0, abs=FIVE_SIGMA * 1.82)


def test_orbit_prior_draws_each_angle_from_its_own_distribution():
    prior = OrbitPrior(
        azimuth=Gaussian(mean=0.5, std=0.3),
        elevation=Uniform(low=0.0, high=0.4),
        radius=Uniform(low=1.5, high=2.2),
    )
    elevation, azimuth, radius = orbit_coordinates(prior.sample(COUNT, seeded())[:, :3, 3])
    assert float(azimuth.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(azimuth.std()) == pytest.approx(0.3, abs=0.01)
    assert float(elevation.min()) + 1e-5 >= 0.0
    assert float(elevation.max()) <= 0.4 + 1e-5
    assert 1.499 < float(radius.min()) < 1.51
    assert 2.19 < float(radius.max()) < 2.201
    both = torch.stack([elevation, azimuth, radius])
    off_diagonal = torch.corrcoef(both)[torch.triu_indices(3, 3, 1).unbind()]
    assert off_diagonal.abs().max() < FIVE_SIGMA


def test_pivot_prior_stays_near_the_canonical_camera():
    poses = PivotPrior(pivot_depth=3.0).sample(COUNT, seeded())
    pivot = torch.tensor([0.0, 0.0, 3.0])
    torch.testing.assert_close(
        (pivot - poses[:, :3, 3]).norm(dim=-1), torch.full((COUNT,), 3.0), atol=1e-4, rtol=0.0
    )
    angle = torch.acos(poses[:, 2, 2].clamp(max=1.0))
    assert float(angle.max()) <= math.hypot(0.4, 0.2) + 1e-3
    expected = truncated_moments(0.0, 0.2, -0.4, 0.4)[1]
    assert float(poses[:, 0, 3].std()) == pytest.approx(3.0 * expected, rel=0.05)
    assert float(poses[:, 1, 3].std()) < 0.7 * float(poses[:, 0, 3].std())


def test_disc_cameras_lie_on_the_disc_and_face_the_pivot():
    poses = DiscPrior(max_angle=0.4, pivot_depth=3.0).sample(COUNT, seeded())
    center, forward = poses[:, :3, 3], poses[:, :3, 2]
    torch.testing.assert_close(center[:, 2], torch.zeros(COUNT), atol=2e-6, rtol=0.0)
    to_pivot = torch.nn.functional.normalize(torch.tensor([0.0, 0.0, 3.0]) - center, dim=-1)
    torch.testing.assert_close(forward, to_pivot, atol=2e-6, rtol=0.0)
    eye = torch.eye(3).expand(COUNT, 3, 3)
    torch.testing.assert_close(poses[:, :3, :3] @ poses[:, :3, :3].mT, eye, atol=2e-6, rtol=0.0)
    rim = 3.0 * math.tan(0.4)
    radius = center.norm(dim=-1)
    assert float(radius.max()) == pytest.approx(rim, rel=1e-3)
    assert float(radius.max()) <= rim * (1 + 1e-5)
    # Evenly by area: the mean of the squared radius is half of the rim's; no side is preferred.
    assert float((radius / rim).square().mean()) == pytest.approx(0.5, abs=0.29 * FIVE_SIGMA)
    assert float(center[:, :2].mean(0).abs().max()) < 0.5 * rim * FIVE_SIGMA


def test_every_disc_camera_may_have_its_own_pivot():
    numbers = torch.tensor([[1.0, 0.0], [1.0, 0.25], [0.0, 0.3]])
    depth = torch.tensor([1.0, 2.0, 3.0])
    poses = disc_poses(numbers, 0.3, depth)
    rim = math.tan(0.3)
    expected = torch.tensor([[rim, 0.0, 0.0], [0.0, -2 * rim, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(poses[:, :3, 3], expected, atol=1e-6, rtol=0.0)
    torch.testing.assert_close(poses[2, :3, :3], torch.eye(3))
    assert float(torch.acos(poses[0, 2, 2])) == pytest.approx(0.3, abs=1e-4)
    with pytest.raises(ValueError, match="max_angle is 2"):
        disc_poses(numbers, 2.0, depth)


def test_cameras_of_a_set_are_drawn_evenly_with_their_own_intrinsics():
    count, draws = 7, 7000
    poses = orbit_pose(0.1 * torch.arange(count), 0.5 * torch.arange(count), 2.0).double()
    intrinsics = torch.arange(4.0 * count, dtype=torch.float64).view(count, 4)
    prior = DatasetPrior(Camera(camera_to_world=poses, intrinsics=intrinsics))
    drawn = prior.cameras(draws, torch.Generator().manual_seed(0))
    chosen = (drawn.intrinsics[:, 0] / 4).long()
    assert torch.equal(drawn.intrinsics, intrinsics[chosen].float())
    assert torch.equal(drawn.camera_to_world, poses[chosen].float())
    times = chosen.bincount(minlength=count).double()
    assert ((times - draws / count) ** 2 / (draws / count)).sum() < 30  # once in 25,000
    assert abs(float(torch.corrcoef(torch.stack([chosen[1:], chosen[:-1]]).float())[0, 1])) < 0.06
    again = prior.sample(draws, torch.Generator().manual_seed(0))
    assert torch.equal(again, drawn.camera_to_world)
    assert not torch.equal(prior.sample(draws, torch.Generator().manual_seed(1)), again)
    grid = Camera(camera_to_world=poses[None], intrinsics=intrinsics[None])
    for wrong in (prior.camera[0], prior.camera[:0], grid):
        with pytest.raises(ValueError, match="must be one axis, not empty"):
            DatasetPrior(wrong)


@pytest.mark.parametrize(
    "prior",
    [
        PivotPrior(pivot_depth=1.0),
        DiscPrior(max_angle=0.3, pivot_depth=1.0),
        SpherePrior(),
        OrbitPrior(azimuth=Gaussian(std=1.0), elevation=UniformSine()),
    ],
)
def test_a_seed_decides(prior: PivotPrior | DiscPrior | SpherePrior | OrbitPrior):
    assert torch.equal(prior.sample(4, seeded(1)), prior.sample(4, seeded(1)))
    assert not torch.equal(prior.sample(4, seeded(1)), prior.sample(4, seeded(2)))


def test_impossible_distributions_are_refused():
    with pytest.raises(ValueError, match="above high"):
        Uniform(low=1.0, high=0.0)
    with pytest.raises(ValueError, match="std is -1"):
        Gaussian(std=-1.0)
    with pytest.raises(ValueError, match="too far"):
        TruncatedGaussian(std=0.1, low=2.0, high=3.0)
    with pytest.raises(ValueError, match="inside"):
        UniformSine(low=-2.0)
