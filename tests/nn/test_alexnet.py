import pytest
import torch
from torch.nn import functional

from published_networks import hashed_pictures, hashed_state, published_output
from unflat.nn import AlexNet, from_published, published_shapes

# Number in torchvision's file, stride, padding, whether maxima under windows of 3 follow.
LAYERS = ((0, 4, 2, True), (3, 1, 2, True), (6, 1, 1, False), (8, 1, 1, False), (10, 1, 1, False))


def slow_maps(state, x):
    maps = []
    for number, stride, padding, is_reduced in LAYERS:
        weight, bias = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
        x = functional.conv2d(x, weight, bias, stride=stride, padding=padding).clamp_min(0)
        maps.append(x)
        if is_reduced:
            x = x.unfold(2, 3, 2).unfold(3, 3, 2).amax((-2, -1))
    return maps


def test_layout_is_torchvisions():
    layout = {name: tuple(shape) for name, shape in published_output("alex")["layout"].items()}
    assert {name: tuple(shape) for name, shape in published_shapes(AlexNet).items()} == layout
    assert sum(torch.Size(shape).numel() for shape in layout.values()) == 2_469_696


def test_maps_are_those_of_the_published_layers():
    state = hashed_state(published_shapes(AlexNet))
    pictures = hashed_pictures(2, 64, 48)
    maps = from_published(AlexNet, state)(pictures)
    assert [one.shape[1] for one in maps] == list(AlexNet.channels)
    for ours, slow in zip(maps, slow_maps(state, pictures), strict=True):
        assert ours.std() > 0.01
        torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-4)


def test_the_smallest_picture_passes_and_a_smaller_one_does_not():
    with torch.device("meta"):
        network = AlexNet()
        side = AlexNet.smallest_side
        assert network(torch.zeros(1, 3, side, side))[-1].shape == (1, 256, 1, 1)
        with pytest.raises(RuntimeError, match="too small"):
            network(torch.zeros(1, 3, side - 1, side))
