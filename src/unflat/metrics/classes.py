"""Classes of generated pictures: are they what was asked for, and are there many of them.

>>> import torch
>>> vectors = torch.tensor([[0.0, 0.0], [0.0, 2.0], [9.0, 9.0], [9.0, 9.0]])
>>> within_class_distance(vectors, torch.tensor([0, 0, 1, 1]))   # 2 apart, and the same twice
1.0
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

_MOST_OF_A_CLASS = 2000  # two million pairs
_STEPS = 200  # of L-BFGS at most; the problem is convex, some dozens do


class LinearClassifier(NamedTuple):
    """Multinomial logistic regression on standardized feature vectors."""

    center: Float[Tensor, " dim"]
    """Subtracted from a vector."""
    scale: Float[Tensor, " dim"]
    """Then divided by, above 0."""
    weight: Float[Tensor, "classes dim"]
    """Of the standardized vector."""
    bias: Float[Tensor, " classes"]
    """Added to the logits."""

    def __call__(self, vectors: Float[Tensor, "batch dim"]) -> Int[Tensor, " batch"]:
        """The likeliest class of each vector."""
        standard = (vectors.to(self.center) - self.center) / self.scale
        return (standard @ self.weight.T + self.bias).argmax(dim=1)


def fit_linear_classifier(
    vectors: Float[Tensor, "n dim"],
    labels: Int[Tensor, " n"],
    classes: int,
    penalty: float = 0.1,
) -> LinearClassifier:
    """The classifier with the least mean cross-entropy + penalty / 2 |weight|^2.

    In float64 and from zero: the optimum of a convex problem, the same in every run.

    Args:
        vectors: features of pictures whose classes are known.
        labels: in 0 ... classes - 1.
        classes: how many there are.
        penalty: on the squared weights; keeps them finite where classes can be separated.

    Raises:
        ValueError: no vectors, or a label outside the classes.
    """
    if len(vectors) == 0 or int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(f"need labels in 0...{classes - 1} for some vectors, got {labels}")
    known = vectors.detach().cpu().double()
    center, spread = known.mean(dim=0), known.std(dim=0, correction=0)
    scale = torch.where(spread > 0, spread, 1.0)
    standard, labels = (known - center) / scale, labels.cpu()
    weight = torch.zeros(classes, known.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_STEPS, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = standard @ weight.T + bias
        value = functional.cross_entropy(logits, labels) + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # pyright: ignore[reportArgumentType] torch's stub wants a float
    return LinearClassifier(center, scale, weight.detach(), bias.detach())


def within_class_distance(
    vectors: Float[Tensor, "n dim"], labels: Int[Tensor, " n"]
) -> float | None:
    """Mean distance between two pictures of one class: how far a class is from one picture.

    0 where every class is a single picture again and again (mode collapse). Hold it against the
    same figure of real pictures: noise raises it. Mean over classes of each class' mean over its
    pairs, of 2,000 pictures at most; classes with one picture do not count, and None is said where
    no class has two.

    Args:
        vectors: features of pictures.
        labels: their classes, any integers.
    """
    found = []
    for label in labels.unique():
        members = vectors[labels == label][:_MOST_OF_A_CLASS].double()
        if len(members) > 1:
            found.append(torch.pdist(members).mean())
    return torch.stack(found).mean().item() if found else None
