import numpy as np
import pytest
import torch
from torch import nn

from published_networks import hashed_heads, hashed_pictures, hashed_state, published_output
from unflat.metrics import Lpips, Trunk, feature_distance
from unflat.nn import AlexNet, Vgg16, from_published, published_shapes

NETWORKS = {"vgg": Vgg16, "alex": AlexNet}


def make(name):
    build = NETWORKS[name]
    trunk = from_published(build, hashed_state(published_shapes(build)))
    heads = [head.flatten() for head in hashed_heads(build.channels).values()]
    return Lpips(trunk, heads, name=f"lpips-{name}", sha256={"trunk": "1", "heads": "2"})


@pytest.fixture(scope="module")
def lpips():
    return make("alex")


class Colors(nn.Module):
    """Two maps of one pixel's colors: distances that can be written down."""

    channels = (3, 3)
    smallest_side = 1

    def forward(self, normalized):
        return [normalized, -2 * normalized[..., ::2, ::2]]


def slow_lpips(maps_a, maps_b, heads):
    """The formula at one position after the other, in float64."""
    total = 0.0
    for a, b, head in zip(maps_a, maps_b, heads, strict=True):
        rows, columns = a.shape[1:]
        layer = 0.0
        for i in range(rows):
            for j in range(columns):
                u = a[:, i, j] / (np.sqrt((a[:, i, j] ** 2).sum()) + 1e-10)
                v = b[:, i, j] / (np.sqrt((b[:, i, j] ** 2).sum()) + 1e-10)
                layer += (head * (u - v) ** 2).sum()
        total += layer / (rows * columns)
    return total


@pytest.mark.parametrize("name", NETWORKS)
def test_values_are_what_the_lpips_package_answers(name):
    images, references = hashed_pictures(3, 64, 48), hashed_pictures(3, 64, 48, seed=8).flip(0)
    values = make(name)(images, references)
    expected = torch.tensor(published_output(name)["values"])
    assert expected.min() > 0.01
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-6)


def test_formula_with_networks_of_two_layers():
    heads = [torch.tensor([0.2, 0.0, 1.5]), torch.tensor([1.0, 0.5, 0.25])]
    images, references = hashed_pictures(2, 4, 6), hashed_pictures(2, 4, 6, seed=9).flip(0)
    values = Lpips(Colors(), heads, name="colors")(images, references)
    shift = np.array([-0.030, -0.088, -0.188])[:, None, None]
    scale = np.array([0.458, 0.448, 0.450])[:, None, None]
    for value, a, b in zip(values, images.double(), references.double(), strict=True):
        a, b = ((2 * x.numpy() - 1 - shift) / scale for x in (a, b))
        maps_a, maps_b = ([x, -2 * x[:, ::2, ::2]] for x in (a, b))
        slow = slow_lpips(maps_a, maps_b, [head.numpy() for head in heads])
        assert value.item() == pytest.approx(slow, rel=1e-5)


def test_equal_pictures_are_at_zero_and_worse_ones_further(lpips):
    images = hashed_pictures(2, 48, 48)
    noise = hashed_pictures(2, 48, 48, seed=3) - 0.5
    assert torch.equal(lpips(images, images), torch.zeros(2))
    near, far = (lpips((images + s * noise).clamp(0, 1), images) for s in (0.05, 0.5))
    assert (near > 0).all()
    assert (near < far).all()
    torch.testing.assert_close(lpips(images, noise + 0.5), lpips(noise + 0.5, images))


def test_a_value_belongs_to_its_picture_alone(lpips):
    images, references = hashed_pictures(3, 40, 40), hashed_pictures(3, 40, 40, seed=1)
    together = lpips(images, references)
    for place in range(3):
        alone = lpips(images[place : place + 1], references[place : place + 1])
        torch.testing.assert_close(alone, together[place : place + 1], rtol=1e-4, atol=1e-6)


def test_pictures_are_clamped_as_on_a_screen(lpips):
    images = hashed_pictures(1, 40, 40) * 3 - 1
    assert lpips(images, images.clamp(0, 1)).item() == 0


def test_a_gradient_reaches_the_picture_even_where_it_is_black():
    heads = [torch.ones(3), torch.ones(3)]
    images = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    Lpips(Colors(), heads, name="colors")(images, torch.rand(1, 3, 4, 4)).sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    zero = torch.zeros(1, 3, 2, 2, requires_grad=True)
    feature_distance([zero], [torch.rand(1, 3, 2, 2)]).sum().backward()
    assert zero.grad is not None
    assert zero.grad.isfinite().all()


def test_what_a_report_says(lpips):
    assert lpips.describe() == {
        "name": "lpips-alex",
        "version": "0.1",
        "sha256_trunk": "1",
        "sha256_heads": "2",
    }
    assert isinstance(AlexNet(), Trunk)


def test_bad_pictures_are_refused(lpips):
    images = hashed_pictures(3, 40, 40)
    broken = images.clone()
    broken[1, 0, 3, 3] = float("nan")
    with pytest.raises(
        ValueError, match="the input of lpips-alex holds NaN or infinity in picture 1"
    ):
        lpips(broken, images)
    with pytest.raises(
        ValueError, match="the input of lpips-alex holds NaN or infinity in picture 1"
    ):
        lpips(images, broken)
    with pytest.raises(ValueError, match="at least 31 pixels"):
        lpips(images[..., :30], images[..., :30])


def test_heads_must_fit_and_must_not_be_negative():
    with pytest.raises(ValueError, match=r"maps of \(3, 3\) channels, heads of \(3,\)"):
        Lpips(Colors(), [torch.ones(3)], name="colors")
    with pytest.raises(ValueError, match="negatively"):
        Lpips(Colors(), [torch.ones(3), torch.tensor([1.0, -1.0, 1.0])], name="colors")


def test_distance_without_heads_is_the_mean_over_layers():
    a = [hashed_pictures(2, 4, 6), hashed_pictures(2, 2, 3) - 0.5]
    b = [hashed_pictures(2, 4, 6, seed=2).flip(0), hashed_pictures(2, 2, 3, seed=2).flip(0)]
    values = feature_distance(a, b)
    ones = [np.ones(3), np.ones(3)]
    for place, value in enumerate(values):
        maps_a, maps_b = ([x[place].double().numpy() for x in maps] for maps in (a, b))
        assert value.item() == pytest.approx(slow_lpips(maps_a, maps_b, ones) / 2, rel=1e-5)


def test_distance_without_heads_has_known_ends():
    x = torch.zeros(1, 3, 2, 2)
    x[:, 0] = 5
    across, against = x.roll(1, dims=1), -0.1 * x
    values = [feature_distance([x], [other]).item() for other in (x, 3 * x, across, against)]
    assert values == pytest.approx([0, 0, 2, 4], abs=1e-6)


def test_maps_must_come_in_pairs():
    x = torch.zeros(1, 3, 2, 2)
    for bad in ([], [x, x], [x[..., :1]]):
        with pytest.raises(ValueError, match="pairs of one shape"):
            feature_distance([x], bad)
    with pytest.raises(ValueError, match="pairs of one shape"):
        feature_distance([], [])
