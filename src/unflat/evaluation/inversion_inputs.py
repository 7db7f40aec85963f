"""Which views of an object an inversion is given, and which it is asked for."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.data.posed_objects import PosedObject
from unflat.geometry.camera import Camera

Novel = Literal["one", "all"]
"""Which other views of an object are compared: one drawn by seed, as published, or all."""

SEED_STEP = 100_003
"""Keeps the draws of neighbouring seeds apart."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of an object is measured."""

    inputs: list[int]
    """Views that are inverted."""
    others: list[list[int]]
    """For each input the views that it is asked for."""


def choose_views(count: int, views_per_object: int, novel: Novel, seed: int, index: int) -> Choice:
    """Inputs and other views of an object; each object draws for itself.

    Args:
        count: of its views.
        views_per_object: inputs at most.
        novel: which others.
        seed: of the evaluation.
        index: of the object in its set.
    """
    generator = torch.Generator().manual_seed(seed * SEED_STEP + index)
    inputs = sorted(torch.randperm(count, generator=generator)[:views_per_object].tolist())
    others = []
    for view in inputs:
        rest = [other for other in range(count) if other != view]
        if novel == "one" and rest:
            rest = [rest[int(torch.randint(len(rest), (), generator=generator))]]
        others.append(rest)
    return Choice(inputs=inputs, others=others)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """An input and the views it is asked for."""

    image: Float[Tensor, "3 height width"]
    mask: Float[Tensor, "height width"] | None
    camera: Camera
    images: Float[Tensor, "views 3 height width"]
    cameras: Camera


def parts_of(item: PosedObject, view: int, others: list[int]) -> Parts:
    """The input, and what it is asked for."""
    chosen = torch.tensor(others, dtype=torch.long)
    return Parts(
        image=item.images[view],
        mask=None if item.masks is None else item.masks[view],
        camera=item.camera[view],
        images=item.images[chosen],
        cameras=item.camera[chosen],
    )
