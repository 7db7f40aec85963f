import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unflat.metrics import fit_linear_classifier, within_class_distance


def test_separable_classes_are_learned_and_mixed_ones_are_not(generator):
    labels = torch.randint(0, 3, (300,), generator=generator)
    corners = torch.tensor([[6.0, 0.0], [0.0, 6.0], [-6.0, -6.0]])
    vectors = corners[labels] + torch.randn(300, 2, generator=generator)
    classify = fit_linear_classifier(vectors[:150], labels[:150], 3)
    assert (classify(vectors[150:]) == labels[150:]).float().mean() > 0.97
    shuffled = labels[:150][torch.randperm(150, generator=generator)]
    guess = fit_linear_classifier(vectors[:150], shuffled, 3)
    assert (guess(vectors[150:]) == labels[150:]).float().mean() < 0.6


def test_the_optimum_is_where_its_gradient_is_zero(generator):
    """By hand: mean of (p - y) x over samples is - penalty w, with x standardized."""
    vectors = torch.randn(40, 5, generator=generator, dtype=torch.float64) * 3 + 1
    labels = torch.randint(0, 4, (40,), generator=generator)
    found = fit_linear_classifier(vectors, labels, 4, penalty=0.05)
    x = (vectors - vectors.mean(0)) / vectors.std(0, correction=0)
    p = (x @ found.weight.T + found.bias).softmax(1)
    gradient = (p - torch.nn.functional.one_hot(labels, 4)).T @ x / 40 + 0.05 * found.weight
    assert gradient.abs().max() < 1e-4
    assert found.weight.abs().max() > 0.1


def test_two_balanced_points_have_a_closed_form():
    """x = -1 and 1, one class each: weights (-a, a) with sigmoid(-2 a) = penalty a."""
    found = fit_linear_classifier(torch.tensor([[3.0], [5.0]]), torch.tensor([0, 1]), 2, 0.1)
    a = found.weight[1, 0].item()
    assert found.weight[0, 0].item() == pytest.approx(-a, abs=1e-6)
    assert 1 / (1 + math.exp(2 * a)) == pytest.approx(0.1 * a, abs=1e-5)


def test_a_feature_that_never_changes_does_no_harm():
    vectors = torch.tensor([[0.0, 7.0], [1.0, 7.0], [0.1, 7.0], [0.9, 7.0]])
    classify = fit_linear_classifier(vectors, torch.tensor([0, 1, 0, 1]), 2)
    assert classify(vectors).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_labels_outside_the_classes_are_refused(labels):
    with pytest.raises(ValueError, match=r"need labels in 0\.\.\.2"):
        fit_linear_classifier(torch.zeros(2, 2), torch.tensor(labels), 3)


def test_one_picture_again_and_again_has_no_diversity():
    vectors = torch.tensor([[1.0, 2.0]] * 5 + [[7.0, 0.0]] * 3)
    assert within_class_distance(vectors, torch.tensor([0] * 5 + [1] * 3)) == 0
    assert within_class_distance(vectors, torch.zeros(8, dtype=torch.long)) > 1


@given(st.integers(2, 6), st.integers(2, 6), st.floats(0.1, 10))
def test_it_is_the_mean_over_classes_of_the_mean_over_pairs(first, second, scale):
    generator = torch.Generator().manual_seed(first * 10 + second)
    vectors = scale * torch.randn(first + second + 1, 3, generator=generator)
    labels = torch.tensor([4] * first + [2] * second + [9])  # the last is alone
    expected = []
    for members in (vectors[:first].double(), vectors[first : first + second].double()):
        pairs = [(a - b).norm().item() for i, a in enumerate(members) for b in members[i + 1 :]]
        expected.append(sum(pairs) / len(pairs))
    assert within_class_distance(vectors, labels) == pytest.approx(sum(expected) / 2, rel=1e-6)


def test_classes_of_single_pictures_say_nothing():
    assert within_class_distance(torch.eye(3), torch.arange(3)) is None
