import pytest
import torch
from torch.nn import functional

from published_networks import hashed_pictures, hashed_state, published_output
from unflat.nn import Vgg16, from_published, published_shapes

# Numbers of the convolutions in torchvision's file; "M" halves, "tap" is a map that is given.
LAYERS = (0, 2, "tap", "M", 5, 7, "tap", "M", 10, 12, 14, "tap", "M", 17, 19, 21, "tap")
LAYERS += ("M", 24, 26, 28, "tap")


def slow_maps(state, x):
    maps = []
    for layer in LAYERS:
        if layer == "tap":
            maps.append(x)
        elif layer == "M":
            x = torch.stack([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(0)
        else:
            weight, bias = state[f"features.{layer}.weight"], state[f"features.{layer}.bias"]
            x = functional.conv2d(x, weight, bias, padding=1).clamp_min(0)
    return maps


def test_layout_is_torchvisions():
    layout = {name: tuple(shape) for name, shape in published_output("vgg")["layout"].items()}
    assert {name: tuple(shape) for name, shape in published_shapes(Vgg16).items()} == layout
    assert sum(torch.Size(shape).numel() for shape in layout.values()) == 14_714_688


def test_maps_are_those_of_the_published_layers():
    state = hashed_state(published_shapes(Vgg16))
    network = from_published(Vgg16, {**state, "classifier.0.weight": torch.zeros(3)})
    pictures = hashed_pictures(2, 32, 48)
    maps = network(pictures)
    assert [one.shape[1] for one in maps] == list(Vgg16.channels)
    assert maps[-1].shape == (2, 512, 2, 3)
    for ours, slow in zip(maps, slow_maps(state, pictures), strict=True):
        assert ours.std() > 0.01
        torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-4)


def test_the_smallest_picture_passes_and_a_smaller_one_does_not():
    with torch.device("meta"):
        network = Vgg16()
        side = Vgg16.smallest_side
        assert network(torch.zeros(1, 3, side, side))[-1].shape == (1, 512, 1, 1)
        with pytest.raises(RuntimeError, match="too small"):
            network(torch.zeros(1, 3, side - 1, side))
