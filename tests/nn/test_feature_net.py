import pytest
import torch

from unflat.nn.feature_net import FeatureNet

WIDTHS = (8, 8, 16, 16, 24)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return FeatureNet(WIDTHS).eval()


def pictures(count, side=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, side, side, generator=generator)


@pytest.mark.parametrize("side", [16, 33, 64])
def test_maps_halve_from_stage_to_stage_and_are_not_negative(network, side):
    maps = network.maps(pictures(2, side))
    assert [values.shape[1] for values in maps] == list(WIDTHS)
    for stage, values in enumerate(maps):
        assert values.shape[-1] == -(-side // 2**stage)
        assert (values >= 0).all()


def test_vectors_are_the_means_of_the_maps(network):
    images = pictures(3)
    expected = torch.cat([values.flatten(2).mean(2) for values in network.maps(images)], dim=1)
    torch.testing.assert_close(network(images), expected)  # not calibrated yet
    assert network.dim == sum(WIDTHS)


def test_calibration_centers_and_gives_every_stage_the_same_variance():
    torch.manual_seed(1)
    network = FeatureNet(WIDTHS).eval()
    images = pictures(64) * torch.linspace(0.1, 1, 64)[:, None, None, None]
    with torch.no_grad():
        network.calibrate(network.pooled(images))
        vectors = network(images)
    torch.testing.assert_close(vectors.mean(0), torch.zeros(network.dim), atol=1e-4, rtol=0)
    for part in vectors.var(0).split(WIDTHS):
        assert part.mean().item() == pytest.approx(1, rel=1e-3)
    assert vectors.var(0).std() > 0.1  # channels keep their own shares


def test_a_picture_below_the_coarsest_map_is_refused(network):
    with pytest.raises(ValueError, match="at least 16"):
        network(pictures(1, 15))
