import pytest
import torch
from torch import Tensor

from unflat.losses import FeatureDistance, frozen, perceptual_loss
from unflat.metrics import feature_distance
from unflat.nn.feature_net import FeatureNet


@pytest.fixture(scope="module")
def distance() -> FeatureDistance:
    torch.manual_seed(0)
    return frozen(FeatureDistance(FeatureNet((8, 8, 16, 16, 16))))


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_distance_that_is_measured(distance):
    one, other = pictures(3), pictures(3, 1)
    expected = feature_distance(distance.network.maps(one), distance.network.maps(other))
    torch.testing.assert_close(perceptual_loss(distance, one, other), expected)
    assert float(expected.min()) > 0.01
    torch.testing.assert_close(perceptual_loss(distance, one, one), torch.zeros(3))


def test_its_gradient_leads_to_the_target_and_leaves_the_network_alone(distance):
    target = pictures(2)
    rgb = pictures(2, 1).requires_grad_()
    loss = first = perceptual_loss(distance, rgb, target).mean()
    for _ in range(30):
        (gradient,) = torch.autograd.grad(loss, rgb)
        rgb = (rgb - 0.02 * gradient.sign()).detach().clamp(0, 1).requires_grad_()
        loss = perceptual_loss(distance, rgb, target).mean()
    assert float(loss.detach()) < 0.5 * float(first.detach())
    assert not any(weight.requires_grad for weight in distance.parameters())


def test_colors_outside_count_as_the_nearest_inside(distance):
    rgb, target = pictures(2) * 3 - 1, pictures(2, 1)
    whole = perceptual_loss(distance, rgb.clamp(0, 1), target)
    torch.testing.assert_close(perceptual_loss(distance, rgb, target), whole)


def test_what_is_not_finite_gives_nan_and_no_complaint(distance):
    rgb = pictures(2)
    rgb[1, 0, 3, 3] = torch.inf
    rgb.requires_grad_()
    loss = perceptual_loss(distance, rgb, pictures(2, 1))
    assert bool(loss.isnan().all())
    loss.sum().backward()
